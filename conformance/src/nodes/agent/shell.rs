use std::fs;
use std::io::{ErrorKind, Read};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::{command, wait_until};
use crate::nodes::protocol::{NOT_FOUND, Output};

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
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let stdout = scope.spawn(|| all_of(stdout));
        let stderr = scope.spawn(|| all_of(stderr));
        let mut status = None;
        let ended = wait_until("a program to end", limit, || {
            status = child.try_wait().context("waiting for a program")?;
            Ok(status.is_some())
        });
        if ended.is_err() {
            // Its pipes close with it, unless it has left children behind; then there is nothing to be had from them.
            child.kill().context("ending a program whose time was over")?;
            child.wait().context("waiting for a program")?;
        }
        Ok(Output {
            status: status.and_then(|status| status.code()),
            stdout: stdout.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
        })
    })
}

fn all_of(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is told all the same.
    pipe.map(|mut pipe| pipe.read_to_end(&mut bytes).ok());
    String::from_utf8_lossy(&bytes).into_owned()
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
