//! Contents, modes and failures of single files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use statefile::Durability::{Crash, PowerCut};
use statefile::{
    Error, Lock, MAX_BYTES, create_new, ensure_dir, is_dir, is_unfinished, read_optional, read_text, remove,
    remove_abandoned, remove_unfinished, replace, require_room,
};

#[test]
fn contents_are_replaced_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    assert_eq!(read_optional(&path).unwrap(), None);
    replace(&path, b"a long first version", 0o644, PowerCut).unwrap();
    replace(&path, b"second", 0o600, PowerCut).unwrap();
    assert_eq!(read_text(&path).unwrap().as_deref(), Some("second"));
    assert_eq!(mode(&path), 0o600);
    assert_eq!(names(dir.path()), ["state"]);
}

#[test]
fn a_new_file_never_takes_an_existing_ones_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    create_new(&path, b"first", 0o600, PowerCut).unwrap();
    assert!(matches!(create_new(&path, b"second", 0o600, PowerCut), Err(Error::Exists(at)) if at == path));
    assert_eq!(read_text(&path).unwrap().as_deref(), Some("first"));
    assert_eq!(names(dir.path()), ["state"]);
    assert!(remove(&path, PowerCut).unwrap());
    assert!(!remove(&path, PowerCut).unwrap());
}

#[test]
fn a_directory_is_told_from_a_file_and_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(is_dir(dir.path()).unwrap());
    for path in [file.clone(), file.join("below"), dir.path().join("absent")] {
        assert!(!is_dir(&path).unwrap(), "{}", path.display());
    }
    symlink("loop", dir.path().join("loop")).unwrap();
    assert!(is_dir(&dir.path().join("loop")).is_err());
}

#[test]
fn a_file_in_preparation_is_abandoned_when_nobody_has_it_locked() {
    let dir = tempfile::tempdir().unwrap();
    remove_abandoned(&dir.path().join("absent")).unwrap();
    let path = dir.path().join(".state.tmp");
    for name in ["state", ".state.tmp", ".other.tmp"] {
        fs::write(dir.path().join(name), "half").unwrap();
    }
    fs::create_dir(dir.path().join(".dir.tmp")).unwrap();
    let writer = fs::File::open(&path).unwrap();
    writer.lock().unwrap();
    remove_abandoned(dir.path()).unwrap();
    assert_eq!(
        names(dir.path()),
        [".dir.tmp", ".state.tmp", "state"],
        "its writer lives"
    );
    drop(writer);
    remove_abandoned(dir.path()).unwrap();
    assert_eq!(names(dir.path()), [".dir.tmp", "state"]);
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    in_private_mounts(|| {
        umask(Mode::from_bits_truncate(0o077));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        replace(&path, b"", 0o644, PowerCut).unwrap();
        assert_eq!(mode(&path), 0o644);
        let path = dir.path().join("lock");
        drop(Lock::acquire(&path, 0o750, Duration::ZERO).unwrap());
        assert_eq!(mode(&path), 0o750);
    });
}

#[test]
fn a_crashed_writers_file_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    fs::write(
        dir.path().join(".state.tmp"),
        "left by a crash, and longer than the new contents",
    )
    .unwrap();
    replace(&path, b"new", 0o644, PowerCut).unwrap();
    assert_eq!(read_text(&path).unwrap().as_deref(), Some("new"));
    assert_eq!(names(dir.path()), ["state"]);
}

#[test]
fn a_full_disk_leaves_the_old_file_and_nothing_else() {
    in_private_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        mount_tmpfs(dir.path(), "size=64k", MsFlags::empty());
        let path = dir.path().join("state");
        replace(&path, b"old", 0o644, PowerCut).unwrap();
        let err = replace(&path, &[0; 100_000], 0o644, PowerCut).unwrap_err();
        assert_eq!(err.io().unwrap().kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(
            err.to_string(),
            format!("cannot write {}/.state.tmp", dir.path().display())
        );
        assert!(create_new(&dir.path().join("other"), &[0; 100_000], 0o644, PowerCut).is_err());
        assert_eq!(read_text(&path).unwrap().as_deref(), Some("old"));
        assert_eq!(names(dir.path()), ["state"]);
    });
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    in_private_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        mount_tmpfs(dir.path(), "size=64k", MsFlags::MS_RDONLY);
        let path = dir.path().join("state");
        let errors = [
            replace(&path, b"x", 0o644, PowerCut).unwrap_err(),
            create_new(&path, b"x", 0o644, PowerCut).unwrap_err(),
            ensure_dir(&path, 0o755).unwrap_err(),
            Lock::acquire(&path, 0o750, Duration::ZERO).unwrap_err(),
        ];
        for err in errors {
            assert_eq!(err.io().unwrap().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
            assert!(err.to_string().contains(dir.path().to_str().unwrap()), "{err}");
        }
    });
}

