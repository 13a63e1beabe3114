use std::fs;
use std::path::Path;

use hmac_sha512::Hash;

use super::folder::FolderError;

/// A program's contents in memory.
pub(super) struct Program {
    pub(super) bytes: Vec<u8>,
    pub(super) content: Content,
}

/// What tells one program from another without having it: the length, and the SHA-512 in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) len_bytes: u64,
    pub(super) sha512: String,
}

impl Program {
    pub(super) fn read(path: &Path) -> Result<Self, FolderError> {
        let bytes = fs::read(path).map_err(|source| FolderError::Read {
            path: path.to_owned(),
            source,
        })?;
        let content = Content::of(&bytes);
        Ok(Self { bytes, content })
    }
}

impl Content {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let digest = Hash::hash(bytes);
        Self {
            len_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            sha512: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}
