use std::path::PathBuf;

use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::golden;
use super::mixed::Terms;
use super::runner::{self, Config, REQUIREMENTS};
use crate::cli;
use crate::report;

/// The subcommand `interop`.
pub(crate) fn command() -> Command {
    let path = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    Command::new("interop")
        .about("Compares what programs write with what the reference was captured to write, and mixes them with others")
        .arg(cli::bin_dir_argument())
        .arg(path("captures", "DIR").value_parser(cli::directory).help("Compare with these captures instead of the ones built in"))
        .arg(path("deviations", "FILE").value_parser(cli::file).help(
            "What differs by decision and why, instead of this project's list; an empty file for the reference's own",
        ))
        .arg(
            path("configuration", "NAME")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .value_parser(golden::names())
                .help("Only these configurations"),
        )
        .arg(report::only_argument(REQUIREMENTS, "Only requirements whose ids begin so, such as GLD or PLG-07"))
        .arg(path("other-flanneld", "PATH").value_parser(cli::program).help("Another daemon, in one network with which nodes change sides"))
        .arg(path("other-plugins", "DIR").value_parser(cli::directory).help("Other plugins for the nodes of the other side"))
        .arg(path("net-conf", "FILE").value_parser(cli::net_conf).help("The mixed network's configuration, of which IPv4 only is judged [default: VXLAN with nftables]"))
        .arg(
            Arg::new("nodes")
                .long("nodes")
                .value_name("N")
                .default_value("2")
                .value_parser(RangedU64ValueParser::<u8>::new().range(2..=6))
                .help("Number of the mixed network's nodes"),
        )
        .arg(
            Arg::new("max-lost")
                .long("max-lost")
                .value_name("N")
                .default_value("100")
                .value_parser(RangedU64ValueParser::<u16>::new())
                .help("Packets that a way may lose while a node changes sides; one is sent each millisecond"),
        )
        .args(report::arguments())
}

/// Runs the subcommand; true when nothing differs but by decision.
///
/// # Errors
/// Fails when the programs are not there, a list cannot be read, or a report not be written.
pub(crate) fn run(arguments: &ArgMatches) -> Result<bool> {
    let path = |name: &str| arguments.get_one::<PathBuf>(name).cloned();
    let names = arguments.get_many::<String>("configuration");
    let report = runner::run(&Config {
        bin_dir: path("bin-dir"),
        captures: path("captures"),
        deviations: path("deviations"),
        configurations: names.into_iter().flatten().cloned().collect(),
        only: report::only(arguments),
        terms: Terms {
            flanneld: path("other-flanneld"),
            plugins: path("other-plugins"),
            net_conf: arguments.get_one::<String>("net-conf").cloned(),
            nodes: arguments.get_one("nodes").copied().unwrap_or(2),
            max_lost: arguments.get_one::<u16>("max-lost").copied().unwrap_or(0).into(),
        },
    })?;
    report::write(&report, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_and_requirements_are_lists() {
        command().debug_assert();
        let right = [
            "interop",
            "--configuration=host-gw,cni-v4",
            "--only",
            "GLD",
            "--only=PLG-01",
        ];
        assert!(command().try_get_matches_from(right).is_ok());
        for wrong in [
            &["host-gw"][..],
            &["--nodes=1"],
            &["--max-lost=-1"],
            &["--configuration=host-gw,nonsense"],
            &["--only=GLD-01", "--only=ZZZ"],
            &["--net-conf=/proc/version"],
        ] {
            let arguments = ["interop"].iter().chain(wrong);
            assert!(command().try_get_matches_from(arguments).is_err(), "{wrong:?}");
        }
    }
}
