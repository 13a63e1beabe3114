//! Runs a program to its end, within limits of time and of what it prints.
//!
//! For programs of others, of which the caller knows nothing: they may never end, print without end, or read nothing of
//! what they are fed. It never uses a shell. Start at [`run`].

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

#[cfg(test)]
mod tests;

/// Pauses between looks at a process that has closed its output and not ended, the first and the longest.
const FIRST_END_PAUSE: Duration = Duration::from_millis(1);
const LAST_END_PAUSE: Duration = Duration::from_millis(100);
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
    /// It took too long, or something that it started held its output: it was killed with whatever it started in its process
    /// group.
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

/// Feeds a process and gathers what it writes until it ends. At the deadline its streams are let go, whoever else holds them.
fn converse(child: &mut Child, input: &str, output_bytes: usize, deadline: Instant) -> io::Result<Outcome> {
    let mut streams = Streams {
        stdin: child.stdin.take(),
        input: input.as_bytes(),
        stdout: Gathering::new(child.stdout.take(), output_bytes),
        stderr: Gathering::new(child.stderr.take(), output_bytes),
    };
    streams.begin()?;
    while streams.are_open() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Outcome::TimedOut);
        }
        streams.exchange(left)?;
    }
    let mut pause = FIRST_END_PAUSE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Outcome::Ended(Ended {
                status,
                stdout: streams.stdout.printed(),
                stderr: streams.stderr.printed(),
            }));
        }
        if Instant::now() >= deadline {
            return Ok(Outcome::TimedOut);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LAST_END_PAUSE);
    }
}

/// The streams of a process, those that are still open. None of them blocks: a process that writes before it has read
/// everything would wait for ever otherwise.
struct Streams<'a> {
    stdin: Option<ChildStdin>,
    /// What is yet to be written.
    input: &'a [u8],
    stdout: Gathering<ChildStdout>,
    stderr: Gathering<ChildStderr>,
}

impl Streams<'_> {
    fn begin(&mut self) -> io::Result<()> {
        let stdin = self.stdin.as_ref().map(AsFd::as_fd);
        let streams = stdin
            .into_iter()
            .chain(self.stdout.stream.as_ref().map(AsFd::as_fd))
            .chain(self.stderr.stream.as_ref().map(AsFd::as_fd));
        for stream in streams {
            fcntl(stream, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        if self.input.is_empty() {
            self.stdin = None;
        }
        Ok(())
    }

    const fn are_open(&self) -> bool {
        self.stdin.is_some() || self.stdout.stream.is_some() || self.stderr.stream.is_some()
    }

    /// Waits until something can be written or read, and does that.
    fn exchange(&mut self, limit: Duration) -> io::Result<()> {
        let for_writing = self
            .stdin
            .as_ref()
            .map(|stdin| PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        let for_reading = [
            self.stdout.stream.as_ref().map(AsFd::as_fd),
            self.stderr.stream.as_ref().map(AsFd::as_fd),
        ];
        let for_reading = for_reading.into_iter().flatten();
        let mut fds: Vec<_> = for_reading
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .chain(for_writing)
            .collect();
        // Rounded up, so that the remainder of a millisecond is no busy loop.
        let millis = limit.as_millis().saturating_add(1);
        match poll(
            &mut fds,
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.write()?;
        self.stdout.read()?;
        self.stderr.read()
    }

    fn write(&mut self) -> io::Result<()> {
        while let Some(stdin) = &mut self.stdin {
            match stdin.write(self.input) {
                Ok(count) => self.input = self.input.get(count..).unwrap_or_default(),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                // It tells on standard error why it doesn't read on.
                Err(err) if err.kind() == io::ErrorKind::BrokenPipe => self.input = &[],
                Err(err) => return Err(err),
            }
            if self.input.is_empty() {
                self.stdin = None;
            }
        }
        Ok(())
    }
}

/// What a stream has brought so far; no more than its end is kept.
struct Gathering<S> {
    /// `None` once it has ended.
    stream: Option<S>,
    kept: Vec<u8>,
    max_bytes: usize,
    is_cut: bool,
}

impl<S: Read> Gathering<S> {
    const fn new(stream: Option<S>, max_bytes: usize) -> Self {
        Self {
            stream,
            kept: Vec::new(),
            max_bytes,
            is_cut: false,
        }
    }

    /// Reads what is there.
    fn read(&mut self) -> io::Result<()> {
        let mut piece = [0; PIECE_BYTES];
        while let Some(stream) = &mut self.stream {
            match stream.read(&mut piece) {
                Ok(0) => self.stream = None,
                Ok(count) => self.keep(piece.get(..count).unwrap_or_default()),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    fn keep(&mut self, piece: &[u8]) {
        self.kept.extend_from_slice(piece);
        // The front goes seldom, because moving the rest takes time.
        if self.kept.len() > self.max_bytes.saturating_mul(2) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let excess = self.kept.len().saturating_sub(self.max_bytes);
        self.kept.drain(..excess);
        self.is_cut |= excess > 0;
    }

    fn printed(mut self) -> Printed {
        self.cut();
        Printed {
            text: String::from_utf8_lossy(&self.kept).into_owned(),
            is_cut: self.is_cut,
        }
    }
}
