use std::path::PathBuf;

use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, value_parser};

use super::cni::MIN_PODS;
use super::{BenchConfig, MAX_RUNS, MIN_RUNS, Subject};
use crate::cli;
use crate::lab::Binaries;
use crate::refused::Refused;

/// Where Debian's containernetworking-plugins are.
const PEER_DIR: &str = "/usr/lib/cni";

/// The subcommand `bench`.
pub(crate) fn command() -> Command {
    let path = |name: &'static str, value: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .value_parser(value_parser!(PathBuf))
    };
    let runs = RangedU64ValueParser::<u8>::new().range(u64::from(MIN_RUNS)..=u64::from(MAX_RUNS));
    Command::new("bench")
        .about("Measures the plugin and the daemon, paired with whom they can be compared with")
        .arg(
            Arg::new("subject")
                .value_parser(["cni", "daemon", "footprint", "scale", "kube", "net", "all"])
                .default_value("all")
                .help("What is measured"),
        )
        .arg(
            Arg::new("runs")
                .long("runs")
                .value_name("N")
                .default_value("20")
                .value_parser(runs)
                .help(format!(
                    "Samples of each of the daemon's figures, {MIN_RUNS} to {MAX_RUNS}; pods of each side, at least \
                     {MIN_PODS}; a quarter as many rounds of net"
                )),
        )
        .arg(
            Arg::new("profile")
                .long("profile")
                .action(clap::ArgAction::SetTrue)
                .help("Show what the plugin's time is spent on, instead of measuring"),
        )
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(clap::ArgAction::SetTrue)
                .help("Measure scale at up to 1,000 peers, the data plane in IPv4 at MTU 1500 only, both in few runs"),
        )
        .arg(
            Arg::new("guest")
                .long("guest")
                .action(clap::ArgAction::SetTrue)
                .conflicts_with("profile")
                .help("Measure net in a QEMU guest with Debian's kernel, which has every backend's driver"),
        )
        .arg(path("json", "FILE").value_parser(cli::new_file).help("Write the report, with every sample, as JSON too"))
        .arg(path("html", "FILE").value_parser(cli::new_file).help("Write the report as one HTML page with plots too"))
        .arg(
            Arg::new("commit")
                .long("commit")
                .value_name("ID")
                .help("What the programs were built from, for the report"),
        )
        .arg(
            path("bin-dir", "DIR")
                .value_parser(cli::directory)
                .help("Directory of flanneld and flannel [default: found near this program]"),
        )
        .arg(
            path("peer-dir", "DIR")
                .default_value(PEER_DIR)
                .help("Directory of the bridge, host-local and portmap that ours take turns with"),
        )
}

/// The directory of the plugins that ours take turns with; none where the usual one has none.
///
/// # Errors
/// Fails where one that was named has none.
fn peer_dir(arguments: &ArgMatches) -> Result<Option<PathBuf>, Refused> {
    let Some(dir) = arguments.get_one::<PathBuf>("peer-dir") else {
        return Ok(None);
    };
    let is_there = |name: &&str| dir.join(name).is_file();
    if ["bridge", "host-local", "portmap"].iter().all(is_there) {
        Ok(Some(dir.clone()))
    } else if arguments.value_source("peer-dir") == Some(ValueSource::CommandLine) {
        Err(Refused(format!(
            "{} has not all of bridge, host-local and portmap: name a directory of other plugins with --peer-dir",
            dir.display()
        )))
    } else {
        Ok(None)
    }
}

/// Whether to measure in a guest.
///
/// # Errors
/// Refuses it for what cannot be measured there.
fn in_guest(arguments: &ArgMatches, subjects: &[Subject]) -> Result<bool, Refused> {
    let wanted = arguments.get_flag("guest");
    if wanted && subjects != [Subject::Net] {
        return Err(Refused(
            "--guest is for net alone: conformance bench net --guest".to_owned(),
        ));
    }
    Ok(wanted)
}

/// Runs the subcommand.
///
/// # Errors
/// Fails when something cannot be measured.
pub(crate) fn run(arguments: &ArgMatches) -> Result<bool> {
    let path = |name: &str| arguments.get_one::<PathBuf>(name).cloned();
    let subjects = match arguments.get_one::<String>("subject").map(String::as_str) {
        Some("cni") => vec![Subject::Cni],
        Some("daemon") => vec![Subject::Daemon],
        Some("footprint") => vec![Subject::Footprint],
        Some("scale") => vec![Subject::Scale],
        Some("kube") => vec![Subject::Kube],
        Some("net") => vec![Subject::Net],
        Some(_) | None => vec![
            Subject::Cni,
            Subject::Daemon,
            Subject::Footprint,
            Subject::Scale,
            Subject::Kube,
            Subject::Net,
        ],
    };
    let in_guest = in_guest(arguments, &subjects)?;
    super::run(&BenchConfig {
        subjects,
        runs: arguments.get_one("runs").copied().unwrap_or(MIN_RUNS),
        binaries: path("bin-dir")
            .as_deref()
            .map_or_else(Binaries::find, Binaries::in_dir)?,
        peer_dir: peer_dir(arguments)?,
        json: path("json"),
        html: path("html"),
        commit: arguments.get_one("commit").cloned(),
        profile: arguments.get_flag("profile"),
        in_guest,
        quick: arguments.get_flag("quick"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_named_has_to_be_there_and_the_usual_one_need_not() {
        let empty = tempfile::tempdir().unwrap();
        let named = format!("--peer-dir={}", empty.path().display());
        let matches = command().try_get_matches_from(["bench", &named]).unwrap();
        let Refused(said) = peer_dir(&matches).unwrap_err();
        assert!(said.contains(&*empty.path().to_string_lossy()), "{said}");
        for name in ["bridge", "host-local", "portmap"] {
            std::fs::write(empty.path().join(name), "").unwrap();
        }
        assert_eq!(peer_dir(&matches), Ok(Some(empty.path().to_owned())));
        let matches = command().try_get_matches_from(["bench"]).unwrap();
        assert!(peer_dir(&matches).is_ok());
    }

    #[test]
    fn a_guest_is_for_the_data_plane_alone() {
        let matches = command().try_get_matches_from(["bench", "--guest"]).unwrap();
        assert_eq!(in_guest(&matches, &[Subject::Net]), Ok(true));
        for others in [&[Subject::Cni][..], &[Subject::Cni, Subject::Net]] {
            let Refused(said) = in_guest(&matches, others).unwrap_err();
            assert!(said.contains("net alone"), "{said}");
        }
        let matches = command().try_get_matches_from(["bench"]).unwrap();
        assert_eq!(in_guest(&matches, &[Subject::Cni]), Ok(false));
    }

    #[test]
    fn wrong_subjects_and_too_few_or_too_many_runs_are_refused() {
        for wrong in [
            &["everything"][..],
            &["--runs", "19"],
            &["--runs=201"],
            &["cni", "daemon"],
        ] {
            let arguments = ["bench"].iter().chain(wrong);
            assert!(command().try_get_matches_from(arguments).is_err(), "{wrong:?}");
        }
        assert!(
            command()
                .try_get_matches_from(["bench", "cni", "--runs", "20"])
                .is_ok()
        );
    }
}
