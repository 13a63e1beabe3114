//! DEL and GC against the real kernel: everything goes, and nothing else.
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
use std::process::Command;

use common::{Node, Pod, on_a_node, printed, sh};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

#[test]
fn del_can_be_repeated_and_needs_no_add() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        node.del(&pod);
        assert!(!node.path("networks").exists() && !node.path("flannel").exists());
        node.add(&pod);
        for _ in 0..3 {
            node.del(&pod);
            node.assert_nothing_left(&["cni0"]);
        }
        node.add(&pod);
        node.del(&pod);
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn del_without_a_usable_namespace_still_removes_everything() {
    on_a_node(|node| {
        let plain = node.path("file");
        fs::write(&plain, "").unwrap();
        let gone = [
            "",
            "/run/netns/nonexistent",
            plain.to_str().unwrap(),
            "/proc/999999999/ns/net",
            // Of a process of the host, which got the number that the container's had.
            "/proc/self/ns/net",
        ];
        for netns in gone {
            let pod = Pod::new("a");
            node.add(&pod);
            assert_eq!(node.links().len(), 2);
            let conf = node.conf("0.3.1");
            node.call("DEL", &pod, &conf).var("CNI_NETNS", netns).succeeds();
            node.assert_nothing_left(&["cni0"]);
        }
        // The namespace vanishes with its container, and no subnet file is there any more.
        let pod = Pod::new("a");
        node.add(&pod);
        fs::remove_file(node.path("subnet.env")).unwrap();
        let call = node.call("DEL", &pod, &node.conf("1.0.0"));
        drop(pod);
        call.succeeds();
        call.succeeds();
        assert_eq!(node.leases().len() + node.state_files().len(), 0);
    });
}

#[test]
fn del_releases_only_the_attachment_that_is_meant() {
    on_a_node(|node| {
        let (pod, other) = (Pod::new("a"), Pod::new("b"));
        node.add(&pod);
        node.add(&other);
        let second = node
            .call("ADD", &pod, &node.conf("1.0.0"))
            .var("CNI_IFNAME", "eth1");
        second.succeeds();
        assert_eq!(node.state_files(), ["a", "a:eth1", "b"]);
        let del = node
            .call("DEL", &pod, &node.conf("1.0.0"))
            .var("CNI_IFNAME", "eth1");
        for _ in 0..2 {
            del.succeeds();
            assert_eq!(node.state_files(), ["a", "b"]);
            assert_eq!(node.leases().len(), 2);
        }
        node.call("DEL", &pod, &node.conf("1.0.0"))
            .var("CNI_IFNAME", "eth7")
            .succeeds();
        node.call("DEL", &pod, &node.conf("1.0.0"))
            .var("CNI_CONTAINERID", "c")
            .succeeds();
        assert_eq!(node.leases().len(), 2);
        assert!(pod.reaches("10.244.7.1") && other.reaches("10.244.7.1"));
        // The first interface may go first, too.
        second.succeeds();
        node.del(&pod);
        assert_eq!(node.state_files(), ["a:eth1", "b"]);
        del.succeeds();
        node.del(&other);
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn a_del_in_a_namespace_that_is_another_container_s_leaves_it_alone() {
    on_a_node(|node| {
        let (pod, other) = (Pod::new("a"), Pod::new("b"));
        node.add(&pod);
        node.add(&other);
        let del = node
            .call("DEL", &pod, &node.conf("1.0.0"))
            .var("CNI_NETNS", &other.netns);
        // The host interface goes with its container.
        drop(pod);
        for _ in 0..2 {
            del.succeeds();
            assert_eq!(node.state_files(), ["b"]);
            assert_eq!(node.leases().len(), 1);
        }
        assert!(other.reaches("10.244.7.1"));
        node.del(&other);
        node.assert_nothing_left(&["cni0"]);

        // One that is no network's of ours.
        let (pod, stranger) = (Pod::new("a"), Pod::new("b"));
        node.add(&pod);
        stranger.sh("ip link add eth0 type veth peer name veth0 && ip addr add 192.0.2.7/24 dev eth0");
        let del = node
            .call("DEL", &pod, &node.conf("1.0.0"))
            .var("CNI_NETNS", &stranger.netns);
        drop(pod);
        del.succeeds();
        node.assert_nothing_left(&["cni0"]);
        stranger.sh("ip link show dev eth0");
    });
}

#[test]
fn two_networks_of_one_container_are_kept_apart() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let mut other = node.conf("1.0.0");
        other["name"] = json!("cbr1");
        other["delegate"]["bridge"] = json!("cni1");
        let call = |verb: &str, ifname: &str| node.call(verb, &pod, &other).var("CNI_IFNAME", ifname);
        node.add(&pod);
        call("ADD", "eth1").succeeds();
        assert_eq!(node.state_files(), ["a", "a:eth1"]);
        // The networks have the same range here, which is nobody's configuration; each has its own store.
        for _ in 0..2 {
            call("DEL", "eth1").succeeds();
            call("DEL", "eth2").succeeds();
            assert_eq!(
                (node.state_files(), node.leases().len()),
                (vec!["a".to_owned()], 1)
            );
        }
        assert!(pod.reaches("10.244.7.1"));
        node.del(&pod);
        node.assert_nothing_left(&["cni0", "cni1"]);
    });
}

