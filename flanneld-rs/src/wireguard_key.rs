//! The private key of this node's WireGuard devices, in a file: whoever has it is this node to the peers.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use net_types::{WgPublicKey, WgSecret};
use statefile::Durability;
use tracing::{info, warn};

#[cfg(test)]
mod tests;

/// Nobody else may read it.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o755;
/// Access for others than the owner.
const OTHERS: u32 = 0o077;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("cannot read the private key of WireGuard")]
    Read(#[source] statefile::Error),
    /// It holds something else.
    #[error(
        "{path} is to hold the private key of WireGuard, but does not: put there what `wg genkey` prints, or remove it to \
         get a new key",
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

/// Reads the key that a file holds; makes one if there is no file.
///
/// # Errors
/// The file cannot be read, holds something else, or cannot be written.
pub fn read_or_make(path: &Path) -> Result<WgSecret, KeyFileError> {
    if let Some(key) = read(path)? {
        return Ok(key);
    }
    let key = random()?;
    if let Some(dir) = path.parent() {
        statefile::ensure_dir(dir, DIR_MODE).map_err(KeyFileError::Write)?;
    }
    let text = key.reveal_text();
    match statefile::create_new(path, text.as_bytes(), FILE_MODE, Durability::PowerCut) {
        Ok(()) => {
            info!(path = %path.display(), public_key = %public_key(&key), "a new key for WireGuard");
            Ok(key)
        }
        // Somebody was faster.
        Err(err) => read(path)?.ok_or(KeyFileError::Write(err)),
    }
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
    if fs::metadata(path).is_ok_and(|found| found.permissions().mode() & OTHERS != 0) {
        warn!(
            path = %path.display(),
            "others than root can use the private key of WireGuard: whoever read it can read and forge the traffic of \
             this node's pods; set the file's mode to 600, or remove it and restart flanneld to get a new key"
        );
    }
    Ok(Some(clamped(*key.reveal())))
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
