//! Nodes with different programs in one network, and nodes that change sides while their pods speak.

mod bed;
mod programs;
mod state;
mod step;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use super::deviation::Deviations;
use crate::lab::Binaries;
use crate::report::{Asked, Outcome, Row};
use bed::Bed;
use step::Step;

/// The name of the configuration.
pub(super) const NAME: &str = "mixed";
/// The same where another project's plugins end a pod of one's own.
pub(super) const ENDED_BY_OTHERS: &str = "mixed-ended-by-others";
/// What it is about.
pub(super) const IDS: [&str; 6] = ["MIX-01", "MIX-02", "MIX-03", "MIX-04", "MIX-05", "MIX-06"];

/// Whose programs a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Those that are judged.
    Own,
    /// The ones beside which they are judged.
    Other,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Other => "other",
        }
    }

    fn opposite(self) -> Self {
        match self {
            Self::Own => Self::Other,
            Self::Other => Self::Own,
        }
    }
}

/// What is mixed, and on which terms.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// Another daemon; the same where there is none.
    pub(super) flanneld: Option<PathBuf>,
    /// A directory of other plugins; the same where there is none.
    pub(super) plugins: Option<PathBuf>,
    /// The network's configuration, where it is not the usual one.
    pub(super) net_conf: Option<String>,
    pub(super) nodes: u8,
    /// How many packets each way may lose while a node changes sides; they are a millisecond apart.
    pub(super) max_lost: usize,
}

impl Terms {
    /// What is mixed in, for a report.
    pub(super) fn parts(&self) -> Vec<(String, String)> {
        let part = |name: &str, path: &Option<PathBuf>| {
            let path = path.as_ref()?.display().to_string();
            Some((name.to_owned(), path))
        };
        let parts = [
            part("mixed with the daemon", &self.flanneld),
            part("mixed with the plugins", &self.plugins),
        ];
        parts.into_iter().flatten().collect()
    }

    /// Looks whether the other side's plugins are all there.
    ///
    /// # Errors
    /// Names the ones that are missing.
    pub(super) fn check(&self) -> Result<()> {
        self.plugins.as_deref().map_or(Ok(()), programs::check)
    }

    /// Whether there is anything to be mixed with.
    pub(super) fn has_other(&self) -> bool {
        self.flanneld.is_some() || self.plugins.is_some()
    }
}

/// Makes a lab of nodes of both sides, and has each node change sides and come back.
pub(super) fn rows(terms: &Terms, binaries: &Binaries, deviations: &Deviations, asked: &[Asked]) -> Vec<Row> {
    let mut table = Table {
        asked,
        rows: Vec::new(),
        since: Instant::now(),
    };
    let ended = Bed::start(terms, binaries).and_then(|mut bed| {
        table.add("start", &bed.first_look()?);
        // What the streams lose by themselves.
        let nothing = bed.idle()?;
        for number in 1..=terms.nodes {
            for _ in ["there", "and back"] {
                let step = bed.change_sides(number, deviations, &nothing)?;
                let subject = format!("node{number} to {}", bed.side(number)?.name());
                table.add(&subject, &step);
            }
        }
        for number in 1..=terms.nodes {
            let step = bed.end_pods(number, deviations)?;
            table.add(&format!("node{number}'s pods"), &step);
        }
        Ok(())
    });
    if let Err(error) = ended {
        let failed = Outcome::Failed {
            expected: "daemons start and end, and pods are attached".to_owned(),
            observed: format!("{error:#}"),
        };
        let all = IDS.map(|id| (id, failed.clone(), Vec::new()));
        table.add("the run", &Step(all.into()));
    }
    table.rows
}

/// The rows of a report, as they come.
struct Table<'a> {
    asked: &'a [Asked],
    rows: Vec<Row>,
    since: Instant,
}

impl Table<'_> {
    fn add(&mut self, subject: &str, step: &Step) {
        for (id, outcome, measured) in &step.0 {
            let asked = self.asked.iter().find(|asked| asked.id == *id);
            let took = self.since.elapsed();
            self.rows.extend(asked.map(|asked| Row {
                asked: asked.clone(),
                case: asked.text,
                subject: format!("{NAME}: {subject}"),
                version: None,
                measured: measured.clone(),
                outcome: outcome.clone(),
                took,
            }));
            self.since = Instant::now();
        }
    }
}
