//! DEL with what no ADD would take, and STA and GC, which the reference (1.1.1) does not have.

use std::fs;

use serde_json::json;

use crate::common::{Pod, on_a_node};
use crate::results::call;
use crate::table::{Case, In, Side, Well, case, check};

#[test]
fn del_works_with_what_no_add_would_take() {
    const RELEASE: &str = "what became invalid since the ADD must not keep its addresses";
    check(&[
        case("DEL-07", "host-local", Well, |_, g| {
            g.var("CNI_COMMAND", "DEL");
            g.conf["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.1/24"}]]);
        })
        .unlike(In(999, "host bits"), RELEASE),
        case("DEL-07", "host-local", Well, |_, g| {
            g.var("CNI_COMMAND", "DEL");
            g.conf["ipam"].as_object_mut().unwrap().remove("ranges");
        })
        .unlike(In(999, "no IP ranges"), RELEASE),
        case("DEL-07", "bridge", Well, |_, g| {
            g.var("CNI_COMMAND", "DEL");
            g.conf["mtu"] = json!(-5);
            g.conf["vlan"] = json!(-1);
        })
        .unlike(In(999, "invalid VLAN ID"), RELEASE),
        case("DEL-01 DEL-10", "bridge", Well, |_, g| {
            g.var("CNI_COMMAND", "DEL")
        }),
        case("DEL-01", "flannel", Well, |_, g| g.var("CNI_COMMAND", "DEL")).ours_only(),
        case("DEL-01 netns", "bridge", Well, |_, g| {
            g.var("CNI_COMMAND", "DEL");
            g.var("CNI_NETNS", &format!("/run/{}", "n".repeat(300)));
        })
        .ours_only(),
    ]);
}

#[test]
fn status_tells_the_truth() {
    let status = |id, plugin, ends, change: fn(&crate::table::Stage<'_>, &mut crate::table::Given)| -> Case {
        case(id, plugin, ends, move |s, g| {
            g.vars.retain(|name, _| name == "CNI_PATH");
            g.var("CNI_COMMAND", "STATUS");
            g.conf["cniVersion"] = "1.1.0".into();
            change(s, g);
        })
        .ours_only()
    };
    let ranges = json!([[{"subnet": "10.1.0.0/30"}]]);
    check(&[
        status("STA-01", "bridge", In(1, "does not allow STATUS"), |_, g| {
            g.conf["cniVersion"] = "1.0.0".into()
        }),
        status("STA-02", "bridge", Well, |_, _| {}),
        status("STA-02", "host-local", Well, |_, _| {}),
        status("STA-02", "flannel", Well, |_, _| {}),
        status("STA-03", "flannel", In(50, "subnet.env"), |s, _| {
            fs::remove_file(s.node.path("subnet.env")).unwrap()
        }),
        case(
            "STA-04",
            "host-local",
            In(50, "no IP addresses available"),
            move |s, g| {
                fs::create_dir_all(s.node.path("networks/cbr0")).unwrap();
                fs::write(s.node.path("networks/cbr0/10.1.0.2"), "x\r\neth0").unwrap();
                g.vars.retain(|name, _| name == "CNI_PATH");
                g.var("CNI_COMMAND", "STATUS");
                g.conf["cniVersion"] = "1.1.0".into();
                g.conf["ipam"]["ranges"] = ranges.clone();
            },
        )
        .ours_only(),
        status("STA-05", "bridge", In(7, "failed to find plugin"), |_, g| {
            g.conf["ipam"]["type"] = "nowhere".into()
        }),
    ]);
}

/// STA-06: STATUS leaves no trace. GC-01 to GC-06.
#[test]
fn gc_removes_what_is_not_valid_and_only_of_its_network() {
    on_a_node(|node| {
        let pods = ["a", "b"].map(Pod::new);
        let mut conf = node.bridge_conf("1.1.0");
        call(&node, Side::Ours, "STATUS", &pods[0], &conf).ok();
        assert!(!node.path("networks").exists() && node.links().is_empty());
        let mut other = conf.clone();
        other["name"] = "other".into();
        other["ipam"]["ranges"] = json!([[{"subnet": "10.244.7.0/24", "rangeStart": "10.244.7.100"}]]);
        for pod in &pods {
            call(&node, Side::Ours, "ADD", pod, &conf).ok();
        }
        let foreign = Pod::new("foreign");
        call(&node, Side::Ours, "ADD", &foreign, &other).ok();
        let gc = |conf: &serde_json::Value| call(&node, Side::Ours, "GC", &pods[0], conf);
        assert_eq!(gc(&node.bridge_conf("1.0.0")).json()["code"], 1);
        // No list is no empty list.
        assert_eq!(gc(&conf).ok().stdout, "");
        assert_eq!((node.leases().len(), node.links().len()), (2, 4));
        conf["cni.dev/valid-attachments"] = json!([{"containerID": "a", "ifname": "eth0"}]);
        assert_eq!(gc(&conf).ok().stdout, "");
        assert_eq!((node.leases().len(), node.links().len()), (1, 3));
        assert!(pods[0].reaches("10.244.7.1") && foreign.reaches("10.244.7.1"));
        assert!(
            node.path("networks/cbr0/lock").exists()
                && node.path("networks/cbr0/last_reserved_ip.0").exists()
        );
        conf["cni.dev/valid-attachments"] = json!(null);
        gc(&conf).ok();
        assert_eq!((node.leases().len(), node.links().len()), (0, 2));
        assert!(foreign.reaches("10.244.7.1"));
    });
}
