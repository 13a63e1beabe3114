//! What is asked of a pod network, as a table: `requirements.txt`.

use anyhow::Result;

use crate::report::{self, Asked};

/// The table itself.
pub(super) const TABLE: &str = include_str!("requirements.txt");

/// All requirements, in the order of the table.
///
/// # Errors
/// Fails when the table is not well-formed, which a test excludes.
pub(super) fn all() -> Result<Vec<Asked>> {
    report::requirements(TABLE)
}