#[test]
fn a_network_that_was_renamed_is_detached_by_the_configuration_of_the_add() {
    on_a_node(|node| {
        let (pod, kept) = (Pod::new("a"), Pod::new("b"));
        node.add(&kept);
        let mut renamed = node.conf("1.0.0");
        renamed["name"] = json!("renamed");
        for ifname in ["eth0", "eth1"] {
            let add = node.call("ADD", &pod, &node.conf("1.0.0"));
            add.var("CNI_IFNAME", ifname).succeeds();
        }
        let del = node.call("DEL", &pod, &renamed);
        for ifname in ["eth0", "eth1", "eth0"] {
            del.clone().var("CNI_IFNAME", ifname).succeeds();
            assert!(!pod.sh("ip link").contains(&format!("{ifname}@")));
        }
        assert_eq!(
            (node.state_files(), node.leases().len()),
            (vec!["b".to_owned()], 1)
        );
        assert!(kept.reaches("10.244.7.1"));
        node.del(&kept);
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn a_del_finds_its_address_with_and_without_the_note_of_the_add() {
    on_a_node(|node| {
        let kept = Pod::new("b");
        node.add(&kept);
        let state = node.path("flannel/a");
        let spoils: [&dyn Fn(); 3] = [
            &|| {},
            // A copy has the contents only.
            &|| {
                let text = fs::read(&state).unwrap();
                fs::remove_file(&state).unwrap();
                fs::write(&state, text).unwrap();
            },
            &|| assert!(statefile::mark(&state, "flannel.attachment", "eth0 10.244.7.2")),
        ];
        for (number, spoil) in spoils.iter().enumerate() {
            let pod = Pod::new("a");
            node.add(&pod);
            spoil();
            node.del(&pod);
            assert_eq!(
                (node.state_files(), node.leases().len()),
                (vec!["b".to_owned()], 1),
                "{number}"
            );
        }
        assert!(kept.reaches("10.244.7.1"));
    });
}

#[test]
fn an_add_whose_state_was_lost_takes_its_address_again() {
    on_a_node(|node| {
        let kept = [Pod::new("b"), Pod::new("c")];
        for pod in &kept {
            node.add(pod);
        }
        let first = Pod::new("a");
        let given = node.add(&first)["ips"].clone();
        fs::remove_file(node.path("flannel/a")).unwrap();
        sh(
            node.dir.path(),
            "ip link del $(ip -o link | grep -o 'veth[0-9a-f]*' | tail -1)",
        );
        drop(first);
        let again = Pod::new("a");
        assert_eq!(node.add(&again)["ips"], given);
        assert_eq!(node.leases().len(), 3);
        node.del(&again);
        assert_eq!(
            (node.state_files(), node.leases().len()),
            (vec!["b".to_owned(), "c".to_owned()], 2)
        );
    });
}

#[test]
fn a_state_file_that_is_garbage_does_not_stop_a_del() {
    on_a_node(|node| {
        for garbage in [
            "",
            "{\"name\":",
            "\0\0\0\0",
            "[]",
            "{\"name\":\"cbr0\",\"cniVersion\":\"9\"}",
        ] {
            let pod = Pod::new("a");
            node.add(&pod);
            fs::write(node.path("flannel/a"), garbage).unwrap();
            node.del(&pod);
            node.assert_nothing_left(&["cni0"]);
        }
        let pod = Pod::new("a");
        node.add(&pod);
        fs::remove_file(node.path("flannel/a")).unwrap();
        node.del(&pod);
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn a_failed_del_keeps_the_state_file_so_that_it_can_be_repeated() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        node.add(&pod);
        let (store, aside) = (node.path("networks/cbr0"), node.path("networks/aside"));
        fs::rename(&store, &aside).unwrap();
        fs::write(&store, "not a directory").unwrap();
        let error = node.call("DEL", &pod, &node.conf("1.0.0")).fails();
        assert_eq!(error["code"], 5, "{error}");
        assert_eq!(node.state_files(), ["a"]);
        fs::remove_file(&store).unwrap();
        fs::rename(&aside, &store).unwrap();
        node.del(&pod);
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn status_and_gc_tell_the_truth() {
    on_a_node(|node| {
        let conf = node.conf("1.1.0");
        let (pod, stale) = (Pod::new("a"), Pod::new("b"));
        let status = node.call("STATUS", &pod, &conf);
        status.succeeds();
        fs::rename(node.path("subnet.env"), node.path("aside")).unwrap();
        assert_eq!(status.fails()["code"], 50);
        fs::rename(node.path("aside"), node.path("subnet.env")).unwrap();

        node.call("ADD", &pod, &conf).succeeds();
        node.call("ADD", &stale, &conf).succeeds();
        let mut gc = node.call("GC", &pod, &conf);
        gc.succeeds();
        assert_eq!(node.leases().len(), 2, "without a list nothing is removed");
        gc.conf["cni.dev/valid-attachments"] = json!([{"containerID": "a", "ifname": "eth0"}]);
        gc.succeeds();
        assert_eq!(node.state_files(), ["a"]);
        assert_eq!(node.leases().len(), 1);
        assert_eq!(node.links().len(), 2);
        assert!(pod.reaches("10.244.7.1"));
        gc.conf["cni.dev/valid-attachments"] = Value::Null;
        gc.succeeds();
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn status_tells_that_no_state_can_be_kept() {
    on_a_node(|node| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        sh(node.dir.path(), "mount --make-rprivate /; mkdir full");
        let conf = node.conf("1.1.0");
        let pod = Pod::new("a");
        let status = node.call("STATUS", &pod, &conf);
        for options in ["ro", "nr_inodes=1"] {
            sh(node.dir.path(), &format!("mount -t tmpfs -o {options} full full"));
            for of_ipam in [false, true] {
                let mut status = status.clone();
                let keys = if of_ipam {
                    &mut status.conf["ipam"]
                } else {
                    &mut status.conf
                };
                keys["dataDir"] = json!(node.path("full/x"));
                let error = status.fails();
                assert_eq!(error["code"], 50, "{error}");
            }
            sh(node.dir.path(), "umount full");
        }
        status.succeeds();
    });
}

/// Makes a GC that keeps no attachment.
fn gc_of_all(node: &Node, pod: &Pod) -> common::Call {
    let mut gc = node.call("GC", pod, &node.conf("1.1.0"));
    gc.conf["cni.dev/valid-attachments"] = json!([]);
    gc
}

#[test]
fn gc_frees_no_address_whose_interface_cannot_be_named() {
    on_a_node(|node| {
        let (pod, stale) = (Pod::new("a"), Pod::new("b"));
        node.add(&pod);
        node.add(&stale);
        // As old versions of host-local wrote it, without the name of the interface.
        fs::write(node.path("networks/cbr0/10.244.7.2"), "a").unwrap();
        gc_of_all(&node, &pod).succeeds();
        let kept = [("10.244.7.2".to_owned(), "a".to_owned())];
        assert_eq!(node.leases(), kept.into());
        assert_eq!(
            (node.links().len(), node.state_files()),
            (2, vec!["a".to_owned()])
        );
        assert!(pod.reaches("10.244.7.1"));
        // A DEL names it.
        node.del(&pod);
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn gc_goes_on_over_errors_and_reports_them_together() {
    on_a_node(|node| {
        let pods = ["a", "b", "c"].map(Pod::new);
        for pod in &pods {
            node.add(pod);
        }
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        printed(Command::new("mount").args(["--make-rprivate", "/"]));
        // What is mounted on cannot be removed.
        let stuck = ["10.244.7.2", "10.244.7.4"].map(|ip| node.path("networks/cbr0").join(ip));
        for path in &stuck {
            printed(Command::new("mount").arg("--bind").args([path, path]));
        }
        let error = gc_of_all(&node, &pods[0]).fails();
        assert_eq!(error["code"], 5, "{error}");
        let all = format!("{} {}", error["msg"], error["details"]);
        assert!(
            all.contains("10.244.7.2") && all.contains("10.244.7.4"),
            "{error}"
        );
        assert_eq!(node.links(), ["cni0"]);
        let left: Vec<_> = node.leases().into_keys().collect();
        assert_eq!(
            (left, node.state_files()),
            (
                vec!["10.244.7.2".to_owned(), "10.244.7.4".to_owned()],
                vec!["a".to_owned(), "c".to_owned()]
            )
        );
        for path in &stuck {
            printed(Command::new("umount").arg(path));
        }
        gc_of_all(&node, &pods[0]).succeeds();
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn gc_removes_a_further_interface_of_a_container_that_keeps_its_first() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        node.add(&pod);
        node.call("ADD", &pod, &node.conf("1.0.0"))
            .var("CNI_IFNAME", "eth1")
            .succeeds();
        let mut gc = gc_of_all(&node, &pod);
        gc.conf["cni.dev/valid-attachments"] = json!([{"containerID": "a", "ifname": "eth0"}]);
        gc.succeeds();
        assert_eq!(
            (node.state_files(), node.leases().len(), node.links().len()),
            (vec!["a".to_owned()], 1, 2)
        );
        assert!(pod.reaches("10.244.7.1"));
    });
}
