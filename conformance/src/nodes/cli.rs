use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::builder::RangedU64ValueParser;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};

use super::absence::Commands;
use super::cluster::{self, Cluster};
use super::guests::GuestNodes;
use super::hosts::{self, Hosts};
use super::lab::{Flaw, LabNodes};
use super::requirement;
use super::runner::{self, Config, Judged, Plan};
use crate::cli;
use crate::lab::MAX_NODES;
use crate::refused::Refused;
use crate::report;

/// The inventories whose nodes the run itself makes, and those whose nodes it finds. An argument conflicts with those that
/// do not take it; to require its own would not do, because these already exclude each other.
const MADE: [&str; 2] = ["lab", "guests"];
const FOUND: [&str; 2] = ["hosts", "kubeconfig"];

/// The subcommand `nodes`.
pub(crate) fn command() -> Command {
    let text = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    let number = |name: &'static str, default: &'static str, max: u64| {
        let number = text(name, "N").default_value(default);
        number.value_parser(RangedU64ValueParser::<u8>::new().range(1..=max))
    };
    let file = |name: &'static str| text(name, "FILE").value_parser(cli::file);
    let switch = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("nodes")
        .about("Proves a pod network: the Kubernetes network model over a lab, guests, hosts by SSH, or a cluster")
        .arg(switch("lab").help("Judge this project's programs on nodes in namespaces of this machine"))
        .arg(switch("guests").help("The same on QEMU guests with Debian's own kernel, from a build directory"))
        .arg(text("hosts", "HOSTS").help("Judge these: user@host,… or a file with one a line"))
        .arg(file("kubeconfig").help("Judge the cluster of this kubeconfig, with pods made there for it"))
        .group(
            ArgGroup::new("inventory")
                .args(["lab", "guests", "hosts", "kubeconfig"])
                .required(true),
        )
        .arg(
            number("nodes", "3", MAX_NODES.into())
                .default_value_if("guests", "true", "2")
                .conflicts_with_all(FOUND)
                .help("Number of the lab's nodes; of guests 2, if none is told"),
        )
        .arg(number("pods", "2", 100).help("Number of pods that are made on each node"))
        .arg(
            text("bin-dir", "DIR")
                .value_parser(cli::directory)
                .conflicts_with_all(FOUND)
                .help("The lab's or guests' flanneld and flannel [default: found near this program]"),
        )
        .arg(
            text("net-conf", "FILE")
                .value_parser(cli::net_conf)
                .conflicts_with_all(FOUND)
                .help("The lab's or guests' network configuration [default: VXLAN in both families]"),
        )
        .arg(
            text("flaw", "FLAW")
                .value_parser(Flaw::ALL.map(|(name, _)| name))
                .conflicts_with_all(FOUND)
                .help("Break the lab's network, to see that it is noticed"),
        )
        .arg(
            cli::store_argument()
                .conflicts_with_all(FOUND)
                .conflicts_with("guests"),
        )
        .args(hosts_arguments())
        .args(absence_arguments())
        .args(cluster_arguments())
        .arg(
            text("restart", "COMMAND")
                .conflicts_with_all(MADE)
                .help("What restarts a node's daemon, such as `systemctl restart flanneld`"),
        )
        .arg(switch("disruptive").help("Also break things on the nodes for a moment, to see them repaired"))
        .arg(file("known").help("Cases that are known to fail: lines of `ID | family | case | reason`"))
        .arg(report::only_argument(
            requirement::TABLE,
            "Only requirements whose ids begin so, such as NET or MTU-01",
        ))
        .args(report::arguments())
}

/// How hosts are reached and what is used there.
fn hosts_arguments() -> [Arg; 3] {
    let text = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    [
        text("plugin-dir", "DIR").help("Directory of the plugins on the hosts [default: /opt/cni/bin]"),
        text("conf", "PATH")
            .help("Network configuration on the hosts [default: the first of /etc/cni/net.d]"),
        text("ssh-config", "FILE")
            .value_parser(cli::file)
            .help("Configuration of ssh instead of your own"),
    ]
    .map(|argument| argument.conflicts_with_all(MADE).conflicts_with("kubeconfig"))
}

