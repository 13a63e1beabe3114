use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use statefile::{Action, Durability, Lock};

use super::program::{Content, Program};
use super::record::Record;

/// How long another installation in the same directory may take.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Our own folder in the directory, and what is in it.
const OWN: &str = ".flannel";
const LOCK: &str = "lock";
const RECORD: &str = "installed.json";
const FRESH: &str = "new";
const ASIDE: &str = "before";

const DIR_MODE: u32 = 0o755;
const PROGRAM_MODE: u32 = 0o755;
const RECORD_MODE: u32 = 0o644;
/// Who may only read the directory cannot lock it, and so hold up others.
const LOCK_MODE: u32 = 0o600;

/// How often our own folder is made anew because a removal took it away before it was locked.
const ATTEMPTS: u32 = 100;

/// A directory with plugins, locked: one installation or removal at a time.
pub(super) struct Folder {
    dir: PathBuf,
    _lock: Lock,
}

/// Why files cannot be placed or removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    #[error("cannot read the program {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    File(#[from] statefile::Error),
    #[error("another installation in {} is still at work; try again", .0.display())]
    Busy(PathBuf),
    #[error("{} is not a file; remove it", .0.display())]
    NotAFile(PathBuf),
    #[error("{} cannot be read as a record of what is installed; remove it, and what is installed counts as foreign", .0.display())]
    Record(PathBuf),
}

/// What was placed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Placed {
    /// Files that were placed or replaced.
    pub(super) files: Vec<String>,
    /// Files of others that these replaced.
    pub(super) aside: Vec<String>,
    /// What became of the plugins that the program does not have any more.
    pub(super) given_up: Removed,
}

/// What a removal did, by names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Removed {
    /// Ours, gone.
    pub(super) removed: Vec<String>,
    /// What was there before, back in place.
    pub(super) restored: Vec<String>,
    /// Somebody else's by now.
    pub(super) foreign: Vec<String>,
    /// Of these, what was there before and is still kept aside.
    pub(super) kept: Vec<String>,
}

/// What is at a plugin's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Ours,
    Foreign,
}

impl Folder {
    /// Opens and locks a directory, which is made if it is absent.
    pub(super) fn open_or_create(dir: &Path) -> Result<Self, FolderError> {
        for _ in 0..ATTEMPTS {
            statefile::ensure_dir(&dir.join(OWN), DIR_MODE)?;
            if let Some(folder) = Self::locked(dir)? {
                return Ok(folder);
            }
        }
        Err(FolderError::Busy(dir.to_owned()))
    }

