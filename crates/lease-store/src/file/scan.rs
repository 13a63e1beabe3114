use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use flannel_types::{Lease, NetConf};
use net_types::{SubnetKey, sentence};

use super::directory::{file_error, io_error, parse_config, subnets_path};
use super::entry;
use crate::error::{ErrorClass, StoreError};

/// How often the first listing is tried until nothing changes meanwhile.
const MAX_LISTINGS: u32 = 50;
/// As many names as the kernel lists in one piece, with the directory locked: the C library asks for 32 KiB, and a
/// dual-stack name takes up to 80 bytes.
const LISTED_AT_ONCE: usize = 400;
/// Longer than the grain of a directory's times before Linux 6.13, 10 ms at most: of two changes within it, the time
/// tells only one.
const SETTLING_TIME: Duration = Duration::from_millis(20);

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
    /// Whether the leases were ever listed in full.
    listed: bool,
}

/// All that the directory holds, the expired leases included.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The leases, malformed ones with their last good value.
    pub(super) leases: BTreeMap<SubnetKey, Lease>,
    /// The files that are malformed, and whether they have a last good value.
    pub(super) malformed: Vec<Malformed>,
    /// Names that are not those of leases.
    pub(super) strangers: BTreeSet<PathBuf>,
}

impl Scan {
    fn of(subnets: &Path, files: &BTreeMap<OsString, Known>, strangers: BTreeSet<PathBuf>) -> Self {
        let mut scan = Self {
            strangers,
            ..Self::default()
        };
        for (name, file) in files {
            file.add_to(&mut scan, subnets.join(name));
        }
        scan
    }
}

/// A malformed file.
#[derive(Debug)]
pub(super) struct Malformed {
    pub(super) key: SubnetKey,
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

    /// Whether a change from here on gives another stamp.
    fn is_settled(self) -> bool {
        let (secs, nanos) = self.modified;
        let (Ok(secs), Ok(nanos)) = (u64::try_from(secs), u32::try_from(nanos)) else {
            return true;
        };
        // A time in the future is another host's clock, with which nothing can be compared.
        let modified = UNIX_EPOCH.checked_add(Duration::new(secs, nanos));
        modified
            .and_then(|time| time.elapsed().ok())
            .is_none_or(|age| age > SETTLING_TIME)
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
                defect: Some(sentence(&err)),
            },
            (_, Err(err)) => return Err(err),
        };
        self.config = Some(fresh.clone());
        Ok(fresh)
    }

    /// Reads the leases.
    pub(super) fn leases(&mut self, dir: &Path) -> Result<Scan, StoreError> {
        let mut read = BTreeMap::new();
        let scan = self.read_all(&subnets_path(dir), &mut read);
        self.leases.append(&mut read);
        self.listed |= scan.is_ok();
        scan
    }

    /// Reads all files into `files`.
    ///
    /// A lease that moves to a new name has it before the old one goes; a listing from before that has the old one
    /// only. So where a name is found to be gone the names are listed once more.
    fn read_all(
        &mut self,
        subnets: &Path,
        files: &mut BTreeMap<OsString, Known>,
    ) -> Result<Scan, StoreError> {
        let mut strangers = BTreeSet::new();
        for _ in 0..MAX_LISTINGS {
            let mut is_complete = true;
            for name in self.names(subnets)? {
                if files.contains_key(&name) {
                    continue;
                }
                let path = subnets.join(&name);
                let earlier = self.leases.remove(&name);
                let Some(key) = earlier.as_ref().map(|known| known.key).or_else(|| key(&name)) else {
                    strangers.insert(path);
                    continue;
                };
                match read(key, &path, earlier)? {
                    Some(file) => drop(files.insert(name, file)),
                    // A link that leads nowhere stays so.
                    None => is_complete &= path.is_symlink(),
                }
            }
            if is_complete {
                return Ok(Scan::of(subnets, files, strangers));
            }
        }
        Err(too_busy(subnets))
    }

    /// The names of all files, and perhaps of some that are gone.
    ///
    /// A listing in several pieces may lack names that are replaced meanwhile (measured on Linux 6.18: 1,312 of 3,000,
    /// see the storm in `tests/file_store.rs`). So every name is kept that was known, and the first listing must be one
    /// during which nothing changed.
    fn names(&self, subnets: &Path) -> Result<BTreeSet<OsString>, StoreError> {
        let mut names: BTreeSet<_> = self.leases.keys().cloned().collect();
        for _ in 0..MAX_LISTINGS {
            let before = Stamp::at(subnets);
            for entry in fs::read_dir(subnets).map_err(|err| io_error(subnets, err))? {
                let name = entry.map_err(|err| io_error(subnets, err))?.file_name();
                if !name.as_encoded_bytes().starts_with(b".") {
                    names.insert(name);
                }
            }
            // What a later listing lacks is asked for by name, and what it lacks of new names, the next one has.
            if self.listed {
                return Ok(names);
            }
            if before == Stamp::at(subnets) {
                if names.len() <= LISTED_AT_ONCE || before.is_none_or(Stamp::is_settled) {
                    return Ok(names);
                }
                thread::sleep(SETTLING_TIME);
            }
        }
        Err(too_busy(subnets))
    }
}

