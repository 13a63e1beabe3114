use net_types::sentence;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use flannel_types::UnixTime;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;
use tracing::warn;

use super::Clock;
use super::directory::{Directory, config_path, subnets_path};
use super::notices::Notices;
use super::scan::{LastGood, Scan, Scanner, Stamp};
use crate::error::StoreError;
use crate::{LeaseEvent, LeaseWatch};

/// How often the directory is looked at without a notice: another host's changes come without.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The same while the directory cannot be read.
const UNSYNCED_INTERVAL: Duration = Duration::from_millis(500);
/// Every how many looks without a notice all files are asked for changes; the others ask only the directories, whose
/// times change with every file that is put in place.
const FULL_LOOK_EVERY: u32 = 15;
/// Looks follow each other at least this far apart; a single change is seen at once.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// A look is followed by a pause of this many times its own duration, so that a storm of changes takes a fifth of a
/// core at most.
const PAUSE_FACTOR: u32 = 4;
/// Events that wait for the consumer; the thread waits when it is full.
const QUEUE_DEPTH: usize = 4;

/// The events of a [`super::FileStore`].
///
/// They come from a thread of its own, which ends when this is dropped.
#[derive(Debug)]
pub struct FileWatch {
    events: mpsc::Receiver<LeaseEvent>,
    /// The thread's signal to end is that this is closed.
    _stop: PipeWriter,
}

impl FileWatch {
    pub(super) fn begin(directory: &Directory) -> Result<Self, StoreError> {
        let failed = |err: io::Error| StoreError::Unreachable {
            place: directory.path().display().to_string(),
            source: err.into(),
        };
        let (stop, stopper) = io::pipe().map_err(failed)?;
        let (sender, events) = mpsc::channel(QUEUE_DEPTH);
        let watcher = Watcher::new(directory.path().to_owned(), directory.clock().clone());
        let thread = thread::Builder::new().name("lease-watch".to_owned());
        thread
            .spawn(move || run(watcher, &sender, &stop))
            .map_err(failed)?;
        Ok(Self {
            events,
            _stop: stopper,
        })
    }
}

impl LeaseWatch for FileWatch {
    async fn next_event(&mut self) -> LeaseEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The thread ends only with its consumer.
            None => std::future::pending().await,
        }
    }
}

fn run(mut watcher: Watcher, events: &mpsc::Sender<LeaseEvent>, stop: &PipeReader) {
    let mut notices = Notices::new(watcher.dir.clone(), subnets_path(&watcher.dir));
    loop {
        // Armed and emptied before the look: a change during the look is noticed after it.
        notices.arm();
        watcher.changed |= notices.drain();
        let start = Instant::now();
        let event = watcher.look(if notices.work() {
            Depth::AsNeeded
        } else {
            Depth::Full
        });
        let pause = (start.elapsed() * PAUSE_FACTOR).clamp(SHORTEST_PAUSE, LOOK_INTERVAL);
        if event.is_some_and(|event| events.blocking_send(event).is_err()) {
            return;
        }
        if sleep(stop, pause) == Woken::ToStop || wait(&notices, &mut watcher, stop) == Woken::ToStop {
            return;
        }
    }
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    ToLook,
    ToStop,
}

/// Waits for a notice that concerns a lease, or for the time of the next look.
fn wait(notices: &Notices, watcher: &mut Watcher, stop: &PipeReader) -> Woken {
    let deadline = Instant::now() + watcher.interval();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Woken::ToLook;
        }
        let mut fds = vec![PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        fds.extend(notices.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        if !wait_for(&mut fds, left) {
            continue;
        }
        if fds.first().and_then(PollFd::any).unwrap_or(true) {
            return Woken::ToStop;
        }
        if notices.drain() {
            watcher.changed = true;
            return Woken::ToLook;
        }
    }
}

