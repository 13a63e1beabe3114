//! The command line of `flanneld cleanup`, and its edges: files, sockets, the kernel.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use net_types::sentence;
use netlink::RealKernel;
use netstate::ObjectKey;
use serde::de::IgnoredAny;

use super::{Mode, Outcome, Row, clean, device_scope, render};
use crate::cni_conf;
use crate::commands::{CommandError, Records};
use crate::config;
use crate::desired::rules_scope;
use crate::rules_kernel::RulesKernel;
use crate::status::command::{SOCKET_HELP, SUBNET_FILE_HELP, path, path_arg, socket, subnet_file};

/// With what each line of a subnet file begins (flannel `pkg/subnet/subnet.go`).
const SUBNET_FILE_PREFIX: &str = "FLANNEL_";

/// What the last known state of a cluster is told by.
const CACHE_MEMBERS: [&str; 4] = ["version", "prefix", "node", "leases"];
/// Ten times what five thousand nodes take.
const MAX_CACHE_BYTES: u64 = 32 << 20;

const DETAILS: &str = "\
Removed are, of this daemon and of upstream's: the subnet file, the status socket and the last known state of a
Kubernetes cluster, with --cni-conf-dir also the file 10-flannel.conflist there if it runs the plugin flannel (one that
was there before stays as 10-flannel.conflist.kept, for the uninstallation), the rules in nf_tables and in both
variants of iptables, the devices flannel.N, flannel-v6.N, flannel-wg, flannel-wg-v6 and flannel.ipip, and the
routes of the backend host-gw that this daemon made (protocol 102). Never touched are the bridge and the interfaces of
pods, the state of CNI plugins, the private key of WireGuard, leases, and what commands of the backend extension made.

Pods that run on lose their way to other nodes. Stop the daemon first, on Kubernetes by deleting its DaemonSet: one that
answers on its status socket makes this command refuse, but upstream's has none, and would put back what was removed.

The exit status is 0 when nothing is left, and 1 when something could not be removed.";

