//! Nodes on which nothing is wrong, and what breaks them.

use ipnetwork::IpNetwork;
use net_types::WgPublicKey;
use netlink::PeerReport;
use netlink::inventory::{AddrScope, Hop, HostAddr, HostLink};
use netstate::{
    Addr, AddrKey, AdminState, FdbKey, Ipip, Neigh, NeighKey, Nexthop, Route, RouteKey, RouteKind,
};

use super::*;
use crate::kernel_version::KernelVersion;
use crate::log::LogCounts;
use crate::status::{BackendStatus, LeaseStatus, NodeStatus, Part, PeerState, StoreStatus};

/// When the facts are read.
pub(super) const NOW: Duration = Duration::from_secs(1_800_000_000);
/// How other nodes know the peer, and this node.
pub(super) const PEER_KEY: WgPublicKey = WgPublicKey::new([2; 32]);
const OWN_KEY: WgPublicKey = WgPublicKey::new([1; 32]);

/// A node with one peer, on which nothing is wrong.
pub(super) fn good() -> Facts {
    let mut facts = Facts {
        kernel_release: "6.1.0-40-amd64".to_owned(),
        kernel_version: Some(KernelVersion(6, 1, 148)),
        missing_modules: BTreeSet::new(),
        sysctls: BTreeMap::new(),
        subnet_path: "/run/flannel/subnet.env".into(),
        subnet_file: Some(Ok(SubnetEnv {
            networks: vec!["10.244.0.0/16".parse().unwrap()],
            subnet: Some("10.244.1.1/24".parse().unwrap()),
            ipv6_networks: Vec::new(),
            ipv6_subnet: None,
            mtu: 1450,
            ip_masq: true,
        })),
        inventory: Inventory {
            links: vec![
                host_link("eth0", &["192.168.77.1/24"]),
                host_link("flannel.1", &["10.244.1.0/32"]),
            ],
            ..Inventory::default()
        },
        state: State::default(),
        wireguard: BTreeMap::new(),
        udp_ports: BTreeSet::new(),
        loose_key_files: Vec::new(),
        now: NOW,
        drivers: BTreeMap::new(),
        rules: BTreeMap::new(),
        managers: Managers {
            networkd_removes_routes: Some(false),
            network_manager_leaves_alone: Some(true),
            mac_policy: Some("none".to_owned()),
        },
        daemon: Ok((status(), vec![peer()])),
        probes: vec![Probe {
            public_ip: [192, 168, 77, 2].into(),
            underlay: true,
            tunnel: Some(TunnelEnd {
                vtep_ip: [10, 244, 2, 0].into(),
                answers: true,
                way: PeerWay::Tunnel,
            }),
        }],
    };
    set(&mut facts, "net/ipv4/ip_forward", "1");
    set(&mut facts, "net/ipv4/neigh/default/gc_thresh3", "1024");
    set(&mut facts, "net/ipv4/conf/flannel.1/forwarding", "1");
    set(&mut facts, "net/ipv6/conf/all/disable_ipv6", "0");
    set(&mut facts, "net/ipv6/conf/all/forwarding", "1");
    set(&mut facts, "net/bridge/bridge-nf-call-iptables", "1");
    fill(&mut facts.state);
    route(&mut facts, "10.244.2.0/24", "flannel.1", "10.244.2.0");
    route(&mut facts, "0.0.0.0/0", "eth0", "192.168.77.254");
    facts
}

/// An interface with these addresses, in the kernel's order.
pub(super) fn host_link(ifname: &str, addrs: &[&str]) -> HostLink {
    let held = |addr: &&str| HostAddr {
        addr: addr.parse().unwrap(),
        scope: AddrScope::Global,
        permanent: true,
        temporary: false,
        deprecated: false,
        tentative: false,
    };
    HostLink {
        name: name(ifname),
        index: net_types::IfIndex::new(2).unwrap(),
        mtu_bytes: 1500,
        admin: AdminState::Up,
        loopback: false,
        addrs: addrs.iter().map(held).collect(),
    }
}

