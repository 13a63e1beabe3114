use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use conformance::lab::Binaries;

use crate::PROJECT;
use crate::files::{Files, files};

const CONFLIST: &str = "etc/cni/net.d/10-flannel.conflist";

#[test]
fn what_install_puts_on_a_host_uninstall_takes_away_again() {
    let root = tempfile::tempdir().unwrap();
    let binaries = Binaries::find().unwrap();
    let bin_dir = binaries.dir().to_str().unwrap();
    for (name, text) in [
        (CONFLIST, "another network"),
        ("opt/cni/bin/bridge", "another bridge"),
        ("usr/local/bin/flanneld", "another daemon"),
        ("etc/systemd/system/flanneld.service", "another unit"),
    ] {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let before = regular(root.path());

    install(root.path(), &["--bin-dir", bin_dir]);
    let installed = regular(root.path());
    let text = |name: &str| String::from_utf8(installed[name].content.clone()).unwrap();
    assert_eq!(
        text(CONFLIST),
        include_str!("../../../deploy/cni/10-flannel.conflist")
    );
    assert_eq!(
        text("etc/systemd/system/flanneld.service"),
        include_str!("../../../deploy/systemd/flanneld.service")
    );
    assert_eq!(text(&format!("{CONFLIST}.kept")), "another network");
    assert!(text("etc/passwd").contains("flannel:"));
    for program in [
        "usr/local/bin/flanneld",
        "opt/cni/bin/portmap",
        "opt/cni/bin/bridge",
    ] {
        let mode = fs::metadata(root.path().join(program))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755, "{program}");
    }
    let daemon = Command::new(root.path().join("usr/local/bin/mk-docker-opts.sh"))
        .args(["-d", "/dev/full", "-f", "/absent"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&daemon.stderr).into_owned();
    assert!(!daemon.status.success() && said.contains("/dev/full"), "{said}");

    let edited = root.path().join("etc/default/flanneld");
    fs::write(&edited, "FLANNELD_IFACE=eth1\n").unwrap();
    let before_again = regular(root.path());
    install(root.path(), &["--bin-dir", bin_dir]);
    assert!(
        regular(root.path()) == before_again,
        "the second time there is nothing to do"
    );

    for told in ["removed", "kept"] {
        let said = install(root.path(), &["--uninstall"]);
        let names_daemon = said.contains("removed") && said.contains("usr/local/bin/flanneld\n");
        assert_eq!(
            (said.contains(told), names_daemon),
            (true, told == "removed"),
            "{said}"
        );
        let mut left = regular(root.path());
        assert_eq!(
            left.remove("etc/default/flanneld").unwrap().content,
            b"FLANNELD_IFACE=eth1\n",
            "it was edited"
        );
        let users = ["passwd", "shadow", "group", "gshadow", ".pwd.lock"];
        left.retain(|name, _| !users.iter().any(|user| name.starts_with(&format!("etc/{user}"))));
        assert_eq!(contents(&left), contents(&before));
    }
}

#[test]
fn an_uninstall_of_nothing_says_so() {
    let root = tempfile::tempdir().unwrap();
    let said = install(root.path(), &["--uninstall"]);
    assert!(
        said.starts_with("there is nothing of scripts/install's"),
        "{said}"
    );
    assert!(regular(root.path()).is_empty());
}

#[test]
fn scripts_refuse_a_wrong_command_line_before_they_begin() {
    for (script, arguments, why) in [
        ("image", "--out /run", "--out: /run is a directory"),
        ("image", "--out=/run", "--out: /run is a directory"),
        (
            "image",
            "--out /absent/image.tar",
            "--out: there is no directory for /absent/image.tar",
        ),
        ("image", "--name=", "--name needs a value"),
        ("package", "--out=/run", "--out: /run is a directory"),
        (
            "package",
            "--revision=0",
            "--revision needs a number from 1 to 999999, not 0",
        ),
        (
            "install",
            "--root=/absent",
            "--root: there is no directory /absent",
        ),
        ("fuzz", "--seconds", "--seconds needs a value"),
        ("fuzz", "bytes", "there is no target bytes"),
        ("test", "--fast", "there is no option --fast"),
        ("manifests", "chart", "there is no option chart"),
    ] {
        let output = Command::new(format!("{PROJECT}/scripts/{script}"))
            .args(arguments.split(' '))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{script} {arguments}: {said}");
        assert!(said.ends_with(&format!("\n{script}: {why}\n")), "{said}");
    }
}

/// Runs the script on the system below a directory, and returns what it prints.
fn install(root: &Path, arguments: &[&str]) -> String {
    let output = Command::new(format!("{PROJECT}/scripts/install"))
        .arg("--root")
        .arg(root)
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn contents(files: &Files) -> Vec<(String, Vec<u8>)> {
    let contents = files
        .iter()
        .map(|(name, entry)| (name.clone(), entry.content.clone()));
    contents.collect()
}

/// Every regular file below a directory; links are made anew each time.
fn regular(root: &Path) -> Files {
    let mut found = files(root, &[""]);
    found.retain(|_, entry| entry.is_file());
    found
}
