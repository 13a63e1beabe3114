//! State directories in which somebody, or a crash, left what no plugin writes: calls end, and say why they fail.
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
use std::path::Path;

use common::{Node, Pod, on_a_node, sh};
use serde_json::json;

fn mkfifo(path: &Path) {
    sh(Path::new("/"), &format!("mkfifo '{}'", path.display()));
}

#[test]
fn containers_with_ids_of_any_length_come_and_go() {
    on_a_node(|node| {
        for length in [245, 246, 250, 255] {
            let pod = Pod::new(&"i".repeat(length));
            node.add(&pod);
            assert_eq!(node.state_files(), std::slice::from_ref(&pod.id));
            node.call("CHECK", &pod, &with_prev_result(&node, &pod))
                .succeeds();
            for _ in 0..2 {
                node.del(&pod);
                node.assert_nothing_left(&["cni0"]);
            }
        }
        // No file can have such a name; nothing is made, and there is nothing to remove.
        let pod = Pod::new(&"i".repeat(300));
        let error = node.call("ADD", &pod, &node.conf("1.0.0")).fails();
        assert_eq!(error["code"], 5, "{error}");
        node.del(&pod);
        node.assert_nothing_left(&["cni0"]);
        // The store of addresses names files by address.
        let conf = node.bridge_conf("1.0.0");
        node.call("ADD", &pod, &conf).succeeds();
        node.call("DEL", &pod, &conf).succeeds();
        node.assert_nothing_left(&["cni0"]);
    });
}

fn with_prev_result(node: &Node, pod: &Pod) -> serde_json::Value {
    // A second ADD fails and leaves the first; what it would have told is in the pod.
    let address: serde_json::Value = serde_json::from_str(&pod.sh("ip -j -4 addr show eth0")).unwrap();
    let info = &address[0]["addr_info"][0];
    let mut conf = node.conf("1.0.0");
    conf["prevResult"] = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "cni0"}, {"name": node.links().pop().unwrap()}, {"name": "eth0", "sandbox": pod.netns}],
        "ips": [{"address": format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"]), "interface": 2}],
    });
    conf
}

#[test]
fn a_configuration_that_could_not_be_read_back_is_refused() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let mut conf = node.conf("1.0.0");
        conf["delegate"]["note"] = json!("x".repeat(1 << 20));
        let error = node.call("ADD", &pod, &conf).fails();
        assert_eq!(error["code"], 7, "{error}");
        assert!(error["msg"].as_str().unwrap().contains("can be kept"), "{error}");
        node.assert_nothing_left(&[]);
        conf["delegate"]["note"] = json!("x".repeat(1 << 19));
        node.call("ADD", &pod, &conf).succeeds();
        node.del(&pod);
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn a_state_file_that_is_json_but_cannot_detach_anything_does_not_stop_a_del() {
    on_a_node(|node| {
        for text in [
            r#"{"name":"cbr0","cniVersion":"1.0.0","type":5}"#,
            r#"{"name":"cbr0","cniVersion":"1.0.0","type":""}"#,
            r#"{"name":"cbr0","cniVersion":"9.9.9","type":"bridge"}"#,
            r#"{"name":"cbr0","type":"bridge","ipam":5}"#,
            r#"{"name":"cbr0","type":"bridge","ipam":{"type":[]}}"#,
            r#"{"name":"cbr0","type":"bridge","ipam":{"type":"host-local","dataDir":{}}}"#,
            r#"{"type":"bridge"}"#,
            "[]",
        ] {
            let pod = Pod::new("a");
            node.add(&pod);
            fs::write(node.path("flannel/a"), text).unwrap();
            node.del(&pod);
            node.assert_nothing_left(&["cni0"]);
        }
    });
}

