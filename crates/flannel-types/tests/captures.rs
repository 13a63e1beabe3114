//! What the reference wrote is read, and written again byte for byte.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::path::Path;

use flannel_types::{Backend, LeaseAttrs, NetConf, SubnetEnv, VxlanData};
use net_types::SubnetKey;

const PREFIX: &str = "/coreos.com/network/";

struct Capture {
    name: &'static str,
    backend: &'static str,
    etcd_keys: &'static str,
    subnet_env: Option<&'static str>,
}

macro_rules! capture {
    ($name:literal, $backend:literal, no_subnet_env) => {
        Capture {
            name: $name,
            backend: $backend,
            etcd_keys: include_str!(concat!(
                "../../../conformance/data/captures/",
                $name,
                "/etcd-keys.txt"
            )),
            subnet_env: None,
        }
    };
    ($name:literal, $backend:literal) => {
        Capture {
            subnet_env: Some(include_str!(concat!(
                "../../../conformance/data/captures/",
                $name,
                "/node1-subnet.env"
            ))),
            ..capture!($name, $backend, no_subnet_env)
        }
    };
}

const CAPTURES: [Capture; 8] = [
    capture!("host-gw", "host-gw"),
    capture!("ipip", "ipip", no_subnet_env),
    capture!("udp", "udp"),
    capture!("vxlan-directrouting", "vxlan"),
    capture!("vxlan-dualstack-iptables", "vxlan"),
    capture!("vxlan-dualstack-nftables", "vxlan"),
    capture!("vxlan-iptables", "vxlan"),
    capture!("vxlan-nftables", "vxlan"),
];

#[test]
fn every_lease_in_etcd_round_trips() {
    for capture in CAPTURES {
        let leases = capture.leases();
        assert_eq!(leases.len(), 3, "{}", capture.name);
        for (key, value) in leases {
            assert_eq!(key.parse::<SubnetKey>().unwrap().to_string(), key);
            let attrs = LeaseAttrs::parse(value).unwrap();
            assert_eq!(attrs.to_json(), value, "{}", capture.name);
            assert_eq!(
                attrs.backend_type,
                capture.conf().backend.lease_type(),
                "{}",
                capture.name
            );
            for data in attrs.backend_data.iter().chain(&attrs.backend_v6_data) {
                assert_eq!(VxlanData::parse(data).unwrap().to_json(), *data);
            }
        }
    }
}

#[test]
fn every_configuration_is_valid_and_covers_its_leases() {
    for capture in CAPTURES {
        let conf = capture.conf();
        assert_eq!(conf.backend.name(), capture.backend);
        assert!(!conf.backend_defaulted);
        let valid = conf.validated().unwrap();
        for (key, _) in capture.leases() {
            let key: SubnetKey = key.parse().unwrap();
            assert!(valid.ipv4().unwrap().holds(key.v4().unwrap()));
            assert_eq!(valid.ipv6().is_some(), key.v6().is_some());
            assert!(key.v6().is_none_or(|v6| valid.ipv6().unwrap().holds(v6)));
        }
    }
}

#[test]
fn every_subnet_file_round_trips() {
    for text in CAPTURES.iter().filter_map(|capture| capture.subnet_env) {
        let env = SubnetEnv::parse(text, Path::new("subnet.env")).unwrap();
        assert_eq!(env.render(), text);
    }
}

#[test]
fn the_direct_routing_configuration_is_read_in_full() {
    let Backend::Vxlan(vxlan) = CAPTURES[3].conf().backend else {
        panic!("not VXLAN")
    };
    assert_eq!((vxlan.vni.get(), vxlan.port, vxlan.mtu), (4096, 4789, Some(1400)));
    assert!(vxlan.direct_routing && !vxlan.gbp && !vxlan.learning);
}

impl Capture {
    fn entries(&self) -> Vec<(&'static str, &'static str)> {
        let mut lines = self.etcd_keys.lines().filter(|line| !line.starts_with("lease "));
        let mut entries = Vec::new();
        while let Some(key) = lines.next() {
            entries.push((key.strip_prefix(PREFIX).unwrap(), lines.next().unwrap()));
        }
        entries
    }

    fn conf(&self) -> NetConf {
        NetConf::parse(self.entries()[0].1).unwrap()
    }

    fn leases(&self) -> Vec<(&'static str, &'static str)> {
        let leases = self.entries().into_iter().skip(1);
        leases
            .map(|(key, value)| (key.strip_prefix("subnets/").unwrap(), value))
            .collect()
    }
}
