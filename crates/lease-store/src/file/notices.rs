use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tracing::warn;

/// The kernel's notices (inotify) that something in one of two directories changed; they mean only "look again".
///
/// Where the kernel has no notices to give (its limits are reached), the periodic looks must do.
pub(super) struct Notices {
    inotify: Option<Inotify>,
    watches: [Watch; 2],
}

struct Watch {
    path: PathBuf,
    descriptor: Option<WatchDescriptor>,
}

impl Notices {
    pub(super) fn new(dir: PathBuf, subdir: PathBuf) -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        if let Err(errno) = inotify {
            without(errno);
        }
        let watches = [dir, subdir].map(|path| Watch {
            path,
            descriptor: None,
        });
        Self {
            inotify: inotify.ok(),
            watches,
        }
    }

    /// Whether notices come at all.
    pub(super) const fn work(&self) -> bool {
        self.inotify.is_some()
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Watches what the two paths name, which may be other directories than before.
    pub(super) fn arm(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        for watch in &mut self.watches {
            let descriptor = match inotify.add_watch(&watch.path, mask()) {
                Ok(descriptor) => Some(descriptor),
                Err(errno @ (Errno::ENOSPC | Errno::ENOMEM)) => {
                    without(errno);
                    self.inotify = None;
                    return;
                }
                // Absent or not readable, as the look itself will tell.
                Err(_) => None,
            };
            if let Some(old) = watch.descriptor.filter(|old| Some(*old) != descriptor) {
                // Fails if the old directory is gone, and with it the watch.
                let _ = inotify.rm_watch(old);
            }
            watch.descriptor = descriptor;
        }
    }

    /// Takes all notices, and tells whether one of them concerns the configuration or a lease.
    pub(super) fn drain(&self) -> bool {
        let Some(inotify) = &self.inotify else {
            return false;
        };
        let mut relevant = false;
        loop {
            match inotify.read_events() {
                Ok(events) => relevant |= events.iter().any(concerns_an_entry),
                Err(Errno::EINTR) => {}
                Err(_) => return relevant,
            }
        }
    }
}

fn without(errno: Errno) {
    warn!(error = %errno, "no notices of changes in the lease directory: they are seen within two seconds");
}

fn mask() -> AddWatchFlags {
    AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR
}

/// Writers' lock and temporary files concern nobody; a notice without a name concerns the directory or the queue.
fn concerns_an_entry(event: &InotifyEvent) -> bool {
    let name = event.name.as_deref().map(OsStr::as_encoded_bytes);
    name.is_none_or(|name| !name.starts_with(b".") && name != b"lock")
}
