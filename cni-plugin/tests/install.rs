//! `flannel install`: by hand, while pods start, on bad disks, and killed at any moment.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_flannel");

/// A directory of plugins, and programs beside it.
struct Place {
    temp: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            temp: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(place.bin()).unwrap();
        place
    }

    fn bin(&self) -> PathBuf {
        self.temp.path().join("bin")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }

    /// A program with other contents, which does the same.
    fn other_build(&self, number: u32) -> PathBuf {
        let path = self.temp.path().join(format!("flannel{number}"));
        // Written by another process: one that this test forks meanwhile must not have it open for writing.
        let script = format!("cp {BINARY} {0} && echo build {number} >> {0}", path.display());
        assert!(
            Command::new("sh")
                .args(["-ec", &script])
                .status()
                .unwrap()
                .success()
        );
        path
    }

    fn run(&self, program: &Path, options: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.arg("install").arg("--dir").arg(self.bin()).args(options);
        command.output().unwrap()
    }

    /// Runs it, which must succeed, and returns what it said.
    fn succeeds(&self, program: &Path, options: &[&str]) -> String {
        let output = self.run(program, options);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn install(&self) -> String {
        self.succeeds(Path::new(BINARY), &[])
    }

    fn uninstall(&self) -> String {
        self.succeeds(Path::new(BINARY), &["--uninstall"])
    }

    /// All files with their contents, links with their targets.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.bin()).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let metadata = entry.path().symlink_metadata().unwrap();
            let content = if metadata.is_symlink() {
                fs::read_link(entry.path())
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else if metadata.is_dir() {
                b"a directory".to_vec()
            } else {
                fs::read(entry.path()).unwrap()
            };
            files.insert(name, content);
        }
        files
    }

    /// Somebody's plugins.
    fn with_others(self) -> Self {
        fs::write(self.path("bridge"), "#!/bin/sh\necho their bridge\n").unwrap();
        fs::set_permissions(self.path("bridge"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(self.path("macvlan"), "theirs").unwrap();
        symlink("../elsewhere/loopback", self.path("loopback")).unwrap();
        self
    }
}

fn plugins() -> Vec<String> {
    let told = Command::new(BINARY).arg("--version").output().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    let (_, names) = text.split_once("plugins ").unwrap();
    names
        .trim()
        .replace(" and ", ", ")
        .split(", ")
        .map(str::to_owned)
        .collect()
}

/// Whether a program answers VERSION; it must, whatever happens to its file.
fn answers(program: &Path) -> bool {
    let output = Command::new(program)
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::null())
        .output();
    let output = output.unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    output.status.success() && answer["supportedVersions"].is_array()
}

#[test]
fn every_plugin_is_placed_as_a_file_of_its_own_and_works() {
    let place = Place::new();
    assert!(place.install().contains("is installed in"));
    let names = plugins();
    assert!(names.len() >= 5 && names.contains(&"host-local".to_owned()));
    let mut inodes = Vec::new();
    for name in &names {
        let path = place.path(name);
        assert!(answers(&path));
        let metadata = path.symlink_metadata().unwrap();
        assert_eq!(
            (metadata.is_file(), metadata.mode() & 0o7777, metadata.nlink()),
            (true, 0o755, 1)
        );
        inodes.push(metadata.ino());
        let about = Command::new(&path).output().unwrap();
        assert!(
            String::from_utf8(about.stderr)
                .unwrap()
                .contains(&format!("CNI plugin {name} "))
        );
    }
    // Others overwrite files in place; that must harm no other plugin.
    inodes.sort_unstable();
    inodes.dedup();
    assert_eq!(inodes.len(), names.len());
    assert!(place.install().contains("already"));
    assert!(place.uninstall().contains("removed"));
    assert!(place.files().is_empty());
    assert!(place.uninstall().contains("nothing"));
}

