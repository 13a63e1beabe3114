//! The first and only file system of a guest.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::archive::Archive;
use super::kernel::{KernelPackage, entries};

/// The guest's first process.
const INIT: &str = include_str!("init.sh");

/// Where programs of the host are looked for.
const PROGRAM_DIRS: &[&str] = &["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Directories that a merged `/usr` makes links (Debian's `usrmerge`).
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib64"];

/// The files of a guest, under construction: our programs, and some of the host's with the libraries they need.
#[derive(Debug, Default)]
pub struct Image {
    archive: Archive,
    directories: BTreeSet<String>,
    files: BTreeSet<String>,
}

impl Image {
    /// Begins with what every guest has: its first process, busybox, and the modules of its kernel.
    ///
    /// # Errors
    /// Fails when the host has no static busybox, or the modules cannot be read.
    pub fn new(kernel: &KernelPackage) -> Result<Self> {
        let mut image = Self::default();
        for name in [
            "dev", "etc", "opt", "proc", "root", "run", "sys", "tmp", "usr", "var",
        ] {
            image.directory(name)?;
        }
        for name in MERGED {
            image.directory(&format!("usr/{name}"))?;
            image.archive.link(name, &format!("usr/{name}"))?;
        }
        image.directory("var/lib")?;
        image.archive.link("var/run", "/run")?;
        image.archive.program("init", INIT.as_bytes())?;
        image.copy(Path::new("/bin/busybox"), "usr/lib/busybox/busybox")?;
        image
            .archive
            .link("usr/sbin/modprobe", "/usr/lib/busybox/busybox")?;
        image.tree(&kernel.modules(), "usr/lib/modules")?;
        Ok(image)
    }

    /// Adds a program of the host, found by its name, with its libraries.
    ///
    /// # Errors
    /// Fails when the host has no such program.
    pub fn host_program(&mut self, name: &str) -> Result<()> {
        let mut candidates = PROGRAM_DIRS.iter().map(|dir| Path::new(dir).join(name));
        let path = candidates.find(|path| path.is_file());
        let path = path.with_context(|| format!("this machine has no program {name}"))?;
        self.program(&path, &format!("usr/sbin/{name}"))
    }

    /// Adds a program under a name of the guest, with its libraries.
    ///
    /// # Errors
    /// Fails when a file cannot be read.
    pub fn program(&mut self, path: &Path, name: &str) -> Result<()> {
        self.copy(path, name)?;
        for library in libraries(path)? {
            let name = library.to_string_lossy().into_owned();
            self.copy(&library, &name)?;
        }
        Ok(())
    }

    /// Adds all that is below a directory of the host.
    ///
    /// # Errors
    /// Fails when a file cannot be read.
    pub fn tree(&mut self, dir: &Path, name: &str) -> Result<()> {
        self.directory(name)?;
        for path in entries(dir)? {
            let last = path.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{name}/{last}");
            if path.is_dir() {
                self.tree(&path, &name)?;
            } else {
                self.copy(&path, &name)?;
            }
        }
        Ok(())
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// Fails when a name is too long.
    pub fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.archive.link(name, target)
    }

    /// Writes the image to a file.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub fn write(self, path: &Path) -> Result<()> {
        let bytes = self.archive.finish()?;
        fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
    }

    /// Adds a file of the host once; links are followed, so that a library is found under the name it is asked by.
    fn copy(&mut self, path: &Path, name: &str) -> Result<()> {
        let name = merged(name);
        if !self.files.insert(name.clone()) {
            return Ok(());
        }
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent)?;
        }
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let mode = fs::metadata(path)
            .with_context(|| format!("reading {}", path.display()))?
            .permissions()
            .mode();
        if mode & 0o111 == 0 {
            self.archive.file(&name, &bytes)
        } else {
            self.archive.program(&name, &bytes)
        }
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        let mut path = String::new();
        for part in merged(name).split('/') {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
            if self.directories.insert(path.clone()) {
                self.archive.directory(&path)?;
            }
        }
        Ok(())
    }
}

/// The name of a file without the links of a merged `/usr`.
fn merged(name: &str) -> String {
    let name = name.trim_start_matches('/');
    let first = name.split('/').next().unwrap_or_default();
    if MERGED.contains(&first) {
        format!("usr/{name}")
    } else {
        name.to_owned()
    }
}

/// The shared libraries that a program needs, the loader included; none for a static one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("starting ldd")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if printed.contains("not found") {
        bail!("{} lacks a library: {}", program.display(), printed.trim());
    }
    // A line is `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)`; of a static program there is a single sentence.
    let paths = printed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_the_links_of_a_merged_usr() {
        assert_eq!(
            merged("/lib64/ld-linux-x86-64.so.2"),
            "usr/lib64/ld-linux-x86-64.so.2"
        );
        assert_eq!(merged("usr/sbin/ip"), "usr/sbin/ip");
        assert_eq!(merged("/library/x"), "library/x");
    }
}
