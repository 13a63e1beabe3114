use std::fs;
use std::net::Ipv4Addr;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::iproute::text;
use super::mounts::BIN_DIR;
use super::namespaces::command;
use super::node::Node;
use super::process::{Process, waits_of};
use super::wait::{LongWait, wait_until};

/// Where the daemon writes what the plugin reads (flannel `--subnet-file`'s default).
pub const SUBNET_FILE: &str = "/run/flannel/subnet.env";

/// The device of the VXLAN backend (flannel pkg/backend/vxlan, VNI 1).
pub const TUNNEL: &str = "flannel.1";

/// How long a start may take until the subnet file is there. All namespaces of a machine share the kernel's lock of links
/// and routes, which the removal of others has been seen to hold for 13 s on a busy machine, and once, in two labs at the
/// same time, for more than 60 s. A start that fails tells what its threads wait for.
const START_LIMIT: Duration = Duration::from_secs(180);

/// A running node daemon.
#[derive(Debug)]
pub struct Flanneld {
    process: Process,
    ready_after: Duration,
}

/// What a start that was expected to fail left behind.
#[derive(Debug)]
pub struct Attempt {
    /// The exit status; `None` when the program was still running at the limit.
    pub status: Option<ExitStatus>,
    /// The standard error.
    pub stderr: String,
}

impl Node {
    /// Starts the node daemon on the lab's store of leases and waits until it has written the subnet file. A long wait is
    /// told on standard error.
    ///
    /// # Errors
    /// Fails when the daemon ends or writes nothing in time; the error carries the end of its log.
    pub fn start_flanneld(&self, extra: &[&str]) -> Result<Flanneld> {
        self.start_flanneld_under(&[], extra)
    }

    /// Starts the node daemon under another program, such as a tracer.
    ///
    /// # Errors
    /// As [`Node::start_flanneld`].
    pub fn start_flanneld_under(&self, wrapper: &[&str], extra: &[&str]) -> Result<Flanneld> {
        let before = self.subnet_file_version();
        let mut process = self.spawn_flanneld(wrapper, extra)?;
        let what = format!("flanneld on {} to write its subnet file", self.name());
        let mut wait = LongWait::new(what, START_LIMIT);
        let ready = wait_until("the subnet file to be written", START_LIMIT, || {
            wait.look();
            if let Some(status) = process.ended()? {
                bail!("flanneld ended ({status})");
            }
            let now = self.subnet_file_version();
            Ok(now.is_some() && now != before)
        });
        let ready_after = ready.with_context(|| {
            let waits = waits_of(process.pid());
            format!(
                "flanneld on {}: {}; it waits: {waits}",
                self.name(),
                self.log_tail()
            )
        })?;
        Ok(Flanneld { process, ready_after })
    }

    /// Starts the node daemon and does not wait for anything.
    ///
    /// # Errors
    /// Fails when the program cannot be started.
    pub fn spawn_flanneld(&self, wrapper: &[&str], extra: &[&str]) -> Result<Process> {
        let program = format!("{BIN_DIR}/flanneld");
        let (tag, leases) = (self.name_tag(), self.store_flags());
        let argv = wrapper
            .iter()
            .copied()
            .chain(tag.iter().map(String::as_str))
            .chain([program.as_str()])
            .chain(leases.iter().map(String::as_str))
            .chain(extra.iter().copied());
        self.spawn(&argv.collect::<Vec<_>>(), "flanneld")
    }

    /// Runs the node daemon with exactly these arguments until it ends or the limit passes; then it is killed.
    ///
    /// # Errors
    /// Fails when the program cannot be started or its output not be read.
    pub fn try_flanneld(&self, arguments: &[&str], limit: Duration) -> Result<Attempt> {
        let program = format!("{BIN_DIR}/flanneld");
        let path = "/run/lab-attempt.err";
        let child = self.namespaces().run(|| {
            let stderr = fs::File::create(path).with_context(|| format!("making {path}"))?;
            let mut flanneld = command(&[program.as_str()])?;
            flanneld
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(stderr);
            flanneld.spawn().context("starting flanneld")
        })?;
        let mut process = Process::new(child);
        let status = process.wait(limit).ok().map(|(_, status)| status);
        let stderr = fs::read_to_string(self.file(path)).with_context(|| format!("reading {path}"))?;
        Ok(Attempt { status, stderr })
    }

    /// The value of a key in the subnet file.
    ///
    /// # Errors
    /// Fails when there is no subnet file or no such key in it.
    pub fn subnet_env(&self, key: &str) -> Result<String> {
        let text =
            fs::read_to_string(self.file(SUBNET_FILE)).with_context(|| format!("reading {SUBNET_FILE}"))?;
        let found = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| *name == key);
        let (_, value) = found.with_context(|| format!("{SUBNET_FILE} has no {key}"))?;
        Ok(value.to_owned())
    }

    /// The node's pod subnet: its first address and its prefix length.
    ///
    /// # Errors
    /// Fails when there is no subnet file, or no subnet in it.
    pub fn subnet(&self) -> Result<(Ipv4Addr, u8)> {
        let text = self.subnet_env("FLANNEL_SUBNET")?;
        let (gateway, length) = text
            .split_once('/')
            .with_context(|| format!("{text:?} is no subnet"))?;
        let gateway: Ipv4Addr = gateway
            .parse()
            .with_context(|| format!("{text:?} is no subnet"))?;
        let length: u8 = length.parse().with_context(|| format!("{text:?} is no subnet"))?;
        let mask = u32::MAX
            .checked_shl(32_u32.saturating_sub(length.into()))
            .unwrap_or(0);
        Ok((Ipv4Addr::from_bits(gateway.to_bits() & mask), length))
    }

    /// The MAC address of the node's end of the tunnel.
    ///
    /// # Errors
    /// Fails when the node has no `flannel.1`.
    pub fn vtep_mac(&self) -> Result<String> {
        let links = self.json(&["ip", "-j", "link", "show", "dev", TUNNEL])?;
        links
            .first()
            .map(|link| text(link, "address").to_owned())
            .context("there is no flannel.1")
    }

    /// What tells one writing of the subnet file from another.
    fn subnet_file_version(&self) -> Option<(u64, SystemTime)> {
        let metadata = fs::metadata(self.file(SUBNET_FILE)).ok()?;
        Some((metadata.ino(), metadata.modified().ok()?))
    }

    fn log_tail(&self) -> String {
        let log = self.log("flanneld").unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Flanneld {
    /// The time from the start to the subnet file.
    #[must_use]
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Asks the daemon to end (SIGTERM) and waits; returns the time that it took and the exit status.
    ///
    /// # Errors
    /// Fails when it does not end within the limit.
    pub fn stop(&mut self, limit: Duration) -> Result<(Duration, ExitStatus)> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(limit)
    }
}

impl Deref for Flanneld {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Flanneld {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