#[test]
fn pipes_and_directories_in_the_place_of_files_never_hang_a_call() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        node.add(&pod);
        node.del(&pod);
        // In flannel's directory: an ADD is refused, a DEL finds nothing of its own.
        let loops = |path: &Path| std::os::unix::fs::symlink(path, path).unwrap();
        for plant in [mkfifo, |path: &Path| fs::create_dir(path).unwrap(), loops] {
            plant(&node.path("flannel/a"));
            let error = node.call("ADD", &pod, &node.conf("1.0.0")).fails();
            assert!(
                error["msg"].as_str().unwrap().contains("is not a regular file"),
                "{error}"
            );
            node.del(&pod);
            assert_eq!(node.leases().len(), 0);
            sh(&node.path("flannel"), "rm -r a");
        }
        // In the store: an address whose name is taken is not given out, and what has it is left alone.
        mkfifo(&node.path("networks/cbr0/10.244.7.3"));
        fs::create_dir(node.path("networks/cbr0/10.244.7.4")).unwrap();
        mkfifo(&node.path("networks/cbr0/.10.244.7.9.tmp"));
        fs::remove_file(node.path("networks/cbr0/last_reserved_ip.0")).unwrap();
        mkfifo(&node.path("networks/cbr0/last_reserved_ip.0"));
        let error = node.call("ADD", &pod, &node.conf("1.0.0")).fails();
        assert!(
            error["msg"].as_str().unwrap().contains("is not a regular file"),
            "{error}"
        );
        sh(
            &node.path("networks/cbr0"),
            "rm last_reserved_ip.0; echo 10.244.7.2 >last_reserved_ip.0",
        );
        let result = node.add(&pod);
        assert_eq!(result["ips"][0]["address"], "10.244.7.5/24");
        let mut gc = node.conf("1.1.0");
        gc["cni.dev/valid-attachments"] = json!([]);
        node.call("GC", &pod, &gc).succeeds();
        assert!(
            node.path("networks/cbr0/10.244.7.3").exists() && node.path("networks/cbr0/10.244.7.4").exists()
        );
        assert!(!node.path("networks/cbr0/10.244.7.5").exists());
        // The lock itself.
        sh(&node.path("networks/cbr0"), "rm lock; mkfifo lock");
        let error = node.call("ADD", &pod, &node.conf("1.0.0")).fails();
        assert!(
            error["msg"]
                .as_str()
                .unwrap()
                .contains("lock is not a regular file"),
            "{error}"
        );
        // The subnet file.
        fs::remove_file(node.path("subnet.env")).unwrap();
        mkfifo(&node.path("subnet.env"));
        let error = node.call("ADD", &pod, &node.conf("1.0.0")).fails();
        assert_eq!(error["code"], 5, "{error}");
    });
}

/// Waits for the kernel, which removes the interfaces of a namespace some time after it.
fn until_links_are(node: &Node, links: &[&str]) {
    for _ in 0..2000 {
        if node.links() == links {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{:?}", node.links());
}

#[test]
fn the_first_add_after_a_reboot_frees_what_was_reserved_before() {
    on_a_node(|node| {
        let lease = |address: &str| node.path("networks/cbr0").join(address);
        let left: Vec<_> = (2..=5).map(|n| format!("10.244.7.{n}")).collect();
        for address in &left {
            let pod = Pod::new(&format!("pod-{address}"));
            node.add(&pod);
            // The machine stops: pods end, nobody deletes them. Their marks and dates are those of an earlier run.
            drop(pod);
            until_links_are(&node, &["cni0"]);
            assert!(statefile::mark(
                &lease(address),
                "flannel.boot_id",
                "an earlier run"
            ));
            let file = fs::File::options().write(true).open(lease(address)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        assert!(statefile::mark(
            &node.path("networks/cbr0"),
            "flannel.boot_id",
            "an earlier run"
        ));
        // A runtime that starts the same container again gets it its address again.
        let again = Pod::new(&format!("pod-{}", left[3]));
        let result = node.add(&again);
        assert_eq!(result["ips"][0]["address"], format!("{}/24", left[3]));
        assert_eq!(node.leases().into_keys().collect::<Vec<_>>(), left[3..]);
        let next = Pod::new("next");
        node.add(&next);
        assert_eq!(node.leases().len(), 2);
        node.del(&again);
        node.del(&next);
        assert_eq!((node.leases().len(), node.links()), (0, vec!["cni0".to_owned()]));
    });
}