fn fill(state: &mut State) {
    let plain = |kind, mtu| Link {
        kind,
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        mtu_bytes: Some(mtu),
        admin: AdminState::Up,
        port: None,
    };
    let vxlan = Vxlan {
        vni: net_types::Vni::DEFAULT,
        port: 8472,
        local: Some([192, 168, 77, 1].into()),
        parent: Some(name("eth0")),
        learning: false,
        gbp: false,
        tx_checksum: None,
    };
    state
        .links
        .insert(name("eth0"), plain(LinkKind::Other(String::new()), 1500));
    state.links.insert(name("cni0"), plain(LinkKind::Bridge, 1450));
    state
        .links
        .insert(name("flannel.1"), plain(LinkKind::Vxlan(vxlan), 1450));
    state.addrs.insert(addr("cni0", "10.244.1.1/24"), Addr::default());
    let mac = "02:00:00:00:00:02".parse().unwrap();
    let key = NeighKey {
        link: name("flannel.1"),
        ip: [10, 244, 2, 0].into(),
    };
    state.neighs.insert(key, Neigh { mac });
    state.fdb.insert(FdbKey {
        link: name("flannel.1"),
        mac,
        remote: [192, 168, 77, 2].into(),
    });
}

fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        pid: 1,
        uptime_secs: 1,
        node: NodeStatus {
            ready: true,
            lease: Some(LeaseStatus {
                subnet: "10.244.1.0/24".to_owned(),
                public_ip: Some([192, 168, 77, 1].into()),
                expires: None,
                renewals: 0,
                renewals_failed: 0,
                shared_with: None,
            }),
            store: StoreStatus {
                connected: true,
                ..StoreStatus::default()
            },
            backend: Some(backend("vxlan")),
            device: Some(DeviceStatus {
                name: "flannel.1".to_owned(),
                vni: Some(1),
                port: Some(8472),
                mac: Some("02:00:00:00:00:01".to_owned()),
                public_key: None,
                mtu_bytes: 1450,
                tx_checksum: None,
                parent: "eth0".to_owned(),
                local: [192, 168, 77, 1].into(),
                network: "10.244.0.0/16".to_owned(),
                state: Part::Ok,
            }),
            ..NodeStatus::default()
        },
        notices: Vec::new(),
        log: LogCounts::default(),
    }
}

/// Turns the node into one of the backend host-gw.
pub(super) fn routed(facts: &mut Facts) {
    deviceless(facts, "host-gw");
    route(facts, "10.244.2.0/24", "eth0", "192.168.77.2");
    facts
        .state
        .routes
        .values_mut()
        .for_each(|route| route.protocol = 102);
}

/// Turns the node into one of the backend ipip.
pub(super) fn by_ipip(facts: &mut Facts) {
    let ipip = Ipip {
        local: Some([192, 168, 77, 1].into()),
    };
    let mut link = facts.state.links.remove(&name("flannel.1")).unwrap();
    (link.kind, link.mac, link.mtu_bytes) = (LinkKind::Ipip(ipip), None, Some(1480));
    facts.state.links.insert(name("flannel.ipip"), link);
    facts.inventory.links[1] = host_link("flannel.ipip", &["10.244.1.0/32"]);
    self::link(facts, "cni0").mtu_bytes = Some(1480);
    env(facts).mtu = 1480;
    facts.state.neighs.clear();
    facts.state.fdb.clear();
    route(facts, "10.244.2.0/24", "flannel.ipip", "192.168.77.2");
    let node = node(facts);
    node.backend = Some(backend("ipip"));
    let device = node.device.as_mut().unwrap();
    device.name = "flannel.ipip".to_owned();
    (device.vni, device.port, device.mac, device.mtu_bytes) = (None, None, None, 1480);
    peers(facts)[0].vtep_mac = None;
}

/// Turns the node into one of the backend wireguard, with keepalive.
pub(super) fn by_wireguard(facts: &mut Facts) {
    let mut link = facts.state.links.remove(&name("flannel.1")).unwrap();
    (link.kind, link.mac, link.mtu_bytes) = (LinkKind::Wireguard, None, Some(1420));
    facts.state.links.insert(name("flannel-wg"), link);
    facts.inventory.links[1] = host_link("flannel-wg", &["10.244.1.0/32"]);
    self::link(facts, "cni0").mtu_bytes = Some(1420);
    env(facts).mtu = 1420;
    facts.state.neighs.clear();
    facts.state.fdb.clear();
    facts.state.routes.clear();
    route(facts, "10.244.0.0/16", "flannel-wg", "192.0.2.1");
    let peer = PeerReport {
        endpoint: Some("192.168.77.2:51820".parse().unwrap()),
        last_handshake: Some(NOW - Duration::from_secs(100)),
        keepalive_secs: 25,
        received_bytes: 1000,
        sent_bytes: 1000,
    };
    let report = WireguardReport {
        public_key: Some(OWN_KEY),
        listen_port: 51820,
        peers: [(PEER_KEY, peer)].into(),
    };
    facts.wireguard.insert(name("flannel-wg"), report);
    facts.udp_ports.insert(51820);
    let node = node(facts);
    node.backend = Some(backend("wireguard"));
    let device = node.device.as_mut().unwrap();
    device.name = "flannel-wg".to_owned();
    (device.vni, device.port, device.mac, device.mtu_bytes) = (None, Some(51820), None, 1420);
    device.public_key = Some(OWN_KEY.to_string());
    let peer = &mut peers(facts)[0];
    (peer.vtep_mac, peer.public_key) = (None, Some(PEER_KEY.to_string()));
}

