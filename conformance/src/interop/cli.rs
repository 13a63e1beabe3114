use std::path::PathBuf;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::runner::{self, Config};
use crate::cli;
use crate::report;

/// The subcommand `interop`.
pub(crate) fn command() -> Command {
    let path = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    let several = |name: &'static str, value: &'static str| {
        let several = Arg::new(name).long(name).value_name(value);
        several.action(ArgAction::Append).value_delimiter(',')
    };
    Command::new("interop")
        .about("Compares what programs write with what the reference was captured to write")
        .arg(cli::bin_dir_argument())
        .arg(path("captures", "DIR").value_parser(cli::directory).help("Compare with these captures instead of the ones built in"))
        .arg(path("deviations", "FILE").value_parser(cli::file).help(
            "What differs by decision and why, instead of this project's list; an empty file for the reference's own",
        ))
        .arg(several("configuration", "NAME").help("Only these configurations, such as host-gw or cni-v4"))
        .arg(several("only", "ID").help("Only requirements whose ids begin so, such as GLD or PLG-07"))
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
        assert!(command().try_get_matches_from(["interop", "host-gw"]).is_err());
    }
}
