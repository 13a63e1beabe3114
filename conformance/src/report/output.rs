use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches};

use super::requirement::{ids, in_words};
use super::{Report, render};
use crate::cli;

/// The arguments by which the further forms are asked for.
pub(crate) fn arguments() -> [Arg; 3] {
    let file = |name: &'static str, help: &'static str| {
        let file = Arg::new(name).long(name).value_name("FILE");
        file.value_parser(cli::new_file).help(help)
    };
    [
        file("json", "Write the report as JSON too"),
        file("junit", "Write the report as JUnit XML too"),
        file("html", "Write the report as one HTML page too"),
    ]
}

/// The argument by which requirements of a table are chosen.
pub(crate) fn only_argument(table: &'static str, help: &'static str) -> Arg {
    Arg::new("only")
        .long("only")
        .value_name("ID")
        .action(ArgAction::Append)
        .value_delimiter(',')
        .value_parser(move |text: &str| begins_an_id(text, table))
        .help(help)
}

/// What requirements of a table are chosen by.
///
/// # Errors
/// Tells which there are, where none begins so.
fn begins_an_id(text: &str, table: &'static str) -> Result<String, String> {
    if text.is_empty() {
        return Err("an id is missing".to_owned());
    }
    if !ids(table).any(|id| id.starts_with(text)) {
        return Err(format!(
            "no requirement has an id that begins so: there are {}",
            in_words(ids(table))
        ));
    }
    Ok(text.to_owned())
}

/// The beginnings of ids that `--only` of a suite names; none where all cases run.
pub(crate) fn only(arguments: &ArgMatches) -> Vec<String> {
    arguments
        .get_many("only")
        .into_iter()
        .flatten()
        .cloned()
        .collect()
}

/// Writes the forms that were asked for, and the table to standard output; true when the report is good.
///
/// # Errors
/// Fails when a form cannot be written.
pub(crate) fn write(report: &Report, arguments: &ArgMatches) -> Result<bool> {
    let files = [
        ("json", render::json(report)?),
        ("junit", render::junit(report)),
        ("html", render::html(report)),
    ];
    let mut written = Vec::new();
    for (name, text) in files {
        if let Some(file) = arguments.get_one::<PathBuf>(name) {
            fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
            written.push(file.display().to_string());
        }
    }
    let mut shown = render::table(report);
    if !written.is_empty() {
        shown += &format!("report written to {}\n", written.join(", "));
    }
    let mut out = std::io::stdout().lock();
    out.write_all(shown.as_bytes()).context("writing the report")?;
    Ok(report.is_good())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_that_is_unknown_is_refused_with_those_that_there_are() {
        const TABLE: &str = "# x\nNET-01 | M | a | b\nNET-02 | M | a | b\nCON-01 | M | a | b\n";
        for known in ["N", "NET", "NET-02", "CON-0"] {
            assert_eq!(begins_an_id(known, TABLE), Ok(known.to_owned()));
        }
        for unknown in ["ZZZ", "NET-03", "net", " NET-01", "NET-011"] {
            let refused = begins_an_id(unknown, TABLE).unwrap_err();
            assert!(
                refused.ends_with("there are NET-01 to NET-02, CON-01"),
                "{refused}"
            );
        }
        assert!(begins_an_id("", TABLE).is_err());
    }
}
