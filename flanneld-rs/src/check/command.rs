//! `flanneld check`: prints the findings; the exit status is 0 if nothing is wrong, 1 if something is.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};
use net_types::{counted, sentence};
use serde_json::json;

use super::read::Sources;
use super::{Finding, Severity, findings, read};
use crate::status::command::{SOCKET_HELP, SUBNET_FILE_HELP, path_arg, socket, subnet_file};
use crate::status::printable;
use crate::wireguard_key::KeyFiles;

/// Does what `flanneld check` is called for, with the arguments behind that word.
pub fn main(args: impl IntoIterator<Item = OsString>, env: &dyn Fn(&str) -> Option<OsString>) -> ExitCode {
    let program = OsString::from("flanneld check");
    let matches = match command().try_get_matches_from(std::iter::once(program).chain(args)) {
        Ok(matches) => matches,
        Err(err) => return crate::cli::usage(&err),
    };
    let sources = Sources {
        subnet_file: subnet_file(&matches, env),
        status_socket: socket(&matches, env),
        key_files: KeyFiles::named(env("WIREGUARD_KEY_FILE")),
        probes: matches.get_one::<u8>("probes").copied().map_or(0, usize::from),
    };
    let findings = match read::facts(&sources) {
        Ok(facts) => findings(&facts),
        Err(err) => return crate::cli::fail(&sentence(&err)),
    };
    let text = if matches.get_flag("json") {
        format!("{}\n", json!({ "findings": findings }))
    } else {
        render(&findings)
    };
    let printed = io::stdout().write_all(text.as_bytes());
    let wrong = findings.iter().any(|finding| finding.severity != Severity::Note);
    if wrong || printed.is_err() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn command() -> Command {
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue);
    let probes = Arg::new("probes")
        .long("probes")
        .value_name("NUMBER")
        .default_value("3");
    Command::new("flanneld check")
        .about(
            "Names what is wrong with this host as a node; exits with 1 if something is. It changes nothing.",
        )
        .arg(json.help("Print one JSON object"))
        .arg(
            probes
                .value_parser(clap::value_parser!(u8))
                .help("Ask this many peers for an answer, directly and through the tunnel"),
        )
        .arg(path_arg("status-socket", SOCKET_HELP))
        .arg(path_arg("subnet-file", SUBNET_FILE_HELP))
}

fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let severity = match finding.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
            Severity::Note => "note",
        };
        let _infallible = writeln!(
            text,
            "{severity:<8} {}\n         -> {}\n         [{}]",
            printable(&finding.sentence),
            printable(&finding.way_out),
            finding.id
        );
    }
    let count = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let _infallible = writeln!(
        text,
        "{}, {}, {}",
        counted(count(Severity::Error), "error"),
        counted(count(Severity::Warning), "warning"),
        counted(count(Severity::Note), "note")
    );
    text
}
