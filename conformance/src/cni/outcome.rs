//! How a case ends, and the report of all.

use std::path::PathBuf;
use std::time::Duration;

use super::requirement::Requirement;

/// Why a case ends before its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// The plugin did something else than it should.
    Differs { expected: String, observed: String },
    /// The case cannot be run, for this reason.
    Skip(String),
    /// The runner itself failed.
    Broken(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

/// What a step of a case yields.
pub(super) type Checked<T> = Result<T, Stop>;

/// Ends the case because of a difference.
///
/// # Errors
/// Always.
pub(super) fn differs<T>(expected: impl Into<String>, observed: impl Into<String>) -> Checked<T> {
    Err(Stop::Differs {
        expected: expected.into(),
        observed: observed.into(),
    })
}

/// Ends the case unless a condition holds.
///
/// # Errors
/// Fails with what was expected and seen.
pub(super) fn expect(holds: bool, expected: impl Into<String>, observed: impl Into<String>) -> Checked<()> {
    if holds {
        Ok(())
    } else {
        differs(expected, observed)
    }
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed {
        expected: String,
        observed: String,
    },
    /// It failed as the list of known differences says.
    Known {
        reason: String,
        expected: String,
        observed: String,
    },
    /// It passed although the list of known differences says that it fails.
    Stale {
        reason: String,
    },
    Skipped {
        reason: String,
    },
    /// The runner failed, not the plugin.
    Broken {
        reason: String,
    },
}

impl Outcome {
    pub(super) fn of(ended: Checked<()>) -> Self {
        match ended {
            Ok(()) => Self::Passed,
            Err(Stop::Differs { expected, observed }) => Self::Failed { expected, observed },
            Err(Stop::Skip(reason)) => Self::Skipped { reason },
            Err(Stop::Broken(error)) => Self::Broken {
                reason: format!("{error:#}"),
            },
        }
    }

    /// Takes into account what the list of known differences says of the case.
    pub(super) fn known(self, listed: Option<&str>) -> Self {
        let Some(reason) = listed.map(str::to_owned) else {
            return self;
        };
        match self {
            Self::Failed { expected, observed } => Self::Known {
                reason,
                expected,
                observed,
            },
            Self::Passed => Self::Stale { reason },
            other
            @ (Self::Known { .. } | Self::Stale { .. } | Self::Skipped { .. } | Self::Broken { .. }) => other,
        }
    }

    /// The outcome in one word.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Passed => "pass",
            Self::Failed { .. } => "FAIL",
            Self::Known { .. } => "known",
            Self::Stale { .. } => "STALE",
            Self::Skipped { .. } => "skip",
            Self::Broken { .. } => "ERROR",
        }
    }

    /// Whether the whole run counts as failed because of it.
    pub(super) fn is_bad(&self) -> bool {
        matches!(
            self,
            Self::Failed { .. } | Self::Stale { .. } | Self::Broken { .. }
        )
    }

    /// What there is to say, as pairs of a heading and a text.
    pub(super) fn details(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Passed => Vec::new(),
            Self::Failed { expected, observed } => vec![("expected", expected), ("observed", observed)],
            Self::Known {
                reason,
                expected,
                observed,
            } => {
                vec![("known", reason), ("expected", expected), ("observed", observed)]
            }
            Self::Stale { reason } => vec![("passes, but is listed as known", reason)],
            Self::Skipped { reason } => vec![("skipped", reason)],
            Self::Broken { reason } => vec![("the runner failed", reason)],
        }
    }
}

/// One case on one plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) requirement: Requirement,
    pub(super) case: &'static str,
    /// The type of the plugin, or `list`.
    pub(super) plugin: String,
    /// The version of the configuration that it was called with; empty where it was not.
    pub(super) version: String,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

/// All that a run found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) plugin_dir: PathBuf,
    /// The network's name in the configuration.
    pub(super) network: String,
    /// Each program that was called, with the versions that it says it supports.
    pub(super) plugins: Vec<(String, Vec<String>)>,
    pub(super) rows: Vec<Row>,
    /// Requirements without a case, each with the reason.
    pub(super) not_covered: Vec<(Requirement, &'static str)>,
    pub(super) took: Duration,
}

/// How many cases ended in which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) known: usize,
    pub(super) stale: usize,
    pub(super) skipped: usize,
    pub(super) broken: usize,
}

impl Report {
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for row in &self.rows {
            match row.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::Failed { .. } => counts.failed += 1,
                Outcome::Known { .. } => counts.known += 1,
                Outcome::Stale { .. } => counts.stale += 1,
                Outcome::Skipped { .. } => counts.skipped += 1,
                Outcome::Broken { .. } => counts.broken += 1,
            }
        }
        counts
    }

    /// Whether every case passed, was skipped, or failed as it is known to.
    pub(super) fn is_good(&self) -> bool {
        !self.rows.iter().any(|row| row.outcome.is_bad())
    }

    /// The numbers in one line.
    pub(super) fn summary(&self) -> String {
        let Counts {
            passed,
            failed,
            known,
            stale,
            skipped,
            broken,
        } = self.counts();
        let mut parts = vec![format!("{passed} passed"), format!("{failed} failed")];
        let others = [
            (known, "known differences"),
            (stale, "listed as known but passed"),
            (skipped, "skipped"),
            (broken, "errors of the runner"),
        ];
        parts.extend(
            others
                .iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{count} {what}")),
        );
        format!("{} in {:.1} s", parts.join(", "), self.took.as_secs_f64())
    }
}
