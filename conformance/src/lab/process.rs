use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::wait_until;

/// Clock ticks per second in `/proc/PID/stat` (linux USER_HZ, the same on every architecture that we build for).
const TICKS_PER_SECOND: u64 = 100;
/// Of a thread's way into the kernel so many functions are told, the innermost first.
const STACK_FRAMES: usize = 6;

/// A program running on a node; it is killed when this value is dropped, unless it was detached.
#[derive(Debug)]
pub struct Process {
    child: Child,
    detached: bool,
}

impl Process {
    /// Takes charge of a started program.
    #[must_use]
    pub fn new(child: Child) -> Self {
        Self {
            child,
            detached: false,
        }
    }

    /// The process id, as the host sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets the program run on after this value is dropped; it still ends with the lab.
    pub fn detach(&mut self) {
        self.detached = true;
    }

    /// The exit status, if the program has ended.
    ///
    /// # Errors
    /// Fails when the process cannot be waited for.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("looking whether a process ended")
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Fails when the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("a process id too large")?);
        kill(pid, signal).with_context(|| format!("sending {signal} to process {pid}"))
    }

    /// Waits for the end; returns the time that it took and the exit status.
    ///
    /// # Errors
    /// Fails when the limit passes first.
    pub fn wait(&mut self, limit: Duration) -> Result<(Duration, ExitStatus)> {
        let mut status = None;
        let took = wait_until("a process to end", limit, || {
            status = self.ended()?;
            Ok(status.is_some())
        })?;
        Ok((took, status.context("a process ended without a status")?))
    }

    /// The processor time used so far, in user and kernel mode together.
    ///
    /// # Errors
    /// Fails when the process is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        // proc(5): the second field is the name in parentheses; utime and stime are the fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("reading a process's times")?;
        let ticks = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse::<u64>)
            .sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// The resident memory in KiB.
    ///
    /// # Errors
    /// Fails when the process is gone.
    pub fn rss_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("a process without memory")?;
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .context("reading a process's memory")
    }
}

/// What the threads of a process wait for in the kernel, and those of the programs that it runs: who does not get on is
/// seen to wait for a lock, for a program or for nothing. What cannot be read is left out; root may read it all.
#[must_use]
pub(super) fn waits_of(pid: u32) -> String {
    let tasks = tasks_of(pid);
    let children = tasks.iter().map(|task| read(task, "children"));
    let children: Vec<u32> = children
        .flat_map(|pids| pids.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
        .collect();
    let all = tasks.into_iter().chain(children.into_iter().flat_map(tasks_of));
    let texts = all.map(|task| {
        let stack = read(&task, "stack");
        let frames = stack.lines().filter_map(|line| line.split_whitespace().last());
        let frames: Vec<_> = frames.take(STACK_FRAMES).collect();
        format!("{} in {}", read(&task, "comm"), frames.join(" < "))
    });
    texts.collect::<Vec<_>>().join(" | ")
}

fn tasks_of(pid: u32) -> Vec<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    tasks.flatten().map(|task| task.path()).collect()
}

fn read(task: &Path, name: &str) -> String {
    let text = fs::read_to_string(task.join(name)).unwrap_or_default();
    text.trim().to_owned()
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.detached {
            // Both fail only when the process has ended already.
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_program_and_its_child_wait_for_is_told() {
        let shell = Command::new("sh")
            .args(["-c", "sleep 60 & wait"])
            .spawn()
            .unwrap();
        let shell = Process::new(shell);
        let mut told = String::new();
        let both = || {
            told = waits_of(shell.pid());
            Ok(told.contains("sh in ") && told.contains("sleep in ") && told.contains("nanosleep"))
        };
        wait_until("both to wait", Duration::from_secs(60), both)
            .unwrap_or_else(|err| panic!("{err}: {told}"));
        let sleep = read(&tasks_of(shell.pid())[0], "children");
        kill(Pid::from_raw(sleep.parse().unwrap()), Signal::SIGKILL).unwrap();
    }
}
