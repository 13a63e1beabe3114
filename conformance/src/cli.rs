//! The command line of `conformance`.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::RangedU64ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::bench;
use crate::cni;
use crate::demo::{self, DemoConfig};
use crate::interop;
use crate::lab::{MAX_NODES, Store};
use crate::nodes;
use crate::refused::Refused;
use crate::report;
use crate::soak;

/// Exit status for a wrong command line, and for what cannot serve (as of clap, and of most of Unix).
const USAGE: u8 = 2;

/// Runs the program and returns its exit status: 0 when everything held, 1 when something failed, 2 for a wrong command
/// line and for what cannot serve.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // Nothing is left to tell when even the terminal is gone.
            error.print().ok();
            return if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let chosen = matches.subcommand();
    let checked = chosen.map_or(Ok(()), |(_, arguments)| report::check_files(arguments));
    let result = checked.and_then(|()| match chosen {
        Some(("bench", arguments)) => bench::cli::run(arguments),
        Some(("cni", arguments)) => cni::cli::run(arguments),
        Some(("interop", arguments)) => interop::cli::run(arguments),
        Some(("agent", arguments)) => nodes::run_agent(arguments),
        Some(("nodes", arguments)) => nodes::cli::run(arguments),
        Some(("soak", arguments)) => soak::cli::run(arguments),
        Some(("demo", arguments)) => demo::run(&demo_config(arguments)),
        Some(_) | None => Ok(false),
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            writeln!(std::io::stderr(), "conformance: {error:#}").ok();
            if error.is::<Refused>() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn command() -> Command {
    Command::new("conformance")
        .about("Proves any CNI plugin and any node network")
        .subcommand_required(true)
        .subcommand(bench::cli::command())
        .subcommand(cni::cli::command())
        .subcommand(interop::cli::command())
        .subcommand(nodes::cli::command())
        .subcommand(nodes::agent_command())
        .subcommand(soak::cli::command())
        .subcommand(demo_command())
}

fn demo_command() -> Command {
    let number = |name: &'static str, default: &'static str, max: u64| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .default_value(default)
            .value_parser(RangedU64ValueParser::<u8>::new().range(1..=max))
    };
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let path = |name: &'static str, value: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .value_parser(value_parser!(PathBuf))
    };
    Command::new("demo")
        .about("Makes a lab of nodes and pods in namespaces of this machine, and shows that they all reach each other")
        .arg(number("nodes", "3", MAX_NODES.into()).help("Number of nodes"))
        .arg(number("pods", "2", 250).help("Number of pods on each node"))
        .args(lab_arguments())
        .arg(switch("keep", "Leave the lab up, and print how to enter its nodes and pods"))
        .arg(switch("down", "Only remove a lab that was kept"))
        .arg(path("record", "FILE").default_value("/run/flannel-demo").help("Where a kept lab is noted"))
}

/// What a lab runs, and where its leases are.
pub(crate) fn lab_arguments() -> [Arg; 2] {
    [store_argument(), bin_dir_argument()]
}

/// Where the leases of a lab are.
pub(crate) fn store_argument() -> Arg {
    Arg::new("store")
        .long("store")
        .value_name("STORE")
        .value_parser(["directory", "etcd"])
        .default_value("directory")
        .help("Where the lab's daemons keep their leases")
}

/// Where the programs are.
pub(crate) fn bin_dir_argument() -> Arg {
    Arg::new("bin-dir")
        .long("bin-dir")
        .value_name("DIR")
        .value_parser(directory)
        .help("Directory of flanneld and flannel [default: found near this program]")
}

/// A directory on the command line, which must be there.
///
/// # Errors
/// Says what is there instead.
pub(crate) fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_dir() {
        Ok(path)
    } else if path.exists() {
        Err("it is no directory".to_owned())
    } else {
        Err("there is no such directory".to_owned())
    }
}

/// A file on the command line that is to be read, which must be there.
///
/// # Errors
/// Says what is there instead.
pub(crate) fn file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_dir() {
        Err("it is a directory".to_owned())
    } else if path.exists() {
        Ok(path)
    } else {
        Err("there is no such file".to_owned())
    }
}

/// A file on the command line that is to be written: whether it can be is better known before a long run than after it.
///
/// # Errors
/// Says what is in the way.
pub(crate) fn new_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    if path.is_dir() {
        Err("it is a directory".to_owned())
    } else if dir.is_none_or(Path::is_dir) {
        try_to_write(&path).map_err(|err| format!("it cannot be written: {err}"))?;
        Ok(path)
    } else {
        Err("its directory is not there".to_owned())
    }
}

