//! What a running process uses, from `/proc` (proc(5)).

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// A look at a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) threads: u32,
    /// Processor time of all threads since their start.
    pub(super) cpu: Duration,
    /// How often any thread gave up the processor to wait for something.
    pub(super) waits: u64,
    pub(super) rss_kib: u64,
    pub(super) pss_kib: u64,
}

impl Usage {
    /// Looks at a process.
    ///
    /// # Errors
    /// Fails when it is gone.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let memory = read(&format!("/proc/{pid}/smaps_rollup"))?;
        let mut usage = Self {
            threads: 0,
            cpu: Duration::ZERO,
            waits: 0,
            rss_kib: number_after(&memory, "Rss:")?,
            pss_kib: number_after(&memory, "Pss:")?,
        };
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("reading a process's threads")?;
        for task in tasks.flatten() {
            let dir = task.path();
            let schedstat = read(&dir.join("schedstat").to_string_lossy())?;
            let status = read(&dir.join("status").to_string_lossy())?;
            usage.threads += 1;
            usage.cpu += Duration::from_nanos(number_after(&schedstat, "")?);
            usage.waits += number_after(&status, "voluntary_ctxt_switches:")?;
        }
        Ok(usage)
    }
}

/// The most memory that a process had resident at any time, in KiB.
///
/// # Errors
/// Fails when it is gone.
pub(super) fn peak_rss_kib(pid: u32) -> Result<u64> {
    number_after(&read(&format!("/proc/{pid}/status"))?, "VmHWM:")
}

/// The first word after a label at the start of a line.
fn number_after(text: &str, label: &str) -> Result<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(label))
        .and_then(|rest| rest.split_whitespace().next());
    let value = value.with_context(|| format!("the kernel tells no {label:?}"))?;
    value
        .parse()
        .with_context(|| format!("reading {label:?} {value:?}"))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_after_their_labels() {
        let text = "Rss:                 812 kB\nPss:       400 kB\nnonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t9\n";
        assert_eq!(number_after(text, "Rss:").unwrap(), 812);
        assert_eq!(number_after(text, "voluntary_ctxt_switches:").unwrap(), 9);
        assert_eq!(number_after("123 456 7\n", "").unwrap(), 123);
        assert!(number_after(text, "Swap:").is_err());
        assert!(number_after("Rss: much\n", "Rss:").is_err());
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.threads >= 1 && usage.rss_kib >= usage.pss_kib && usage.pss_kib > 0);
        assert!(peak_rss_kib(std::process::id()).unwrap() > 0);
    }
}
