use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flannel_types::{Lease, NetConf};
use net_types::SubnetKey;

use super::directory::{io_error, parse_config, subnets_path};
use super::entry;
use crate::error::{StoreError, chain};

/// What tells one state of a file or directory from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Reads the directory again and again; of files that did not change, what was read before serves.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    config: Option<KnownConfig>,
    leases: BTreeMap<OsString, Known>,
}

/// All that the directory holds, the expired leases included.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The leases, malformed ones with their last good value.
    pub(super) leases: BTreeMap<SubnetKey, Lease>,
    /// The files that are malformed, and whether they have a last good value.
    pub(super) malformed: Vec<Malformed>,
    /// Names that are not those of leases.
    pub(super) strangers: Vec<PathBuf>,
}

/// A malformed file.
#[derive(Debug)]
pub(super) struct Malformed {
    pub(super) path: PathBuf,
    pub(super) why: String,
    pub(super) last_good: LastGood,
}

/// Whether an earlier state of a malformed file is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastGood {
    /// It is, and counts.
    Kept,
    /// It is not; the entry is missing.
    Unknown,
}

/// The configuration that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownConfig {
    pub(super) conf: NetConf,
    /// What is wrong with the file, if this is its last good state.
    pub(super) defect: Option<String>,
}

/// A lease's file as it was last read.
#[derive(Debug)]
struct Known {
    key: SubnetKey,
    /// `None` if the file must be read again whatever happens.
    stamp: Option<Stamp>,
    good: Option<Lease>,
    defect: Option<String>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The stamp of a path; `None` if it cannot be had.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

impl Malformed {
    pub(super) fn error(&self) -> StoreError {
        StoreError::Malformed {
            place: self.path.display().to_string(),
            why: self.why.clone(),
        }
    }
}

impl Scanner {
    /// Reads the configuration; when it turns bad, the last good one counts, and the defect is told.
    pub(super) fn config(&mut self, dir: &Path) -> Result<KnownConfig, StoreError> {
        let fresh = match (&self.config, parse_config(dir)) {
            (_, Ok(conf)) => KnownConfig { conf, defect: None },
            (Some(known), Err(err @ StoreError::BadConfig { .. })) => KnownConfig {
                conf: known.conf.clone(),
                defect: Some(chain(&err)),
            },
            (_, Err(err)) => return Err(err),
        };
        self.config = Some(fresh.clone());
        Ok(fresh)
    }

    /// Reads the leases.
    pub(super) fn leases(&mut self, dir: &Path) -> Result<Scan, StoreError> {
        let subnets = subnets_path(dir);
        let failed = |err: io::Error| io_error(&subnets, err);
        let mut scan = Scan::default();
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&subnets).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let earlier = self.leases.remove(&name);
            let Some(key) = earlier.as_ref().map(|known| known.key).or_else(|| key(&name)) else {
                scan.strangers.push(entry.path());
                continue;
            };
            if let Some(file) = read(key, &entry, earlier) {
                file.add_to(&mut scan, &entry);
                known.insert(name, file);
            }
        }
        self.leases = known;
        Ok(scan)
    }
}

impl Known {
    fn add_to(&self, scan: &mut Scan, entry: &DirEntry) {
        if let Some(why) = self.defect.clone() {
            let last_good = if self.good.is_some() {
                LastGood::Kept
            } else {
                LastGood::Unknown
            };
            scan.malformed.push(Malformed {
                path: entry.path(),
                why,
                last_good,
            });
        }
        if let Some(lease) = &self.good {
            scan.leases.insert(lease.key, lease.clone());
        }
    }
}

/// The key that a file's name spells; only one spelling of each counts.
fn key(name: &OsStr) -> Option<SubnetKey> {
    let name = name.to_str()?;
    name.parse::<SubnetKey>()
        .ok()
        .filter(|key| key.to_string() == name)
}

/// Reads a lease's file unless it is known; `None` if it is gone.
fn read(key: SubnetKey, entry: &DirEntry, known: Option<Known>) -> Option<Known> {
    // The stamp is taken before the contents: a change in between is read once more. That of a symbolic link tells
    // nothing of the file, which is therefore read each time.
    let (stamp, parsed) = match entry.metadata() {
        Ok(metadata) => {
            let stamp = (!metadata.is_symlink()).then(|| Stamp::of(&metadata));
            if stamp.is_some() && known.as_ref().is_some_and(|known| known.stamp == stamp) {
                return known;
            }
            let text = statefile::read_text(&entry.path())
                .map_err(|err| chain(&err))
                .transpose()?;
            (stamp, text.and_then(|text| entry::parse(key, &text)))
        }
        Err(err) if err.kind() == ErrorKind::NotFound => return None,
        Err(err) => (None, Err(err.to_string())),
    };
    Some(match parsed {
        Ok(lease) => Known {
            key,
            stamp,
            good: Some(lease),
            defect: None,
        },
        Err(why) => Known {
            key,
            stamp,
            good: known.and_then(|known| known.good),
            defect: Some(why),
        },
    })
}
