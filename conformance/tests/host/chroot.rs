use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// What the package needs of Debian, and what has plugins of the same names.
const PACKAGES: &str = "systemd-standalone-sysusers,containernetworking-plugins";

/// A minimal Debian of this host's release in a directory.
pub(crate) struct Chroot(TempDir);

impl Chroot {
    /// Unpacks one, which is made first where that was not done yet.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let archive = archive();
        succeed(Command::new("tar").args([
            "-C".as_ref(),
            dir.path().as_os_str(),
            "-xpf".as_ref(),
            archive.as_os_str(),
        ]));
        Self(dir)
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    /// Runs a script there, in a network of its own, which must succeed; returns what it prints on both channels.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = succeed(
            Command::new("unshare")
                .args(["--mount", "--net", "--pid", "--fork", "chroot"])
                .arg(self.root())
                .args(["/bin/sh", "-euc", script])
                .env_clear()
                .envs([
                    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
                    ("DEBIAN_FRONTEND", "noninteractive"),
                ]),
        );
        [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .concat()
    }
}

/// The Debian that is kept for the next time.
fn archive() -> PathBuf {
    let release = fs::read_to_string("/etc/os-release").unwrap();
    let name = |line: &str| {
        Some(
            line.strip_prefix("VERSION_CODENAME=")?
                .trim_matches('"')
                .to_owned(),
        )
    };
    let release = release.lines().find_map(name).expect("a release of Debian");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let archive = dir.join(format!("{release}.tar"));
    if !archive.exists() {
        // mmdebstrap tells the format by the ending.
        let next = dir.join(format!("{release}.{}.tar", std::process::id()));
        let args = [
            "--quiet",
            "--mode=root",
            "--variant=essential",
            "--include",
            PACKAGES,
            &release,
        ];
        let args = args.map(OsStr::new);
        succeed(
            Command::new("mmdebstrap")
                .args(args)
                .arg(&next)
                .arg(mirror(&release)),
        );
        fs::rename(&next, &archive).unwrap();
    }
    archive
}

/// Where this host has its packages from.
fn mirror(release: &str) -> String {
    let output = succeed(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(SITE)",
        "Created-By: Packages",
        &format!("Codename: {release}"),
    ]));
    let sites = String::from_utf8(output.stdout).unwrap();
    sites.lines().next().expect("a mirror").to_owned()
}

/// Runs a program that must succeed.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let [said, wrote] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{command:?}: {said}{wrote}");
    output
}
