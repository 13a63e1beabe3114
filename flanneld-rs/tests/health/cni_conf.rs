use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::node::{LIMIT, Node, get, on_a_node, try_get};

const LIST: &str = r#"{"name":"cbr0","cniVersion":"1.0.0","plugins":[{"type":"flannel","delegate":{"isDefaultGateway":true}}]}"#;
const HTTP: &str = "--healthz-port=8081";

/// The flags that give the runtime's directory a list.
fn flags(node: &Node) -> [String; 2] {
    fs::write(node.file("list"), LIST).unwrap();
    [
        format!("--cni-conf-src={}", node.file("list").display()),
        format!("--cni-conf-dir={}", node.file("net.d").display()),
    ]
}

fn start(node: &mut Node, flags: &[String], more: &str) {
    let flags: Vec<_> = flags.iter().map(String::as_str).chain([HTTP, more]).collect();
    node.start(&flags);
}

#[test]
fn the_runtime_hears_of_the_network_when_pods_can_start_and_a_restart_takes_nothing_away() {
    on_a_node(|node| {
        let flags = flags(node);
        let list = node.file("net.d/10-flannel.conflist");
        start(node, &flags, "-v=0");
        node.wait("the health server", || try_get("/healthz").is_some());
        assert_eq!(get("/readyz").0, 503);
        assert!(!list.exists(), "there is no network configuration yet");
        node.configure();
        node.wait_ready();
        assert_eq!(fs::read_to_string(&list).unwrap(), LIST);
        assert_eq!(fs::read_dir(node.file("net.d")).unwrap().count(), 1);
        let number = fs::metadata(&list).unwrap().ino();

        node.stop();
        assert!(list.exists(), "pods are added while a daemon is replaced");
        start(node, &flags, "--cni-conf-remove-on=SIGTERM");
        node.wait_ready();
        assert_eq!(
            fs::metadata(&list).unwrap().ino(),
            number,
            "it is not written anew"
        );
        node.stop();
        assert!(!list.exists());
    });
}

#[test]
fn a_subnet_file_that_somebody_removes_or_changes_is_written_again() {
    on_a_node(|node| {
        node.configure();
        start(node, &[], "-v=0");
        node.wait_ready();
        let file = node.file("run/subnet.env");
        let written = fs::read_to_string(&file).unwrap();
        let says_it = || fs::read_to_string(&file).is_ok_and(|text| text == written);
        fs::remove_dir_all(file.parent().unwrap()).unwrap();
        node.wait("the file", says_it);
        fs::write(&file, "FLANNEL_MTU=9000\n").unwrap();
        node.wait("the right file", says_it);
        node.wait_ready();
        assert_eq!(
            node.log().matches("removed or changed the subnet file").count(),
            2
        );
    });
}

#[test]
fn a_node_whose_runtime_cannot_be_told_is_not_ready_until_it_can() {
    on_a_node(|node| {
        node.configure();
        let flags = flags(node);
        fs::write(node.file("net.d"), "a file in the way").unwrap();
        start(node, &flags, "-v=0");
        node.wait("the failure", || node.log().contains("no pod can start here"));
        assert_eq!(get("/readyz").0, 503);
        fs::remove_file(node.file("net.d")).unwrap();
        node.wait_ready();
        assert!(node.file("net.d/10-flannel.conflist").exists());
    });
}

#[test]
fn a_list_that_no_runtime_would_take_ends_the_start() {
    on_a_node(|node| {
        node.configure();
        let flags = flags(node);
        fs::write(node.file("list"), "{}").unwrap();
        let leases = format!("--lease-dir={}", node.file("leases").display());
        let output = node.run(&[&flags[0], &flags[1], &leases]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said.contains("is no network configuration list: it has no name"),
            "{said}"
        );
    });
}

#[test]
fn the_manifests_flags_are_flags_of_this_daemon() {
    let manifest = include_str!("../../../deploy/kustomize/base/kube-flannel.yml");
    let lines = manifest.lines().map(str::trim);
    let flags: Vec<_> = lines.filter_map(|line| line.strip_prefix("- --")).collect();
    assert!(flags.contains(&"kube-subnet-mgr"), "{flags:?}");
    let flags = flags.iter().map(|flag| format!("--{flag}"));
    let output = Command::new(env!("CARGO_BIN_EXE_flanneld"))
        .args(flags.chain(["--version".to_owned()]))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn under_their_names_the_small_programs_work() {
    on_a_node(|node| {
        for name in ["cp", "install-conf", "mk-docker-opts.sh"] {
            symlink(env!("CARGO_BIN_EXE_flanneld"), node.file(name)).unwrap();
        }
        let run = |words: &[&str]| {
            let output = Command::new(node.file(words[0]))
                .args(&words[1..])
                .current_dir(node.file(""))
                .output()
                .unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            (output.status.code(), said)
        };
        fs::write(node.file("a"), "one").unwrap();
        assert_eq!(run(&["install-conf", "a", "b"]), (Some(0), String::new()));
        assert_eq!(run(&["cp", "-f", "b", "c"]), (Some(0), String::new()));
        assert_eq!(fs::read_to_string(node.file("c")).unwrap(), "one");
        fs::write(
            node.file("env"),
            "FLANNEL_SUBNET=10.5.57.1/24\nFLANNEL_MTU=1450\n",
        )
        .unwrap();
        assert_eq!(
            run(&["mk-docker-opts.sh", "-c", "-f", "env", "-d", "opts"]),
            (Some(0), String::new())
        );
        assert_eq!(
            fs::read_to_string(node.file("opts")).unwrap(),
            "DOCKER_OPTS=\" --bip=10.5.57.1/24 --mtu=1450\"\n"
        );
        let (code, said) = run(&["install-conf", "absent", "b"]);
        assert!(code == Some(1) && said.contains("absent"), "{said}");
        let (code, said) = run(&["mk-docker-opts.sh", "-x"]);
        assert!(code == Some(1) && said.starts_with("usage:"), "{said}");
    });
}

#[test]
fn the_small_programs_tell_their_usage_to_who_asks() {
    for words in [
        "install-conf --help",
        "install-conf -h",
        "mk-docker-opts -h",
        "mk-docker-opts --help",
        "pause --help",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_flanneld"))
            .args(words.split(' '))
            .output()
            .unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && told.starts_with("usage: "),
            "{words}: {told}"
        );
        assert!(output.stderr.is_empty(), "{words}");
    }
}

#[test]
fn a_pause_lasts_until_it_is_asked_to_end() {
    let mut pause = Command::new(env!("CARGO_BIN_EXE_flanneld"))
        .arg("pause")
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", pause.id());
    // SIGTERM is the fifteenth signal, from the lowest bit.
    let catches_sigterm = || {
        let status = fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        u64::from_str_radix(caught.unwrap().trim(), 16).unwrap() & (1 << 14) != 0
    };
    let end = Instant::now() + LIMIT;
    while !catches_sigterm() {
        assert!(Instant::now() < end, "it waits for no signal");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(pause.try_wait().unwrap().is_none());
    let pid = Pid::from_raw(i32::try_from(pause.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(pause.wait().unwrap().success());
    let output = Command::new(env!("CARGO_BIN_EXE_flanneld"))
        .args(["pause", "60"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
}
