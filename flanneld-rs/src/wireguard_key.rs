//! The private key of this node's WireGuard devices, in a file: whoever has it is this node to the peers.
//!
//! Upstream's file is in `/run`, which is empty after a boot. A copy where the disk keeps it saves the peers a new public key
//! then, while a node that changes sides has its key where either daemon looks.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use net_types::{WgPublicKey, WgSecret, sentence};
use statefile::Durability;
use tracing::{info, warn};

#[cfg(test)]
mod tests;

/// Where the key is if not told otherwise (flannel `pkg/backend/wireguard/device.go`).
const UPSTREAM_FILE: &str = "/run/flannel/wgkey";
/// Where its copy outlives a boot.
const COPY: &str = "/var/lib/flannel/wgkey";
/// Nobody else may read it.
const FILE_MODE: u32 = 0o600;
/// Of the directory that the subnet file is in as well, which pods' plugins may read under any user.
const DIR_MODE: u32 = 0o755;
/// Of a directory that nothing but the key is known to be in.
const COPY_DIR_MODE: u32 = 0o700;
/// Access for others than the owner.
const OTHERS: u32 = 0o077;

/// Where the key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFiles {
    /// Whose key counts, if there is such a file.
    pub first: PathBuf,
    /// Keeps the same key, and gives it where the first file is gone; `None` if the first one is all there is to be.
    pub copy: Option<PathBuf>,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("cannot read the private key of WireGuard")]
    Read(#[source] statefile::Error),
    /// It holds something else.
    #[error(
        "{path} is to hold the private key of WireGuard, but does not: put there what `wg genkey` prints, or remove it \
         and its copies to get a new key",
        path = .0.display()
    )]
    NoKey(PathBuf),
    /// No randomness.
    #[error("cannot get random bytes for the private key of WireGuard")]
    Random(#[source] io::Error),
    /// The file cannot be written.
    #[error("cannot keep the private key of WireGuard")]
    Write(#[source] statefile::Error),
}

impl KeyFiles {
    /// The file that somebody names, alone; else upstream's and a copy that outlives a boot.
    #[must_use]
    pub fn named(file: Option<OsString>) -> Self {
        match file.filter(|path| !path.is_empty()) {
            Some(file) => Self {
                first: file.into(),
                copy: None,
            },
            None => Self {
                first: UPSTREAM_FILE.into(),
                copy: Some(COPY.into()),
            },
        }
    }

    /// Reads this node's key, or makes one if there is no file, and sees to it that each file holds it. A file that cannot be
    /// written is told and left, as long as the key is in the other.
    ///
    /// # Errors
    /// The file that counts cannot be read or holds something else, and then nothing is changed; or a new key can be kept
    /// nowhere.
    pub fn read_or_make(&self) -> Result<WgSecret, KeyFileError> {
        if let Some(key) = read(&self.first)? {
            self.keep_copy(&key);
            return Ok(key);
        }
        let Some(copy) = &self.copy else {
            return make(&self.first, DIR_MODE);
        };
        if let Some(key) = read(copy)? {
            info!(path = %copy.display(), public_key = %public_key(&key), "the key for WireGuard from before the boot");
            return Ok(self.restore_first(key));
        }
        match make(&self.first, DIR_MODE) {
            Ok(key) => {
                self.keep_copy(&key);
                Ok(key)
            }
            Err(KeyFileError::Write(err)) => {
                let key = make(copy, COPY_DIR_MODE)?;
                tell_first_is_missing(&self.first, &err);
                Ok(key)
            }
            Err(err) => Err(err),
        }
    }

    /// The files whose mode gives others than the owner access.
    #[must_use]
    pub fn loose(&self) -> Vec<PathBuf> {
        let files = [&self.first].into_iter().chain(&self.copy);
        files.filter(|path| is_loose(path)).cloned().collect()
    }

    /// Puts the copy's key where upstream looks. Of several daemons that do so at once the first one's key counts.
    fn restore_first(&self, key: WgSecret) -> WgSecret {
        match write_new(&self.first, DIR_MODE, &key) {
            Ok(()) => key,
            Err(err) => read(&self.first).ok().flatten().unwrap_or_else(|| {
                tell_first_is_missing(&self.first, &err);
                key
            }),
        }
    }

    fn keep_copy(&self, key: &WgSecret) {
        let Some(copy) = &self.copy else { return };
        let kept = match read(copy) {
            Ok(Some(present)) if present == *key => return,
            Ok(_) => replace(copy, key).map_err(KeyFileError::Write),
            Err(err) => Err(err),
        };
        match kept {
            Ok(()) => info!(path = %copy.display(), "the key for WireGuard is kept for after a boot"),
            Err(err) => warn!(
                path = %copy.display(),
                error = %sentence(&err),
                "the private key of WireGuard is not kept for after a boot, where its other file is gone: peers must learn \
                 a new one then; let flanneld write there, or name a file on a disk by WIREGUARD_KEY_FILE"
            ),
        }
    }
}

fn tell_first_is_missing(path: &Path, err: &statefile::Error) {
    warn!(
        path = %path.display(),
        error = %sentence(err),
        "upstream's flanneld does not find the private key of WireGuard there, and would make another one; let flanneld \
         write there before this node goes back to it"
    );
}

/// Makes a key and keeps it in a file that is not there.
fn make(path: &Path, dir_mode: u32) -> Result<WgSecret, KeyFileError> {
    let key = random()?;
    match write_new(path, dir_mode, &key) {
        Ok(()) => {
            info!(path = %path.display(), public_key = %public_key(&key), "a new key for WireGuard");
            Ok(key)
        }
        // Somebody was faster.
        Err(err) => read(path)?.ok_or(KeyFileError::Write(err)),
    }
}

fn write_new(path: &Path, dir_mode: u32, key: &WgSecret) -> Result<(), statefile::Error> {
    if let Some(dir) = path.parent() {
        statefile::ensure_dir(dir, dir_mode)?;
    }
    let text = key.reveal_text();
    statefile::create_new(path, text.as_bytes(), FILE_MODE, Durability::PowerCut)
}

fn replace(path: &Path, key: &WgSecret) -> Result<(), statefile::Error> {
    if let Some(dir) = path.parent() {
        statefile::ensure_dir(dir, COPY_DIR_MODE)?;
    }
    let text = key.reveal_text();
    statefile::replace(path, text.as_bytes(), FILE_MODE, Durability::PowerCut)
}

/// The key that peers know this node by (RFC 7748 §6.1).
#[must_use]
pub fn public_key(private_key: &WgSecret) -> WgPublicKey {
    let base = x25519_dalek::X25519_BASEPOINT_BYTES;
    WgPublicKey::new(x25519_dalek::x25519(*private_key.reveal(), base))
}

/// `None` if there is no file. Ends of lines around the key, as `wg genkey` prints, are nothing to it.
fn read(path: &Path) -> Result<Option<WgSecret>, KeyFileError> {
    let Some(text) = statefile::read_text(path).map_err(KeyFileError::Read)? else {
        return Ok(None);
    };
    let key: Result<WgSecret, _> = text.trim().parse();
    let key = key.map_err(|_| KeyFileError::NoKey(path.to_owned()))?;
    if is_loose(path) {
        warn!(
            path = %path.display(),
            "others than root can use the private key of WireGuard: whoever read it can read and forge the traffic of \
             this node's pods; set the file's mode to 600, or remove all copies of it and restart flanneld to get a new \
             key"
        );
    }
    Ok(Some(clamped(*key.reveal())))
}

fn is_loose(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.permissions().mode() & OTHERS != 0)
}

fn random() -> Result<WgSecret, KeyFileError> {
    let mut bytes = [0; 32];
    let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    read.map_err(KeyFileError::Random)?;
    Ok(clamped(bytes))
}

/// The key with the bits set that every key has, as the kernel does it and reports it then (RFC 7748 §5).
fn clamped(mut bytes: [u8; 32]) -> WgSecret {
    let [first, .., last] = &mut bytes;
    *first &= 248;
    *last = *last & 127 | 64;
    WgSecret::new(bytes)
}
