use std::collections::BTreeSet;

use flannel_types::{LeaseAttrs, PreviousSubnets};
use lease_store::{ErrorClass, LEASE_TTL, LeaseEvent, LeaseStore, StoreError};

use crate::admin::{etcd_leases, ttl};
use crate::support::{
    CONFIG, DUAL_STACK, Lab, V6_ONLY, attrs, in_netns, key, lease, next, request, snapshot, value,
};

const ADMIN: u16 = 12_379;

#[test]
fn the_first_lease_is_written_as_upstream_writes_it() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        let store = lab.store();
        let conf = store.read_config().await.unwrap();
        assert_eq!(conf, request(CONFIG, 1).conf);
        let lease = store.acquire(&request(CONFIG, 1)).await.unwrap();
        let dump = lab.raw.dump().await;
        assert_eq!(
            dump.keys().cloned().collect::<Vec<_>>(),
            ["config".to_owned(), format!("subnets/{}", lease.key)]
        );
        let stored = lab.raw.stored(lease.key).await;
        assert_eq!(String::from_utf8(stored.value).unwrap(), value(1));
        let left = ttl(ADMIN, stored.lease);
        assert!(
            (LEASE_TTL.as_secs() - 60..=LEASE_TTL.as_secs()).contains(&left),
            "{left}"
        );
        assert_eq!(etcd_leases(ADMIN), 1);
        assert_eq!(
            store.find(attrs(1).addrs()).await.unwrap().map(|found| found.key),
            Some(lease.key)
        );
        assert_eq!(store.find(attrs(2).addrs()).await.unwrap(), None);
    });
}

#[test]
fn a_cluster_of_upstream_s_is_read_and_its_values_stay_as_they_are() {
    for capture in [
        include_str!("../../../../conformance/data/captures/host-gw/etcd-keys.txt"),
        include_str!("../../../../conformance/data/captures/vxlan-directrouting/etcd-keys.txt"),
        include_str!("../../../../conformance/data/captures/vxlan-dualstack-nftables/etcd-keys.txt"),
    ] {
        in_netns(adopts(capture));
    }
}

async fn adopts(capture: &str) {
    let lines: Vec<_> = capture
        .lines()
        .take_while(|line| !line.starts_with("lease "))
        .collect();
    let pairs: Vec<_> = lines.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    let (_, config) = pairs[0];
    let lab = Lab::new(config).await;
    for (name, value) in &pairs[1..] {
        lab.raw
            .0
            .grant(7 + i64::try_from(name.len()).unwrap(), LEASE_TTL)
            .await
            .unwrap();
        let id = 7 + i64::try_from(name.len()).unwrap();
        lab.raw
            .put(name.strip_prefix("/coreos.com/network/").unwrap(), value, id)
            .await;
    }
    let before = lab.raw.dump().await;
    assert_eq!(before.len(), 4);
    let store = lab.store();
    let leases = snapshot(&mut store.watch().unwrap()).await;
    assert_eq!(leases.len(), 3);
    for lease in leases.values() {
        let mut request = request(config, 1);
        request.attrs = lease.attrs.clone();
        assert_eq!(store.acquire(&request).await.unwrap().key, lease.key);
    }
    assert_eq!(lab.raw.dump().await, before, "nothing was written");
}

#[test]
fn fifty_nodes_that_start_at_once_get_fifty_subnets_and_leave_no_etcd_lease_over() {
    in_netns(async {
        for config in [
            CONFIG,
            DUAL_STACK,
            r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.51.0"}"#,
        ] {
            let lab = Lab::new(config).await;
            let start = |node: u8| {
                let store = lab.store();
                tokio::spawn(async move { store.acquire(&request(config, node)).await.unwrap().key })
            };
            let nodes: Vec<_> = (1..=50).map(start).collect();
            let mut keys = Vec::new();
            for node in nodes {
                keys.push(node.await.unwrap());
            }
            let v4: BTreeSet<_> = keys.iter().map(|key| key.v4()).collect();
            let v6: BTreeSet<_> = keys.iter().filter_map(|key| key.v6()).collect();
            assert_eq!(v4.len(), 50, "{config}");
            assert!(v6.is_empty() || v6.len() == 50, "{config}");
            assert_eq!(lab.raw.dump().await.len(), 51);
            assert_eq!(etcd_leases(ADMIN), 50);
        }
    });
}

