//! Calls of the plugins, made of bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cni_plugin::{Edges, Input, Output};
use cni_types::{AddResult, Version};
use serde_json::{Value, json};

use crate::place::{LEASES_DIR, POD, STATE_DIR, SUBNET_FILE, clear};

/// Every plugin that this project has or will have; an unknown one is an error like any other.
const PLUGINS: [&str; 8] = [
    "flannel",
    "bridge",
    "host-local",
    "portmap",
    "bandwidth",
    "firewall",
    "tuning",
    "loopback",
];

/// Those that change nothing in the kernel that isn't there already.
const VERBS: [&str; 5] = ["DEL", "CHECK", "STATUS", "GC", "VERSION"];

/// An orderly subnet file.
const SUBNET_ENV: &str =
    "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.2.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

/// Does with bytes what the target of a name does.
///
/// # Panics
/// When the plugin does, or when its answer is not as the specification wants it.
pub fn run(target: &str, data: &[u8]) {
    match target {
        "configuration" => configuration(data),
        "environment" => environment(data),
        "subnet_file" => subnet_file(data),
        "state_file" => state_file(data),
        "leases" => leases(data),
        "prev_result" => prev_result(data),
        other => panic!("there is no target {other:?}"),
    }
    clear();
}

/// The first byte chooses plugin and verb, the rest is the configuration.
fn configuration(data: &[u8]) {
    let Some((first, text)) = data.split_first() else {
        return;
    };
    let (plugin, verb) = chosen(*first);
    put(SUBNET_FILE, SUBNET_ENV.as_bytes());
    // host-local has nothing but files.
    if plugin == "host-local" {
        call(plugin, "ADD", text);
    }
    call(plugin, verb, text);
}

/// Lines `NAME=value`; the name `argv0` is the program's path.
fn environment(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let lines = text.split('\n').filter_map(|line| line.split_once('='));
    let mut vars: BTreeMap<_, _> = lines.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    // Neither real programs nor other people's namespaces.
    let netns = vars.get("CNI_NETNS").is_some_and(|path| path.contains("proc"));
    let path = vars
        .get("CNI_PATH")
        .is_some_and(|path| path.split(':').any(|dir| Path::new(dir).is_dir()));
    if netns || path {
        return;
    }
    let program = vars
        .remove("argv0")
        .unwrap_or_else(|| "/opt/cni/bin/host-local".to_owned());
    put(SUBNET_FILE, SUBNET_ENV.as_bytes());
    checked(
        Input {
            program,
            vars,
            ..Input::default()
        },
        conf("flannel", "1.1.0").to_string().as_bytes(),
    );
}

/// The bytes are the subnet file.
fn subnet_file(data: &[u8]) {
    put(SUBNET_FILE, data);
    let text = conf("flannel", "1.1.0").to_string();
    for verb in ["STATUS", "DEL"] {
        call("flannel", verb, text.as_bytes());
    }
}

/// The bytes are flannel's state file of the container.
fn state_file(data: &[u8]) {
    put(SUBNET_FILE, SUBNET_ENV.as_bytes());
    put(&format!("{STATE_DIR}/pod"), data);
    for verb in ["CHECK", "GC", "DEL"] {
        let mut conf = conf("flannel", "1.1.0");
        conf["cni.dev/valid-attachments"] = json!([]);
        conf["prevResult"] = result();
        call("flannel", verb, conf.to_string().as_bytes());
    }
}

/// Files of host-local's directory: `name NUL content`, separated by bytes of 0xff.
fn leases(data: &[u8]) {
    for file in data.split(|byte| *byte == 0xff) {
        let mut parts = file.splitn(2, |byte| *byte == 0);
        let name = parts
            .next()
            .and_then(|name| std::str::from_utf8(name).ok())
            .unwrap_or_default();
        let is_name =
            !name.is_empty() && !name.contains('/') && name.len() < 256 && name != "." && name != "..";
        if is_name {
            put(&format!("{LEASES_DIR}/{name}"), parts.next().unwrap_or_default());
        }
    }
    let mut conf = conf("host-local", "1.1.0");
    conf["cni.dev/valid-attachments"] = json!([{"containerID": "pod", "ifname": "eth0"}]);
    for verb in ["STATUS", "ADD", "CHECK", "GC", "DEL"] {
        call("host-local", verb, conf.to_string().as_bytes());
    }
}

/// The first byte chooses plugin and verb, the rest is the previous result.
fn prev_result(data: &[u8]) {
    let Some((first, text)) = data.split_first() else {
        return;
    };
    let Ok(value) = serde_json::from_slice::<Value>(text) else {
        return;
    };
    if let Ok(result) = AddResult::parse(&value) {
        forms(&result);
    }
    let (plugin, verb) = chosen(*first);
    put(SUBNET_FILE, SUBNET_ENV.as_bytes());
    put(
        &format!("{STATE_DIR}/pod"),
        conf("bridge", "1.1.0").to_string().as_bytes(),
    );
    let mut conf = conf(plugin, "1.1.0");
    conf["prevResult"] = value;
    call(plugin, verb, conf.to_string().as_bytes());
}

/// What a result says in a version, it says again after it was read.
fn forms(result: &AddResult) {
    for version in Version::ALL {
        let Ok(form) = result.render(version) else {
            continue;
        };
        let read = AddResult::parse(&form).unwrap_or_else(|e| panic!("{form} cannot be read: {e}"));
        assert_eq!(read.render(version).ok(), Some(form), "in {}", version.as_str());
    }
}

fn chosen(byte: u8) -> (&'static str, &'static str) {
    let number = usize::from(byte);
    (
        PLUGINS[number % PLUGINS.len()],
        VERBS[number / PLUGINS.len() % VERBS.len()],
    )
}

/// A configuration that every plugin can read.
fn conf(plugin: &str, version: &str) -> Value {
    json!({
        "cniVersion": version, "name": "net", "type": plugin, "isGateway": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/29"}]]},
    })
}

fn result() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "cni0"}, {"name": "veth0"}, {"name": "eth0", "sandbox": POD}],
        "ips": [{"address": "10.1.2.2/24", "gateway": "10.1.2.1", "interface": 2}],
    })
}

fn put(path: &str, content: &[u8]) {
    let dir = Path::new(path).parent().expect("all are below others");
    fs::create_dir_all(dir).expect("memory is writable");
    fs::write(path, content).ok();
}

fn call(plugin: &str, verb: &str, text: &[u8]) {
    let vars = [
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", "pod"),
        ("CNI_NETNS", POD),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/nonexistent"),
    ];
    let input = Input {
        program: format!("/opt/cni/bin/{plugin}"),
        vars: vars.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..Input::default()
    };
    checked(input, text);
}

/// Makes a call and looks at the form of its answer.
fn checked(input: Input, mut text: &[u8]) {
    let mut edges = Edges {
        stdin: &mut text,
        random: 1,
    };
    let Output { stdout, stderr, code } = cni_plugin::run(&input, &mut edges);
    let answer = (!stdout.is_empty()).then(|| serde_json::from_str::<Value>(&stdout));
    let answer = answer.transpose().expect("an answer is JSON");
    if code == 0 {
        return;
    }
    let error = answer.expect("a failure has an error object");
    assert_eq!((code, stderr.as_str()), (1, ""), "{error}");
    let complete = error["code"].as_u64().is_some_and(|code| code > 0) && error["msg"].is_string();
    assert!(complete && error["cniVersion"].is_string(), "{error}");
}
