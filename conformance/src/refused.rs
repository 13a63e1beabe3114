//! What cannot serve, which is told before anything is built or run.

use std::error::Error;
use std::fmt::{self, Display, Formatter};

/// An input or a machine that cannot serve, in words. The program ends with the status of a wrong command line, as that of
/// a failed case would say that something was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) String);

impl Refused {
    /// What tells that requirements were chosen which no case is about.
    pub(crate) fn without_case(chosen: &[String]) -> Self {
        Self(format!(
            "nothing to run: no case is about {}; why, the end of a report with other cases tells",
            chosen.join(" or ")
        ))
    }
}

impl Display for Refused {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Refused {}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self(format!("{error:#}"))
    }
}
