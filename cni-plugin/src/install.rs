//! Putting the plugins where runtimes look for them, and taking them away again.
//!
//! Each plugin is a file of its own, a whole copy of this program: runtimes choose by the file's name. No links,
//! because others overwrite files in that directory in place: upstream's manifest runs `cp -f /flannel
//! /opt/cni/bin/flannel`, and through a symbolic or hard link this would turn every plugin of the node into upstream's
//! flannel, which would then delegate to itself. A copy also survives a bind mount of the single file, `cp -a` and
//! archives. All copies together are about as large as the reference's plugins (2.6 MB each), and share their blocks
//! where the file system can.
//!
//! A pod that starts meanwhile finds every plugin, the old one or the new one, whole: files are prepared aside, flushed,
//! and renamed into place, so nobody executes a file that is open for writing. What they replace is kept in
//! `.flannel/before` in the same directory, which no runtime searches, and a removal puts it back. A record of what was
//! installed tells our files from others', by their contents; it names the new contents before the first file is
//! placed, so that whatever a crash leaves is recognised and the next run completes it.

mod folder;
mod program;
mod record;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use net_types::sentence;

use crate::plugins::Builtin;
use crate::run::Output;

use folder::{Folder, FolderError, Removed};
use program::Program;

/// Where Kubernetes' runtimes look for plugins.
const DEFAULT_DIR: &str = "/opt/cni/bin";

/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    dir: PathBuf,
    task: Task,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Install,
    /// Also in place of a newer version.
    InstallAnyVersion,
    Uninstall,
}

/// Why nothing, or not everything, was done.
#[derive(Debug, thiserror::Error)]
enum InstallError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("{} holds flannel {installed}, which is newer than this {VERSION}; --force replaces it", dir.display())]
    Newer { dir: PathBuf, installed: String },
}

impl Install {
    /// Reads the arguments after `install`; `None` if one is not understood.
    pub(crate) fn parse(args: &[String]) -> Option<Self> {
        let mut dir = None;
        let mut task = Task::Install;
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            match arg.as_str() {
                "--dir" => dir = Some(rest.next()?.as_str()),
                "--force" if task != Task::Uninstall => task = Task::InstallAnyVersion,
                "--uninstall" if task == Task::Install => task = Task::Uninstall,
                other => dir = Some(other.strip_prefix("--dir=")?),
            }
        }
        let dir = dir.unwrap_or(DEFAULT_DIR);
        (!dir.is_empty()).then(|| Self {
            dir: PathBuf::from(dir),
            task,
        })
    }

    /// Does it, with the program at a path as what is installed, and tells how it went.
    #[must_use]
    pub fn run(&self, program: &Path) -> Output {
        let done = match self.task {
            Task::Install | Task::InstallAnyVersion => self.install(program),
            Task::Uninstall => self.uninstall(),
        };
        match done {
            Ok(text) => Output {
                stdout: text,
                ..Output::default()
            },
            Err(error) => Output {
                stderr: format!("flannel install: {}{}\n", sentence(&error), way_out(&error)),
                code: 1,
                ..Output::default()
            },
        }
    }

    fn install(&self, program: &Path) -> Result<String, InstallError> {
        let program = Program::read(program)?;
        let folder = Folder::open_or_create(&self.dir)?;
        let installed = self.install_in(&folder, &program);
        ended(installed, folder)
    }

    fn install_in(&self, folder: &Folder, program: &Program) -> Result<String, InstallError> {
        let record = folder.record()?;
        let is_newer = record.is_newer_than(VERSION) && folder.holds(&record)?;
        if self.task == Task::Install && is_newer {
            return Err(InstallError::Newer {
                dir: self.dir.clone(),
                installed: record.version,
            });
        }
        let names: Vec<_> = Builtin::ALL.iter().map(|plugin| plugin.name()).collect();
        let placed = folder.place(program, &names, record, VERSION)?;
        let dir = self.dir.display();
        let mut text = if placed.files.is_empty() {
            format!("flannel {VERSION} is installed in {dir} already\n")
        } else {
            format!(
                "flannel {VERSION} is installed in {dir}: {}\n",
                placed.files.join(", ")
            )
        };
        if !placed.aside.is_empty() {
            let aside = folder.aside_dir();
            text += &format!(
                "What was there is kept in {}: {}\n",
                aside.display(),
                placed.aside.join(", ")
            );
        }
        Ok(text + &self.told(folder, &placed.given_up))
    }

    fn uninstall(&self) -> Result<String, InstallError> {
        let dir = self.dir.display();
        let Some(folder) = Folder::open(&self.dir)? else {
            return Ok(format!("nothing of flannel is installed in {dir}\n"));
        };
        let removed = folder.remove().map(|removed| {
            if removed == Removed::default() {
                format!("nothing of flannel is installed in {dir}\n")
            } else {
                self.told(&folder, &removed)
            }
        });
        ended(removed.map_err(InstallError::from), folder)
    }

    fn told(&self, folder: &Folder, removed: &Removed) -> String {
        let dir = self.dir.display();
        let mut text = String::new();
        for (what, names) in [
            ("removed", &removed.removed),
            ("put back what was there before", &removed.restored),
            ("left, because somebody else replaced it", &removed.foreign),
        ] {
            if !names.is_empty() {
                text += &format!("{dir}: {what}: {}\n", names.join(", "));
            }
        }
        if !removed.kept.is_empty() {
            let aside = folder.aside_dir();
            text += &format!("{}: still kept: {}\n", aside.display(), removed.kept.join(", "));
        }
        text
    }
}

/// Ends the work in a folder; its own failure is the one to tell.
fn ended(done: Result<String, InstallError>, folder: Folder) -> Result<String, InstallError> {
    let closed = folder.close();
    let text = done?;
    closed?;
    Ok(text)
}

/// What to do where rights are missing: root without capabilities, as in a container, may not write into others'
/// directories.
fn way_out(error: &InstallError) -> &'static str {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    let mut is_denied = false;
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        is_denied |= io.is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied);
        cause = error.source();
    }
    if is_denied {
        "; give the directory to root (chown root:root), or the container the capability DAC_OVERRIDE"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Option<Install> {
        let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        Install::parse(&words)
    }

    fn install(dir: &str, task: Task) -> Install {
        let dir = PathBuf::from(dir);
        Install { dir, task }
    }

    #[test]
    fn arguments_are_read() {
        assert_eq!(parse(""), Some(install("/opt/cni/bin", Task::Install)));
        assert_eq!(parse("--dir /a"), Some(install("/a", Task::Install)));
        assert_eq!(
            parse("--dir=/a --force"),
            Some(install("/a", Task::InstallAnyVersion))
        );
        assert_eq!(parse("--uninstall --dir b"), Some(install("b", Task::Uninstall)));
        for words in [
            "--dir",
            "--dir=",
            "/a",
            "--force --uninstall",
            "--uninstall --force",
            "-x",
        ] {
            assert_eq!(parse(words), None, "{words}");
        }
    }
}
