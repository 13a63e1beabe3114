use std::fs;

use conformance::lab::runtime::{self, Attachment, PluginError, Verb};
use conformance::lab::{Node, SUBNET_FILE};
use serde_json::{Value, json};

use crate::support::{assert_same, bare, dump, files_below};

/// A subnet file as the daemon writes it.
const SUBNET_ENV: &str =
    "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.5.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";

fn write_subnet_env(node: &Node, text: &str) {
    let path = node.file(SUBNET_FILE);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The files that the plugins keep, without host-local's note of where to go on.
fn plugin_state(node: &Node) -> Vec<(String, String)> {
    let mut files = files_below(&node.file("/var/lib/cni"));
    files.retain(|(name, _)| !name.contains("last_reserved_ip"));
    files
}

fn refusal(node: &Node) -> PluginError {
    match node.add_pod("pod") {
        Ok(pod) => panic!("ADD succeeded: {}", pod.address()),
        Err(error) => error.downcast().expect("an error of the plugin"),
    }
}

#[test]
fn without_a_subnet_file_add_says_try_again_later_and_leaves_nothing() {
    let lab = bare(1);
    let node = &lab.nodes()[0];
    let before = dump(node);
    let error = refusal(node);
    assert_eq!(error.object["code"], 11, "{error}");
    assert!(
        error.object["msg"].as_str().unwrap().contains("subnet.env"),
        "{error}"
    );
    assert_same("the node", &before, &dump(node));
    assert_eq!(plugin_state(node), []);
}

#[test]
fn a_bad_subnet_file_is_refused_with_its_fault_named_and_leaves_nothing() {
    let lab = bare(1);
    let node = &lab.nodes()[0];
    let before = dump(node);
    for (text, named) in [
        (SUBNET_ENV.replace("FLANNEL_MTU=1450\n", ""), "FLANNEL_MTU"),
        (
            SUBNET_ENV.replace("FLANNEL_SUBNET=10.244.5.1/24\n", ""),
            "FLANNEL_SUBNET",
        ),
        (SUBNET_ENV.replace("FLANNEL_IPMASQ=false\n", ""), "FLANNEL_IPMASQ"),
        (SUBNET_ENV.replace("=1450", ""), "FLANNEL_MTU"),
        (SUBNET_ENV.replace("1450", "wide"), "FLANNEL_MTU"),
        (SUBNET_ENV.replace("10.244.5.1/24", "10.244.5"), "FLANNEL_SUBNET"),
    ] {
        write_subnet_env(node, &text);
        let error = refusal(node);
        assert!(
            error.object["code"].as_u64().is_some_and(|code| code > 0),
            "{error}"
        );
        let words = format!("{} {}", error.object["msg"], error.object["details"]);
        assert!(words.contains(named), "{named} is not named: {error}");
        assert_same(&format!("the node after {text:?}"), &before, &dump(node));
        assert_eq!(plugin_state(node), [], "{text:?}");
    }
}

#[test]
fn a_pod_that_comes_and_goes_leaves_only_the_bridge() {
    let lab = bare(1);
    let node = &lab.nodes()[0];
    write_subnet_env(node, SUBNET_ENV);
    let first = node.add_pod("first").unwrap();
    let with_first = dump(node).without_devices(|device| device == "cni0");
    let state = plugin_state(node);

    let second = node.add_pod("second").unwrap();
    assert_ne!(first.address(), second.address());
    node.check_pod(&second).unwrap();
    node.del_pod(&second).unwrap();
    assert_same(
        "the node",
        &with_first,
        &dump(node).without_devices(|device| device == "cni0"),
    );
    assert_eq!(plugin_state(node), state);
    node.check_pod(&first).unwrap();
    node.del_pod(&first).unwrap();
    assert_eq!(plugin_state(node), []);
}

#[test]
fn del_may_be_repeated_and_needs_neither_namespace_nor_subnet_file() {
    let lab = bare(1);
    let node = &lab.nodes()[0];
    write_subnet_env(node, SUBNET_ENV);
    let pod = node.add_pod("pod").unwrap();
    fs::remove_file(node.file(SUBNET_FILE)).unwrap();
    node.ip(&["netns", "delete", pod.name()]).unwrap();
    let attachment = |netns: &str| Attachment {
        container_id: pod.name().to_owned(),
        netns: netns.to_owned(),
        ifname: "eth0".to_owned(),
    };
    for netns in ["/run/netns/pod", "", "/run/netns/pod"] {
        runtime::call(node, Verb::Del, &attachment(netns), None).unwrap();
        assert_eq!(plugin_state(node), [], "after DEL with {netns:?}");
    }
}

#[test]
fn check_finds_a_pod_whose_link_was_taken_away() {
    let lab = bare(1);
    let node = &lab.nodes()[0];
    write_subnet_env(node, SUBNET_ENV);
    let pod = node.add_pod("pod").unwrap();
    node.check_pod(&pod).unwrap();
    node.ip(&["link", "delete", pod.host_link()]).unwrap();
    let error = node.check_pod(&pod).unwrap_err();
    assert!(error.is::<PluginError>(), "{error:#}");
    node.del_pod(&pod).unwrap();
    assert_eq!(plugin_state(node), []);
}

#[test]
fn a_second_add_for_the_same_interface_fails_and_leaves_the_first_alone() {
    let lab = bare(1);
    let node = &lab.nodes()[0];
    write_subnet_env(node, SUBNET_ENV);
    let pod = node.add_pod("pod").unwrap();
    let (before, state) = (dump(node), plugin_state(node));
    let attachment = Attachment {
        container_id: "pod".to_owned(),
        netns: "/run/netns/pod".to_owned(),
        ifname: "eth0".to_owned(),
    };
    runtime::call(node, Verb::Add, &attachment, None).unwrap_err();
    assert_same("the node", &before, &dump(node));
    assert_eq!(plugin_state(node), state);
    node.check_pod(&pod).unwrap();
}

#[test]
fn the_state_on_disk_has_the_reference_plugins_layout() {
    let lab = bare(1);
    let node = &lab.nodes()[0];
    write_subnet_env(node, SUBNET_ENV);
    let pod = node.add_pod("pod").unwrap();
    assert_eq!(pod.address().to_string(), "10.244.5.2");

    let files = files_below(&node.file("/var/lib/cni"));
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "flannel/pod",
            "networks/cbr0/10.244.5.2",
            "networks/cbr0/last_reserved_ip.0"
        ]
    );
    assert_eq!(
        (files[1].1.as_str(), files[2].1.as_str()),
        ("pod\r\neth0", "10.244.5.2")
    );
    let delegate: Value = serde_json::from_str(&files[0].1).unwrap();
    let expected = json!({
        "cniVersion": "1.0.0",
        "hairpinMode": true,
        "ipMasq": false,
        "ipam": {
            "ranges": [[{"subnet": "10.244.5.0/24"}]],
            "routes": [{"dst": "10.244.0.0/16"}],
            "type": "host-local",
        },
        "isDefaultGateway": true,
        "isGateway": true,
        "mtu": 1450,
        "name": "cbr0",
        "type": "bridge",
    });
    assert_eq!(delegate, expected);
}

