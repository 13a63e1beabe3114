//! The plugin bandwidth on the real kernel, beside the reference's (Debian's containernetworking-plugins in
//! /usr/lib/cni), with `tc` and iperf3 as witnesses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Call, Node, Pod, ip, on_a_node, printed, sh};
use serde_json::{Value, json};

const REFERENCE: &str = "/usr/lib/cni/bandwidth";

/// The reference's name for network `cbr0` and container `a2`.
const DEVICE: &str = "bwp1802f8610169";

/// A pod that bridge attached, with the result.
struct Attached {
    pod: Pod,
    result: Value,
    veth: String,
}

impl Attached {
    fn new(node: &Node, id: &str) -> Self {
        let pod = Pod::new(id);
        let result = node.call("ADD", &pod, &node.bridge_conf("1.0.0")).succeeds();
        let veth = result["interfaces"][1]["name"].as_str().unwrap().to_owned();
        Self { pod, result, veth }
    }

    fn call(&self, node: &Node, verb: &str, limits: &Value) -> Call {
        let mut conf = json!({"cniVersion": "1.0.0", "name": "cbr0", "type": "bandwidth"});
        conf["runtimeConfig"] = json!({"bandwidth": limits});
        conf["prevResult"] = self.result.clone();
        node.call(verb, &self.pod, &conf)
    }
}

/// Both directions, as containerd spells them.
fn both() -> Value {
    json!({"IngressRate": 20_000_000, "IngressBurst": 8_000_000, "EgressRate": 10_000_000, "EgressBurst": 4_000_000})
}

/// What `tc` shows of a link's root queueing discipline.
fn root_of(link: &str) -> Value {
    let shown: Value = serde_json::from_str(&printed(
        Command::new("tc").args(["-j", "qdisc", "show", "dev", link]),
    ))
    .unwrap();
    let root = shown
        .as_array()
        .unwrap()
        .iter()
        .find(|qdisc| qdisc["root"] == true);
    let mut root = root.unwrap().clone();
    root["refcnt"].take();
    root
}

fn filters_of(link: &str) -> String {
    printed(Command::new("tc").args(["filter", "show", "dev", link, "ingress"]))
}

fn devices() -> Vec<String> {
    let text = ip(&["-o", "link", "show", "type", "ifb"]);
    let names = text.lines().filter_map(|line| line.split(": ").nth(1));
    names.map(str::to_owned).collect()
}

#[test]
fn limits_are_set_checked_and_removed() {
    on_a_node(|node| {
        let pod = Attached::new(&node, "a2");
        let result = pod.call(&node, "ADD", &both()).succeeds();
        let added = &result["interfaces"][3];
        assert_eq!(added["name"], DEVICE);
        assert!(ip(&["link", "show", DEVICE]).contains(added["mac"].as_str().unwrap()));
        assert!(added["sandbox"].is_null());
        let mut before = result.clone();
        before["interfaces"].as_array_mut().unwrap().pop();
        assert_eq!(before, pod.result);
        for (link, rate, burst) in [
            (pod.veth.as_str(), 2_500_000, 1_000_000),
            (DEVICE, 1_250_000, 500_000),
        ] {
            let wanted = json!({"kind": "tbf", "handle": "1:", "root": true, "refcnt": null,
                "options": {"rate": rate, "burst": burst, "lat": 25_000}});
            assert_eq!(root_of(link), wanted, "{link}");
        }
        assert!(filters_of(&pod.veth).contains(&format!("(Egress Redirect to device {DEVICE}) stolen")));
        assert!(
            ip(&["link", "show", DEVICE])
                .contains("mtu 1450 qdisc tbf state UNKNOWN mode DEFAULT group default qlen 1000")
        );
        assert!(pod.pod.reaches("10.244.7.1"));

        let check = pod.call(&node, "CHECK", &both());
        check.succeeds();
        for damage in [
            format!("tc qdisc change dev {DEVICE} handle 1: root tbf rate 1mbit burst 5kb latency 25ms"),
            format!("tc qdisc del dev {DEVICE} root"),
            format!("ip link set {DEVICE} down"),
            format!("tc qdisc del dev {} root", pod.veth),
            format!("tc qdisc del dev {} ingress", pod.veth),
            format!("ip link del {DEVICE}"),
        ] {
            sh(Path::new("/"), &damage);
            assert_eq!(check.fails()["code"], 103, "{damage}");
            // Repeated, an ADD puts back what is missing.
            pod.call(&node, "ADD", &both()).succeeds();
            check.succeeds();
        }
        assert_eq!(devices(), [DEVICE]);
        pod.call(&node, "DEL", &both()).succeeds();
        assert_eq!(devices(), Vec::<String>::new());
        pod.call(&node, "DEL", &Value::Null).succeeds();
    });
}