#[test]
fn a_restarted_node_goes_on_with_its_etcd_lease_and_writes_nothing() {
    in_netns(async {
        let lab = Lab::new(DUAL_STACK).await;
        let first = lab.store().acquire(&request(DUAL_STACK, 1)).await.unwrap();
        assert!(first.key.v6().is_some());
        let before = lab.raw.dump().await;
        for _ in 0..5 {
            let again = lab.store().acquire(&request(DUAL_STACK, 1)).await.unwrap();
            assert_eq!(again.key, first.key);
            assert!(again.expires >= first.expires);
        }
        assert_eq!(lab.raw.dump().await, before);
        assert_eq!(etcd_leases(ADMIN), 1);
    });
}

#[test]
fn renewal_extends_the_lease_and_publishes_what_changed() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        let store = lab.store();
        let mut lease = store.acquire(&request(CONFIG, 1)).await.unwrap();
        let before = lab.raw.stored(lease.key).await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let renewed = store.renew(&lease).await.unwrap();
        assert!(renewed.expires > lease.expires);
        assert!(ttl(ADMIN, before.lease) >= LEASE_TTL.as_secs() - 1);
        assert_eq!(lab.raw.stored(lease.key).await, before);
        lease.attrs = LeaseAttrs {
            backend_data: attrs(9).backend_data,
            ..attrs(1)
        };
        assert_eq!(store.renew(&lease).await.unwrap().attrs, lease.attrs);
        let after = lab.raw.stored(lease.key).await;
        assert_eq!(
            (after.value, after.lease),
            (lease.attrs.to_json().into_bytes(), before.lease)
        );
        assert_eq!(etcd_leases(ADMIN), 1);
    });
}

#[test]
fn a_lease_that_upstream_made_shorter_gets_its_full_life_and_what_it_had_is_gone() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        lab.raw.0.grant(7, LEASE_TTL / 2).await.unwrap();
        lab.raw.put("subnets/10.5.9.0-24", &value(1), 7).await;
        let lease = lab.store().acquire(&request(CONFIG, 1)).await.unwrap();
        assert_eq!(lease.key, key("10.5.9.0-24"));
        let stored = lab.raw.stored(lease.key).await;
        assert!(ttl(ADMIN, stored.lease) > LEASE_TTL.as_secs() - 60);
        assert_eq!(etcd_leases(ADMIN), 1);
    });
}

#[test]
fn an_etcd_lease_that_somebody_attached_more_keys_to_is_left_alone() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        lab.raw.0.grant(7, LEASE_TTL / 2).await.unwrap();
        lab.raw.put("subnets/10.5.9.0-24", &value(1), 7).await;
        lab.raw.put("theirs", "1", 7).await;
        lab.store().acquire(&request(CONFIG, 1)).await.unwrap();
        assert_eq!(lab.raw.dump().await["theirs"].lease, 7);
        assert_eq!(etcd_leases(ADMIN), 2);
    });
}

#[test]
fn a_reservation_stays_one_when_it_is_used() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        lab.raw
            .put("subnets/10.5.9.0-24", r#"{"PublicIP":"192.168.77.1"}"#, 0)
            .await;
        let store = lab.store();
        let lease = store.acquire(&request(CONFIG, 1)).await.unwrap();
        assert_eq!((lease.key, lease.expires), (key("10.5.9.0-24"), None));
        assert_eq!(store.renew(&lease).await.unwrap(), lease);
        let stored = lab.raw.stored(lease.key).await;
        assert_eq!(
            (String::from_utf8(stored.value).unwrap(), stored.lease),
            (value(1), 0)
        );
        assert_eq!(etcd_leases(ADMIN), 0);
    });
}