#[test]
fn every_spec_version_gets_its_own_shape_of_result() {
    let lab = bare(1);
    let node = &lab.nodes()[0];
    write_subnet_env(node, SUBNET_ENV);
    for (number, version) in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"].into_iter().enumerate() {
        let plugin = json!({"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}});
        runtime::write_conflist(
            node,
            &json!({"name": "cbr0", "cniVersion": version, "plugins": [plugin]}),
        )
        .unwrap();
        let name = format!("pod{number}");
        node.ip(&["netns", "add", &name]).unwrap();
        let attachment = Attachment {
            container_id: name.clone(),
            netns: format!("/run/netns/{name}"),
            ifname: "eth0".to_owned(),
        };
        let result = runtime::call(node, Verb::Add, &attachment, None).unwrap();
        assert_eq!(result["cniVersion"], version);
        let links: Vec<_> = result["interfaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|link| link["name"].clone())
            .collect();
        assert_eq!((&links[0], &links[2]), (&json!("cni0"), &json!("eth0")));
        assert_eq!(result["ips"][0]["interface"], 2);
        let family = if version.starts_with("0.") {
            json!("4")
        } else {
            Value::Null
        };
        assert_eq!(result["ips"][0]["version"], family, "{version}");
        runtime::call(node, Verb::Del, &attachment, Some(&result)).unwrap();
    }
}
