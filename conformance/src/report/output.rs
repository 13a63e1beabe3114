use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches};

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