#[test]
fn what_is_no_small_regular_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(read_optional(dir.path()), Err(Error::NotAFile(_))));
    assert!(matches!(
        replace(Path::new("/"), b"", 0o644, PowerCut),
        Err(Error::NotAFile(_))
    ));
    assert!(replace(&dir.path().join("absent/state"), b"", 0o644, PowerCut).is_err());

    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    assert!(matches!(read_optional(&fifo), Err(Error::NotAFile(_))));
    assert!(matches!(
        replace(&fifo, b"", 0o644, PowerCut),
        Err(Error::NotAFile(_))
    ));

    let limit = usize::try_from(MAX_BYTES).unwrap();
    let large = dir.path().join("large");
    fs::write(&large, vec![b'x'; limit]).unwrap();
    assert_eq!(read_optional(&large).unwrap().unwrap().len(), limit);
    fs::write(&large, vec![b'x'; limit + 1]).unwrap();
    assert!(matches!(read_optional(&large), Err(Error::TooLarge(_))));

    fs::write(&large, [0xff]).unwrap();
    assert!(matches!(read_text(&large), Err(Error::NotText(_))));

    symlink(dir.path().join("nowhere"), dir.path().join("dangling")).unwrap();
    assert_eq!(read_optional(&dir.path().join("dangling")).unwrap(), None);
}

#[test]
fn what_somebody_planted_in_a_files_place_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let refused =
        |result: Result<(), Error>| assert!(matches!(result, Err(Error::NotAFile(_))), "{result:?}");
    for name in ["lock", ".state.tmp"] {
        nix::unistd::mkfifo(&path(name), Mode::S_IRWXU).unwrap();
    }
    refused(Lock::acquire(&path("lock"), 0o600, Duration::from_secs(5)).map(drop));
    refused(replace(&path("state"), b"x", 0o600, Crash));
    refused(create_new(&path("state"), b"x", 0o600, PowerCut));
    let _listening = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    refused(read_optional(&path("socket")).map(drop));
    refused(read_optional(Path::new("/dev/null")).map(drop));
    symlink("loop", path("loop")).unwrap();
    refused(read_optional(&path("loop")).map(drop));
    refused(Lock::acquire(&path("loop"), 0o600, Duration::from_secs(5)).map(drop));
    fs::create_dir(path("lockdir")).unwrap();
    refused(Lock::acquire(&path("lockdir"), 0o600, Duration::from_secs(5)).map(drop));
}

#[test]
fn a_link_in_the_place_of_a_file_in_preparation_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("victim"), "of somebody else").unwrap();
    for target in ["victim", "nowhere"] {
        symlink(path(target), path(".state.tmp")).unwrap();
        for refused in [
            replace(&path("state"), b"x", 0o600, Crash),
            create_new(&path("state"), b"x", 0o600, Crash),
        ] {
            assert!(
                matches!(refused, Err(Error::NotAFile(_))),
                "{target}: {refused:?}"
            );
        }
        remove_abandoned(dir.path()).unwrap();
        remove_unfinished(&path("state")).unwrap();
        assert!(path(".state.tmp").symlink_metadata().is_err());
    }
    assert_eq!(fs::read(path("victim")).unwrap(), b"of somebody else");
    assert_eq!(names(dir.path()), ["victim"]);
}

#[test]
fn names_of_every_length_are_written_or_absent() {
    let dir = tempfile::tempdir().unwrap();
    for length in [250, 251, 255] {
        let path = dir.path().join("n".repeat(length));
        replace(&path, b"one", 0o600, Crash).unwrap();
        assert!(matches!(
            create_new(&path, b"two", 0o600, Crash),
            Err(Error::Exists(_))
        ));
        assert_eq!(read_text(&path).unwrap().as_deref(), Some("one"));
        remove_unfinished(&path).unwrap();
        assert!(remove(&path, Crash).unwrap());
    }
    let path = dir.path().join("n".repeat(256));
    assert_eq!(read_optional(&path).unwrap(), None);
    assert!(!remove(&path, PowerCut).unwrap());
    assert!(replace(&path, b"one", 0o600, Crash).is_err());
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn what_a_killed_writer_left_is_told_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    create_new(&path, b"one", 0o600, Crash).unwrap();
    let unfinished = dir.path().join(".state.tmp");
    fs::write(&unfinished, "two").unwrap();
    assert!(is_unfinished(".state.tmp") && !is_unfinished("state"));
    remove_unfinished(&path).unwrap();
    remove_unfinished(&path).unwrap();
    assert_eq!(names(dir.path()), ["state"]);
    fs::create_dir(&unfinished).unwrap();
    remove_unfinished(&path).unwrap();
    assert!(remove(&dir.path().join("state/below"), Crash).is_ok_and(|was_there| !was_there));
}

#[test]
fn a_lock_that_is_a_link_to_nowhere_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("lock");
    symlink(dir.path().join("nowhere"), &lock).unwrap();
    let refused = Lock::acquire(&lock, 0o600, Duration::from_secs(600));
    assert!(matches!(refused, Err(Error::NotAFile(path)) if path == lock));
}

#[test]
fn what_is_not_on_a_file_system_that_cannot_be_written_need_not_be_removed() {
    in_private_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        mount_tmpfs(dir.path(), "", MsFlags::MS_RDONLY);
        assert!(!remove(&dir.path().join("state"), Crash).unwrap());
        remove_unfinished(&dir.path().join("state")).unwrap();
        assert!(require_room(dir.path()).is_err());
    });
}

#[test]
fn directories_are_created_down_to_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    ensure_dir(&path, 0o700).unwrap();
    ensure_dir(&path, 0o700).unwrap();
    assert_eq!(mode(&path), 0o700);
}

/// Runs a test in a thread with mounts and a umask of its own.
fn in_private_mounts(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        test();
    });
    thread.join().unwrap();
}

fn mount_tmpfs(at: &Path, data: &str, flags: MsFlags) {
    mount(Some("test"), at, Some("tmpfs"), flags, Some(data)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
