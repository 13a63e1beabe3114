//! Where hostile bytes may do their worst: namespaces in which nothing can be written but a few directories in memory.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// The container's network namespace.
pub const POD: &str = "/run/netns/pod";

/// The plugins' directories, which are empty at first.
pub const SUBNET_FILE: &str = "/run/flannel/subnet.env";
pub const STATE_DIR: &str = "/var/lib/cni/flannel";
pub const LEASES_DIR: &str = "/var/lib/cni/networks/net";

/// Moves the calling thread, and whatever it starts later, to such a place. The directory `kept` stays writable.
///
/// # Panics
/// The thread is not root's.
pub fn enter(kept: Option<&Path>) {
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    unshare(flags).expect("fuzzing needs root");
    remount(None, "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    if let Some(kept) = kept.and_then(Path::to_str) {
        remount(Some(kept), kept, MsFlags::MS_BIND);
    }
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("the mounts are told");
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    for point in points.filter(|point| kept != Some(Path::new(point)) && Path::new(point).exists()) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        // Some are below others and out of sight.
        mount(None::<&str>, point, None::<&str>, flags, None::<&str>).ok();
    }
    for dir in ["/run", "/var/lib"] {
        mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("memory is mounted");
    }
    assert!(
        fs::write("/etc/written", "").is_err(),
        "the place must not be writable"
    );
    make_pod();
    clear();
}

/// [`enter`] for a whole fuzzing process, which keeps corpora and findings in the working directory.
pub fn enter_for_good() {
    let own = std::env::current_dir().expect("there is a working directory");
    enter(Some(&own));
    // The old way to it leads to where nothing can be written.
    std::env::set_current_dir(own).expect("the working directory is still there");
}

/// Makes the plugins' directories as empty as they were.
pub fn clear() {
    for file in [
        Path::new(SUBNET_FILE),
        Path::new(STATE_DIR),
        Path::new(LEASES_DIR),
    ] {
        let top = file.parent().expect("all are below others");
        if fs::read_dir(top).is_ok_and(|mut entries| entries.next().is_none()) {
            continue;
        }
        fs::remove_dir_all(top).ok();
        fs::create_dir_all(top).expect("memory is writable");
    }
}

fn make_pod() {
    fs::create_dir_all("/run/netns").expect("memory is writable");
    fs::write(POD, "").expect("memory is writable");
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("fuzzing needs root");
        remount(Some("/proc/thread-self/ns/net"), POD, MsFlags::MS_BIND);
    })
    .join()
    .expect("a container's namespace is made");
}

fn remount(source: Option<&str>, target: &str, flags: MsFlags) {
    mount(source, target, None::<&str>, flags, None::<&str>).expect("mounts can be changed");
}
