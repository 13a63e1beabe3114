//! Runs a program to its end, within limits of time and of what it prints.
//!
//! For programs of others, of which the caller knows nothing: they may never end, print without end, or read nothing of
//! what they are fed. It never uses a shell. Start at [`run`].

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

#[cfg(test)]
mod tests;

/// Pause between two looks at a process that has closed its output and not ended.
const END_PAUSE: Duration = Duration::from_millis(1);
/// Room for one read of what a process prints.
const PIECE_BYTES: usize = 16 << 10;

/// What a process may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long it may take.
    pub time: Duration,
    /// How much is kept of each of its two outputs, in bytes; more is read all the same.
    pub output_bytes: usize,
}

/// How a process came to its end.
#[derive(Debug)]
pub enum Outcome {
    /// By itself.
    Ended(Ended),
    /// It took too long, and was killed with whatever it started in its process group.
    TimedOut,
}

/// A process that ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Printed,
    /// Its standard error.
    pub stderr: Printed,
}

/// What a process printed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Printed {
    /// The text, or its end; what is not UTF-8 is replaced.
    pub text: String,
    /// Whether more came before it than is kept.
    pub is_cut: bool,
}

/// Runs a program in a process group of its own, with a text on its standard input, until it ends and its output is closed,
/// also by what it started; or kills the group when the time is over.
///
/// # Errors
/// It cannot be started, or its input or output failed.
pub fn run(command: &mut Command, input: &str, limits: Limits) -> io::Result<Outcome> {
    let deadline = Instant::now() + limits.time;
    let mut child = command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let outcome = converse(&mut child, input, limits.output_bytes, deadline);
    if !matches!(outcome, Ok(Outcome::Ended(_))) {
        end(&mut child);
    }
    outcome
}

/// Ends a process and what it started, which may all have ended by themselves meanwhile, and waits for it, so that nothing
/// of it is left.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    let _killed = group.map(|group| killpg(group, Signal::SIGKILL));
    let _ended = child.kill();
    let _status = child.wait();
}

/// Feeds a process and gathers what it writes until it ends.
fn converse(child: &mut Child, input: &str, output_bytes: usize, deadline: Instant) -> io::Result<Outcome> {
    // Each stream has a thread: a process that writes before it has read everything would wait for ever otherwise.
    // The end of the process and of what it started closes the streams, and with them ends the threads.
    let (stdin, input) = (child.stdin.take(), input.to_owned());
    let fed = on_thread(move || match stdin {
        Some(mut stdin) => match stdin.write_all(input.as_bytes()) {
            // It tells on standard error why it doesn't read on.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        },
        None => Ok(()),
    })?;
    let stdout = child.stdout.take();
    let output = on_thread(move || gathered(stdout, output_bytes))?;
    let stderr = child.stderr.take();
    let words = on_thread(move || gathered(stderr, output_bytes))?;
    let (Some(stdout), Some(stderr), Some(())) = (
        awaited(&output, deadline)?,
        awaited(&words, deadline)?,
        awaited(&fed, deadline)?,
    ) else {
        return Ok(Outcome::TimedOut);
    };
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Outcome::Ended(Ended {
                status,
                stdout,
                stderr,
            }));
        }
        if Instant::now() >= deadline {
            return Ok(Outcome::TimedOut);
        }
        thread::sleep(END_PAUSE);
    }
}

/// Does work on a thread of its own, which hands over the result.
fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<Receiver<io::Result<T>>> {
    let (sender, receiver) = channel();
    thread::Builder::new()
        .name("subprocess".to_owned())
        .spawn(move || {
            // Nobody waits any more after the deadline.
            let _sent = sender.send(work());
        })?;
    Ok(receiver)
}

/// Reads to the end and keeps no more than the last `max_bytes`.
fn gathered(stream: Option<impl Read>, max_bytes: usize) -> io::Result<Printed> {
    let mut kept = Vec::new();
    let mut is_cut = false;
    if let Some(mut stream) = stream {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => return Err(err),
            };
            kept.extend_from_slice(piece.get(..count).unwrap_or_default());
            // The front goes seldom, because moving the rest takes time.
            if kept.len() > max_bytes.saturating_mul(2) {
                kept.drain(..kept.len() - max_bytes);
                is_cut = true;
            }
        }
    }
    let excess = kept.len().saturating_sub(max_bytes);
    kept.drain(..excess);
    Ok(Printed {
        text: String::from_utf8_lossy(&kept).into_owned(),
        is_cut: is_cut || excess > 0,
    })
}

/// The result of a thread; `None` at the deadline.
fn awaited<T>(receiver: &Receiver<io::Result<T>>, deadline: Instant) -> io::Result<Option<T>> {
    match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(result) => result.map(Some),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("a thread ended early")),
    }
}
