//! The log on standard error, which never stops the daemon.
//!
//! Lines go through a bounded queue to a thread of their own. A reader that hangs, a full disk or a closed pipe cost
//! log lines, and nothing else.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;

use crate::config::LogLevel;

/// Lines that wait for the reader; more are dropped.
const QUEUE_LINES: usize = 4096;
/// How long the end of the program waits for the last lines to be written.
const FLUSH_LIMIT: Duration = Duration::from_millis(200);

/// The log's queue.
#[derive(Debug, Clone)]
pub struct Log {
    lines: SyncSender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

impl Log {
    /// Starts the log for the whole program.
    ///
    /// # Errors
    /// The host has no thread to give.
    pub fn start(level: LogLevel) -> io::Result<Self> {
        let (lines, queue) = sync_channel(QUEUE_LINES);
        let waiting = Arc::new(AtomicUsize::new(0));
        let log = Self {
            lines,
            waiting: Arc::clone(&waiting),
        };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&queue, &waiting))?;
        let level = match level {
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        };
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .log_internal_errors(false)
            .init();
        Ok(log)
    }

    /// Waits a little for the lines that are queued.
    pub fn flush(&self) {
        let end = Instant::now() + FLUSH_LIMIT;
        while self.waiting.load(Ordering::Acquire) > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Write for Log {
    /// Takes a whole line, as `tracing_subscriber` gives it; never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        if self.lines.try_send(line.to_vec()).is_err() {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(queue: &Receiver<Vec<u8>>, waiting: &AtomicUsize) {
    for line in queue {
        // There is nobody to tell that nobody reads the log.
        let _lost = io::stderr().write_all(&line);
        waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
