//! Hostile names and contents: whatever they are, nothing outside the plugin's directories is written.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use common::{BINARY, Call, Node, Pod, on_a_node};
use serde_json::{Value, json};

/// Names that lead elsewhere where they are taken for paths.
const HOSTILE: [&str; 12] = [
    "..",
    ".",
    "../x",
    "../../../../../../tmp/x",
    "a/../../x",
    "/etc/x",
    "a/b",
    "a\n../x",
    "a:../x",
    "...",
    "a..b",
    "-rf",
];

/// The system calls that write to a path, and those that open one.
const TRACED: &str = "trace=open,openat,openat2,creat,mkdir,mkdirat,rmdir,unlink,unlinkat,rename,renameat,renameat2,\
    link,linkat,symlink,symlinkat,truncate,chmod,fchmodat,chown,fchownat,mknod,mknodat,utimensat,setxattr,mount";

/// Runs a call by the real binary under strace, and returns the paths that it wrote to.
fn written(node: &Node, call: &Call) -> Vec<PathBuf> {
    let log = node.path("strace");
    let plugin = Path::new(&call.program).file_name().unwrap();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-s4096", "-e", TRACED, "-e", "signal=none", "-o"]);
    command.arg(&log).arg(BINARY).arg(plugin);
    command.env_clear().env("PATH", "/usr/bin").envs(&call.vars);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let text = call.conf.to_string();
    child.stdin.take().unwrap().write_all(text.as_bytes()).ok();
    child.wait().unwrap();
    let lines = fs::read_to_string(&log).unwrap();
    assert!(lines.contains("open"), "nothing was seen: {lines}");
    lines
        .lines()
        .filter(|line| is_write(line))
        .flat_map(paths)
        .collect()
}

/// Whether a line of strace's tells of a call that may write.
fn is_write(line: &str) -> bool {
    let reads = line.contains(" open")
        && !["O_WRONLY", "O_RDWR", "O_CREAT"]
            .iter()
            .any(|flag| line.contains(flag));
    line.contains('(') && !reads
}

/// The paths of a line: its quoted texts, but for the name and value of an extended attribute.
fn paths(line: &str) -> Vec<PathBuf> {
    let most = if line.contains("xattr(") { 1 } else { usize::MAX };
    line.split('"')
        .skip(1)
        .step_by(2)
        .take(most)
        .map(PathBuf::from)
        .collect()
}

/// Fails if a call wrote outside the node's state directories and the kernel's networking parameters, or by a path
/// that is not plain.
fn assert_confined(node: &Node, call: &Call, case: &str) -> usize {
    let written = written(node, call);
    for path in &written {
        let plain = path.components().all(|part| part != Component::ParentDir);
        let own = ["flannel", "networks", "portmap", "tuning", "firewall"].map(|dir| node.path(dir));
        let locks = Path::new("/run/cni/flannel");
        let inside = own.iter().any(|dir| path.starts_with(dir))
            || path.starts_with(locks)
            || path.starts_with("/proc/sys/net");
        assert!(plain && inside, "{case}: {} was written to", path.display());
    }
    written.len()
}

/// Adds what leads elsewhere, with each key that a name or content can come by.
fn hostile_calls(node: &Node, pod: &Pod, verb: &str, name: &str) -> Vec<Call> {
    let conf = |key: &str, value: Value| {
        let mut conf = node.conf("1.1.0");
        conf["cni.dev/valid-attachments"] = json!([]);
        conf[key] = value;
        node.call(verb, pod, &conf)
    };
    let mut valid = conf(
        "cni.dev/valid-attachments",
        json!([{"containerID": name, "ifname": name}]),
    );
    valid.conf["cniVersion"] = json!("1.1.0");
    vec![
        conf("name", json!(name)),
        conf("ipam", json!({"dataDir": node.path("networks"), "type": name})),
        conf("delegate", json!({"type": name, "bridge": name})),
        conf(
            "runtimeConfig",
            json!({"mac": name, "ips": [name], "cgroupPath": name}),
        ),
        conf(
            "prevResult",
            json!({"interfaces": [{"name": name, "sandbox": name}]}),
        ),
        conf("cniVersion", json!("1.1.0")).var("CNI_CONTAINERID", name),
        conf("cniVersion", json!("1.1.0")).var("CNI_IFNAME", name),
        conf("cniVersion", json!("1.1.0"))
            .var("CNI_ARGS", &format!("IP={name};MAC={name};K8S_POD_NAME={name}")),
        valid,
    ]
}

