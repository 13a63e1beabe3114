use std::process::Child;

use anyhow::{Context, Result, bail};
use nix::libc::PTRACE_EVENT_EXIT;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::side::{Chain, Operation, PodSeat, talk};
use super::usage::peak_rss_kib;
use crate::lab::Node;

/// Runs the first plugin of a list once and returns the most memory that its own process had resident, in KiB. The kernel is asked to
/// stop the process when it ends, while its memory is still there; programs that it runs itself don't count.
///
/// # Errors
/// Fails when the plugin does, or when its process ends unseen.
pub(super) fn peak_of(chain: &Chain, operation: Operation, node: &Node, seat: &PodSeat) -> Result<u64> {
    // Only the start is done in the node's namespaces: here the process ids in `/proc` are ours.
    let (mut child, conf) = node.namespaces().run(|| chain.start_first(operation, seat))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id too large")?);
    ptrace::seize(pid, Options::PTRACE_O_TRACEEXIT).context("watching a plugin")?;
    // The answer is small: the plugin fills no pipe, and stops at its end before the pipe is closed.
    let answer = hand_over(&mut child, conf)?;
    let peak = until_exit(pid)?;
    let text = answer
        .join()
        .map_err(|_| anyhow::anyhow!("a reader panicked"))??;
    match peak {
        Some((peak, 0)) => Ok(peak),
        Some((_, _)) => bail!("{} failed: {}", operation.name(), text.trim()),
        None => bail!("a plugin ended before its memory could be read"),
    }
}

/// Talks to the plugin beside the thread that traces it.
fn hand_over(child: &mut Child, conf: String) -> Result<std::thread::JoinHandle<Result<String>>> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let talker = std::thread::Builder::new().spawn(move || talk(stdin, stdout, &conf));
    talker.context("starting a thread")
}

/// Lets a traced process run to its end; returns its peak memory, seen at the end, and its exit code.
fn until_exit(pid: Pid) -> Result<Option<(u64, i32)>> {
    let mut peak = None;
    loop {
        match waitpid(pid, None).context("waiting for a plugin")? {
            WaitStatus::PtraceEvent(_, _, PTRACE_EVENT_EXIT) => {
                peak = Some(peak_rss_kib(
                    u32::try_from(pid.as_raw()).context("a negative process id")?,
                )?);
                ptrace::cont(pid, None).context("letting a plugin end")?;
            }
            WaitStatus::Stopped(_, signal) => go_on(pid, Some(signal))?,
            WaitStatus::Exited(_, code) => return Ok(peak.map(|peak| (peak, code))),
            WaitStatus::Signaled(_, signal, _) => bail!("a plugin was killed by {signal}"),
            WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive => go_on(pid, None)?,
        }
    }
}

fn go_on(pid: Pid, signal: Option<Signal>) -> Result<()> {
    ptrace::cont(pid, signal).context("letting a plugin go on")
}
