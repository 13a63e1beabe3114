//! `--record`: every input of the engine that programs links, routes and entries, as lines of a file.
//!
//! A thread writes, so that a slow disk does not hold up the daemon. The file has an end: at its greatest length, or when
//! the disk does not follow, recording ends with a warning, because a record with a gap replays something else. It holds
//! what the kernel holds and should hold, and no key or password can get there.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use nix::libc::O_NOFOLLOW;
use tracing::{info, warn};

use crate::reconciler::Input;

pub mod line;

/// The first line: which form the others have.
pub const HEADER: &str = r#"{"flanneld_record":1}"#;
/// The greatest length of a record: an hour of audits of 5,000 peers.
const MAX_BYTES: usize = 64 << 20;
/// How many batches may wait for the disk.
const MAX_WAITING: usize = 1024;

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The file cannot be made.
    #[error("cannot record into {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread.
    #[error("cannot start the thread that records")]
    Thread(#[source] io::Error),
}

/// Hands inputs to the thread that writes them. Dropping it lets the thread end when all is written.
#[derive(Debug)]
pub struct Recorder {
    /// `None` when recording has ended.
    batches: Option<SyncSender<Vec<Input>>>,
}

impl Recorder {
    /// Makes the file, which only its owner can read, in place of an earlier record.
    ///
    /// # Errors
    /// The file cannot be made, or there is no thread to be had.
    pub fn start(path: &Path) -> Result<Self, RecordError> {
        let failed = |source| RecordError::Open {
            path: path.to_owned(),
            source,
        };
        let file = create(path).map_err(failed)?;
        let mut out = BufWriter::new(file);
        writeln!(out, "{HEADER}")
            .and_then(|()| out.flush())
            .map_err(failed)?;
        let (batches, waiting) = sync_channel(MAX_WAITING);
        std::thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || write_all(&waiting, out, MAX_BYTES))
            .map_err(RecordError::Thread)?;
        info!(path = %path.display(), "recording what the kernel holds and should hold");
        Ok(Self {
            batches: Some(batches),
        })
    }

    /// Records inputs, unless recording has ended.
    pub fn record(&mut self, inputs: Vec<Input>) {
        let Some(batches) = self.batches.as_ref().filter(|_| !inputs.is_empty()) else {
            return;
        };
        if batches.try_send(inputs).is_err() {
            warn!("recording has ended: it reached its greatest length, or the disk did not follow");
            self.batches = None;
        }
    }

    /// Whether there is a use in giving it more.
    #[must_use]
    pub const fn is_recording(&self) -> bool {
        self.batches.is_some()
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.custom_flags(O_NOFOLLOW).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    // The file of an earlier record may have been made readable.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Writes lines until nobody has more, the file is full, or it cannot be written; the sender then finds nobody there.
fn write_all(batches: &Receiver<Vec<Input>>, mut out: impl Write, max_bytes: usize) {
    let mut written = 0;
    while let Ok(inputs) = batches.recv() {
        for input in inputs {
            let Ok(text) = line::print(&input) else { return };
            written += text.len() + 1;
            if written > max_bytes || writeln!(out, "{text}").is_err() {
                return;
            }
        }
        if out.flush().is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_record_ends_before_its_greatest_length_with_a_whole_line() {
        let (batches, waiting) = sync_channel(MAX_WAITING);
        for second in 0..100 {
            batches
                .send(vec![Input::Next(Duration::from_secs(second))])
                .unwrap();
        }
        let mut written = Vec::new();
        write_all(&waiting, &mut written, 1000);
        let text = String::from_utf8(written).unwrap();
        assert!((900..=1000).contains(&text.len()), "{}", text.len());
        assert!(text.ends_with("}\n"));
        drop(waiting);
        let mut recorder = Recorder {
            batches: Some(batches),
        };
        recorder.record(vec![Input::LookAgain]);
        assert!(!recorder.is_recording());
    }

    #[test]
    fn only_a_regular_file_of_ones_own_is_written_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("record");
        std::fs::write(&file, "an earlier record").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        drop(Recorder::start(&file).unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{HEADER}\n"));
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for wrong in [&link, dir.path(), Path::new("/proc/version")] {
            assert!(Recorder::start(wrong).is_err(), "{}", wrong.display());
        }
    }
}
