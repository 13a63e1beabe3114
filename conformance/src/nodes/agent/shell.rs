use std::fs;
use std::io::{ErrorKind, Read};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::lab::{command, wait_until};
use crate::nodes::protocol::{NOT_FOUND, Output};

/// How long a program that has ended may take to have said all.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);

/// Runs a program to its end, or ends it when its time is over. One that is not there ends with [`NOT_FOUND`].
///
/// # Errors
/// Fails when it is there but cannot be started.
pub(super) fn run(argv: &[String], limit: Duration) -> Result<Output> {
    let mut program = command(argv)?;
    program
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let starting = || format!("starting `{}`", argv.join(" "));
    let mut child = match program.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Output {
                status: Some(NOT_FOUND),
                stdout: String::new(),
                stderr: format!("{}: {error}", starting()),
            });
        }
        child => child.with_context(starting)?,
    };
    let stdout = child.stdout.take().map(Printed::read);
    let stderr = child.stderr.take().map(Printed::read);
    let mut status = None;
    let ended = wait_until("a program to end", limit, || {
        status = child.try_wait().context("waiting for a program")?;
        Ok(status.is_some())
    });
    if ended.is_err() {
        // With all that it has started.
        let group = Pid::from_raw(i32::try_from(child.id()).context("a process id out of range")?);
        killpg(group, Signal::SIGKILL).context("ending a program whose time was over")?;
        child.wait().context("waiting for a program")?;
    }
    let is_all = |printed: &Option<Printed>| printed.as_ref().is_none_or(Printed::is_all);
    let all = || Ok(is_all(&stdout) && is_all(&stderr));
    // What goes on after it may hold its pipes open; what was printed by then is told.
    wait_until("the end of what a program prints", LAST_WORDS_LIMIT, all).ok();
    Ok(Output {
        status: status.and_then(|status| status.code()),
        stdout: stdout.map(|printed| printed.text()).unwrap_or_default(),
        stderr: stderr.map(|printed| printed.text()).unwrap_or_default(),
    })
}

/// What comes out of a pipe, which is read on a thread of its own.
struct Printed {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Printed {
    fn read(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&bytes);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(length @ 1..) => {
                        let mut bytes = keep.lock().unwrap_or_else(PoisonError::into_inner);
                        bytes.extend_from_slice(buffer.get(..length).unwrap_or_default());
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // What was read before an error is told all the same.
                    Ok(0) | Err(_) => return,
                }
            }
        });
        Self { bytes, thread }
    }

    fn is_all(&self) -> bool {
        self.thread.is_finished()
    }

    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A file of the node, if it is there.
///
/// # Errors
/// Fails when it cannot be read.
pub(super) fn read(path: &str) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => bail!("reading {path}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Output {
        run(&["sh", "-c", script].map(str::to_owned), limit).unwrap()
    }

    #[test]
    fn a_program_that_is_not_there_is_told_from_one_that_fails() {
        let missing = run(&["no-such-program".to_owned()], Duration::from_secs(20)).unwrap();
        assert_eq!(missing.status, Some(NOT_FOUND));
        assert!(missing.stderr.contains("no-such-program"), "{}", missing.stderr);
        let output = shell("echo out; echo err >&2; exit 3", Duration::from_secs(20));
        let printed = (output.status, &*output.stdout, &*output.stderr);
        assert_eq!(printed, (Some(3), "out\n", "err\n"));
    }

    #[test]
    fn what_a_program_leaves_behind_is_not_waited_for() {
        let output = shell("sleep 60 & echo $!", Duration::from_secs(20));
        assert_eq!(output.status, Some(0));
        let left = Pid::from_raw(output.stdout.trim().parse().unwrap());
        // It is still there, and holds the pipes.
        nix::sys::signal::kill(left, Signal::SIGKILL).unwrap();
    }

    #[test]
    fn a_program_whose_time_is_over_ends_with_its_children() {
        let output = shell("sleep 60 & echo $!; wait", Duration::from_secs(1));
        assert_eq!(output.status, None);
        let stat = format!("/proc/{}/stat", output.stdout.trim());
        // Where nobody reaps orphans its entry stays.
        let is_gone = || Ok(fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z ")));
        wait_until("a child to be gone", Duration::from_secs(20), is_gone).unwrap();
    }
}
