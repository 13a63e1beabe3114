//! `--replay FILE --dry-run`: what the engine does on the inputs of a record, without any kernel.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use netstate::Scope;

use crate::reconciler::{Goal, Input, Reconciler, Work};
use crate::record::HEADER;
use crate::record::line::{self, LineError};

/// Why a record cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It cannot be read.
    #[error("cannot read the record {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{0} is not a record of this version of flanneld")]
    NotARecord(PathBuf),
    /// A line is not understood.
    #[error("line {number} of the record {path} is not understood")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        number: usize,
        /// Why.
        #[source]
        source: LineError,
    },
    /// Nobody reads what is printed.
    #[error("cannot print the plans")]
    Print(#[source] io::Error),
}

/// Replays a record and prints what the engine asks for, each with the seconds since the daemon's start.
///
/// # Errors
/// The file is not a record, or the plans cannot be printed. A last line that was cut off is left out.
pub fn replay(path: &Path, out: &mut dyn Write) -> Result<(), ReplayError> {
    let failed = |source| ReplayError::Read {
        path: path.to_owned(),
        source,
    };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut header = String::new();
    // What is no record may have no end.
    let limit = HEADER.len().saturating_add(1) as u64;
    match reader.by_ref().take(limit).read_to_string(&mut header) {
        Ok(_) if header.strip_suffix('\n') == Some(HEADER) => {}
        Err(err) if err.kind() != io::ErrorKind::InvalidData => return Err(failed(err)),
        Ok(_) | Err(_) => return Err(ReplayError::NotARecord(path.to_owned())),
    }
    // The header was the first line.
    let lines = reader.lines().zip(2..).map(|(line, number)| (number, line));
    let mut engine = Reconciler::default();
    let mut lines = lines.peekable();
    while let Some((number, text)) = lines.next() {
        let text = text.map_err(failed)?;
        let input = match line::parse(&text) {
            Ok(input) => input,
            Err(_) if lines.peek().is_none() => break,
            Err(source) => {
                return Err(ReplayError::Line {
                    path: path.to_owned(),
                    number,
                    source,
                });
            }
        };
        if let Some((at, work)) = give(&mut engine, input) {
            print(out, at, &work).map_err(ReplayError::Print)?;
        }
    }
    Ok(())
}

/// Gives an input to the engine, and returns what it asks for.
fn give(engine: &mut Reconciler, input: Input) -> Option<(Duration, Work)> {
    match input {
        Input::Goal(desired, prune) => engine.take_goal(Goal {
            desired,
            scope: Scope::default(),
            prune,
        }),
        Input::Change { gone, wanted } => engine.change_goal(&gone, *wanted),
        Input::LookAgain => engine.look_again(),
        Input::LookAt(spots) => engine.look_at(spots),
        Input::Observed(at, observation) => engine.observed(at, observation),
        Input::Applied(results) => engine.applied(results),
        Input::Next(at) => return engine.next_work(at).map(|work| (at, work)),
    }
    None
}

fn print(out: &mut dyn Write, at: Duration, work: &Work) -> io::Result<()> {
    let secs = at.as_secs_f64();
    match work {
        Work::Observe(_) => writeln!(out, "{secs:.6} observe everything"),
        Work::ObserveAt(_, spots) => writeln!(out, "{secs:.6} observe at {} spots", spots.len()),
        Work::Apply(ops) => {
            writeln!(out, "{secs:.6} apply {} changes", ops.len())?;
            ops.iter().try_for_each(|op| writeln!(out, "  {op}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use netstate::{Prune, State};

    use super::*;

    #[test]
    fn a_record_replays_the_plans_and_a_line_that_was_cut_off_is_left_out() {
        let peer: State = "neigh flannel.1 10.244.84.0 mac 72:e5:67:00:44:8c"
            .parse()
            .unwrap();
        let at = Duration::from_millis(1500);
        let inputs = [
            Input::Goal(peer.clone(), Prune::Remove),
            Input::Next(at),
            Input::Observed(at, Ok(State::default())),
            Input::Next(at),
            Input::Applied(vec![Ok(())]),
            Input::Next(at),
            Input::Observed(at, Ok(peer)),
            Input::Next(at),
        ];
        let lines = inputs.map(|input| line::print(&input).unwrap() + "\n").concat();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("record");
        std::fs::write(&file, format!("{HEADER}\n{lines}{{\"observed\":{{\"at\":17")).unwrap();

        let mut out = Vec::new();
        replay(&file, &mut out).unwrap();

        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1.500000 observe everything\n\
             1.500000 apply 1 changes\n\
             \x20 set neigh flannel.1 10.244.84.0 mac 72:e5:67:00:44:8c\n\
             1.500000 observe at 1 spots\n"
        );
    }

    #[test]
    fn what_is_no_record_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("record");
        let told = |text: &str| {
            std::fs::write(&file, text).unwrap();
            replay(&file, &mut Vec::new()).unwrap_err().to_string()
        };
        assert!(told("").contains("is not a record"));
        assert!(told("{\"flanneld_record\":9}\n").contains("is not a record"));
        assert!(told(&format!("{HEADER}\nnonsense\n\"look_again\"\n")).starts_with("line 2 of the record"));
        let endless = replay(Path::new("/dev/zero"), &mut Vec::new()).unwrap_err();
        assert!(endless.to_string().contains("is not a record"));
    }
}