/// The plugins that follow flannel, with what leads elsewhere in their keys and in the result.
fn hostile_followers(node: &Node, pod: &Pod, verb: &str, name: &str) -> Vec<Call> {
    let sysctls = json!({name: "1", format!("net.{name}"): "1", format!("net/{name}"): "1"});
    let result =
        json!({"interfaces": [{"name": name, "sandbox": name}], "ips": [{"address": "10.244.7.2/24"}]});
    let mut calls = Vec::new();
    for (plugin, keys) in [
        ("portmap", vec!["externalSetMarkChain"]),
        ("bandwidth", vec![]),
        ("tuning", vec!["sysctl"]),
        ("firewall", vec!["ingressPolicy", "iptablesAdminChainName"]),
        ("loopback", vec![]),
    ] {
        let limits = json!({"egressRate": 8000, "egressBurst": 8000});
        let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
        let base = json!({
            "cniVersion": "1.1.0", "name": "cbr0", "type": plugin, "dataDir": node.path(plugin), "mtu": 1400,
            "cni.dev/valid-attachments": [],
            "runtimeConfig": {"portMappings": ports, "bandwidth": limits},
            "prevResult": {"interfaces": [{"name": "eth0", "sandbox": pod.netns}], "ips": [{"address": "10.244.7.2/24"}]},
        });
        let mut with = |key: &str, value: Value| {
            let mut conf = base.clone();
            conf[key] = value;
            calls.push(node.call(verb, pod, &conf));
        };
        with("name", json!(name));
        with("prevResult", result.clone());
        // An absolute path is the administrator's choice.
        if !name.starts_with('/') {
            with("dataDir", json!(name));
            with("dataDir", json!(node.path(plugin).join(name)));
        }
        for key in keys {
            with(
                key,
                if key == "sysctl" {
                    sysctls.clone()
                } else {
                    json!(name)
                },
            );
        }
    }
    calls
}

#[test]
fn names_lead_followers_nowhere() {
    on_a_node(|node| {
        let pod = Pod::new("pod");
        pod.sh("ip link add eth0 type veth peer name other0");
        let mut count = 0;
        for name in ["..", "../x", "a/../../x", "/etc/x", "a\n../x"] {
            for verb in ["ADD", "DEL", "GC"] {
                for call in hostile_followers(&node, &pod, verb, name) {
                    let case = format!("{verb} with {name:?}: {} {:?}", call.conf, call.vars);
                    count += assert_confined(&node, &call, &case);
                }
            }
        }
        assert!(count > 50, "{count} writes");
        assert!(!Path::new("/etc/x").exists());
    });
}

#[test]
fn names_lead_nowhere() {
    let outside = || ["/tmp/x", "/etc/x"].map(|path| Path::new(path).exists());
    assert_eq!(
        outside(),
        [false; 2],
        "it would be taken for the plugin's: remove it"
    );
    on_a_node(|node| {
        let pod = Pod::new("pod");
        let mut count = assert_confined(
            &node,
            &node.call("ADD", &pod, &node.conf("1.1.0")),
            "an orderly ADD",
        );
        assert!(count > 3, "the watch sees an orderly ADD's writes");
        for name in HOSTILE {
            for verb in ["ADD", "CHECK", "DEL", "GC"] {
                for call in hostile_calls(&node, &pod, verb, name) {
                    let case = format!("{verb} with {name:?}: {} {:?}", call.conf, call.vars);
                    count += assert_confined(&node, &call, &case);
                }
            }
        }
        println!("{count} writes");
    });
    assert_eq!(outside(), [false; 2]);
}

#[test]
fn contents_of_files_lead_nowhere() {
    on_a_node(|node| {
        let pod = Pod::new("pod");
        node.add(&pod);
        let state = fs::read_to_string(node.path("flannel/pod")).unwrap();
        for name in HOSTILE {
            fs::write(
                node.path("networks/cbr0/10.244.7.99"),
                format!("{name}\r\n{name}"),
            )
            .unwrap();
            fs::write(node.path("networks/cbr0/10.244.7.98"), format!("pod\r\n{name}")).unwrap();
            fs::write(node.path("networks/cbr0/last_reserved_ip.0"), name).unwrap();
            let mut conf: Value = serde_json::from_str(&state).unwrap();
            conf["name"] = json!(name);
            conf["bridge"] = json!(name);
            fs::write(node.path("flannel/pod"), conf.to_string()).unwrap();
            fs::write(node.path("flannel/pod:..x"), conf.to_string()).unwrap();
            fs::write(
                node.path("subnet.env"),
                format!("FLANNEL_NETWORK={name}\nFLANNEL_SUBNET={name}\n"),
            )
            .unwrap();
            for verb in ["CHECK", "ADD", "DEL", "GC"] {
                let mut conf = node.conf("1.1.0");
                conf["cni.dev/valid-attachments"] = json!([]);
                let call = node.call(verb, &pod, &conf);
                assert_confined(&node, &call, &format!("{verb} with {name:?} in files"));
            }
        }
    });
}
