//! Locks on network namespaces.
//!
//! They are on files that only root can open. A namespace's own file would need none of these, but every process in the
//! namespace may open that, lock it, and so hold up every pod.

use std::fs::File;
use std::io;
use std::path::Path;

use netlink::Netns;
use statefile::Error;

/// Where the files are: gone with the namespaces when the machine stops.
pub(crate) const DIR: &str = "/run/cni/flannel";
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// How many files there are of a kind; namespaces that share one wait for each other.
const SLOTS: u64 = 256;

/// What a lock guards. One call may hold a lock of each kind, so they share no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guarded {
    /// A container's side of its attachments.
    Container,
    /// The life of the namespace's bridges.
    Bridges,
}

/// Opens the file whose lock stands for a namespace, not locked yet; it ends with the process.
pub(crate) fn lock_file(netns: &Netns, guarded: Guarded) -> Result<File, Error> {
    let dir = Path::new(DIR);
    let kind = match guarded {
        Guarded::Container => "container",
        Guarded::Bridges => "bridges",
    };
    let slot = netns.inode() % SLOTS;
    let path = dir.join(format!("lock-{kind}-{slot}"));
    match statefile::lock_file(&path, FILE_MODE) {
        Err(error) if error.io().is_some_and(|e| e.kind() == io::ErrorKind::NotFound) => {
            statefile::ensure_dir(dir, DIR_MODE)?;
            statefile::lock_file(&path, FILE_MODE)
        }
        opened => opened,
    }
}