#[test]
fn one_direction_and_none_are_limited_alone() {
    on_a_node(|node| {
        let pod = Attached::new(&node, "a2");
        for none in [
            json!(null),
            json!({}),
            json!({"ingressRate": 0, "egressBurst": 0}),
        ] {
            assert_eq!(pod.call(&node, "ADD", &none).succeeds(), pod.result);
            pod.call(&node, "CHECK", &none).succeeds();
        }
        assert_eq!(root_of(&pod.veth)["kind"], "noqueue");
        let ingress =
            json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 0, "egressBurst": 0});
        assert_eq!(pod.call(&node, "ADD", &ingress).succeeds(), pod.result);
        assert_eq!(root_of(&pod.veth)["kind"], "tbf");
        assert_eq!((devices().len(), filters_of(&pod.veth).as_str()), (0, ""));

        let other = Attached::new(&node, "b");
        let egress = json!({"egressRate": 8_000_000, "egressBurst": 800_000});
        let result = other.call(&node, "ADD", &egress).succeeds();
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 4);
        assert_eq!(root_of(&other.veth)["kind"], "noqueue");
        other.call(&node, "CHECK", &egress).succeeds();
        pod.call(&node, "DEL", &ingress).succeeds();
        assert_eq!(devices().len(), 1);
        other.call(&node, "DEL", &egress).succeeds();
        assert_eq!(devices().len(), 0);
    });
}

#[test]
fn pods_limited_by_one_are_checked_and_freed_by_the_other() {
    on_a_node(|node| {
        let reference = Path::new(REFERENCE);
        let limits = both();
        let pod = Attached::new(&node, "a2");
        pod.call(&node, "ADD", &limits).exec(reference);
        let roots = (root_of(&pod.veth), root_of(DEVICE));
        pod.call(&node, "CHECK", &limits).succeeds();
        pod.call(&node, "DEL", &limits).succeeds();
        assert_eq!(devices(), Vec::<String>::new());

        node.call("DEL", &pod.pod, &node.bridge_conf("1.0.0")).succeeds();

        let pod = Attached::new(&node, "a2");
        pod.call(&node, "ADD", &limits).succeeds();
        assert_eq!((root_of(&pod.veth), root_of(DEVICE)), roots);
        pod.call(&node, "CHECK", &limits).exec(reference);
        pod.call(&node, "DEL", &limits).exec(reference);
        assert_eq!(devices(), Vec::<String>::new());
    });
}

#[test]
fn bursts_that_wrap_around_in_the_reference_are_as_large_as_can_be() {
    on_a_node(|node| {
        let reference = Path::new(REFERENCE);
        for (id, rate, wrapped_bytes) in [("a", 10_000_000, 193_273_526), ("b", 15_624_992, 273)] {
            let limits = json!({"IngressRate": rate, "IngressBurst": 4_294_967_295_u64, "EgressRate": 0, "EgressBurst": 0});
            let pod = Attached::new(&node, id);
            pod.call(&node, "ADD", &limits).exec(reference);
            assert_eq!(root_of(&pod.veth)["options"]["burst"], wrapped_bytes);
            pod.call(&node, "CHECK", &limits).succeeds();
            pod.call(&node, "ADD", &limits).succeeds();
            let burst = root_of(&pod.veth)["options"]["burst"].as_u64().unwrap();
            // 274.9 s at this rate.
            assert!(burst.abs_diff(rate / 8 * 2749 / 10) < rate / 8, "{burst}");
            pod.call(&node, "CHECK", &limits).succeeds();
        }
    });
}

