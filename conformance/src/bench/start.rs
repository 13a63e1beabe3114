use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::lab::{BIN_DIR, Lab, Node, Process, SUBNET_FILE};

/// The pause between two looks: what a figure may be too high by.
pub(super) const PAUSE: Duration = Duration::from_micros(100);
/// Longer than this nothing may take.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// A daemon, and when its program was started.
pub(super) struct Started {
    pub(super) process: Process,
    pub(super) at: Instant,
}

/// Starts a daemon on every node, and waits until each is ready.
///
/// # Errors
/// Fails when one cannot be started or is not ready in time.
pub(super) fn start_all(lab: &Lab) -> Result<Vec<Started>> {
    let run = |node: &Node| {
        let mut started = start(node)?;
        started.ready(node)?;
        Ok(started)
    };
    lab.nodes().iter().map(run).collect()
}

/// Starts the daemon on a node, on the lab's store of leases; does not wait for anything.
///
/// # Errors
/// Fails when the program cannot be started.
pub(super) fn start(node: &Node) -> Result<Started> {
    let log = node.log_file("flanneld");
    let (child, at) = node.namespaces().run(|| {
        let log = File::options().create(true).append(true).open(&log);
        let log = log.context("opening the daemon's log")?;
        let mut flanneld = Command::new(format!("{BIN_DIR}/flanneld"));
        flanneld
            .args(node.store_flags())
            .env_clear()
            .env("NODE_NAME", node.name())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("duplicating a log")?)
            .stderr(log);
        let at = Instant::now();
        Ok((flanneld.spawn().context("starting flanneld")?, at))
    })?;
    Ok(Started {
        process: Process::new(child),
        at,
    })
}

impl Started {
    /// The time from the start to the subnet file, which must not have been there.
    ///
    /// # Errors
    /// Fails when the file does not come, with the end of the daemon's log.
    pub(super) fn ready(&mut self, node: &Node) -> Result<Duration> {
        let file = node.file(SUBNET_FILE);
        let there = look("the subnet file", || Ok(is_complete(&file)));
        there.with_context(|| {
            let log = node.log("flanneld").unwrap_or_default();
            format!(
                "flanneld on {}: {}",
                node.name(),
                log.lines().last().unwrap_or_default()
            )
        })?;
        Ok(self.at.elapsed())
    }

    /// Asks the daemon to end, and returns how long it took.
    ///
    /// # Errors
    /// Fails when it does not end, or with a non-zero status.
    pub(super) fn stop(mut self) -> Result<Duration> {
        let asked = Instant::now();
        self.process.signal(Signal::SIGTERM)?;
        let mut status = None;
        look("flanneld to end", || {
            status = self.process.ended()?;
            Ok(status.is_some())
        })?;
        let took = asked.elapsed();
        match status {
            Some(status) if status.success() => Ok(took),
            Some(status) => bail!("flanneld ended ({status}) when it was asked to"),
            None => bail!("flanneld ended without a status"),
        }
    }
}

fn is_complete(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > 0)
}

/// Looks ten thousand times a second until a condition holds.
///
/// # Errors
/// Fails when it does not hold within the limit.
pub(super) fn look(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !condition()? {
        if Instant::now() >= end {
            bail!("waited {} s in vain for {what}", LIMIT.as_secs());
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}
