use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};

use crate::nodes::protocol::Process;

/// The longest name that a process can have, in bytes (linux `TASK_COMM_LEN`, less its end).
const NAME_BYTES: usize = 15;

/// The processes of this name in the agent's own network namespace, as far as it sees any: those of pods are in others, and
/// so are those of a lab's other nodes. One that has ended and waits to be reaped is in none.
///
/// # Errors
/// Fails where there is no `/proc`.
pub(super) fn named(name: &str) -> Result<BTreeSet<Process>> {
    let own = fs::read_link("/proc/self/ns/net").context("reading the agent's own network namespace")?;
    let entries = fs::read_dir("/proc").context("listing processes")?;
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_here = |pid: &u32| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|net| net == own);
    // What cannot be read has ended meanwhile.
    let found = pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let started = started(&stat, name)?;
        is_here(&pid).then_some(Process { pid, started })
    });
    Ok(found.collect())
}

/// When a process began, by its `/proc/PID/stat`, if that is its name (proc(5): the second field is the name in
/// parentheses, and the start is the field 22).
fn started(stat: &str, name: &str) -> Option<u64> {
    let (before, fields) = stat.rsplit_once(')')?;
    let (_, own) = before.split_once('(')?;
    let known = name.get(..NAME_BYTES).unwrap_or(name);
    if own != known {
        return None;
    }
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_by_its_name_and_its_start() {
        let line = |name: &str| {
            format!(
                "7 ({name}) S 1 7 7 0 -1 4194560 190 0 0 0 4 2 0 0 20 0 2 0 123456 2408448 175 1844674407"
            )
        };
        assert_eq!(started(&line("flanneld"), "flanneld"), Some(123_456));
        assert_eq!(
            started(&line("a-daemon-with-a"), "a-daemon-with-a-long-name"),
            Some(123_456)
        );
        for other in ["flannel", "flanneld2", "a) S 1 (flanneld", ""] {
            assert_eq!(started(&line(other), "flanneld"), None, "{other}");
        }
    }

    #[test]
    fn a_process_of_this_namespace_is_seen_and_is_the_same_one_again() {
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        // Others of this name come and go.
        let own = || {
            let seen = named(name.trim()).unwrap();
            seen.into_iter().find(|process| process.pid == std::process::id())
        };
        let first = own();
        assert!(first.is_some());
        assert_eq!(own(), first);
        assert_eq!(named("no-such-name").unwrap(), BTreeSet::new());
    }
}
