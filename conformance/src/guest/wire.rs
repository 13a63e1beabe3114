//! The virtual Ethernet between guests: a hub on the host, which sees every frame.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

/// Longest frame that is carried: more than an Ethernet of 1500 bytes has.
const FRAME_MAX_BYTES: usize = 16 << 10;
/// How often a port looks whether the hub is to end.
const LOOK: Duration = Duration::from_millis(200);
/// Most frames that a capture keeps; a test sends a few thousand.
const CAPTURE_MAX: usize = 100_000;

/// A hub with a port for every guest. What comes in by one port goes out by all others; a port whose guest does not keep
/// up loses frames, as an Ethernet does.
#[derive(Debug)]
pub struct Wire {
    dir: PathBuf,
    shared: Arc<Shared>,
    ports: Vec<JoinHandle<()>>,
}

/// The frames that crossed the wire since the capture began.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    /// Whole Ethernet frames.
    pub frames: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Shared {
    ends: AtomicBool,
    capture: Mutex<Option<Capture>>,
}

impl Wire {
    /// Makes a hub whose sockets are in a directory; guests are numbered from 1.
    ///
    /// # Errors
    /// Fails when a socket cannot be made.
    pub fn new(dir: &Path, guests: u8) -> Result<Self> {
        let mut wire = Self {
            dir: dir.to_owned(),
            shared: Arc::default(),
            ports: Vec::new(),
        };
        let mut sockets = Vec::new();
        for number in 1..=guests {
            let path = dir.join(hub_socket(number));
            let socket = UnixDatagram::bind(&path).with_context(|| format!("making {}", path.display()))?;
            socket.set_read_timeout(Some(LOOK)).context("limiting a wait")?;
            sockets.push(socket);
        }
        for number in 1..=guests {
            let index = usize::from(number - 1);
            let socket = sockets.get(index).context("a port without a socket")?;
            let port = Port {
                socket: socket.try_clone().context("duplicating a socket")?,
                others: wire.others(number, guests)?,
                shared: Arc::clone(&wire.shared),
            };
            let thread = thread::Builder::new().name(format!("wire-{number}"));
            wire.ports
                .push(thread.spawn(move || port.run()).context("starting a thread")?);
        }
        Ok(wire)
    }

    /// Begins to keep what crosses the wire, and forgets what was kept before.
    pub fn capture(&self) {
        *self.shared.capture() = Some(Capture::default());
    }

    /// Ends the capture and returns it.
    #[must_use]
    pub fn captured(&self) -> Capture {
        self.shared.capture().take().unwrap_or_default()
    }

    /// The sockets by which frames leave for the other guests.
    fn others(&self, number: u8, guests: u8) -> Result<Vec<(UnixDatagram, PathBuf)>> {
        let mut others = Vec::new();
        for other in (1..=guests).filter(|other| *other != number) {
            let socket = UnixDatagram::unbound().context("making a socket")?;
            socket.set_nonblocking(true).context("setting up a socket")?;
            others.push((socket, self.dir.join(guest_socket(other))));
        }
        Ok(others)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        for port in self.ports.drain(..) {
            // A port that panicked has ended too.
            port.join().ok();
        }
    }
}

impl Capture {
    /// How many frames hold a text or number somewhere.
    #[must_use]
    pub fn count_with(&self, bytes: &[u8]) -> usize {
        let holds = |frame: &&Vec<u8>| frame.windows(bytes.len()).any(|window| window == bytes);
        self.frames.iter().filter(holds).count()
    }
}

impl Shared {
    fn capture(&self) -> MutexGuard<'_, Option<Capture>> {
        // A thread that panicked left whole frames behind.
        self.capture.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket that the hub receives by from a guest.
pub(super) fn hub_socket(number: u8) -> String {
    format!("hub-{number}")
}

/// The socket that a guest receives by.
pub(super) fn guest_socket(number: u8) -> String {
    format!("guest-{number}")
}

/// The hub's side of one guest.
struct Port {
    socket: UnixDatagram,
    others: Vec<(UnixDatagram, PathBuf)>,
    shared: Arc<Shared>,
}

impl Port {
    fn run(&self) {
        let mut buffer = vec![0; FRAME_MAX_BYTES];
        while !self.shared.ends.load(Ordering::Relaxed) {
            // A wait that ended without a frame is the time to look again.
            let Ok(len) = self.socket.recv(&mut buffer) else {
                continue;
            };
            let Some(frame) = buffer.get(..len) else { continue };
            if let Some(capture) = self.shared.capture().as_mut()
                && capture.frames.len() < CAPTURE_MAX
            {
                capture.frames.push(frame.to_vec());
            }
            for (socket, path) in &self.others {
                // A guest that is not there, or is behind, misses the frame.
                socket.send_to(frame, path).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reaches_all_others_and_the_capture() {
        let dir = tempfile::tempdir().unwrap();
        let guests: Vec<_> = (1..=3)
            .map(|number| UnixDatagram::bind(dir.path().join(guest_socket(number))).unwrap())
            .collect();
        let wire = Wire::new(dir.path(), 3).unwrap();
        wire.capture();
        guests[0]
            .send_to(b"a frame", dir.path().join(hub_socket(1)))
            .unwrap();
        for guest in &guests[1..] {
            guest.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut buffer = [0; 100];
            assert_eq!(guest.recv(&mut buffer).unwrap(), 7);
        }
        guests[0].set_nonblocking(true).unwrap();
        assert!(guests[0].recv(&mut [0; 100]).is_err(), "a frame came back");
        let capture = wire.captured();
        assert_eq!(capture.frames, vec![b"a frame".to_vec()]);
        assert_eq!(capture.count_with(b"fram"), 1);
        assert_eq!(capture.count_with(b"farm"), 0);
    }
}