/// Opens a file for writing, which changes nothing in it; one that is not there is made and removed. What else has a name,
/// such as a pipe or a link to nothing, is left alone.
fn try_to_write(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => {
            OpenOptions::new().write(true).create_new(true).open(path)?;
            fs::remove_file(path)
        }
        Err(err) => Err(err),
        Ok(_) if path.is_file() => OpenOptions::new().write(true).open(path).map(drop),
        Ok(_) => Ok(()),
    }
}

/// A file with a network configuration on the command line: its text, because what is a pipe can be read but once.
///
/// # Errors
/// Says what it is instead of a JSON object.
pub(crate) fn net_conf(text: &str) -> Result<String, String> {
    let conf = fs::read_to_string(file(text)?).map_err(|err| format!("it cannot be read: {err}"))?;
    let members: serde_json::Result<serde_json::Map<_, _>> = serde_json::from_str(&conf);
    members.map_err(|err| format!("it is no network configuration, which is a JSON object: {err}"))?;
    Ok(conf)
}

/// A program on the command line, which must be there.
///
/// # Errors
/// Says what is there instead.
pub(crate) fn program(text: &str) -> Result<PathBuf, String> {
    let path = file(text)?;
    let metadata = path.metadata().map_err(|err| err.to_string())?;
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err("it is no program: nobody may run it".to_owned());
    }
    Ok(path)
}

/// The store that [`lab_arguments`] chose.
pub(crate) fn store(arguments: &ArgMatches) -> Store {
    match arguments.get_one::<String>("store").map(String::as_str) {
        Some("etcd") => Store::Etcd,
        Some(_) | None => Store::Directory,
    }
}

fn demo_config(arguments: &ArgMatches) -> DemoConfig {
    DemoConfig {
        nodes: arguments.get_one("nodes").copied().unwrap_or(1),
        pods: arguments.get_one("pods").copied().unwrap_or(1),
        store: store(arguments),
        keep: arguments.get_flag("keep"),
        down: arguments.get_flag("down"),
        bin_dir: arguments.get_one("bin-dir").cloned(),
        record: arguments
            .get_one::<PathBuf>("record")
            .cloned()
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_path_that_cannot_serve_is_a_wrong_command_line() {
        assert_eq!(directory("/"), Ok("/".into()));
        assert_eq!(directory("/proc/version"), Err("it is no directory".to_owned()));
        assert_eq!(directory("/absent"), Err("there is no such directory".to_owned()));
        assert_eq!(file("/proc/version"), Ok("/proc/version".into()));
        assert_eq!(file("/"), Err("it is a directory".to_owned()));
        assert_eq!(file("/absent"), Err("there is no such file".to_owned()));
        for wrong in [
            "cni --plugin-dir=/absent",
            "cni --plugin-dir=/ --html=/absent/r",
            "demo --bin-dir=/absent",
        ] {
            let arguments = ["conformance"].into_iter().chain(wrong.split(' '));
            let error = command().try_get_matches_from(arguments).unwrap_err();
            assert!(
                error.use_stderr() && error.to_string().contains("/absent"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_known_before_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let of = |path: &Path| new_file(path.to_str().unwrap());
        let (absent, there) = (dir.path().join("absent"), dir.path().join("there"));
        fs::write(&there, "kept").unwrap();
        assert_eq!(of(&absent), Ok(absent.clone()));
        assert_eq!(of(&there), Ok(there.clone()));
        assert!(!absent.exists() && fs::read_to_string(&there).unwrap() == "kept");
        assert_eq!(new_file("/dev/null"), Ok("/dev/null".into()));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert_eq!(of(&link), Ok(link.clone()));
        assert!(link.is_symlink());
        for (wrong, words) in [
            (dir.path().to_owned(), "it is a directory"),
            (absent.join("r.html"), "its directory is not there"),
            (there.join("r.html"), "its directory is not there"),
            // No privilege makes files there.
            ("/proc/r.html".into(), "it cannot be written: No such file"),
            (
                dir.path().join("x".repeat(256)),
                "it cannot be written: File name too long",
            ),
        ] {
            let said = of(&wrong).unwrap_err();
            assert!(said.starts_with(words), "{said}");
        }
    }

    #[test]
    fn counts_out_of_range_and_unknown_flags_are_refused() {
        for wrong in [
            &["--nodes=0"][..],
            &["--nodes", "241"],
            &["--pods", "x"],
            &["--store=nowhere"],
            &["--frobnicate"],
            &["more"],
        ] {
            let arguments = ["conformance", "demo"].iter().chain(wrong);
            assert!(command().try_get_matches_from(arguments).is_err(), "{wrong:?}");
        }
    }
}
