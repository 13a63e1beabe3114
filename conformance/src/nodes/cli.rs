use std::path::PathBuf;

use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};

use super::hosts::{self, Hosts};
use super::lab::{Flaw, LabNodes};
use super::runner::{self, Config, Judged, Plan};
use crate::lab::MAX_NODES;
use crate::report;

/// The subcommand `nodes`.
pub(crate) fn command() -> Command {
    let text = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    let number = |name: &'static str, default: &'static str, max: u64| {
        let number = text(name, "N").default_value(default);
        number.value_parser(RangedU64ValueParser::<u8>::new().range(1..=max))
    };
    let switch = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("nodes")
        .about("Proves a pod network: the Kubernetes network model over a lab, or over hosts by SSH")
        .arg(switch("lab").help("Judge this project's programs on nodes in namespaces of this machine"))
        .arg(text("hosts", "HOSTS").help("Judge these: user@host,… or a file with one a line"))
        .group(ArgGroup::new("inventory").args(["lab", "hosts"]).required(true))
        .arg(number("nodes", "3", MAX_NODES.into()).help("Number of the lab's nodes"))
        .arg(number("pods", "2", 100).help("Number of pods that are made on each node"))
        .arg(
            text("bin-dir", "DIR")
                .value_parser(value_parser!(PathBuf))
                .help("The lab's flanneld and flannel [default: found near this program]"),
        )
        .arg(
            text("net-conf", "FILE")
                .value_parser(value_parser!(PathBuf))
                .help("The lab's network configuration [default: VXLAN in both families]"),
        )
        .arg(
            text("flaw", "FLAW")
                .value_parser(Flaw::NAMES)
                .help("Break the lab's network, to see that it is noticed"),
        )
        .arg(text("plugin-dir", "DIR").help("Directory of the plugins on the hosts [default: /opt/cni/bin]"))
        .arg(
            text("conf", "PATH")
                .help("Network configuration on the hosts [default: the first of /etc/cni/net.d]"),
        )
        .arg(
            text("ssh-config", "FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Configuration of ssh instead of your own"),
        )
        .arg(
            text("restart", "COMMAND")
                .help("What restarts a host's daemon, such as `systemctl restart flanneld`"),
        )
        .arg(switch("disruptive").help("Also break things on the hosts for a moment, to see them repaired"))
        .arg(
            text("known", "FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Cases that are known to fail: lines of `ID | family | case | reason`"),
        )
        .arg(
            text("only", "ID")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .help("Only requirements whose ids begin so, such as NET or MTU-01"),
        )
        .args(report::arguments())
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
    // Before a lab is made for nothing.
    let plan = Plan::of(&config)?;
    let Judged { report, ended } = match text("hosts") {
        Some(listed) => {
            let hosts = Hosts {
                destinations: hosts::destinations(&listed)?,
                ssh_config: path("ssh-config"),
                plugin_dir: text("plugin-dir"),
                conf: text("conf"),
                restart: text("restart")
                    .unwrap_or_default()
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect(),
                may_break: arguments.get_flag("disruptive"),
            };
            runner::run(&hosts, &plan, || Ok(()))?
        }
        None => {
            let nodes = arguments.get_one("nodes").copied().unwrap_or(1);
            let lab = LabNodes::start(nodes, path("bin-dir"), path("net-conf").as_deref())?;
            let flaw = text("flaw").and_then(|name| Flaw::named(&name));
            runner::run(&lab, &plan, || flaw.map_or(Ok(()), |flaw| lab.spoil(flaw)))?
        }
    };
    let good = report::write(&report, arguments)?;
    ended?;
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_from_one_place() {
        for wrong in [
            &[][..],
            &["--lab", "--hosts=a"],
            &["--lab", "--nodes=0"],
            &["--lab", "--flaw=none"],
        ] {
            let arguments = ["nodes"].iter().chain(wrong);
            assert!(command().try_get_matches_from(arguments).is_err(), "{wrong:?}");
        }
        for right in [
            &["--lab", "--only", "NET,MTU-01"][..],
            &["--hosts=root@a,b", "--disruptive"],
        ] {
            let arguments = ["nodes"].iter().chain(right);
            assert!(command().try_get_matches_from(arguments).is_ok(), "{right:?}");
        }
        command().debug_assert();
    }
}