/// What the kernel knows of the only peer.
pub(super) fn heard(facts: &mut Facts) -> &mut PeerReport {
    let report = facts.wireguard.get_mut(&name("flannel-wg")).unwrap();
    report.peers.get_mut(&PEER_KEY).unwrap()
}

/// Turns the node into one of the backend alloc, where the administrator brings packets to the peers.
pub(super) fn leased_only(facts: &mut Facts) {
    deviceless(facts, "alloc");
    route(facts, "10.244.2.0/24", "eth0", "192.168.77.2");
    // Of a peer it has nothing but the lease.
    peers(facts).clear();
    facts.probes.clear();
}

fn deviceless(facts: &mut Facts, name_of_backend: &str) {
    let node = node(facts);
    node.device = None;
    node.backend = Some(backend(name_of_backend));
    peers(facts)[0].vtep_mac = None;
    facts.probes[0].tunnel = None;
    facts.state.links.remove(&name("flannel.1"));
    facts.inventory.links.retain(|link| link.name == name("eth0"));
    facts.state.neighs.clear();
    facts.state.fdb.clear();
    facts.state.routes.clear();
}

fn backend(name: &str) -> BackendStatus {
    BackendStatus {
        name: name.to_owned(),
        link: "eth0".to_owned(),
        pod_mtu_bytes: 1450,
        direct_peers: BTreeMap::new(),
    }
}

fn peer() -> PeerStatus {
    PeerStatus {
        subnet: "10.244.2.0/24".to_owned(),
        public_ip: Some([192, 168, 77, 2].into()),
        vtep_mac: Some("02:00:00:00:00:02".to_owned()),
        public_key: None,
        way: None,
        state: PeerState::Programmed,
        route: Part::Ok,
        neigh: Part::Ok,
        fdb: Part::Ok,
        wireguard: Part::None,
        seen: None,
        error: None,
        attempts: 0,
    }
}

pub(super) fn node(facts: &mut Facts) -> &mut NodeStatus {
    &mut facts.daemon.as_mut().unwrap().0.node
}

pub(super) fn lease(facts: &mut Facts) -> &mut LeaseStatus {
    node(facts).lease.as_mut().unwrap()
}

pub(super) fn peers(facts: &mut Facts) -> &mut Vec<PeerStatus> {
    &mut facts.daemon.as_mut().unwrap().1
}

pub(super) fn env(facts: &mut Facts) -> &mut SubnetEnv {
    facts.subnet_file.as_mut().unwrap().as_mut().unwrap()
}

pub(super) fn device(facts: &mut Facts) -> &mut Link {
    link(facts, "flannel.1")
}

pub(super) fn link<'a>(facts: &'a mut Facts, ifname: &str) -> &'a mut Link {
    facts.state.links.get_mut(&name(ifname)).unwrap()
}

pub(super) fn set(facts: &mut Facts, path: &str, value: &str) {
    facts.sysctls.insert(path.to_owned(), value.to_owned());
}

pub(super) fn route(facts: &mut Facts, dst: &str, ifname: &str, gateway: &str) {
    let key = RouteKey {
        table: 254,
        dst: dst.parse::<IpNetwork>().unwrap(),
        metric: 0,
    };
    let hop = Nexthop {
        link: name(ifname),
        gateway: Some(gateway.parse().unwrap()),
        onlink: true,
    };
    let route = Route {
        kind: RouteKind::Unicast(hop),
        protocol: 3,
        source: None,
        mtu_bytes: None,
        advmss_bytes: None,
        scope: None,
    };
    facts.state.routes.insert(key, route);
}

pub(super) fn hop(ifname: &str) -> Hop {
    Hop {
        link: name(ifname),
        gateway: None,
        source: None,
    }
}

pub(super) fn addr(ifname: &str, addr: &str) -> AddrKey {
    AddrKey {
        link: name(ifname),
        addr: addr.parse().unwrap(),
    }
}

pub(super) fn name(ifname: &str) -> IfName {
    ifname.parse().unwrap()
}
