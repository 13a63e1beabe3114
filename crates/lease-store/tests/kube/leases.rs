//! What a node writes on its own Node.

use flannel_types::PublicAddrs;
use lease_store::{ErrorClass, LeaseRequest, LeaseStore, NodeIdentity};
use serde_json::{Value, json};

use crate::support::{Bed, DATA, LONG, acquire, attrs, bare, conf, eventually, patches, peer, watching};

const NO_ADDRS: PublicAddrs = PublicAddrs { v4: None, v6: None };

#[tokio::test]
async fn the_annotations_are_upstreams_in_one_patch_of_the_status() {
    let bed = Bed::new().await;
    let lease = acquire(&bed, &bed.store()).await;
    assert_eq!(lease.key.to_string(), "10.244.0.0-24");
    assert_eq!(lease.expires, None);
    let expected = json!({ "metadata": { "annotations": {
        "flannel.alpha.coreos.com/backend-data": DATA,
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/public-ip": "192.168.77.1",
    } } });
    let kind = "application/strategic-merge-patch+json".to_owned();
    assert_eq!(
        patches(&bed),
        [("/api/v1/nodes/own/status".to_owned(), kind, expected)]
    );
}

#[tokio::test]
async fn a_restart_writes_nothing_and_a_change_only_what_changed() {
    let bed = Bed::new().await;
    acquire(&bed, &bed.store()).await;
    patches(&bed);
    acquire(&bed, &bed.store()).await;
    assert_eq!(patches(&bed), []);
    let request = LeaseRequest {
        conf: conf(&bed.conf_path()),
        attrs: attrs([192, 168, 77, 9]),
        previous: flannel_types::PreviousSubnets::default(),
    };
    bed.store().acquire(&request).await.unwrap();
    let [(_, _, body)] = patches(&bed).try_into().unwrap();
    let expected = json!({"metadata":{"annotations":{"flannel.alpha.coreos.com/public-ip":"192.168.77.9"}}});
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_node_finds_the_mac_that_it_announced_with_any_prefix() {
    for prefix in ["flannel.alpha.coreos.com", "example.org/net"] {
        let bed = Bed::new().await;
        let options = || {
            let mut options = bed.options();
            options.prefix = prefix.parse().unwrap();
            lease_store::KubeStore::new(options)
        };
        assert_eq!(options().find(NO_ADDRS).await.unwrap(), None, "{prefix}");
        acquire(&bed, &options()).await;
        let found = options().find(NO_ADDRS).await.unwrap().unwrap();
        assert_eq!(found.attrs.backend_data.as_deref(), Some(DATA), "{prefix}");
    }
}

#[tokio::test]
async fn a_node_without_a_subnet_waits_and_one_outside_the_network_does_not() {
    let bed = Bed::new().await;
    for (cidrs, class, text) in [
        (&[][..], ErrorClass::Retry, "pod cidr not assigned"),
        (
            &["10.99.0.0/24"],
            ErrorClass::Fatal,
            "doesn't contain \"10.99.0.0/24\" PodCIDR of the \"own\" node",
        ),
    ] {
        bed.cluster().remove_node("own");
        bed.cluster().put_node(&bare("own", cidrs));
        let err = bed.store().find(NO_ADDRS).await.unwrap_err();
        assert_eq!(err.class(), class);
        let sentence = net_types::sentence(&err);
        assert!(sentence.contains(text), "{sentence}");
    }
    bed.cluster().remove_node("own");
    let err = bed.store().find(NO_ADDRS).await.unwrap_err();
    assert_eq!(err.class(), ErrorClass::Retry);
    assert!(net_types::sentence(&err).contains("\"own\" not found"), "{err}");
}

#[tokio::test]
async fn a_pod_finds_its_node() {
    let bed = Bed::new().await;
    let mut options = bed.options();
    options.node = NodeIdentity::OfPod {
        namespace: "kube-flannel".to_owned(),
        name: "kube-flannel-ds-x7k2p".to_owned(),
    };
    let store = lease_store::KubeStore::new(options);
    let err = store.find(NO_ADDRS).await.unwrap_err();
    assert!(
        net_types::sentence(&err).contains("kube-flannel/kube-flannel-ds-x7k2p"),
        "{err}"
    );
    bed.cluster().put_pod("kube-flannel/kube-flannel-ds-x7k2p", "own");
    assert_eq!(acquire(&bed, &store).await.key.to_string(), "10.244.0.0-24");
}

#[tokio::test]
async fn addresses_that_an_administrator_gave_are_read_and_published() {
    let bed = Bed::new().await;
    let mut own = bare("own", &["10.244.0.0/24"]);
    own.annotations = [
        ("node-public-ip", "192.168.99.1"),
        ("node-public-ipv6", "fd99::1"),
        ("public-ip-overwrite", "203.0.113.7"),
    ]
    .map(|(suffix, value)| (format!("flannel.alpha.coreos.com/{suffix}"), value.to_owned()))
    .into();
    bed.cluster().put_node(&own);
    let store = bed.store();
    let addrs = store.public_addrs().await.unwrap();
    assert_eq!(addrs.v4, Some([192, 168, 99, 1].into()));
    assert_eq!(addrs.v6, Some("fd99::1".parse().unwrap()));
    let lease = acquire(&bed, &store).await;
    assert_eq!(lease.attrs.public_ip, Some([203, 0, 113, 7].into()));
    bed.wait_for_annotation("own", "public-ip", "203.0.113.7").await;
}

#[tokio::test]
async fn an_address_that_is_given_later_is_published_and_taken_back() {
    let bed = Bed::new().await;
    let store = bed.store();
    let mut watch = watching(&bed, &store).await;
    crate::support::snapshot_of(&mut watch, &["10.244.0.0-24"]).await;
    let overwrite = |value: Value| json!({"metadata":{"annotations":{"flannel.alpha.coreos.com/public-ip-overwrite": value}}});
    bed.cluster().patch_node("own", &overwrite(json!("203.0.113.7")));
    bed.wait_for_annotation("own", "public-ip", "203.0.113.7").await;
    bed.cluster().patch_node("own", &overwrite(Value::Null));
    bed.wait_for_annotation("own", "public-ip", "192.168.77.1").await;
}

#[tokio::test]
async fn annotations_that_somebody_removes_are_put_back() {
    let bed = Bed::new().await;
    let store = bed.store();
    let mut watch = watching(&bed, &store).await;
    crate::support::snapshot_of(&mut watch, &["10.244.0.0-24"]).await;
    // As after `kubectl delete node` and the kubelet's return.
    bed.cluster().remove_node("own");
    bed.cluster().put_node(&bare("own", &["10.244.0.0/24"]));
    bed.wait_for_annotation("own", "kube-subnet-manager", "true")
        .await;
    bed.wait_for_annotation("own", "backend-data", DATA).await;
}

#[tokio::test]
async fn the_condition_is_set_when_the_network_is_up_and_retried_until_it_is() {
    let bed = Bed::new().await;
    let store = bed.store();
    let mut watch = watching(&bed, &store).await;
    crate::support::snapshot_of(&mut watch, &["10.244.0.0-24"]).await;
    let condition = || {
        let node = bed.cluster().node("own").unwrap();
        node.pointer("/status/conditions/0").cloned().unwrap()
    };
    assert_eq!(condition()["status"], "True");
    bed.cluster().add_fault(
        serde_json::from_value(json!({"at":"PATCH","trouble":{"refuse":{"code":500}},"times":1})).unwrap(),
    );
    store.network_is_up();
    eventually("the condition", async || {
        (condition()["status"] == "False").then_some(())
    })
    .await;
    let set = condition();
    assert_eq!(set["reason"], "FlannelIsUp");
    assert_eq!(set["message"], "Flannel is running on this node");
    assert_eq!(set["lastHeartbeatTime"], set["lastTransitionTime"]);
    // The other condition is another's.
    assert_eq!(
        bed.cluster().node("own").unwrap()["status"]["conditions"][1]["type"],
        "Ready"
    );
}

#[tokio::test]
async fn the_condition_stays_another_s_business_where_it_is_switched_off() {
    let bed = Bed::new().await;
    let mut options = bed.options();
    options.sets_condition = false;
    let store = lease_store::KubeStore::new(options);
    let mut watch = watching(&bed, &store).await;
    crate::support::snapshot_of(&mut watch, &["10.244.0.0-24"]).await;
    store.network_is_up();
    bed.cluster()
        .put_node(&peer("a", "10.244.1.0/24", "192.168.77.2"));
    crate::support::put(&mut watch).await;
    let conditions = &bed.cluster().node("own").unwrap()["status"]["conditions"];
    assert_eq!(conditions[0]["status"], "True");
}

#[tokio::test]
async fn each_family_is_announced_and_found_in_dual_stack() {
    let bed = Bed::new().await;
    bed.write_conf(
        r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan"}}"#,
    );
    bed.cluster().remove_node("own");
    bed.cluster()
        .put_node(&bare("own", &["10.244.0.0/24", "fd00:10:244::/64"]));
    let mut attrs = attrs([192, 168, 77, 1]);
    attrs.public_ipv6 = Some("fd77::1".parse().unwrap());
    attrs.backend_v6_data = Some(DATA.to_owned());
    let request = LeaseRequest {
        conf: conf(&bed.conf_path()),
        attrs: attrs.clone(),
        previous: flannel_types::PreviousSubnets::default(),
    };
    let lease = tokio::time::timeout(LONG, bed.store().acquire(&request))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(lease.key.to_string(), "10.244.0.0-24&fd00:10:244::-64");
    bed.wait_for_annotation("own", "backend-v6-data", DATA).await;
    bed.wait_for_annotation("own", "public-ipv6", "fd77::1").await;
    let found = bed.store().find(NO_ADDRS).await.unwrap().unwrap();
    assert_eq!(found.attrs, attrs);
}
