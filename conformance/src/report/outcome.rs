//! How a case ends.

/// Why a case ends before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// What is judged did something else than it should.
    Differs { expected: String, observed: String },
    /// The case cannot be run, for this reason.
    Skip(String),
    /// The runner itself failed.
    Broken(anyhow::Error),
}

/// An error that is none: what is asked for is not there, for this reason, and the case is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CannotRun(pub(crate) String);

impl std::fmt::Display for CannotRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotRun {}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast_ref() {
            Some(CannotRun(why)) => Self::Skip(why.clone()),
            None => Self::Broken(error),
        }
    }
}

/// What a step of a case yields.
pub(crate) type Checked<T> = Result<T, Stop>;

/// Ends the case because of a difference.
///
/// # Errors
/// Always.
pub(crate) fn differs<T>(expected: impl Into<String>, observed: impl Into<String>) -> Checked<T> {
    Err(Stop::Differs {
        expected: expected.into(),
        observed: observed.into(),
    })
}

/// Ends the case unless a condition holds.
///
/// # Errors
/// Fails with what was expected and seen.
pub(crate) fn expect(holds: bool, expected: impl Into<String>, observed: impl Into<String>) -> Checked<()> {
    if holds {
        Ok(())
    } else {
        differs(expected, observed)
    }
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
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
    /// The runner failed, not what it judges.
    Broken {
        reason: String,
    },
}

impl Outcome {
    pub(crate) fn of(ended: Checked<()>) -> Self {
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
    pub(crate) fn known(self, listed: Option<&str>) -> Self {
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
    pub(crate) fn name(&self) -> &'static str {
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
    pub(crate) fn is_bad(&self) -> bool {
        matches!(
            self,
            Self::Failed { .. } | Self::Stale { .. } | Self::Broken { .. }
        )
    }

    /// What there is to say, as pairs of a heading and a text.
    pub(crate) fn details(&self) -> Vec<(&'static str, &str)> {
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
