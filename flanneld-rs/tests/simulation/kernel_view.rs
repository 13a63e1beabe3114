//! What the rules need to see of a kernel, and the names of things in the simulated network.

use std::net::{IpAddr, Ipv4Addr};

use fake_kernel::FakeKernel;
use flannel_types::{Lease, LeaseAttrs, VXLAN_TYPE, VxlanData};
use ipnetwork::{IpNetwork, Ipv4Network};
use net_types::{IfName, MacAddr, SubnetKey, Vni};
use netstate::{Kernel, LinkScope, Op, Scope, State};

/// The pod network of every world.
pub(crate) const NETWORK: &str = "10.244.0.0/16";

pub(crate) fn network() -> Ipv4Network {
    NETWORK.parse().unwrap()
}

pub(crate) fn device() -> IfName {
    "flannel.1".parse().unwrap()
}

pub(crate) fn underlay() -> IfName {
    "eth0".parse().unwrap()
}

/// The address of a node on the underlay.
pub(crate) fn public_ip(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, number)
}

/// The address of a pod.
pub(crate) fn pod_of(subnet: Ipv4Network) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(subnet.network().to_bits() + 5))
}

/// The lease of a node that is not simulated.
pub(crate) fn phantom(number: u8, mac: MacAddr) -> Lease {
    let data = VxlanData {
        vni: Vni::DEFAULT,
        vtep_mac: mac,
    };
    Lease {
        key: phantom_key(number),
        attrs: LeaseAttrs {
            public_ip: Some(public_ip(number)),
            public_ipv6: None,
            backend_type: VXLAN_TYPE.to_owned(),
            backend_data: Some(data.to_json()),
            backend_v6_data: None,
        },
        expires: None,
    }
}

pub(crate) fn phantom_key(number: u8) -> SubnetKey {
    format!("10.244.{number}.0-24").parse().unwrap()
}

/// The MAC address that a lease announces.
pub(crate) fn vtep_mac(lease: &Lease) -> MacAddr {
    let data = lease.attrs.backend_data.as_deref().unwrap();
    VxlanData::parse(data).unwrap().vtep_mac
}

/// What the daemon owns in a kernel, as the rules see it.
pub(crate) fn owned(kernel: &FakeKernel) -> State {
    let mut scope = Scope::default();
    let content = LinkScope {
        addrs_inside: vec![IpNetwork::V4(network())],
        neighs: true,
        fdb: true,
        tx_checksum: true,
        routes: true,
        ..LinkScope::default()
    };
    scope.links.insert(device(), content);
    let mut kernel = kernel.clone();
    kernel.clear_faults();
    kernel.observe(&scope).unwrap()
}

/// What the kernel tells a daemon changes of: what it owns, and the card below its device.
pub(crate) fn noticeable(kernel: &FakeKernel) -> State {
    let mut state = owned(kernel);
    let card = kernel.dump().links.remove_entry(&underlay());
    state.links.extend(card);
    state
}

/// What the daemon must never change: all that is neither the device nor on it, and on it what is not in scope.
pub(crate) fn foreign(kernel: &FakeKernel) -> State {
    let device = device();
    let mut state = kernel.dump();
    state.links.remove(&device);
    state
        .addrs
        .retain(|key, _| key.link != device || !network_holds(key.addr));
    state.routes.retain(|_, route| route.kind.link() != Some(&device));
    state.neighs.retain(|key, _| key.link != device);
    state.fdb.retain(|key| key.link != device);
    state
        .sysctls
        .retain(|key, _| !key.as_str().contains("/flannel.1/"));
    state
}

fn network_holds(addr: IpNetwork) -> bool {
    let IpNetwork::V4(addr) = addr else {
        return false;
    };
    addr.prefix() >= network().prefix() && network().contains(addr.ip())
}

/// Reads a change that a stranger makes.
pub(crate) fn op(text: &str) -> Op {
    text.parse().unwrap_or_else(|err| panic!("{text}: {err}"))
}

/// The IPv4 subnet of a lease of this cluster, whose leases all have one.
pub(crate) fn v4(key: SubnetKey) -> Ipv4Network {
    key.v4().unwrap()
}

/// The outer address of the node that holds a lease.
pub(crate) fn outer(lease: &Lease) -> IpAddr {
    lease.attrs.public_ip.unwrap().into()
}
