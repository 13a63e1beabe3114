//! Many calls at once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::thread::scope;

use common::{BINARY, Call, Pod, on_a_node};
use serde_json::Value;

fn pods(count: usize) -> Vec<Pod> {
    (0..count).map(|i| Pod::new(&format!("pod{i}"))).collect()
}

/// Makes a call for each pod at once; the threads are in the node's namespace as their parent is.
fn at_once<T: Send>(pods: &[Pod], call: impl Fn(&Pod) -> T + Sync) -> Vec<T> {
    scope(|scope| {
        let call = &call;
        let threads: Vec<_> = pods.iter().map(|pod| scope.spawn(move || call(pod))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn twenty_first_pods_at_once_all_get_their_own_address() {
    on_a_node(|node| {
        let pods = pods(20);
        let results = at_once(&pods, |pod| node.add(pod));
        let addresses: BTreeSet<_> = results
            .iter()
            .map(|r| r["ips"][0]["address"].to_string())
            .collect();
        assert_eq!(addresses.len(), 20);
        let macs: BTreeSet<_> = results
            .iter()
            .map(|r| r["interfaces"][0]["mac"].to_string())
            .collect();
        assert_eq!(macs.len(), 1, "all name the same bridge");
        assert_eq!(node.links().len(), 21);
        let first = results[0]["ips"][0]["address"]
            .as_str()
            .unwrap()
            .split('/')
            .next()
            .unwrap();
        assert!(pods[1..].iter().all(|pod| pod.reaches(first)));
        at_once(&pods, |pod| node.del(pod));
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn duplicates_at_once_make_one_attachment() {
    on_a_node(|node| {
        let pods = pods(4);
        let calls: Vec<_> = pods.iter().cycle().take(16).collect();
        let outputs: Vec<_> = scope(|scope| {
            let node = &node;
            let spawn = |pod: &&'_ Pod| {
                let call = node.call("ADD", pod, &node.conf("1.0.0"));
                scope.spawn(move || call.run())
            };
            let threads: Vec<_> = calls.iter().map(spawn).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let won = outputs.iter().filter(|output| output.code == 0).count();
        assert_eq!(won, 4, "{outputs:?}");
        assert_eq!(
            (node.leases().len(), node.links().len(), node.state_files().len()),
            (4, 5, 4)
        );
        assert!(pods.iter().all(|pod| pod.reaches("10.244.7.1")));
        at_once(&pods, |pod| node.del(pod));
        node.assert_nothing_left(&["cni0"]);
    });
}

/// How a call by the real binary went: its error code if it failed, 0 if it told none.
fn code(call: &Call) -> Option<u64> {
    let output = call.spawn(Path::new(BINARY)).wait_with_output().unwrap();
    if output.status.success() {
        return None;
    }
    let error = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
    Some(error["code"].as_u64().unwrap_or_default())
}

#[test]
fn a_hundred_pods_at_once_with_duplicates_and_retries_come_and_go() {
    on_a_node(|node| {
        let pods = pods(100);
        let conf = node.conf("1.0.0");
        let errors = at_once(&pods, |pod| {
            let add = node.call("ADD", pod, &conf);
            let number: u32 = pod.id.trim_start_matches("pod").parse().unwrap();
            match number % 4 {
                // The runtime lost its patience, and makes the same call beside the first.
                0 => scope(|scope| {
                    let other = scope.spawn(|| code(&add));
                    let own = code(&add);
                    [own, other.join().unwrap()].into_iter().flatten().collect()
                }),
                // It detaches what it has just attached, and tries again.
                1 => {
                    let del = node.call("DEL", pod, &conf);
                    [&add, &del, &add].into_iter().filter_map(code).collect()
                }
                _ => code(&add).into_iter().collect::<Vec<_>>(),
            }
        });
        // Of two equal calls one is refused: the container is attached, or the other call is still at work.
        for (number, errors) in errors.iter().enumerate() {
            let expected: &[u64] = if number % 4 == 0 { &[101] } else { &[] };
            assert!(errors == expected || errors == &[11], "pod{number}: {errors:?}");
        }
        assert_eq!(
            (node.leases().len(), node.links().len(), node.state_files().len()),
            (100, 101, 100)
        );
        assert!(pods.iter().step_by(10).all(|pod| pod.reaches("10.244.7.1")));
        let codes = at_once(&pods, |pod| {
            let del = node.call("DEL", pod, &conf);
            [&del, &del].map(code)
        });
        assert!(codes.into_iter().flatten().all(|code| code.is_none()));
        node.assert_nothing_left(&["cni0"]);
    });
}

/// A runtime that lost count of its own calls: each ends, says what is wrong, and harms no other pod.
#[test]
fn all_verbs_at_once_for_one_pod_end_and_a_del_removes_everything() {
    on_a_node(|node| {
        let (pod, other) = (Pod::new("a"), Pod::new("b"));
        let mut conf = node.conf("1.1.0");
        conf["prevResult"] = node.call("ADD", &pod, &conf).succeeds();
        node.add(&other);
        conf["cni.dev/valid-attachments"] = serde_json::json!([{"containerID": "b", "ifname": "eth0"}]);
        for _ in 0..4 {
            let verbs = [
                "ADD", "DEL", "CHECK", "GC", "STATUS", "ADD", "DEL", "GC", "ADD", "CHECK",
            ];
            let codes: Vec<_> = scope(|scope| {
                let calls = verbs.map(|verb| node.call(verb, &pod, &conf));
                let threads = calls.map(|call| scope.spawn(move || code(&call)));
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            for (verb, code) in verbs.iter().zip(codes) {
                // Attached already, or not as it was; another call is still at work; a GC took away what an ADD was
                // making, which no runtime does at once.
                let expected: &[u64] = match *verb {
                    "ADD" => &[11, 100, 101],
                    "CHECK" => &[11, 101, 103],
                    _ => &[11],
                };
                assert!(
                    code.is_none_or(|code| expected.contains(&code)),
                    "{verb}: {code:?}"
                );
            }
            node.call("DEL", &pod, &conf).succeeds();
            assert_eq!(
                (node.leases().len(), node.links().len(), node.state_files()),
                (1, 2, vec!["b".to_owned()])
            );
            assert!(!pod.sh("ip link").contains("eth0"));
            assert!(other.reaches("10.244.7.1"));
        }
    });
}

#[test]
fn adds_that_fail_do_not_take_the_bridge_from_adds_that_succeed() {
    on_a_node(|node| {
        let pods = pods(16);
        let results = at_once(&pods, |pod| {
            let number: u32 = pod.id.trim_start_matches("pod").parse().unwrap();
            let meant = number.is_multiple_of(2);
            let mut call = node.call("ADD", pod, &node.bridge_conf("1.0.0"));
            if !meant {
                call.conf["ipam"]["routes"] = serde_json::json!([{"dst": "10.0.0.0/8", "gw": "192.0.2.1"}]);
            }
            (meant, call.run())
        });
        for (meant, output) in results {
            assert_eq!(output.code == 0, meant, "{output:?}");
        }
        assert_eq!((node.leases().len(), node.links().len()), (8, 9));
        assert!(pods.iter().step_by(2).all(|pod| pod.reaches("10.244.7.1")));
    });
}

#[test]
fn the_binary_answers_as_the_library_does() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let call = node.call("ADD", &pod, &node.conf("1.0.0"));
        let result = call.exec(Path::new(BINARY));
        assert_eq!(result["ips"][0]["address"], "10.244.7.2/24");
        let again = call.spawn(Path::new(BINARY)).wait_with_output().unwrap();
        assert_eq!(again.status.code(), Some(1));
        assert!(again.stderr.is_empty());
        let error: Value = serde_json::from_slice(&again.stdout).unwrap();
        assert_eq!(error["code"], 101);
        assert_eq!(
            node.call("DEL", &pod, &node.conf("1.0.0"))
                .exec(Path::new(BINARY)),
            Value::Null
        );
        node.assert_nothing_left(&["cni0"]);
    });
}