#[test]
fn what_was_there_is_kept_aside_and_put_back() {
    let place = Place::new().with_others();
    let before = place.files();
    let told = place.install();
    assert!(
        told.contains("What was there is kept in") && told.contains("bridge, loopback"),
        "{told}"
    );
    assert!(answers(&place.path("bridge")) && answers(&place.path("loopback")));
    assert_eq!(fs::read(place.path("macvlan")).unwrap(), b"theirs");
    // A newer build replaces ours, not what is kept.
    let other = place.other_build(1);
    place.succeeds(&other, &[]);
    assert_eq!(fs::read(place.path("bridge")).unwrap(), fs::read(&other).unwrap());
    place.succeeds(Path::new(&place.path("flannel")), &[]);
    place.uninstall();
    assert_eq!(place.files(), before);
    assert_eq!(place.path("bridge").metadata().unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn files_that_others_placed_afterwards_stay_theirs() {
    let place = Place::new().with_others();
    place.install();
    // As upstream's manifest does it: in place.
    fs::write(place.path("flannel"), "upstream's").unwrap();
    fs::write(place.path("bridge"), "newer bridge").unwrap();
    assert!(answers(&place.path("host-local")));
    let told = place.uninstall();
    assert!(
        told.contains("left, because somebody else replaced it: bridge, flannel"),
        "{told}"
    );
    assert!(told.contains("still kept: bridge"), "{told}");
    assert_eq!(fs::read(place.path("flannel")).unwrap(), b"upstream's");
    assert_eq!(fs::read(place.path("bridge")).unwrap(), b"newer bridge");
    assert!(!place.path("host-local").exists());
    let kept = fs::read_to_string(place.path(".flannel/before/bridge")).unwrap();
    assert!(kept.contains("their bridge"));
    // Installed over theirs again, theirs come back.
    place.install();
    place.uninstall();
    assert_eq!(fs::read(place.path("flannel")).unwrap(), b"upstream's");
    assert_eq!(fs::read(place.path("bridge")).unwrap(), b"newer bridge");
}

#[test]
fn plugins_that_a_version_lacks_are_given_up() {
    let place = Place::new();
    place.install();
    // As an earlier version with three plugins more left them.
    for name in ["gone", "theirs-before", "theirs-since"] {
        let script =
            format!("cp flannel {name}; sed -i 's/\"bridge\",/&\"{name}\",/' .flannel/installed.json");
        let mut copied = Command::new("sh");
        copied.args(["-ec", &script]).current_dir(place.bin());
        assert!(copied.status().unwrap().success());
    }
    fs::write(place.path("theirs-since"), "newer").unwrap();
    fs::create_dir_all(place.path(".flannel/before")).unwrap();
    fs::write(place.path(".flannel/before/theirs-before"), "older").unwrap();

    let told = place.succeeds(&place.other_build(1), &[]);

    for line in [
        "removed: gone",
        "put back what was there before: theirs-before",
        "left, because somebody else replaced it: theirs-since",
    ] {
        assert!(told.contains(line), "{told}");
    }
    assert!(!place.path("gone").exists());
    assert_eq!(fs::read(place.path("theirs-before")).unwrap(), b"older");
    assert_eq!(fs::read(place.path("theirs-since")).unwrap(), b"newer");
    place.uninstall();
    let mut left = place.files();
    left.remove(".flannel");
    assert_eq!(left.keys().collect::<Vec<_>>(), ["theirs-before", "theirs-since"]);
}

#[test]
fn a_newer_version_is_not_replaced_unless_it_must() {
    let place = Place::new();
    place.install();
    let record = place.path(".flannel/installed.json");
    let text = fs::read_to_string(&record).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    fs::write(&record, text.replace(version, "99.0.0")).unwrap();
    let other = place.other_build(1);
    let before = place.files();
    let output = place.run(&other, &[]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        told.contains("holds flannel 99.0.0, which is newer") && told.contains("--force"),
        "{told}"
    );
    assert_eq!(place.files(), before);
    place.succeeds(&other, &["--force"]);
    assert!(fs::read_to_string(&record).unwrap().contains(version));
    place.uninstall();
    assert!(place.files().is_empty());
}

#[test]
fn what_cannot_be_done_is_said_and_changes_nothing() {
    let place = Place::new().with_others();
    let fails = |named: &str| {
        let output = place.run(Path::new(BINARY), &[]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            told.starts_with("flannel install: ") && told.contains(named),
            "{told}"
        );
    };
    fs::create_dir(place.path("host-local")).unwrap();
    let before = place.files();
    fails("host-local is not a file");
    assert_eq!(place.files(), before);
    fs::remove_dir(place.path("host-local")).unwrap();

    place.install();
    fs::write(place.path(".flannel/installed.json"), "{").unwrap();
    let before = place.files();
    fails("installed.json cannot be read as a record");
    let output = place.run(Path::new(BINARY), &["--uninstall"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(place.files(), before);

    let file = place.temp.path().join("bin/macvlan/x");
    let mut command = Command::new(BINARY);
    let output = command.arg("install").arg("--dir").arg(&file).output().unwrap();
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("Not a directory")
    );
    let usage = Command::new(BINARY)
        .args(["install", "--nonsense"])
        .output()
        .unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

/// Runs a script with a file system of its own at `$D`, and the binary as `$B`.
fn on_a_disk(options: &str, script: &str) -> String {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().display();
    let script = format!("mount -t tmpfs -o {options} none {dir}; cd {dir}; D={dir}; B={BINARY}; {script}");
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-ec", &script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_full_or_read_only_disk_leaves_the_old_state() {
    let size = fs::metadata(BINARY).unwrap().len();
    let told = on_a_disk(
        &format!("size={}", size * 3),
        "echo theirs > bridge
         ! $B install --dir $D 2>&1
         cat bridge; find . -type f | sort; df --output=avail . | tail -1
         mount -o remount,ro .
         ! $B install --dir $D 2>&1
         ! $B install --dir $D/x 2>&1
         cat bridge",
    );
    assert!(told.contains("No space left on device"), "{told}");
    assert_eq!(told.matches("Read-only file system").count(), 2, "{told}");
    assert_eq!(told.matches("theirs\n").count(), 2, "{told}");
    assert!(
        told.contains("theirs\n./bridge\n"),
        "only the old file is there: {told}"
    );
}

#[test]
fn two_at_once_come_one_after_the_other() {
    let place = Place::new().with_others();
    let before = place.files();
    let builds = [place.other_build(1), place.other_build(2), place.other_build(3)];
    scope(|scope| {
        for build in &builds {
            scope.spawn(|| place.succeeds(build, &[]));
            scope.spawn(|| place.succeeds(build, &["--uninstall"]));
        }
    });
    place.install();
    assert!(plugins().iter().all(|name| answers(&place.path(name))));
    place.uninstall();
    assert_eq!(place.files(), before);
}

/// Whoever may read the directory may lock it.
#[test]
fn who_may_only_read_the_directory_holds_up_nobody() {
    let place = Place::new();
    let stranger = fs::File::open(place.bin()).unwrap();
    stranger.lock().unwrap();
    place.install();
    let lock = place.path(".flannel/lock").metadata().unwrap();
    assert_eq!(lock.mode() & 0o7777, 0o600);
    place.uninstall();
    assert!(place.files().is_empty());
    drop(stranger);
}

/// As in the init container: root has no capabilities there.
#[test]
fn without_capabilities_only_the_directories_of_root_can_be_installed_into() {
    let place = Place::new();
    let (id, dir) = (fs::metadata(place.bin()).unwrap().uid(), place.bin());
    let install = |last: &str, added: &str| {
        let bounding = format!("--bounding-set=-all{added}");
        let mut command = Command::new("setpriv");
        command.args([&bounding, "--inh-caps=-all", "--no-new-privs", BINARY, "install"]);
        command.args((!last.is_empty()).then_some(last));
        command.arg("--dir").arg(&dir).output().unwrap()
    };
    assert!(install("", "").status.success());
    assert!(install("--uninstall", "").status.success());
    std::os::unix::fs::chown(&dir, Some(id + 1001), None).unwrap();
    let denied = install("", "");
    assert_eq!(denied.status.code(), Some(1));
    let words = String::from_utf8(denied.stderr).unwrap();
    let way_out =
        "give the directory to root (chown root:root), or the container the capability DAC_OVERRIDE\n";
    assert!(
        words.contains("Permission denied") && words.ends_with(way_out),
        "{words}"
    );
    assert!(install("", ",+dac_override").status.success());
    assert!(install("--uninstall", ",+dac_override").status.success());
    assert!(place.files().is_empty());
}

#[test]
fn pods_start_while_the_plugins_are_replaced_and_installers_killed() {
    let place = Place::new().with_others();
    let before = place.files();
    place.install();
    let builds = [place.other_build(1), place.other_build(2)];
    let names = plugins();
    let over = AtomicBool::new(false);
    let (mut kills, mut starts) = (0, 0);
    scope(|scope| {
        let pods = scope.spawn(|| {
            let mut starts = 0;
            while !over.load(Ordering::Relaxed) {
                for name in &names {
                    assert!(answers(&place.path(name)), "{name}");
                    starts += 1;
                }
            }
            starts
        });
        // How long one installation takes here says when to kill.
        let start = Instant::now();
        place.succeeds(&builds[0], &[]);
        let whole = start.elapsed();
        for round in 0..16_u32 {
            let build = &builds[usize::from(round % 2 == 0)];
            let mut command = Command::new(build);
            command
                .arg("install")
                .arg("--dir")
                .arg(place.bin())
                .stdout(Stdio::null());
            let mut child = command.spawn().unwrap();
            sleep(whole * round / 16);
            child.kill().unwrap();
            kills += u32::from(!child.wait().unwrap().success());
            if round % 5 == 4 {
                place.succeeds(build, &[]);
            }
        }
        over.store(true, Ordering::Relaxed);
        starts = pods.join().unwrap();
    });
    assert!(kills >= 4 && starts >= 20, "{kills} kills, {starts} starts");
    // A removal that is killed at any moment is completed by the next.
    for pause_ms in 0..8 {
        place.install();
        let mut command = Command::new(BINARY);
        command
            .args(["install", "--uninstall", "--dir"])
            .arg(place.bin())
            .stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        sleep(Duration::from_millis(pause_ms * 3));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = place.files();
        assert!(
            now.contains_key("bridge") && now.contains_key("loopback"),
            "never missing"
        );
    }
    place.uninstall();
    assert_eq!(place.files(), before);
}