/// What stops and starts parts of the network of hosts.
fn absence_arguments() -> [Arg; 4] {
    [
        (
            "stop",
            "start",
            "What stops a host's daemon, such as `systemctl stop flanneld`",
        ),
        ("start", "stop", "What starts it again two seconds later"),
        (
            "stop-store",
            "start-store",
            "What stops the lease store, run here, such as `ssh root@etcd systemctl stop etcd`",
        ),
        (
            "start-store",
            "stop-store",
            "What starts it again some seconds later",
        ),
    ]
    .map(|(name, other, help)| {
        Arg::new(name)
            .long(name)
            .value_name("COMMAND")
            .help(help)
            .requires(other)
            .conflicts_with_all(MADE)
            .conflicts_with("kubeconfig")
    })
}

/// How a cluster is reached and what is made there.
fn cluster_arguments() -> [Arg; 4] {
    let text = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    [
        text("context", "NAME").help("Context of the kubeconfig [default: its current one]"),
        text("image", "IMAGE")
            .default_value("busybox:1.37")
            .help("What the pods in a cluster are made of: anything with sh, sleep, mktemp, head, nsenter"),
        text("ready-secs", "N")
            .default_value("180")
            .value_parser(value_parser!(u16).range(1..))
            .help("How long those pods may take to be ready"),
        Arg::new("unprivileged")
            .long("unprivileged")
            .action(ArgAction::SetTrue)
            .help("Make no privileged pods in the cluster: what takes the nodes themselves is skipped"),
    ]
    .map(|argument| argument.conflicts_with_all(MADE).conflicts_with("hosts"))
}

fn cluster_options(arguments: &ArgMatches, kubeconfig: PathBuf) -> cluster::Options {
    let text = |name: &str| arguments.get_one::<String>(name).cloned();
    cluster::Options {
        kubeconfig,
        context: text("context"),
        image: text("image").unwrap_or_default(),
        unprivileged: arguments.get_flag("unprivileged"),
        ready_limit: Duration::from_secs(arguments.get_one("ready-secs").copied().map_or(180, u16::into)),
        restart: words(arguments, "restart"),
        may_break: arguments.get_flag("disruptive"),
    }
}

/// The words of a command that was told; none where it was not.
fn words(arguments: &ArgMatches, name: &str) -> Vec<String> {
    let line = arguments.get_one::<String>(name);
    let words = line.map_or("", String::as_str).split_whitespace();
    words.map(str::to_owned).collect()
}

/// What stops something and starts it again, if both were told: the one requires the other.
fn commands(arguments: &ArgMatches, [stop, start]: [&str; 2]) -> Option<Commands> {
    let (stop, start) = (words(arguments, stop), words(arguments, start));
    (!stop.is_empty() && !start.is_empty()).then_some(Commands { stop, start })
}

