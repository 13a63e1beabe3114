use std::path::PathBuf;

use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use clap::{Arg, ArgMatches, Command};

use super::requirement;
use super::runner::{self, Config};
use crate::cli;
use crate::report;

/// The subcommand `cni`.
pub(crate) fn command() -> Command {
    let path = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    Command::new("cni")
        .about("Proves CNI plugins: runs what the specification asks against the programs of a directory")
        .arg(
            path("plugin-dir", "DIR")
                .required(true)
                .value_parser(cli::directory)
                .help("Directory of the plugins' programs"),
        )
        .arg(path("conf", "FILE").value_parser(cli::file).help(
            "Network configuration (list) that they are called with [default: one for flannel or bridge, with portmap]",
        ))
        .arg(path("known", "FILE").value_parser(cli::file).help("Cases that are known to fail: lines of `ID | plugin | case | reason`"))
        .arg(report::only_argument(requirement::TABLE, "Only requirements whose ids begin so, such as DEL or ENV-05"))
        .arg(
            Arg::new("jobs")
                .long("jobs")
                .value_name("N")
                .value_parser(RangedU64ValueParser::<u8>::new().range(1..=64))
                .help("How many cases at a time [default: three a processor]"),
        )
        .args(report::arguments())
}

/// Runs the subcommand; true when no case failed that is not known to.
///
/// # Errors
/// Fails when the cases cannot be run, or a report cannot be written.
pub(crate) fn run(arguments: &ArgMatches) -> Result<bool> {
    let path = |name: &str| arguments.get_one::<PathBuf>(name).cloned();
    let report = runner::run(&Config {
        plugin_dir: path("plugin-dir").unwrap_or_default(),
        conf: path("conf"),
        known: path("known"),
        only: report::only(arguments),
        jobs: arguments.get_one("jobs").copied(),
    })?;
    report::write(&report, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_needed_and_numbers_have_limits() {
        for wrong in [&[][..], &["--plugin-dir=/", "--jobs=0"], &["--plugin-dir=/", "y"]] {
            let arguments = ["cni"].iter().chain(wrong);
            assert!(command().try_get_matches_from(arguments).is_err(), "{wrong:?}");
        }
        let right = ["cni", "--plugin-dir", "/", "--only", "DEL,ENV-01", "--only=GC"];
        assert!(command().try_get_matches_from(right).is_ok());
    }
}