/// Does what `flanneld cleanup` is called for, with the arguments behind that word.
pub fn main(args: impl IntoIterator<Item = OsString>, env: &dyn Fn(&str) -> Option<OsString>) -> ExitCode {
    let program = OsString::from("flanneld cleanup");
    let matches = match command().try_get_matches_from(std::iter::once(program).chain(args)) {
        Ok(matches) => matches,
        Err(err) => return crate::cli::usage(&err),
    };
    let (subnet_file, socket) = (subnet_file(&matches, env), socket(&matches, env));
    let mode = if matches.get_flag("dry-run") {
        Mode::DryRun
    } else {
        Mode::Remove
    };
    if mode == Mode::Remove && UnixStream::connect(&socket).is_ok() {
        let path = socket.display();
        return crate::cli::fail(&format!("flanneld runs, it answers on {path}: stop it first"));
    }
    // First what lets further pods start.
    let mut rows: Vec<_> = [
        file(&subnet_file, is_subnet_file, mode),
        file(&socket, is_socket, mode),
        file(&kube_cache(&matches, env), is_kube_cache, mode),
    ]
    .into_iter()
    .chain(matches.get_one::<PathBuf>("cni-conf-dir").map(|dir| {
        let conflist = dir.join(cni_conf::FILE_NAME);
        file(&conflist, cni_conf::runs_flannel, mode)
    }))
    .chain(
        matches
            .get_one::<PathBuf>("cni-conf-dir")
            .map(|dir| kept_conflist(dir)),
    )
    .flatten()
    .collect();
    rows.extend(commanded(&subnet_file, mode));
    let mut rules = RulesKernel::open();
    rows.extend(clean(&mut rules, &rules_scope(), mode));
    rows.extend(rules.unseen().map(|(key, words)| {
        let table = ObjectKey::Iptables(key.clone());
        Row::new(
            Outcome::Failed,
            format!("{table}: it cannot be looked at: {words}"),
        )
    }));
    rows.extend(devices(mode));
    let printed = io::stdout().write_all(render(&rows).as_bytes());
    if printed.is_err() || rows.iter().any(|row| row.outcome == Outcome::Failed) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn command() -> Command {
    let dry_run = Arg::new("dry-run").long("dry-run").action(ArgAction::SetTrue);
    Command::new("flanneld cleanup")
        .about("Removes from this host what flannel's daemon made on it, and lists it.")
        .after_help(DETAILS)
        .arg(dry_run.help("Only list what would be removed"))
        .arg(path_arg("subnet-file", SUBNET_FILE_HELP))
        .arg(path_arg("status-socket", SOCKET_HELP))
        .arg(path_arg(
            "kube-cache-file",
            "Last known state of a Kubernetes cluster, if the daemon was given a file for it",
        ))
        .arg(
            path_arg(
                "cni-conf-dir",
                "Directory of the runtime's network configuration, if flannel's is to go too",
            )
            .value_name("DIR"),
        )
}

/// What the administrator's commands made, which only they can undo. What they were run for stays known: a daemon that is
/// started later looks after it again.
fn commanded(subnet_file: &Path, mode: Mode) -> Vec<Row> {
    let kept = |lease| {
        let what = format!("what SubnetAddCommand made for {lease}: undo it by hand");
        Row::new(Outcome::Kept, what)
    };
    let rows = || {
        let records = Records::beside(subnet_file)?;
        let leases = records.leases()?;
        if mode == Mode::Remove {
            records.distrust()?;
        }
        Ok(leases.into_iter().map(kept).collect())
    };
    rows().unwrap_or_else(|err: CommandError| vec![Row::new(Outcome::Failed, sentence(&err))])
}

fn devices(mode: Mode) -> Vec<Row> {
    let opened = RealKernel::open().and_then(|mut kernel| {
        let inventory = kernel.inventory()?;
        Ok((kernel, inventory))
    });
    match opened {
        Ok((mut kernel, inventory)) => {
            let scope = device_scope(inventory.links.iter().map(|link| &link.name));
            clean(&mut kernel, &scope, mode)
        }
        Err(err) => vec![super::unreadable(&err)],
    }
}

/// Removes a file that is what its name says; one that is not there has no row.
fn file(path: &Path, is_own: fn(&Path) -> io::Result<bool>, mode: Mode) -> Option<Row> {
    let what = format!("file {}", path.display());
    let row = |outcome, reason: &str| Some(Row::new(outcome, format!("{what}{reason}")));
    match is_own(path) {
        Err(err) if is_absent(&err) => None,
        Err(err) => row(Outcome::Failed, &format!(": {}", sentence(&err))),
        Ok(false) => row(Outcome::Kept, ": it is not what flanneld writes"),
        Ok(true) if mode == Mode::DryRun => row(Outcome::WouldRemove, ""),
        Ok(true) => match fs::remove_file(path) {
            Ok(()) => row(Outcome::Removed, ""),
            Err(err) if is_absent(&err) => None,
            Err(err) => row(Outcome::Failed, &format!(": {}", sentence(&err))),
        },
    }
}

fn is_absent(err: &io::Error) -> bool {
    err.kind() == io::ErrorKind::NotFound
}

fn is_subnet_file(path: &Path) -> io::Result<bool> {
    let text = statefile::read_text(path).map_err(io::Error::other)?;
    let text = text.ok_or(io::ErrorKind::NotFound)?;
    let mut lines = text.lines().filter(|line| !line.trim().is_empty()).peekable();
    Ok(lines.peek().is_some() && lines.all(|line| line.starts_with(SUBNET_FILE_PREFIX)))
}

fn kube_cache(matches: &ArgMatches, env: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    path(matches, env, "kube-cache-file", "FLANNELD_KUBE_CACHE_FILE")
        .unwrap_or_else(|| config::DEFAULT_KUBE_CACHE.into())
}

/// The configuration that was there before flannel's, which no runtime reads under this name.
fn kept_conflist(dir: &Path) -> Option<Row> {
    let path = dir.join(format!("{}.kept", cni_conf::FILE_NAME));
    let what = || {
        let path = path.display();
        format!("file {path}: it was there before; what takes flannel off this host puts it back")
    };
    path.exists().then(|| Row::new(Outcome::Kept, what()))
}

fn is_kube_cache(path: &Path) -> io::Result<bool> {
    let text = statefile::read_text_within(path, MAX_CACHE_BYTES).map_err(io::Error::other)?;
    let text = text.ok_or(io::ErrorKind::NotFound)?;
    let members: BTreeMap<String, IgnoredAny> = serde_json::from_str(&text).unwrap_or_default();
    Ok(CACHE_MEMBERS.iter().all(|name| members.contains_key(*name)))
}

fn is_socket(path: &Path) -> io::Result<bool> {
    Ok(fs::symlink_metadata(path)?.file_type().is_socket())
}