#[test]
fn limits_come_from_the_configuration_too_and_bad_ones_change_nothing() {
    on_a_node(|node| {
        let pod = Attached::new(&node, "a2");
        let mut own = pod.call(&node, "ADD", &both());
        own.conf["ingressRate"] = json!(8000);
        own.conf["ingressBurst"] = json!(80000);
        assert_eq!(own.succeeds(), pod.result);
        assert_eq!(root_of(&pod.veth)["options"]["rate"], 1000);
        sh(Path::new("/"), &format!("tc qdisc del dev {} root", pod.veth));

        for (limits, code) in [
            (json!({"ingressRate": 8000}), 7),
            (json!({"ingressBurst": 8000}), 7),
            (json!({"egressRate": "8000", "egressBurst": 8000}), 6),
            (
                json!({"egressRate": 8000, "egressBurst": 8000, "unshapedSubnets": ["10.0.0.0/8"]}),
                2,
            ),
        ] {
            assert_eq!(pod.call(&node, "ADD", &limits).fails()["code"], code, "{limits}");
            pod.call(&node, "DEL", &limits).succeeds();
        }
        let mut unchained = pod.call(&node, "ADD", &both());
        unchained.conf["prevResult"].take();
        assert_eq!(unchained.fails()["code"], 7);
        let mut old = pod.call(&node, "ADD", &both());
        old.conf["cniVersion"] = json!("0.2.0");
        let error = old.fails();
        assert_eq!(error["code"], 1);
        assert!(
            error["details"].as_str().unwrap().contains(r#"["0.3.0", "#),
            "{error}"
        );
        assert_eq!(
            (root_of(&pod.veth)["kind"].as_str(), devices().len()),
            (Some("noqueue"), 0)
        );
    });
}

#[test]
fn what_others_set_is_not_replaced_and_a_failed_add_leaves_nothing() {
    on_a_node(|node| {
        let pod = Attached::new(&node, "a2");
        for (theirs, named) in [
            ("tc qdisc add dev VETH root handle 5: pfifo limit 100", "pfifo"),
            ("tc qdisc add dev VETH clsact", "clsact"),
            (
                "tc qdisc add dev VETH ingress; tc filter add dev VETH ingress protocol ip pref 7 u32 match ip dst 10.0.0.1/32 flowid 1:1",
                "u32",
            ),
        ] {
            sh(Path::new("/"), &theirs.replace("VETH", &pod.veth));
            let before = sh(Path::new("/"), "tc qdisc");
            let error = pod.call(&node, "ADD", &both()).fails();
            assert!(error["msg"].as_str().unwrap().contains(named), "{error}");
            assert_eq!(sh(Path::new("/"), "tc qdisc"), before);
            assert_eq!(devices().len(), 0);
            sh(
                Path::new("/"),
                &format!(
                    "tc qdisc del dev {0} root || tc qdisc del dev {0} clsact || tc qdisc del dev {0} ingress",
                    pod.veth
                ),
            );
        }
    });
}

#[test]
fn a_pods_second_interface_has_a_device_of_its_own() {
    on_a_node(|node| {
        let pod = Attached::new(&node, "a2");
        let eth1 = node
            .call("ADD", &pod.pod, &node.bridge_conf("1.0.0"))
            .var("CNI_IFNAME", "eth1")
            .succeeds();
        let limits = json!({"egressRate": 8_000_000, "egressBurst": 800_000});
        let second = |verb| {
            let mut call = pod.call(&node, verb, &limits).var("CNI_IFNAME", "eth1");
            call.conf["prevResult"] = eth1.clone();
            call
        };
        pod.call(&node, "ADD", &limits).succeeds();
        let result = second("ADD").succeeds();
        let further = result["interfaces"][3]["name"].as_str().unwrap().to_owned();
        assert_ne!(further, DEVICE);
        pod.call(&node, "CHECK", &limits).succeeds();
        second("CHECK").succeeds();
        pod.call(&node, "DEL", &limits).succeeds();
        assert_eq!(devices(), [further]);
        second("CHECK").succeeds();
        // The other one's device is not taken by a repeated DEL.
        pod.call(&node, "ADD", &limits).succeeds();
        second("DEL").succeeds();
        second("DEL").succeeds();
        assert_eq!(devices(), [DEVICE]);
    });
}

#[test]
fn gc_removes_this_networks_devices_and_del_needs_no_namespace() {
    on_a_node(|node| {
        let limits = json!({"egressRate": 8_000_000, "egressBurst": 800_000});
        let pods: Vec<_> = ["a2", "b", "c"].map(|id| Attached::new(&node, id)).into();
        for pod in &pods {
            pod.call(&node, "ADD", &limits).succeeds();
        }
        let mut other = pods[0].call(&node, "ADD", &limits);
        other.conf["name"] = json!("cbr0x");
        // A pod's interface is redirected to one device only; the other network's is made beforehand.
        sh(
            Path::new("/"),
            "ip link add bwpother type ifb; ip link set bwpother alias cni:cbr0x:a2:eth0
            ip link add bwpnone type ifb; ip link add ifb7 type ifb; ip link set ifb7 alias mine",
        );
        assert!(other.fails()["msg"].as_str().unwrap().contains("another device"));
        assert_eq!(devices().len(), 6);

        let gc = |valid: Value| {
            let mut call = pods[0].call(&node, "GC", &Value::Null);
            call.conf["cniVersion"] = json!("1.1.0");
            call.conf["cni.dev/valid-attachments"] = valid;
            call.succeeds();
        };
        gc(json!([{"containerID": "a2", "ifname": "eth0"}, {"containerID": "b", "ifname": "eth1"}]));
        assert_eq!(devices(), [DEVICE, "bwpother", "bwpnone", "ifb7"]);
        gc(Value::Null);
        assert_eq!(devices(), ["bwpother", "bwpnone", "ifb7"]);

        pods[1].call(&node, "ADD", &limits).succeeds();
        pods[1]
            .call(&node, "DEL", &limits)
            .var("CNI_NETNS", "")
            .succeeds();
        let mut broken = pods[1].call(&node, "DEL", &json!({"ingressRate": "x"}));
        broken.conf["prevResult"] = json!({"ips": 7});
        broken.succeeds();
        assert_eq!(devices(), ["bwpother", "bwpnone", "ifb7"]);
        // A stranger's link with the device's name is not taken.
        sh(Path::new("/"), &format!("ip link add {DEVICE} type bridge"));
        pods[0].call(&node, "DEL", &limits).succeeds();
        assert!(ip(&["link", "show", DEVICE]).contains(DEVICE));
        // That of its interface in a network that was renamed since is.
        assert_eq!(devices(), ["bwpnone", "ifb7"]);
        let mut status = pods[0].call(&node, "STATUS", &limits);
        status.conf["cniVersion"] = json!("1.1.0");
        status.succeeds();
        status.conf["runtimeConfig"]["bandwidth"]["egressBurst"].take();
        assert_eq!(status.fails()["code"], 7);
    });
}

#[test]
fn traffic_is_as_slow_as_it_shall_be_once_the_burst_is_over() {
    on_a_node(|node| {
        let pod = Attached::new(&node, "a2");
        let free = megabits(&pod.pod, &["-t", "1"]);
        pod.call(&node, "ADD", &both()).succeeds();
        assert!(free > 100.0, "unlimited: {free} Mbit/s");
        // The bursts, 1 MB and 0.5 MB, are over within the first second, which is left out.
        settles(&pod.pod, &["-O", "1", "-t", "2"], 12.0..22.0);
        settles(&pod.pod, &["-R", "-O", "1", "-t", "2"], 6.0..11.0);
    });
}

/// Measures until the rate is in a range: on a busy machine a sender that waited has a burst to catch up with. Without
/// a limit it never is.
fn settles(pod: &Pod, options: &[&str], range: std::ops::Range<f64>) {
    let mut seen = Vec::new();
    while seen.len() < 8 {
        let rate = megabits(pod, options);
        if range.contains(&rate) {
            return;
        }
        seen.push(rate);
    }
    panic!("{seen:?} Mbit/s are not in {range:?}");
}

/// Measures from the node to the pod (with `-R` the other way) what arrives.
fn megabits(pod: &Pod, options: &[&str]) -> f64 {
    let server = Server::start(pod);
    let mut iperf = Command::new("iperf3");
    iperf.args(["-J", "-c", "10.244.7.2"]).args(options);
    let report: Value = serde_json::from_str(&printed(&mut iperf)).unwrap();
    drop(server);
    report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6
}

struct Server(Child);

impl Server {
    fn start(pod: &Pod) -> Self {
        let net = format!("--net={}", pod.netns);
        let mut command = Command::new("nsenter");
        command.args([&net, "iperf3", "-s", "-1"]).stdout(Stdio::null());
        let server = Self(command.spawn().unwrap());
        let start = Instant::now();
        while !pod.sh("ss -Htln").contains(":5201") {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "iperf3 does not listen"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
