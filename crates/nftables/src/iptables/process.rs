use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use subprocess::{Limits, Outcome};

use super::IptablesError;

/// Runs a program to its end, but not longer than the limit, with a text on its standard input; returns its output.
///
/// # Errors
/// It could not be started, did not end in time and was killed, or failed; the error has its words.
pub fn run(
    program: &Path,
    arguments: &[&str],
    input: &str,
    limit: Duration,
) -> Result<String, IptablesError> {
    let failed = |source: io::Error| IptablesError::Run {
        program: program.to_owned(),
        source,
    };
    // Tables may hold any number of rules, and half a table is none.
    let limits = Limits {
        time: limit,
        output_bytes: usize::MAX,
    };
    let ended = match subprocess::run(Command::new(program).args(arguments), input, limits).map_err(failed)? {
        Outcome::Ended(ended) => ended,
        Outcome::TimedOut => {
            return Err(IptablesError::TimedOut {
                program: program.to_owned(),
                limit,
            });
        }
    };
    if !ended.status.success() {
        return Err(IptablesError::Failed {
            program: program.to_owned(),
            status: ended.status,
            words: one_line(&ended.stderr.text),
        });
    }
    Ok(ended.stdout.text)
}

/// A program's words on one line; iptables adds hints to its help, which are left out.
fn one_line(words: &str) -> String {
    let told = words
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Try `"));
    told.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn a_failure_has_the_programs_words_on_one_line() {
        let script = "echo one >&2; echo 'Try `this` for help' >&2; echo two >&2; exit 3";
        let failed = run(Path::new("/bin/sh"), &["-c", script], "", LIMIT).unwrap_err();
        assert_eq!(failed.to_string(), "/bin/sh failed with exit status: 3: one two");
    }

    #[test]
    fn a_process_that_does_not_end_is_ended() {
        let limit = Duration::from_millis(100);
        for script in ["exec sleep 600", "exec >&- 2>&- <&-; exec sleep 600"] {
            let late = run(Path::new("/bin/sh"), &["-c", script], "x", limit).unwrap_err();
            assert!(matches!(late, IptablesError::TimedOut { .. }), "{late:?}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let absent = run(Path::new("/nowhere/iptables"), &[], "", LIMIT).unwrap_err();
        assert_eq!(absent.to_string(), "cannot run /nowhere/iptables");
    }
}
