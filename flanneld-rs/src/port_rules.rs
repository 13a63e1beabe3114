//! Has the rules of mapped ports put back that somebody flushed.
//!
//! What they are only the plugin portmap knows; this tells it when to look: at the start, when the kernel tells of a
//! change in a table that has such rules, and once a minute, because legacy iptables tells nobody. It runs
//! `flannel portmap restore`, nothing else, and only while portmap has stored any ports, so that the daemon needs
//! neither the plugin nor its formats.

use std::fs;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use net_types::registry::PORTMAP_NFT_TABLE;
use net_types::sentence;
use netlink_monitor::{RulesMonitor, RulesNotice};
use netstate::nft::{Family, TableKey};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// Where portmap keeps what is mapped, unless its configuration names another directory (README.md).
pub const STATE_DIR: &str = "/run/cni/flannel-portmap";

/// Between two looks: pods with ports come and go in bursts, and kube-proxy changes the same tables.
const PAUSE: Duration = Duration::from_secs(2);

/// Between two looks where nothing tells of changes, and as a safeguard.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);

/// How long the plugin may take: as long as it may wait for others' locks, and iptables' programs.
const RESTORE_MAX: Duration = Duration::from_secs(180);

/// The file of portmap's directory that is no attachment.
const LOCK_FILE: &str = "lock";

/// Looks after the rules of mapped ports as long as this value lives, in the tokio runtime it was made in.
pub struct PortRules {
    _task: JoinSet<()>,
}

impl PortRules {
    /// Begins to look after them, with the plugin's program and the directory of portmap's state. A plugin that cannot
    /// be run is named in the log once there is something to restore.
    #[must_use]
    pub fn keep(plugin: PathBuf, state: PathBuf) -> Self {
        // A kernel without nf_tables tells of nothing; the audit remains.
        let monitor = RulesMonitor::open()
            .inspect_err(|err| debug!(reason = sentence(err), "the kernel tells of no changed rules"))
            .ok();
        let mut task = JoinSet::new();
        task.spawn(keep(plugin, state, monitor));
        Self { _task: task }
    }
}

/// Owned by [`PortRules`], which ends it at any await: what the plugin does meanwhile it brings to its end.
async fn keep(plugin: PathBuf, state: PathBuf, mut monitor: Option<RulesMonitor>) {
    let mut told = None;
    loop {
        let (program, dir) = (plugin.clone(), state.clone());
        let restored = spawn_blocking(move || restore(&program, &dir)).await;
        let outcome = restored.unwrap_or_else(|err| Err(sentence(&err)));
        if told.as_ref() != Some(&outcome) {
            tell(&outcome);
        }
        told = Some(outcome);
        sleep(PAUSE).await;
        // What changed meanwhile, be it by the plugin, is looked at as well.
        let _elapsed = timeout(AUDIT_INTERVAL, changed(monitor.as_mut())).await;
    }
}

/// What became of a look: the plugin's words, if it was run.
type Outcome = Result<Option<String>, String>;

fn tell(outcome: &Outcome) {
    match outcome {
        Ok(None) => {}
        Ok(Some(words)) => info!(words, "looked after the rules of mapped ports"),
        Err(reason) => warn!(
            reason,
            "rules of mapped ports that somebody flushes are not put back: set --portmap-plugin"
        ),
    }
}

/// Waits for a change in a table that may have rules of mapped ports. Cancel-safe: a notice is the monitor's until then.
async fn changed(monitor: Option<&mut RulesMonitor>) {
    let Some(monitor) = monitor else {
        return pending().await;
    };
    while !concerns_ports(&monitor.next().await) {}
    while monitor.try_next().is_some() {}
}

fn concerns_ports(notice: &RulesNotice) -> bool {
    match notice {
        RulesNotice::Lost => true,
        RulesNotice::NftChanged(TableKey { family, name }) => {
            let is_iptables = matches!(family, Family::Ip | Family::Ip6) && name == "nat";
            is_iptables || name == PORTMAP_NFT_TABLE
        }
    }
}

fn restore(plugin: &Path, state: &Path) -> Outcome {
    if !has_ports(state).map_err(|err| format!("cannot read {}: {err}", state.display()))? {
        return Ok(None);
    }
    let dir = state.to_string_lossy();
    let words = nftables::iptables::run(plugin, &["portmap", "restore", &dir], "", RESTORE_MAX);
    let words = words.map_err(|err| sentence(&err))?;
    Ok(Some(words.trim_end().to_owned()))
}

/// Whether any ports are mapped.
fn has_ports(state: &Path) -> io::Result<bool> {
    match fs::read_dir(state) {
        Ok(mut entries) => Ok(entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != LOCK_FILE))),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(family: Family, name: &str) -> RulesNotice {
        let name = name.to_owned();
        RulesNotice::NftChanged(TableKey { family, name })
    }

    #[test]
    fn only_tables_that_portmap_writes_to_are_its_concern() {
        for (family, name, concerns) in [
            (Family::Ip, "cni_hostport", true),
            (Family::Ip6, "cni_hostport", true),
            (Family::Ip, "nat", true),
            (Family::Ip6, "nat", true),
            (Family::Inet, "nat", false),
            (Family::Ip, "filter", false),
            (Family::Ip, "flannel-ipv4", false),
        ] {
            assert_eq!(
                concerns_ports(&notice(family, name)),
                concerns,
                "{family:?} {name}"
            );
        }
        assert!(concerns_ports(&RulesNotice::Lost));
    }

    #[test]
    fn without_stored_ports_no_program_is_run_and_with_some_a_missing_one_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let (plugin, state) = (temp.path().join("none"), temp.path().join("state"));
        assert_eq!(restore(&plugin, &state), Ok(None));
        fs::create_dir(&state).unwrap();
        fs::write(state.join("lock"), "").unwrap();
        assert_eq!(restore(&plugin, &state), Ok(None));
        fs::write(state.join("a"), "{}").unwrap();
        let reason = restore(&plugin, &state).unwrap_err();
        assert!(reason.contains("none"), "{reason}");
    }
}
