//! The log on standard error, which never stops the daemon and never floods the disk.
//!
//! Lines go through a bounded queue to a thread of their own. A reader that hangs, a full disk or a closed pipe cost
//! log lines, and nothing else. The thread holds back what repeats: equal lines, and very many of one kind; it says how
//! many it left out. Other crates are heard from warnings on only: what an HTTP library traces may be a secret.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::config::{LogFormat, LogLevel};
use line::Line;
use output::Output;
use repeats::{Repeated, Repeats};

mod line;
mod output;
mod repeats;

/// Lines that wait for the reader; more are dropped.
const QUEUE_LINES: usize = 4096;
/// How long the end of the program waits for the last lines to be written.
const FLUSH_LIMIT: Duration = Duration::from_millis(200);
/// This many equal lines are printed within a window; of the others, the number at its end.
const EQUAL_BURST: u64 = 5;
const EQUAL_WINDOW: Duration = Duration::from_secs(30);
/// This many lines of one message are printed within a window, whatever their fields. What is said at the levels
/// below `info` is asked for, and printed in full.
const ALIKE_BURST: u64 = 200;
const ALIKE_WINDOW: Duration = Duration::from_secs(10);

static DROPPED: AtomicU64 = AtomicU64::new(0);
static HELD_BACK: AtomicU64 = AtomicU64::new(0);

/// What the log of this program left out since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct LogCounts {
    /// Lines lost because nobody read the log fast enough.
    pub dropped: u64,
    /// Lines held back because they repeated others.
    pub held_back: u64,
}

/// What the log left out until now.
#[must_use]
pub fn counts() -> LogCounts {
    LogCounts {
        dropped: DROPPED.load(Ordering::Relaxed),
        held_back: HELD_BACK.load(Ordering::Relaxed),
    }
}

/// The log's queue.
#[derive(Debug, Clone)]
pub struct Log {
    /// Without a bound of its own: a bounded channel has room for its last line from the start, which is half a megabyte.
    lines: Sender<Message>,
    /// Never more than [`QUEUE_LINES`].
    waiting: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Message {
    Line(Line),
    /// Say at once what was held back: the program ends.
    End,
}

impl Log {
    /// Starts the log for the whole program.
    ///
    /// # Errors
    /// The host has no thread to give.
    pub fn start(level: LogLevel, format: LogFormat) -> io::Result<Self> {
        let (lines, queue) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let log = Self {
            lines,
            waiting: Arc::clone(&waiting),
        };
        let printer = Printer {
            format,
            equal: Repeats::new(EQUAL_BURST, EQUAL_WINDOW),
            alike: Repeats::new(ALIKE_BURST, ALIKE_WINDOW),
            started: Instant::now(),
        };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || printer.run(&queue, &waiting))?;
        let level = match level {
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        };
        // Only a second log in one program could fail here; the first one stays.
        let _second = tracing::subscriber::set_global_default(Output::new(level, log.clone()));
        Ok(log)
    }

    /// Waits a little for the lines that are queued, and for the word on those that were held back.
    pub fn flush(&self) {
        self.send(Message::End);
        let end = Instant::now() + FLUSH_LIMIT;
        while self.waiting.load(Ordering::Acquire) > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn send(&self, message: Message) {
        let are_waiting = self.waiting.fetch_add(1, Ordering::AcqRel);
        if are_waiting >= QUEUE_LINES || self.lines.send(message).is_err() {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Owned by the log's thread.
struct Printer {
    format: LogFormat,
    equal: Repeats,
    alike: Repeats,
    started: Instant,
}

impl Printer {
    fn run(mut self, queue: &Receiver<Message>, waiting: &AtomicUsize) {
        loop {
            match self.next(queue) {
                Ok(message) => {
                    match message {
                        Message::Line(line) => self.take(&line),
                        Message::End => self.tell_repeated(Duration::MAX),
                    }
                    waiting.fetch_sub(1, Ordering::AcqRel);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.tell_repeated(self.started.elapsed());
        }
    }

    /// Waits for the next line, but no longer than something is to be told by itself.
    fn next(&self, queue: &Receiver<Message>) -> Result<Message, RecvTimeoutError> {
        let due = [self.equal.due_at(), self.alike.due_at()]
            .into_iter()
            .flatten()
            .min();
        match due {
            Some(at) => queue.recv_timeout(at.saturating_sub(self.started.elapsed())),
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn take(&mut self, line: &Line) {
        let now = self.started.elapsed();
        self.tell_repeated(now);
        let admitted = self.equal.admit(now, line.identity(), line)
            && (line.level > Level::INFO || self.alike.admit(now, line.message.clone(), line));
        if admitted {
            self.print(line);
        } else {
            HELD_BACK.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tell_repeated(&mut self, now: Duration) {
        for Repeated { sample, times } in self.equal.ended(now) {
            self.print(&sample.held_back(SystemTime::now(), "repeated", times));
        }
        for Repeated { sample, times } in self.alike.ended(now) {
            let bare = Line {
                fields: Vec::new(),
                ..sample
            };
            self.print(&bare.held_back(SystemTime::now(), "left_out", times));
        }
    }

    fn print(&self, line: &Line) {
        let text = line.render(self.format);
        // There is nobody to tell that nobody reads the log.
        let _lost = io::stderr().write_all(text.as_bytes());
    }
}
