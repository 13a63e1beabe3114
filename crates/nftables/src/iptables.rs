//! iptables through its programs, a few processes for a whole change.
//!
//! Rules that iptables must know of, because other programs read them through it or because its policies decide, are
//! written by `iptables-restore` and read by `iptables-save`. Nothing goes through a shell; every process has a limit
//! of time; the text is built and read by [`netstate::iptables`].
//!
//! Start at [`Iptables`]; [`iptables_use`] tells whether a node relies on iptables at all.

mod process;
mod usage;

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netstate::iptables::{
    IptablesFamily, IptablesTable, IptablesVariant, IptablesVersion, Restore, SaveError, parse_save,
};

pub use process::run;
pub use usage::{
    HolderError, IptablesUse, has_legacy_table, hides_legacy_tables, iptables_use, programs_holding,
};

/// Where the programs are if `PATH` doesn't tell.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// How long `iptables-restore` waits for another one to end.
const LOCK_WAIT: Duration = Duration::from_secs(20);

/// How long a process may take: the wait, and tens of thousands of rules.
const PROCESS_MAX: Duration = Duration::from_secs(60);

/// The programs of one family and variant. They work in the network namespace of the calling thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iptables {
    main: PathBuf,
    save: PathBuf,
    restore: PathBuf,
}

/// Why iptables did not do what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IptablesError {
    /// A program is not installed.
    #[error("the program {program} is neither in PATH nor in {}: install iptables", FOLDERS.join(", "))]
    NotFound {
        /// Its name.
        program: String,
    },
    /// A program cannot be started, or its input or output failed.
    #[error("cannot run {}", program.display())]
    Run {
        /// Its path.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program took too long and was ended.
    #[error("{} did not end within {} s", program.display(), limit.as_secs())]
    TimedOut {
        /// Its path.
        program: PathBuf,
        /// How long it had.
        limit: Duration,
    },
    /// A program failed.
    #[error("{} failed with {status}: {words}", program.display())]
    Failed {
        /// Its path.
        program: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote to standard error, on one line.
        words: String,
    },
    /// A program's output is not understood.
    #[error("cannot understand what {} printed", program.display())]
    Save {
        /// Its path.
        program: PathBuf,
        /// Why.
        #[source]
        source: SaveError,
    },
    /// A program's version is not understood.
    #[error("cannot find out the version of {}: it printed {text:?}", program.display())]
    Version {
        /// Its path.
        program: PathBuf,
        /// What it printed.
        text: String,
    },
}

impl Iptables {
    /// Finds the programs of a variant in `PATH` and the usual folders; of `None` those that the plain names stand for, as
    /// the administrator chose (`update-alternatives`). Where a variant has no names of its own, as before iptables 1.8,
    /// the plain ones are taken if they are of that variant.
    ///
    /// # Errors
    /// Names the program that is missing.
    pub fn find(family: IptablesFamily, variant: Option<IptablesVariant>) -> Result<Self, IptablesError> {
        let path = env::var_os("PATH");
        let (missing, variant) = match (Self::find_in(family, variant, path.as_deref()), variant) {
            (Err(missing), Some(variant)) => (missing, variant),
            (found, _) => return found,
        };
        let plain = Self::find_in(family, None, path.as_deref())?;
        let is_wanted = plain.version()?.in_nf_tables == (variant == IptablesVariant::Nft);
        if is_wanted { Ok(plain) } else { Err(missing) }
    }

    fn find_in(
        family: IptablesFamily,
        variant: Option<IptablesVariant>,
        path: Option<&OsStr>,
    ) -> Result<Self, IptablesError> {
        let base = match family {
            IptablesFamily::V4 => "iptables",
            IptablesFamily::V6 => "ip6tables",
        };
        let base = match variant {
            None => base.to_owned(),
            Some(IptablesVariant::Nft) => format!("{base}-nft"),
            Some(IptablesVariant::Legacy) => format!("{base}-legacy"),
        };
        Ok(Self {
            save: program(format!("{base}-save"), path)?,
            restore: program(format!("{base}-restore"), path)?,
            main: program(base, path)?,
        })
    }

    /// Reads a table.
    ///
    /// # Errors
    /// The program failed, or the table holds rules that iptables cannot show.
    pub fn save(&self, table: &str) -> Result<IptablesTable, IptablesError> {
        let text = run(&self.save, &["-t", table], "", PROCESS_MAX)?;
        let mut tables = parse_save(&text).map_err(|source| IptablesError::Save {
            program: self.save.clone(),
            source,
        })?;
        Ok(tables.remove(table).unwrap_or_default())
    }

    /// Makes changes; those of a table are made at once, or none of them is. It runs nothing if there are none.
    ///
    /// # Errors
    /// The program failed; the error has its words.
    pub fn restore(&self, changes: &Restore) -> Result<(), IptablesError> {
        if changes.is_empty() {
            return Ok(());
        }
        let wait = format!("--wait={}", LOCK_WAIT.as_secs());
        let arguments = ["--noflush", wait.as_str()];
        run(&self.restore, &arguments, &changes.to_string(), PROCESS_MAX)?;
        Ok(())
    }

    /// Asks for the version.
    ///
    /// # Errors
    /// The program failed, or printed something else.
    pub fn version(&self) -> Result<IptablesVersion, IptablesError> {
        let text = run(&self.main, &["--version"], "", PROCESS_MAX)?;
        text.parse().map_err(|_| IptablesError::Version {
            program: self.main.clone(),
            text,
        })
    }
}

/// The first file of a name that can be executed.
fn program(name: String, path: Option<&OsStr>) -> Result<PathBuf, IptablesError> {
    let in_path = path.into_iter().flat_map(env::split_paths);
    let folders = in_path
        .filter(|folder| folder.is_absolute())
        .chain(FOLDERS.map(PathBuf::from));
    let mut candidates = folders.map(|folder| folder.join(&name));
    candidates
        .find(|candidate| is_executable(candidate))
        .ok_or(IptablesError::NotFound { program: name })
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_path_first_and_a_missing_one_is_named() {
        let found = Iptables::find_in(IptablesFamily::V4, None, None).unwrap();
        assert_eq!(found.save, Path::new("/usr/sbin/iptables-save"));
        let relative = program("iptables".to_owned(), Some(OsStr::new("bin:/sbin"))).unwrap();
        assert_eq!(relative, Path::new("/sbin/iptables"));
        let missing = program("ip9tables".to_owned(), None).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "the program ip9tables is neither in PATH nor in /usr/sbin, /sbin, /usr/local/sbin, /usr/bin: install iptables"
        );
    }
}
