//! Calls that lack what they need, or under which the ground gives way.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::chain::{Attachment, Chain};
use crate::common::{BINARY, Call, Node, ip};
use crate::stepper::{Fault, run};
use crate::{Stand, Steps};

/// No plugin has so many files open.
const DESCRIPTORS_MAX: u32 = 32;

/// So much room is plenty.
const INODES_MAX: u32 = 12;

/// The directories in which the plugins of a chain, which were at work, keep their files.
fn state_dirs(node: &Node) -> Vec<PathBuf> {
    let names = ["flannel", "networks", "portmap", "tuning"].into_iter();
    names
        .map(|name| node.path(name))
        .filter(|dir| dir.exists())
        .collect()
}

/// Runs a call with the real binary under a limit of open files.
fn limited(call: &Call, dir: &Path, descriptors: u32) -> Output {
    let name = Path::new(&call.program).file_name().unwrap();
    let program = dir.join(name);
    if !program.exists() {
        symlink(BINARY, &program).unwrap();
    }
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--nofile={descriptors}:{descriptors}"))
        .arg(program);
    command.env_clear().env("PATH", "/usr/bin").envs(&call.vars);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // With too few it ends before it is one.
    std::io::Write::write_all(&mut stdin, call.conf.to_string().as_bytes()).ok();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// An ADD without descriptors fails and leaves nothing; a DEL that lacks them can be repeated.
pub(crate) fn descriptors_run_out(node: &Node, chain: Chain) {
    let programs = tempfile::tempdir().unwrap();
    let mut stand = Stand::new(node, chain);
    let mut enough = 0;
    for descriptors in 3..DESCRIPTORS_MAX {
        let mut attachment = stand.next_attachment();
        // Descriptor by descriptor it comes further.
        let added = attachment.add_by(|call| {
            let output = limited(call, programs.path(), descriptors);
            let stdout = String::from_utf8_lossy(&output.stdout);
            output.status.success().then(|| stdout.into_owned())
        });
        if added {
            enough += 1;
            let del = attachment.call("DEL", chain.len(node) - 1);
            limited(&del, programs.path(), 3 + enough);
        }
        attachment.del();
        stand.assert_clean(&attachment, &format!("{descriptors} descriptors"));
    }
    assert!(enough > 10, "{enough} were enough");
}

/// An ADD without room fails and leaves nothing; a DEL needs none.
pub(crate) fn disk_is_full(node: &Node, chain: Chain) {
    own_mounts();
    let mut stand = Stand::new(node, chain);
    let mut enough = 0;
    for inodes in 1..INODES_MAX {
        // Nearly no files, beside what has long been there, then nearly no contents.
        for options in [
            format!("nr_inodes={}", inodes + 3),
            format!("size={}", inodes * 4096),
        ] {
            for dir in state_dirs(node) {
                let mut attachment = stand.next_attachment();
                let covered = Covered::with(&dir, &options);
                enough += u32::from(attachment.try_add_from(0).is_none());
                attachment.del();
                assert_eq!(
                    crate::snapshot::files_but_locks(&dir),
                    Vec::<String>::new(),
                    "{options}"
                );
                drop(covered);
                stand.assert_clean(&attachment, &format!("{options} at {}", dir.display()));
            }
        }
    }
    assert!(enough > 5, "{enough} were enough");
}

/// A read-only disk keeps an ADD from beginning, and a DEL from ending, until it is writable again.
pub(crate) fn disk_is_read_only(node: &Node, chain: Chain) {
    own_mounts();
    let mut stand = Stand::new(node, chain);
    for dir in state_dirs(node) {
        let case = format!("{} is read-only", dir.display());
        let mut attached = stand.next_attachment();
        attached.add();
        let mut attachment = stand.next_attachment();
        let own = Some(dir.as_path());
        mount(own, &dir, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &dir, None::<&str>, flags, None::<&str>).unwrap();
        assert!(attachment.try_add_from(0).is_some(), "{case}");
        let mut done = (0..chain.len(node))
            .rev()
            .map(|plugin| attached.call("DEL", plugin).run().code);
        assert!(done.any(|code| code != 0), "{case}, but nothing was missed");
        umount2(&dir, MntFlags::MNT_DETACH).unwrap();
        attached.del();
        attachment.del();
        stand.assert_clean(&attached, &case);
        stand.assert_clean(&attachment, &case);
    }
}

/// The container ends while it is attached or detached. Its namespace lives as long as the call.
pub(crate) fn namespace_vanishes(node: &Node, chain: Chain, steps: Steps) {
    let mut stand = Stand::new(node, chain);
    for verb in ["ADD", "DEL"] {
        stand.at(steps, |stand, plugin, step| {
            let mut attachment = stand.next_attachment();
            let call = prepared(&mut attachment, verb, plugin);
            let ending = RefCell::new(&mut attachment);
            let ran = run(&call, Fault::Meanwhile(step, &|| ending.borrow_mut().end_pod()));
            attachment.end_pod();
            attachment.del();
            stand.assert_gone(&format!(
                "the namespace vanished at step {step} of the {verb} of plugin {plugin}"
            ));
            ran.met
        });
    }
}

/// Somebody deletes the bridge while a container is attached or detached.
pub(crate) fn bridge_vanishes(node: &Node, chain: Chain, steps: Steps) {
    for verb in ["ADD", "DEL"] {
        for plugin in 0..chain.len(node) {
            let last = steps.numbers(chain).find(|step| {
                let mut attachment = chain.attachment(node, &format!("{verb}{step}"), 1);
                let call = prepared(&mut attachment, verb, plugin);
                let delete = || {
                    drop(
                        Command::new("ip")
                            .args(["link", "del", "cni0"])
                            .stderr(Stdio::null())
                            .status(),
                    )
                };
                let ran = run(&call, Fault::Meanwhile(*step, &delete));
                attachment.del();
                let case = format!("the bridge vanished at step {step} of the {verb} of plugin {plugin}");
                assert_eq!(
                    node.links().iter().filter(|name| *name != "cni0").count(),
                    0,
                    "{case}"
                );
                assert_eq!((node.leases().len(), node.state_files().len()), (0, 0), "{case}");
                !ran.met
            });
            assert!(last.is_some(), "the plugin comes to its end");
        }
    }
    let mut attachment = chain.attachment(node, "last", 2);
    attachment.add();
    assert!(attachment.pod.reaches("10.244.7.1"));
    assert!(ip(&["-o", "addr", "show", "dev", "cni0"]).contains("10.244.7.1/24"));
}

/// The call of a plugin, with what has to be done before.
fn prepared(attachment: &mut Attachment<'_>, verb: &str, plugin: usize) -> Call {
    if verb == "ADD" {
        attachment.add_before(plugin);
    } else {
        attachment.add();
        attachment.del_behind(plugin);
    }
    attachment.call(verb, plugin)
}

/// A directory over which another file system lies, with a store of addresses that was in use.
struct Covered<'a>(&'a Path);

impl<'a> Covered<'a> {
    fn with(dir: &'a Path, options: &str) -> Self {
        fs::create_dir_all(dir).unwrap();
        mount(Some("test"), dir, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
        fs::create_dir(dir.join("cbr0")).unwrap();
        fs::write(dir.join("cbr0/lock"), "").unwrap();
        Self(dir)
    }
}

impl Drop for Covered<'_> {
    fn drop(&mut self) {
        umount2(self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

/// Gives the thread mounts of its own.
fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
}
