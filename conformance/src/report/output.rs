use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches};

use super::requirement::{ids, in_words};
use super::{Report, render};
use crate::cli;
use crate::refused::Refused;

/// The further forms of a report, by the arguments that name their files.
const FORMS: [&str; 3] = ["json", "junit", "html"];

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

/// Whether each form has a file of its own, of whatever subcommand that writes some.
///
/// # Errors
/// Refuses two forms that one file would have to take.
pub(crate) fn check_files(arguments: &ArgMatches) -> Result<()> {
    let file = |name| {
        let path = arguments.try_get_one::<PathBuf>(name).ok().flatten()?;
        Some((name, path))
    };
    let files: Vec<_> = FORMS.into_iter().filter_map(file).collect();
    for (index, (name, path)) in files.iter().enumerate() {
        if let Some((other, _)) = files
            .iter()
            .skip(index + 1)
            .find(|(_, other)| is_same(path, other))
        {
            bail!(Refused(format!(
                "--{name} and --{other} both name {}: give each a file of its own",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Whether two paths lead to one file, be it there or not.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = fs::canonicalize(dir.unwrap_or(Path::new("."))).ok()?;
        Some(dir.join(path.file_name()?))
    };
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        (Err(_), Err(_)) => place(one) == place(other),
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

/// What became of the files of a report.
#[derive(Debug, Default)]
pub(crate) struct Written {
    files: Vec<String>,
    failures: Vec<String>,
}

impl Written {
    /// Writes each text into its file, whatever becomes of the others; what nobody asked for has no file.
    pub(crate) fn of<'a>(forms: impl IntoIterator<Item = (Option<&'a PathBuf>, String)>) -> Self {
        let mut written = Self::default();
        for (file, text) in forms {
            let Some(file) = file else { continue };
            match fs::write(file, text) {
                Ok(()) => written.files.push(file.display().to_string()),
                Err(err) => written.failures.push(format!("{}: {err}", file.display())),
            }
        }
        written
    }

    /// The line that ends what is shown.
    fn told(&self) -> String {
        if self.files.is_empty() {
            return String::new();
        }
        format!("report written to {}\n", self.files.join(", "))
    }

    /// Shows the report's text on standard output.
    ///
    /// # Errors
    /// Tells all that could not be written, that text included.
    pub(crate) fn show(mut self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if let Err(err) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            self.failures.push(format!("standard output: {err}"));
        }
        ensure!(
            self.failures.is_empty(),
            "the report could not be written to {}",
            self.failures.join("; nor to ")
        );
        Ok(())
    }
}

/// Writes the forms that were asked for, and the table to standard output; true when the report is good.
///
/// # Errors
/// Fails when a form cannot be written; the others are then written all the same.
pub(crate) fn write(report: &Report, arguments: &ArgMatches) -> Result<bool> {
    let [json, junit, html] = FORMS.map(|name| arguments.get_one::<PathBuf>(name));
    let written = Written::of([
        (json, render::json(report)?),
        (junit, render::junit(report)),
        (html, render::html(report)),
    ]);
    let shown = render::table(report) + &written.told();
    written.show(&shown)?;
    Ok(report.is_good())
}

#[cfg(test)]
mod tests {
    use clap::Command;

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

    #[test]
    fn one_file_for_two_forms_is_refused_however_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let name = |name: &str| dir.path().join(name);
        fs::write(name("there"), "").unwrap();
        fs::hard_link(name("there"), name("hard")).unwrap();
        std::os::unix::fs::symlink("there", name("soft")).unwrap();
        std::os::unix::fs::symlink(".", name("around")).unwrap();
        for (one, other, same) in [
            ("there", "there", true),
            ("there", "hard", true),
            ("there", "soft", true),
            ("absent", "absent", true),
            ("absent", "around/absent", true),
            ("there", "absent", false),
            ("absent", "absent2", false),
        ] {
            let arguments = Command::new("x").args(arguments()).get_matches_from([
                "x".into(),
                "--json".into(),
                name(one).into_os_string(),
                "--html".into(),
                name(other).into_os_string(),
            ]);
            let checked = check_files(&arguments);
            assert_eq!(checked.is_err(), same, "{one} {other}");
            if let Err(error) = checked {
                assert!(
                    error.is::<Refused>() && error.to_string().contains("--json and --html"),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn each_form_is_written_whatever_becomes_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["absent/a", "b", "absent/c"].map(|name| dir.path().join(name));
        let written = Written::of(paths.iter().map(|path| (Some(path), "text".to_owned())));
        assert_eq!(fs::read_to_string(&paths[1]).unwrap(), "text");
        assert_eq!(
            written.told(),
            format!("report written to {}\n", paths[1].display())
        );
        let said = written.show("").unwrap_err().to_string();
        for failed in [&paths[0], &paths[2]] {
            assert!(
                said.contains(&format!("{}: No such file", failed.display())),
                "{said}"
            );
        }
        assert!(Written::of([(None, String::new())]).show("").is_ok());
    }
}