#[test]
fn renewal_never_overwrites_another_s_lease() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        let store = lab.store();
        let lease = store.acquire(&request(CONFIG, 1)).await.unwrap();
        let name = format!("subnets/{}", lease.key);
        lab.raw.put(&name, &value(2), 0).await;
        let before = lab.raw.dump().await;
        let err = store.renew(&lease).await.unwrap_err();
        assert_eq!(
            err.to_string(),
            format!("the lease of {} belongs to 192.168.77.2", lease.key)
        );
        assert_eq!(err.class(), ErrorClass::Lost);
        assert_eq!(lab.raw.dump().await, before);
        lab.raw.delete(&name).await;
        let err = store.renew(&lease).await.unwrap_err();
        assert_eq!(err.to_string(), format!("the lease of {} is gone", lease.key));
        assert_eq!(lab.raw.dump().await.len(), 1);
    });
}

#[test]
fn a_node_takes_its_lease_along_to_another_address_unless_it_is_not_what_it_was() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        let store = lab.store();
        let lease = store.acquire(&request(CONFIG, 1)).await.unwrap();
        let to = request(CONFIG, 9).attrs.addrs();

        let moved = store.readdress(&lease, to).await.unwrap();
        assert_eq!((moved.key, moved.attrs.addrs()), (lease.key, to));
        assert_eq!(moved.attrs.backend_data, lease.attrs.backend_data);
        assert_eq!(
            store.find(to).await.unwrap().map(|lease| lease.key),
            Some(lease.key)
        );
        assert_eq!(store.find(lease.attrs.addrs()).await.unwrap(), None);
        let name = format!("subnets/{}", lease.key);
        assert_ne!(lab.raw.dump().await[&name].lease, 0, "it still has an end");

        // Done before, and then written over by another host with the address that this node had.
        for stored in [None, Some(value(1).replace("02:", "06:"))] {
            if let Some(value) = stored {
                lab.raw.put(&name, &value, 0).await;
            }
            let before = lab.raw.dump().await;
            let err = store.readdress(&lease, to).await.unwrap_err();
            assert_eq!(err.class(), ErrorClass::Lost);
            assert_eq!(lab.raw.dump().await, before);
        }
        lab.raw.delete(&name).await;
        let err = store.readdress(&lease, to).await.unwrap_err();
        assert_eq!(err.class(), ErrorClass::Lost);
    });
}

#[test]
fn an_own_lease_that_no_longer_fits_is_replaced() {
    in_netns(async {
        let lab = Lab::new(DUAL_STACK).await;
        lab.raw.0.grant(7, LEASE_TTL).await.unwrap();
        lab.raw.put("subnets/10.5.9.0-24", &value(1), 7).await;
        let mut request = request(DUAL_STACK, 1);
        request.previous = PreviousSubnets {
            subnet: Some("10.5.9.0/24".parse().unwrap()),
            ..PreviousSubnets::default()
        };
        let lease = lab.store().acquire(&request).await.unwrap();
        assert_eq!(lease.key.v4(), key("10.5.9.0-24").v4());
        assert!(lease.key.v6().is_some());
        assert_eq!(lab.raw.dump().await.len(), 2);
        assert_eq!(etcd_leases(ADMIN), 1);
    });
}

