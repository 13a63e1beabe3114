//! Leases and devices for the tests of this crate.

use std::net::Ipv4Addr;

use flannel_types::{Lease, LeaseAttrs, UnixTime, VxlanData};
use net_types::{MacAddr, SubnetKey, Vni};

use crate::desired::{BACKEND_TYPE, VxlanDevice};

/// The device of node 250.
pub(crate) fn device() -> VxlanDevice {
    VxlanDevice {
        name: "flannel.1".parse().unwrap(),
        vni: Vni::DEFAULT,
        port: 8472,
        learning: false,
        gbp: false,
        mac: mac(250),
        mtu_bytes: 1450,
        parent: "eth0".parse().unwrap(),
        local: public_ip(250),
        public_ip: public_ip(250),
        network: "10.244.0.0/16".parse().unwrap(),
        subnet: key(250).v4().unwrap(),
    }
}

/// The key of node `n`.
pub(crate) fn key(n: u8) -> SubnetKey {
    format!("10.244.{n}.0-24").parse().unwrap()
}

/// The public address of node `n`.
pub(crate) fn public_ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, n)
}

/// The VTEP MAC of node `n`.
pub(crate) fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n])
}

/// The lease of node `n`.
pub(crate) fn lease(n: u8, expires: Option<u64>) -> Lease {
    let data = VxlanData {
        vni: Vni::DEFAULT,
        vtep_mac: mac(n),
    };
    let attrs = LeaseAttrs {
        public_ip: Some(public_ip(n)),
        public_ipv6: None,
        backend_type: BACKEND_TYPE.to_owned(),
        backend_data: Some(data.to_json()),
        backend_v6_data: None,
    };
    Lease {
        key: key(n),
        attrs,
        expires: expires.map(UnixTime::from_secs),
    }
}