fn sleep(stop: &PipeReader, duration: Duration) -> Woken {
    let mut fds = [PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
    if wait_for(&mut fds, duration) {
        Woken::ToStop
    } else {
        Woken::ToLook
    }
}

/// Whether one of the descriptors is ready before the time is over.
fn wait_for(fds: &mut [PollFd<'_>], duration: Duration) -> bool {
    // Rounded up, so that the remainder of a millisecond is no busy loop.
    let millis = duration.as_millis().saturating_add(1);
    let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
    match poll(fds, timeout) {
        Ok(ready) => ready > 0,
        Err(_) => {
            // Interrupted, or short of memory: neither lasts, and the pause keeps the caller from spinning.
            thread::sleep(Duration::from_millis(1));
            false
        }
    }
}

/// How much a look without a notice reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// Everything.
    Full,
    /// Only what the directories' times demand, but everything now and then.
    AsNeeded,
}

/// What was reported last.
#[derive(Debug, PartialEq, Eq)]
enum Reported {
    Nothing,
    Unsynced,
    Snapshot(Box<LeaseEvent>),
}

/// Finds out what is to be reported; does no waiting.
struct Watcher {
    dir: PathBuf,
    clock: Clock,
    scanner: Scanner,
    reported: Reported,
    warnings: BTreeSet<String>,
    /// Whether a notice came since the last look.
    changed: bool,
    quiet_looks: u32,
    stamps: [Option<Stamp>; 3],
    next_expiry: Option<UnixTime>,
}

impl Watcher {
    fn new(dir: PathBuf, clock: Clock) -> Self {
        Self {
            dir,
            clock,
            scanner: Scanner::default(),
            reported: Reported::Nothing,
            warnings: BTreeSet::new(),
            changed: true,
            quiet_looks: 0,
            stamps: [None; 3],
            next_expiry: None,
        }
    }

    const fn interval(&self) -> Duration {
        match self.reported {
            Reported::Snapshot(_) => LOOK_INTERVAL,
            Reported::Nothing | Reported::Unsynced => UNSYNCED_INTERVAL,
        }
    }

    /// Looks at the directory, and returns what is to be reported, if anything is.
    fn look(&mut self, depth: Depth) -> Option<LeaseEvent> {
        let now = self.clock.now();
        let stamps = stamps(&self.dir);
        let synced = matches!(self.reported, Reported::Snapshot(_));
        let expired = self.next_expiry.is_some_and(|end| end <= now);
        self.quiet_looks += 1;
        let due = self.quiet_looks >= FULL_LOOK_EVERY || depth == Depth::Full;
        if synced && !self.changed && !expired && !due && stamps == self.stamps {
            return None;
        }
        (self.changed, self.quiet_looks, self.stamps) = (false, 0, stamps);
        match self.read(now) {
            Ok(snapshot) => {
                let reported = Reported::Snapshot(Box::new(snapshot.clone()));
                if reported == self.reported {
                    return None;
                }
                self.reported = reported;
                Some(snapshot)
            }
            Err(err) => {
                let again = self.reported == Reported::Unsynced;
                self.reported = Reported::Unsynced;
                (!again).then(|| LeaseEvent::Unsynced {
                    reason: sentence(&err),
                })
            }
        }
    }

    fn read(&mut self, now: UnixTime) -> Result<LeaseEvent, StoreError> {
        let config = self.scanner.config(&self.dir)?;
        let scan = self.scanner.leases(&self.dir)?;
        self.warn(warnings(&self.dir, config.defect, &scan));
        let leases: BTreeMap<_, _> = scan
            .leases
            .into_iter()
            .filter(|(_, lease)| lease.expires.is_none_or(|end| end > now))
            .collect();
        self.next_expiry = leases.values().filter_map(|lease| lease.expires).min();
        Ok(LeaseEvent::Snapshot {
            config: config.conf,
            leases,
        })
    }

    /// Logs each warning once, for as long as its cause lasts.
    fn warn(&mut self, warnings: BTreeSet<String>) {
        for text in warnings.difference(&self.warnings) {
            warn!("{text}");
        }
        self.warnings = warnings;
    }
}

fn stamps(dir: &Path) -> [Option<Stamp>; 3] {
    [
        Stamp::at(dir),
        Stamp::at(&config_path(dir)),
        Stamp::at(&subnets_path(dir)),
    ]
}

fn warnings(dir: &Path, config_defect: Option<String>, scan: &Scan) -> BTreeSet<String> {
    let config =
        config_defect.map(|why| format!("{why}; the last good configuration counts ({})", dir.display()));
    let malformed = scan.malformed.iter().map(|malformed| match malformed.last_good {
        LastGood::Kept => format!("{}; its last good value counts", malformed.error()),
        LastGood::Unknown => format!("{}; it is ignored", malformed.error()),
    });
    let strangers = scan.strangers.iter().map(|path| {
        format!(
            "{} is ignored: its name is not of the form 10.5.57.0-24, 10.5.57.0-24&fd00:10:5:46::-64 or fd00:10:5:46::-64",
            path.display()
        )
    });
    config.into_iter().chain(malformed).chain(strangers).collect()
}

#[cfg(test)]
mod tests;
