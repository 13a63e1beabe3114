use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::refused::Refused;

/// Names the directory with the programs under test; overrides the search.
pub const BIN_DIR_VARIABLE: &str = "FLANNEL_BIN_DIR";

/// The programs under test, as files in one directory.
#[derive(Debug, Clone)]
pub struct Binaries {
    dir: PathBuf,
}

/// Copies a program that is to be run, by a process of its own: a file that this one has open for writing is open in
/// whatever another thread starts at that moment, and cannot be run until that has become a program itself.
///
/// # Errors
/// Fails when it cannot be copied.
pub fn copy_program(source: &Path, target: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    copy.arg("--").args([source, target]);
    let status = copy.status().context("running cp")?;
    if !status.success() {
        bail!("cannot copy {} to {}", source.display(), target.display());
    }
    Ok(())
}

impl Binaries {
    /// Takes the programs of a directory.
    ///
    /// # Errors
    /// Fails with the build command to run when `flanneld` or `flannel` is missing there.
    pub fn in_dir(dir: &Path) -> Result<Self> {
        let missing: Vec<_> = ["flanneld", "flannel"]
            .into_iter()
            .filter(|name| !dir.join(name).is_file())
            .collect();
        if !missing.is_empty() {
            bail!(Refused(format!(
                "{} has no {}; {BUILD_ADVICE}",
                dir.display(),
                missing.join(" and no ")
            )));
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Finds the programs: in `$FLANNEL_BIN_DIR`, else the ones built last among the target directories around the
    /// running program.
    ///
    /// # Errors
    /// Fails with the build command to run when there are none.
    pub fn find() -> Result<Self> {
        if let Some(dir) = std::env::var_os(BIN_DIR_VARIABLE) {
            return Self::in_dir(Path::new(&dir));
        }
        let this = std::env::current_exe().context("finding the running program's own path")?;
        let targets = this.ancestors().filter(|dir| dir.join("CACHEDIR.TAG").is_file());
        let beside = this.parent().map(Path::to_owned);
        match targets
            .flat_map(profile_dirs)
            .chain(beside)
            .filter_map(dated)
            .max()
        {
            Some((_, dir)) => Self::in_dir(&dir),
            None => bail!(Refused(format!(
                "no built flanneld and flannel near {}; {BUILD_ADVICE}",
                this.display()
            ))),
        }
    }

    /// The directory that they are in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Every program that belongs into the lab: those whose names start with `flannel`, and where they are there the
    /// chained plugin `portmap` and the API server.
    ///
    /// # Errors
    /// Fails when the directory cannot be read.
    pub fn present(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.dir).with_context(|| format!("reading {}", self.dir.display()))?;
        let paths = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| is_program(path));
        let wanted = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("flannel") || name == "portmap" || name == "fake-apiserver"
        };
        Ok(paths.filter(wanted).collect())
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

const BUILD_ADVICE: &str = "scripts/demo builds them (as does `cargo build --release -p flanneld-rs -p cni-plugin`); \
     name their directory with --bin-dir or in FLANNEL_BIN_DIR";

/// The folders of a cargo target directory (it holds a `CACHEDIR.TAG`) where built programs may be, for any triple.
fn profile_dirs(target: &Path) -> Vec<PathBuf> {
    let triples = fs::read_dir(target)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let mut dirs: Vec<_> = triples.map(|triple| triple.join("release")).collect();
    dirs.extend([target.join("release"), target.join("debug")]);
    dirs
}

fn dated(dir: PathBuf) -> Option<(SystemTime, PathBuf)> {
    let plugin = fs::metadata(dir.join("flannel"))
        .ok()
        .filter(fs::Metadata::is_file)?;
    let daemon = fs::metadata(dir.join("flanneld"))
        .ok()
        .filter(fs::Metadata::is_file)?;
    Some((plugin.modified().ok()?.max(daemon.modified().ok()?), dir))
}