#[test]
fn a_lease_changes_its_name_at_once_when_a_family_is_switched() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        let v4 = lab.store().acquire(&request(CONFIG, 1)).await.unwrap();
        lab.raw.put("config", DUAL_STACK, 0).await;
        let mut watch = lab.store().watch().unwrap();
        assert_eq!(snapshot(&mut watch).await.len(), 1);
        let dual = lab.store().acquire(&request(DUAL_STACK, 1)).await.unwrap();
        assert_eq!(dual.key.v4(), v4.key.v4());
        // Both are one change of etcd's; whoever hears of it never sees the subnet without a lease.
        let expected = [
            LeaseEvent::Put(lease(&dual.key.to_string(), 1)),
            LeaseEvent::Remove(v4.key),
        ];
        assert_eq!([next(&mut watch).await, next(&mut watch).await], expected);
        assert_eq!(etcd_leases(ADMIN), 1);
        let mut v6 = request(V6_ONLY, 1);
        v6.attrs.public_ipv6 = Some("fd00:77::1".parse().unwrap());
        // Its addresses become known first, as a daemon in dual stack publishes both.
        lab.store()
            .renew(&flannel_types::Lease {
                attrs: v6.attrs.clone(),
                ..dual.clone()
            })
            .await
            .unwrap();
        v6.attrs.public_ip = None;
        let alone = lab.store().acquire(&v6).await.unwrap();
        assert_eq!(
            alone.key.to_string(),
            format!("{}-64", dual.key.v6().unwrap().ip())
        );
        assert_eq!(etcd_leases(ADMIN), 1);
        assert_eq!(lab.raw.dump().await.len(), 2);
        // A reservation stays one.
        let reserved = lab.raw.stored(alone.key).await;
        let text = String::from_utf8(reserved.value).unwrap();
        lab.raw.put(&format!("subnets/{}", alone.key), &text, 0).await;
        let mut again = request(DUAL_STACK, 1);
        again.attrs.public_ipv6 = v6.attrs.public_ipv6;
        let reserved = lab.store().acquire(&again).await.unwrap();
        assert_eq!((reserved.key.v6(), reserved.expires), (alone.key.v6(), None));
    });
}

#[test]
fn the_subnet_of_an_earlier_run_is_taken_where_it_is_free() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        lab.raw.put("subnets/10.5.8.0-24", &value(2), 0).await;
        // Nobody knows whose this is, so it is not free.
        lab.raw.put("subnets/10.5.7.0-24", "{}", 0).await;
        for (hint, is_taken) in [
            ("10.5.9.0/24", false),
            ("10.5.8.0/24", true),
            ("10.5.7.0/24", true),
        ] {
            let mut request = request(CONFIG, 1);
            request.previous = PreviousSubnets {
                subnet: Some(hint.parse().unwrap()),
                ..PreviousSubnets::default()
            };
            let lease = lab.store().acquire(&request).await.unwrap();
            assert_eq!(lease.key.v4().unwrap().to_string() != hint, is_taken, "{hint}");
            lab.raw.delete(&format!("subnets/{}", lease.key)).await;
        }
    });
}

#[test]
fn a_full_pool_is_said_to_be_full_and_nothing_is_written() {
    in_netns(async {
        let config = r#"{"Network":"10.5.0.0/22","SubnetMin":"10.5.1.0","SubnetMax":"10.5.1.0"}"#;
        let lab = Lab::new(config).await;
        lab.raw.put("subnets/10.5.1.0-24", "what is this", 0).await;
        let before = lab.raw.dump().await;
        let full = lab.store().acquire(&request(config, 1)).await;
        assert!(matches!(full, Err(StoreError::OutOfSubnets)), "{full:?}");
        assert_eq!(lab.raw.dump().await, before);
        assert_eq!(etcd_leases(ADMIN), 0);
    });
}

#[test]
fn a_missing_or_bad_configuration_is_named() {
    in_netns(async {
        let lab = Lab::new("{}").await;
        let store = lab.store();
        let err = store.read_config().await.unwrap_err();
        assert_eq!(
            err.to_string(),
            "cannot use the network configuration in /coreos.com/network/config in etcd"
        );
        lab.raw.delete("config").await;
        let err = store.read_config().await.unwrap_err();
        assert!(
            err.to_string()
                .starts_with("flannel config not found in /coreos.com/network/config in etcd"),
            "{err}"
        );
        assert_eq!(err.class(), ErrorClass::Retry);
    });
}
