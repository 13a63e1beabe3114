//! Reservations of before the machine was started.
//!
//! Containers end with the machine, but nobody may come to free their addresses: the runtime has lost its state, or
//! makes new containers (containerd/cri 948, cni 204, plugins 252). An address is freed when two things prove that it
//! was reserved in an earlier run of the machine:
//!
//! - **The reservation is marked with another boot id** (`/proc/sys/kernel/random/boot_id`). Every reservation is marked
//!   when it is made, and one of the reference, or of a file system that was copied, when it is first seen: it lives in
//!   this run at the latest. The mark is an extended attribute of the file, because its contents are compared as a whole
//!   by the reference, and it is lost with the file, so that it never speaks of a later reservation of that address.
//! - **Its file is older than this run** by the clock. A boot id alone may be another one for the same run: containers
//!   can be given one of their own. A clock alone may be wrong, and be set after the start.
//!
//! Both at once are wrong only if the boot id is masked and the clock was set forward while containers ran. What is
//! marked, unmarked or dated otherwise stays until its DEL or a GC. No container survives the end of the kernel that
//! made its namespace, and a runtime that adds the same ids again (podman) is served as any other: what the attachment
//! that is being made has itself is not freed but given to it again.
//!
//! Only the first ADD after a start looks at every reservation; the directory's own mark tells that it was done.

use std::cell::OnceCell;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use netstate::SysctlKey;

/// The mark's name; the value is a boot id.
const MARK: &str = "flannel.boot_id";

/// This run of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Boot {
    id: String,
    /// Read when it is needed, which is at most once a run of the machine.
    began: OnceCell<Option<SystemTime>>,
}

/// When a file was made, so far as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// In this run, or nobody knows.
    ThisBoot,
    EarlierBoot,
}

impl Boot {
    /// This run; `None` where the kernel does not tell, and nothing can be concluded.
    pub(crate) fn current() -> Option<Self> {
        let key = SysctlKey::new("kernel/random/boot_id")?;
        Some(Self {
            id: netlink::read_sysctl(&key).ok()??,
            began: OnceCell::new(),
        })
    }

    /// Marks a file or directory as of this run. Without the mark it is never found to be of an earlier one.
    pub(super) fn mark(&self, path: &Path) {
        let _marked = statefile::mark(path, MARK, &self.id);
    }

    /// Whether a file or directory is marked as of this run.
    pub(super) fn has_marked(&self, path: &Path) -> bool {
        statefile::mark_of(path, MARK).as_ref() == Some(&self.id)
    }

    /// Of which run a file is; one without a mark gets it.
    pub(super) fn origin(&self, path: &Path) -> Origin {
        match statefile::mark_of(path, MARK) {
            None => {
                self.mark(path);
                Origin::ThisBoot
            }
            Some(id) if id != self.id && self.is_younger_than(path) => Origin::EarlierBoot,
            Some(_) => Origin::ThisBoot,
        }
    }

    fn is_younger_than(&self, path: &Path) -> bool {
        let Some(began) = *self.began.get_or_init(began) else {
            return false;
        };
        let modified = fs::metadata(path).and_then(|found| found.modified());
        modified.is_ok_and(|modified| modified < began)
    }
}

/// When this run began; `None` where the kernel does not tell.
fn began() -> Option<SystemTime> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    SystemTime::now().checked_sub(Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
impl Boot {
    /// Another run, which began a day after this one.
    pub(super) fn next(&self) -> Self {
        Self {
            id: format!("after {}", self.id),
            began: OnceCell::from(Some(SystemTime::now() + Duration::from_secs(86_400))),
        }
    }

    /// The same run, seen through another id.
    pub(super) fn masked(&self) -> Self {
        Self {
            id: "masked".to_owned(),
            began: self.began.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_run_began_before_now_and_has_an_id() {
        let boot = Boot::current().unwrap();
        assert!(
            began().unwrap() < SystemTime::now() && boot.id.len() == 36,
            "{boot:?}"
        );
    }

    #[test]
    fn only_mark_and_clock_together_prove_an_earlier_run() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lease");
        fs::write(&path, "a").unwrap();
        let boot = Boot::current().unwrap();
        // Unmarked: seen in the next run for the first time, whatever its date.
        assert_eq!(boot.next().origin(&path), Origin::ThisBoot);
        assert!(boot.next().has_marked(&path));
        boot.mark(&path);
        assert_eq!(boot.origin(&path), Origin::ThisBoot);
        assert_eq!(boot.masked().origin(&path), Origin::ThisBoot);
        assert_eq!(boot.next().origin(&path), Origin::EarlierBoot);
        // A new file of the name has no past.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "b").unwrap();
        assert_eq!(boot.next().origin(&path), Origin::ThisBoot);
    }
}
