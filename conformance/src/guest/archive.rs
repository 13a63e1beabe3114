//! Archives in the format that the kernel unpacks as its first file system (linux
//! `Documentation/driver-api/early-userspace/buffer-format.rst`, "newc").

use anyhow::{Context, Result};

/// File types (`S_IFDIR`, `S_IFREG`, `S_IFLNK`) and the permissions of a program or directory, and of a file.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// Headers and contents are padded to this.
const ALIGNMENT: usize = 4;

/// An archive under construction. A directory must be added before what is in it.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    number: u32,
}

impl Archive {
    /// Adds a directory.
    ///
    /// # Errors
    /// Fails when the name is too long.
    pub(super) fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, DIRECTORY, &[])
    }

    /// Adds a file.
    ///
    /// # Errors
    /// Fails for a file of 4 GiB or more.
    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.entry(name, FILE, bytes)
    }

    /// Adds an executable file.
    ///
    /// # Errors
    /// Fails for a file of 4 GiB or more.
    pub(super) fn program(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.entry(name, PROGRAM, bytes)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// Fails when a name is too long.
    pub(super) fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(name, LINK, target.as_bytes())
    }

    /// The finished archive.
    ///
    /// # Errors
    /// Never in practice: the name of its end is short.
    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let name = name.trim_start_matches('/');
        self.number += 1;
        let size =
            u32::try_from(bytes.len()).with_context(|| format!("{name} is too long for an archive"))?;
        let name_size = u32::try_from(name.len() + 1).context("a name is too long for an archive")?;
        // Number, mode, owner, group, links, time, size, device and special device by halves, name's size, checksum.
        let fields = [self.number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(bytes);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_a_name_and_a_content_each_padded() {
        let mut archive = Archive::default();
        archive.program("/init", b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        let header = "070701000000010000\
                      81ed00000000000000000000000100000000000000050000000000000000\
                      00000000000000000000000500000000";
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..124], b"init\0\0hello\0\0\0".as_slice());
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
