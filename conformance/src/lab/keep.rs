//! The record of a lab that the user asked to keep, so that a later run can remove it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Lab;
use super::wait::wait_until;

/// How long the processes of a kept lab may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Names the first process of a kept lab beyond doubt: process ids are used again, but not with the same start time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pid: i32,
    start_time: String,
}

impl Record {
    /// The record of a running lab.
    ///
    /// # Errors
    /// Fails when the lab's first process is gone.
    pub fn of(lab: &Lab) -> Result<Self> {
        let pid = i32::try_from(lab.holder_pid()).context("a process id too large")?;
        Ok(Self {
            pid,
            start_time: start_time(pid).context("the lab's first process is gone")?,
        })
    }

    /// Writes the record, which must not exist.
    ///
    /// # Errors
    /// Fails when another run has kept its lab meanwhile, or when the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut file = match fs::File::create_new(path) {
            Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {
                bail!(
                    "another run has kept its lab meanwhile, so this one is not kept: remove that one first"
                )
            }
            file => file.with_context(|| format!("writing {}", path.display()))?,
        };
        writeln!(file, "{} {}", self.pid, self.start_time)
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Removes the lab that a record file names, and the file. Returns whether there was a lab; a record whose process
    /// is gone, or whose process id belongs to another one, kills nothing.
    ///
    /// # Errors
    /// Fails when the processes do not end in time or the file cannot be removed.
    pub fn remove(path: &Path) -> Result<bool> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(err) => return Err(err).with_context(|| format!("reading {}", path.display())),
        };
        let record = Self::parse(&text);
        let running = record.filter(Self::is_running);
        if let Some(record) = &running {
            match kill(Pid::from_raw(record.pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(err) => return Err(err).context("ending the kept lab"),
            }
            wait_until("the kept lab to end", END_LIMIT, || Ok(!record.is_running()))?;
        }
        fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
        Ok(running.is_some())
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, start_time) = text.trim_end().split_once(' ')?;
        Some(Self {
            pid: pid.parse().ok().filter(|pid| *pid > 1)?,
            start_time: start_time.to_owned(),
        })
    }

    fn is_running(&self) -> bool {
        start_time(self.pid).is_some_and(|time| time == self.start_time)
    }
}

/// When a process was started, in ticks since boot (proc(5), field 22 of stat); `None` when it is gone or a zombie.
fn start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?;
    (state != "Z").then(|| start.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_process_with_the_same_id_kills_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        let mut bystander = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let record = Record {
            pid: i32::try_from(bystander.id()).unwrap(),
            start_time: "1".to_owned(),
        };
        record.write(&path).unwrap();
        assert!(!Record::remove(&path).unwrap());
        assert!(!path.exists());
        assert!(
            bystander.try_wait().unwrap().is_none(),
            "the bystander was killed"
        );
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }

    #[test]
    fn a_record_cut_short_is_removed_and_kills_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        for text in ["", "1234", "1 5\n", "x 7\n", "-1 5\n"] {
            fs::write(&path, text).unwrap();
            assert!(!Record::remove(&path).unwrap(), "{text:?}");
        }
    }

    #[test]
    fn no_record_is_no_lab() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Record::remove(&dir.path().join("record")).unwrap());
    }
}
