//! The subnet file: what this daemon tells the CNI plugin, and what an earlier run of it left.

use std::path::Path;

use flannel_types::{PreviousSubnets, SubnetEnv};
use statefile::Durability;

/// Everyone may read it, whoever the runtime runs as (flannel `pkg/subnet/subnet.go`).
const FILE_MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o755;

/// Writes the file atomically, and its directory if need be.
///
/// # Errors
/// The directory or the file cannot be written; a file that was there is unchanged.
pub fn write(path: &Path, env: &SubnetEnv) -> Result<(), statefile::Error> {
    if let Some(dir) = path.parent() {
        statefile::ensure_dir(dir, DIR_MODE)?;
    }
    statefile::replace(path, env.render().as_bytes(), FILE_MODE, Durability::PowerCut)
}

/// Whether the file is there and says this.
#[must_use]
pub fn says(path: &Path, env: &SubnetEnv) -> bool {
    statefile::read_text(path).is_ok_and(|text| text.is_some_and(|text| text == env.render()))
}

/// Reads what an earlier run wrote; a file that is missing or unreadable counts as none, because it is only a hint.
#[must_use]
pub fn previous(path: &Path) -> PreviousSubnets {
    match statefile::read_text(path) {
        Ok(Some(text)) => PreviousSubnets::parse(&text),
        Ok(None) => PreviousSubnets::default(),
        Err(err) => {
            tracing::warn!(%err, "the subnet file of an earlier run is not used");
            PreviousSubnets::default()
        }
    }
}