impl Known {
    fn add_to(&self, scan: &mut Scan, path: PathBuf) {
        if let Some(why) = self.defect.clone() {
            let last_good = if self.good.is_some() {
                LastGood::Kept
            } else {
                LastGood::Unknown
            };
            scan.malformed.push(Malformed {
                key: self.key,
                path,
                why,
                last_good,
            });
        }
        if let Some(lease) = &self.good {
            scan.leases.insert(lease.key, lease.clone());
        }
    }
}

fn too_busy(subnets: &Path) -> StoreError {
    let busy = io::Error::new(ErrorKind::ResourceBusy, "it changes faster than it can be listed");
    io_error(subnets, busy)
}

/// The key that a file's name spells; only one spelling of each counts.
fn key(name: &OsStr) -> Option<SubnetKey> {
    let name = name.to_str()?;
    name.parse::<SubnetKey>()
        .ok()
        .filter(|key| key.to_string() == name)
}

/// Reads a lease's file unless it is known; `None` if it is gone.
///
/// A file that just cannot be read now says nothing of the lease: what is known of it counts until the next look.
fn read(key: SubnetKey, path: &Path, known: Option<Known>) -> Result<Option<Known>, StoreError> {
    // The stamp is taken before the contents: a change in between is read once more.
    let (stamp, parsed) = match fs::metadata(path) {
        Ok(metadata) => {
            let stamp = Some(Stamp::of(&metadata));
            if known.as_ref().is_some_and(|known| known.stamp == stamp) {
                return Ok(known);
            }
            match statefile::read_text(path) {
                Ok(Some(text)) => (stamp, Ok(entry::parse(key, &text))),
                Ok(None) => return Ok(None),
                Err(err) => (stamp, unreadable(sentence(&err), file_error(path, err))),
            }
        }
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
        // It leads in a circle.
        Err(err) if path.is_symlink() => (None, Ok(Err(err.to_string()))),
        Err(err) => (None, unreadable(err.to_string(), io_error(path, err))),
    };
    let good = known.and_then(|known| known.good);
    Ok(Some(match parsed {
        Ok(Ok(lease)) => Known {
            key,
            stamp,
            good: Some(lease),
            defect: None,
        },
        Ok(Err(why)) => Known {
            key,
            stamp,
            good,
            defect: Some(why),
        },
        Err(_) if good.is_some() => Known {
            key,
            stamp: None,
            good,
            defect: None,
        },
        Err(err) => return Err(err),
    }))
}

/// Why a file counts as malformed that cannot be read.
///
/// # Errors
/// It does not, because that may heal by itself.
fn unreadable(why: String, err: StoreError) -> Result<Result<Lease, String>, StoreError> {
    match err.class() {
        ErrorClass::Retry => Err(err),
        ErrorClass::Fatal | ErrorClass::Lost => Ok(Err(why)),
    }
}