    /// Opens and locks a directory; `None` if it has no folder of ours, which is not made to find that out.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, FolderError> {
        let own = dir.join(OWN);
        match fs::metadata(&own) {
            Ok(_) => Self::locked(dir),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(Action::Open, &own)(e)),
        }
    }

    /// Locks the directory; `None` if our folder is gone.
    fn locked(dir: &Path) -> Result<Option<Self>, FolderError> {
        match Lock::acquire(&dir.join(OWN).join(LOCK), LOCK_MODE, LOCK_TIMEOUT) {
            Ok(lock) => Ok(Some(Self {
                dir: dir.to_owned(),
                _lock: lock,
            })),
            Err(statefile::Error::LockTimeout { .. }) => Err(FolderError::Busy(dir.to_owned())),
            Err(e) if e.io().is_some_and(|io| io.kind() == ErrorKind::NotFound) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Ends the work: where nothing is installed, our folder goes, unless something is still kept in it.
    pub(super) fn close(self) -> Result<(), FolderError> {
        let record = self.own(RECORD);
        if record.try_exists().map_err(failed(Action::Read, &record))? {
            return Ok(());
        }
        remove_empty(&self.own(ASIDE))?;
        // Others may come from here on, so that what is left to be done harms nobody.
        statefile::remove(&self.own(LOCK), Durability::Crash)?;
        remove_empty(&self.dir.join(OWN))
    }

    /// Where others' files are kept.
    pub(super) fn aside_dir(&self) -> PathBuf {
        self.own(ASIDE)
    }

    /// What is installed.
    pub(super) fn record(&self) -> Result<Record, FolderError> {
        let path = self.own(RECORD);
        match statefile::read_text(&path)? {
            None => Ok(Record::default()),
            Some(text) => Record::parse(&text).ok_or(FolderError::Record(path)),
        }
    }

    /// Whether anything of what a record names is still there.
    pub(super) fn holds(&self, record: &Record) -> Result<bool, FolderError> {
        for name in &record.names {
            if self.find(name, &record.contents)? == Found::Ours {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Brings the program under all names into the directory. Until the last new file is prepared and flushed, nothing
    /// in the directory changes.
    pub(super) fn place(
        &self,
        program: &Program,
        names: &[&str],
        record: Record,
        version: &str,
    ) -> Result<Placed, FolderError> {
        let mut missing = Vec::new();
        for name in names {
            if !self.is_in_place(name, program)? {
                missing.push((*name, self.find(name, &record.contents)?));
            }
        }
        let mut done = Record {
            version: version.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            contents: vec![program.content.clone()],
        };
        done.names.sort();
        self.discard_fresh()?;
        if missing.is_empty() && record == done {
            return Ok(Placed::default());
        }
        if let Err(error) = self.prepare(program, &missing, &record, &done) {
            // What cannot be removed is taken away by the next run; the first failure is the one to tell.
            drop(self.discard_fresh());
            return Err(error);
        }
        let mut placed = Placed::default();
        for (name, found) in missing {
            if found == Found::Foreign {
                self.put_aside(name)?;
                placed.aside.push(name.to_owned());
            }
            let path = self.dir.join(name);
            fs::rename(self.fresh(name), &path).map_err(failed(Action::Rename, &path))?;
            placed.files.push(name.to_owned());
        }
        for name in record.names.iter().filter(|name| !done.names.contains(name)) {
            self.give_up(name, &record, &mut placed.given_up)?;
        }
        sync(&self.dir)?;
        self.write_record(&done)?;
        self.discard_fresh()?;
        Ok(placed)
    }

    /// Removes what is ours, and puts back what was there before.
    pub(super) fn remove(&self) -> Result<Removed, FolderError> {
        let record = self.record()?;
        let mut removed = Removed::default();
        for name in &record.names {
            self.give_up(name, &record, &mut removed)?;
        }
        sync(&self.dir)?;
        statefile::remove(&self.own(RECORD), Durability::PowerCut)?;
        self.discard_fresh()?;
        Ok(removed)
    }

    /// Removes a plugin if it is ours, and puts back what was there before.
    fn give_up(&self, name: &str, record: &Record, removed: &mut Removed) -> Result<(), FolderError> {
        let (path, aside) = (self.dir.join(name), self.own(ASIDE).join(name));
        let is_kept = aside.symlink_metadata().is_ok();
        match (self.find(name, &record.contents)?, is_kept) {
            (Found::Ours | Found::Nothing, true) => {
                fs::rename(&aside, &path).map_err(failed(Action::Rename, &path))?;
                removed.restored.push(name.to_owned());
            }
            (Found::Ours, false) => {
                fs::remove_file(&path).map_err(failed(Action::Remove, &path))?;
                removed.removed.push(name.to_owned());
            }
            (Found::Nothing, false) => {}
            (Found::Foreign, is_kept) => {
                removed.foreign.push(name.to_owned());
                removed.kept.extend(is_kept.then(|| name.to_owned()));
            }
        }
        Ok(())
    }

    /// Prepares what is missing, and notes that it may be met from now on.
    fn prepare(
        &self,
        program: &Program,
        missing: &[(&str, Found)],
        record: &Record,
        done: &Record,
    ) -> Result<(), FolderError> {
        for dir in [self.own(FRESH), self.own(ASIDE)] {
            statefile::ensure_dir(&dir, DIR_MODE)?;
        }
        for (name, _) in missing {
            statefile::replace(
                &self.fresh(name),
                &program.bytes,
                PROGRAM_MODE,
                Durability::PowerCut,
            )?;
        }
        let mut under_way = done.clone();
        let given_up = record.names.iter().filter(|name| !done.names.contains(name));
        under_way.names.extend(given_up.cloned());
        let old = record.contents.iter().filter(|old| !done.contents.contains(old));
        under_way.contents.extend(old.cloned());
        self.write_record(&under_way)
    }

    /// Keeps a file of somebody else's: it has two names until ours takes the first. An older one that was kept gives
    /// way: whoever replaced our file did not want that one either.
    fn put_aside(&self, name: &str) -> Result<(), FolderError> {
        let (path, aside) = (self.dir.join(name), self.own(ASIDE).join(name));
        let unfinished = self.fresh(&format!("{name}.aside"));
        let kept = fs::hard_link(&path, &unfinished).or_else(|_| copy(&path, &unfinished));
        kept.map_err(failed(Action::Create, &unfinished))?;
        fs::rename(&unfinished, &aside).map_err(failed(Action::Rename, &aside))?;
        // Renaming one of two names of a file to the other does nothing.
        match fs::remove_file(&unfinished) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(Action::Remove, &unfinished)(e)),
            Ok(()) | Err(_) => {}
        }
        sync(&self.own(ASIDE))
    }

    /// Whether a plugin's file is the program already, and can be executed by all.
    fn is_in_place(&self, name: &str, program: &Program) -> Result<bool, FolderError> {
        let path = self.dir.join(name);
        let Some(metadata) = plugin_metadata(&path)? else {
            return Ok(false);
        };
        let alike = metadata.is_file()
            && metadata.len() == program.content.len_bytes
            && metadata.permissions().mode() & 0o7777 == PROGRAM_MODE;
        Ok(alike && fs::read(&path).map_err(failed(Action::Read, &path))? == program.bytes)
    }

    fn find(&self, name: &str, contents: &[Content]) -> Result<Found, FolderError> {
        let path = self.dir.join(name);
        let Some(metadata) = plugin_metadata(&path)? else {
            return Ok(Found::Nothing);
        };
        let may_be_ours = contents.iter().any(|content| content.len_bytes == metadata.len());
        if !metadata.is_file() || !may_be_ours {
            return Ok(Found::Foreign);
        }
        let bytes = fs::read(&path).map_err(failed(Action::Read, &path))?;
        Ok(if contents.contains(&Content::of(&bytes)) {
            Found::Ours
        } else {
            Found::Foreign
        })
    }

    fn write_record(&self, record: &Record) -> Result<(), FolderError> {
        let text = record.to_text();
        let written = statefile::replace(
            &self.own(RECORD),
            text.as_bytes(),
            RECORD_MODE,
            Durability::PowerCut,
        );
        Ok(written?)
    }

    /// Removes what this or a killed run prepared and did not place.
    fn discard_fresh(&self) -> Result<(), FolderError> {
        let fresh = self.own(FRESH);
        match fs::remove_dir_all(&fresh) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(failed(Action::Remove, &fresh)(e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn own(&self, name: &str) -> PathBuf {
        self.dir.join(OWN).join(name)
    }

    fn fresh(&self, name: &str) -> PathBuf {
        self.own(FRESH).join(name)
    }
}

/// Removes a directory of ours unless something is in it.
fn remove_empty(dir: &Path) -> Result<(), FolderError> {
    match fs::remove_dir(dir) {
        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
            Err(failed(Action::Remove, dir)(e))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync(dir: &Path) -> Result<(), FolderError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(failed(Action::Sync, dir))
}

/// What is at a plugin's path, a symbolic link not followed.
fn plugin_metadata(path: &Path) -> Result<Option<fs::Metadata>, FolderError> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() || metadata.is_symlink() => Ok(Some(metadata)),
        Ok(_) => Err(FolderError::NotAFile(path.to_owned())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(Action::Read, path)(e)),
    }
}

/// Copies a file, with its mode, or a symbolic link as one.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if from.symlink_metadata()?.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

fn failed(action: Action, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let wrap = statefile::Error::of(action, path);
    move |source| FolderError::File(wrap(source))
}
