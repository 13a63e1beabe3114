//! What others may lock, and what the plugin locks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Pod, names_in, on_a_node, sh};
use nix::sched::{CloneFlags, unshare};

const LOCKS: &str = "/run/cni/flannel";

/// Every process may open the namespaces' files, and lock what it opened.
#[test]
fn a_lock_on_a_namespaces_file_holds_up_nobody() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let strangers = ["/proc/thread-self/ns/net", &pod.netns].map(|path| {
            let file = File::open(path).unwrap();
            file.lock().unwrap();
            file
        });
        node.add(&pod);
        node.del(&pod);
        node.assert_nothing_left(&["cni0"]);
        drop(strangers);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(Path::new(LOCKS)), 0o700);
        let locks = names_in(Path::new(LOCKS));
        assert!(locks.len() >= 2, "{locks:?}");
        for name in locks {
            assert_eq!(mode(&Path::new(LOCKS).join(&name)), 0o600, "{name}");
        }
    });
}

#[test]
fn a_directory_of_locks_that_cannot_be_made_is_named() {
    on_a_node(|node| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        sh(Path::new("/"), "mount --make-rprivate /");
        let pod = Pod::new("a");
        for (options, why) in [("ro", "read-only"), ("nr_inodes=1", "space")] {
            sh(Path::new("/"), &format!("mount -t tmpfs -o {options} none /run"));
            for (verb, version, code) in [("STATUS", "1.1.0", 50), ("ADD", "1.0.0", 5)] {
                let error = node.call(verb, &pod, &node.conf(version)).fails();
                assert_eq!(error["code"], code, "{error}");
                let text = error.to_string().to_lowercase();
                assert!(text.contains("/run") && text.contains(why), "{error}");
            }
            node.assert_nothing_left(&[]);
            sh(Path::new("/"), "umount /run");
        }
    });
}