/// Runs the subcommand; true when no case failed.
///
/// # Errors
/// Fails when the nodes cannot be reached, pods not be made or removed, or a report not be written.
pub(crate) fn run(arguments: &ArgMatches) -> Result<bool> {
    let text = |name: &str| arguments.get_one::<String>(name).cloned();
    let path = |name: &str| arguments.get_one::<PathBuf>(name).cloned();
    let config = Config {
        pods: arguments.get_one("pods").copied().unwrap_or(1),
        known: path("known"),
        only: report::only(arguments),
    };
    let nodes = arguments.get_one("nodes").copied().unwrap_or(1);
    let flaw = text("flaw").and_then(|name| Flaw::named(&name));
    // Before a lab is made for nothing.
    let plan = Plan::of(&config).map_err(Refused::from)?;
    let Judged { report, ended } = match (text("hosts"), path("kubeconfig")) {
        (None, Some(kubeconfig)) => {
            cluster::judge(Cluster::find(cluster_options(arguments, kubeconfig))?, plan)?
        }
        (Some(listed), _) => {
            let hosts = Hosts {
                destinations: hosts::destinations(&listed).map_err(Refused::from)?,
                ssh_config: path("ssh-config"),
                plugin_dir: text("plugin-dir"),
                conf: text("conf"),
                restart: words(arguments, "restart"),
                store: commands(arguments, ["stop-store", "start-store"]),
                daemon: commands(arguments, ["stop", "start"]),
                may_break: arguments.get_flag("disruptive"),
            };
            runner::run(&hosts, &plan, || Ok(()))?
        }
        (None, None) if arguments.get_flag("guests") => {
            if !matches!(flaw, None | Some(Flaw::Masquerade)) {
                bail!(Refused(
                    "guests can only have the flaw masquerade: try the others with --lab".to_owned()
                ));
            }
            let guests = GuestNodes::start(nodes, path("bin-dir"), text("net-conf").as_deref())?;
            runner::run(&guests, &plan, || flaw.map_or(Ok(()), |_| guests.hide()))?
        }
        (None, None) => {
            let store = cli::store(arguments);
            let lab = LabNodes::start(nodes, store, path("bin-dir"), text("net-conf").as_deref())?;
            runner::run(&lab, &plan, || flaw.map_or(Ok(()), |flaw| lab.spoil(flaw)))?
        }
    };
    match (report::write(&report, arguments), ended) {
        (good, Ok(())) => good,
        (Ok(_), Err(ended)) => Err(ended),
        (Err(unwritten), Err(ended)) => Err(anyhow!("{unwritten:#}; {ended:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_from_one_place() {
        for wrong in [
            &[][..],
            &["--lab", "--hosts=a"],
            &["--lab", "--guests"],
            &["--lab", "--nodes=0"],
            &["--lab", "--flaw=none"],
            &["--lab", "--kubeconfig=/proc/version"],
            &["--kubeconfig=/proc/version", "--ready-secs=0"],
            &["--lab", "--net-conf=/proc/version"],
            &["--hosts=a", "--stop=x"],
            &["--hosts=a", "--start-store=x"],
            &["--kubeconfig=/proc/version", "--stop=x", "--start=x"],
        ] {
            let arguments = ["nodes"].iter().chain(wrong);
            assert!(command().try_get_matches_from(arguments).is_err(), "{wrong:?}");
        }
        for right in [
            &["--lab", "--only", "NET,MTU-01"][..],
            &["--hosts=root@a,b", "--disruptive", "--stop=x y", "--start=z"],
            &["--guests", "--nodes=3", "--flaw=masquerade"],
            &["--kubeconfig=/proc/version", "--context=mine", "--unprivileged"],
        ] {
            let arguments = ["nodes"].iter().chain(right);
            assert!(command().try_get_matches_from(arguments).is_ok(), "{right:?}");
        }
        command().debug_assert();
    }

    #[test]
    fn what_one_place_takes_is_refused_for_another() {
        let conf = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(conf.path(), "{}").unwrap();
        let net_conf = format!("--net-conf={}", conf.path().display());
        let (lab, guests, hosts, cluster) = ("--lab", "--guests", "--hosts=a", "--kubeconfig=/proc/version");
        for (argument, places) in [
            ("--nodes=3", &[lab, guests][..]),
            ("--bin-dir=/proc", &[lab, guests]),
            (&net_conf, &[lab, guests]),
            ("--flaw=no-fdb", &[lab, guests]),
            ("--plugin-dir=/x", &[hosts]),
            ("--conf=/x", &[hosts]),
            ("--ssh-config=/proc/version", &[hosts]),
            ("--store=etcd", &[lab]),
            ("--context=mine", &[cluster]),
            ("--image=mine", &[cluster]),
            ("--ready-secs=180", &[cluster]),
            ("--unprivileged", &[cluster]),
            ("--restart=x", &[hosts, cluster]),
            ("--pods=2", &[lab, guests, hosts, cluster]),
        ] {
            for place in [lab, guests, hosts, cluster] {
                let read = command().try_get_matches_from(["nodes", place, argument]);
                assert_eq!(read.is_ok(), places.contains(&place), "{place} {argument}");
            }
        }
    }
}
