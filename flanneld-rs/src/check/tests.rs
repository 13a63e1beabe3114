use ipnetwork::IpNetwork;
use netlink::inventory::{AddrScope, DefaultRoute, DefaultTarget, Hop, HostAddr, HostLink};
use netstate::{Addr, AddrKey, AdminState, FdbKey, Neigh, NeighKey, Nexthop, Route, RouteKey, RouteKind};

use super::*;
use crate::log::LogCounts;
use crate::status::{BackendStatus, DeviceStatus, LeaseStatus, NodeStatus, Part, PeerState, StoreStatus};

#[test]
fn nothing_is_wrong_with_a_good_node() {
    assert_eq!(findings(&good()), []);
}

#[test]
fn nothing_is_wrong_with_a_good_node_whose_peers_have_plain_routes() {
    let mut facts = good();
    routed(&mut facts);
    facts.missing_modules.insert("vxlan");
    facts.rules.insert("nft", "\tudp dport 8472 drop\n".to_owned());
    assert_eq!(findings(&facts), []);
    facts.daemon = Err("flanneld does not answer".to_owned());
    let found: Vec<_> = findings(&facts).iter().map(|finding| finding.id).collect();
    assert_eq!(found, ["daemon.silent"]);
}

type Break = fn(&mut Facts);

/// One row a finding: what is broken, and what must then be named.
static TROUBLES: &[(&str, Severity, Break)] = &[
    ("daemon.silent", Severity::Warning, |facts| {
        facts.daemon = Err("flanneld does not answer".to_owned())
    }),
    ("daemon.not-ready", Severity::Error, |facts| {
        node(facts).reason = Some("no lease".to_owned())
    }),
    ("daemon.store", Severity::Warning, |facts| {
        node(facts).store.connected = false
    }),
    ("daemon.peer-failing", Severity::Error, |facts| {
        peers(facts)[0].state = PeerState::Failing
    }),
    ("daemon.peer-refused", Severity::Warning, |facts| {
        peers(facts)[0].state = PeerState::Refused
    }),
    ("kernel.feature-missing", Severity::Error, |facts| {
        facts.missing_modules.insert("vxlan");
    }),
    ("kernel.br-netfilter", Severity::Warning, |facts| {
        facts.missing_modules.insert("br_netfilter");
    }),
    ("kernel.ip-forward", Severity::Error, |facts| {
        set(facts, "net/ipv4/ip_forward", "0")
    }),
    ("kernel.rp-filter", Severity::Note, |facts| {
        set(facts, "net/ipv4/conf/all/rp_filter", "1")
    }),
    ("kernel.ipv6-off", Severity::Error, |facts| {
        set(facts, "net/ipv6/conf/all/disable_ipv6", "1");
        env(facts).ipv6_networks = vec!["fd00:10:5::/48".parse().unwrap()];
    }),
    ("kernel.checksum-offload", Severity::Warning, |facts| {
        facts.kernel_release = "5.4.40-1".to_owned()
    }),
    ("kernel.vmxnet3", Severity::Note, |facts| {
        facts.drivers.insert(name("eth0"), "vmxnet3".to_owned());
    }),
    ("kernel.neighbour-limit", Severity::Warning, |facts| {
        facts.kernel_release = "4.19.200".to_owned();
        set(facts, "net/ipv4/neigh/default/gc_thresh3", "1");
    }),
    ("subnet-file.missing", Severity::Error, |facts| {
        facts.subnet_file = None
    }),
    ("subnet-file.unreadable", Severity::Error, |facts| {
        facts.subnet_file = Some(Err("it is missing FLANNEL_MTU".to_owned()));
    }),
    ("device.missing", Severity::Error, |facts| {
        facts.state.links.remove(&name("flannel.1"));
        facts.state.routes.clear();
    }),
    ("device.down", Severity::Error, |facts| {
        device(facts).admin = AdminState::Down
    }),
    ("device.mac", Severity::Error, |facts| {
        device(facts).mac = Some("02:00:00:00:00:77".parse().unwrap())
    }),
    ("mtu.device", Severity::Error, |facts| {
        device(facts).mtu_bytes = Some(1400)
    }),
    ("mtu.underlay", Severity::Error, |facts| {
        link(facts, "eth0").mtu_bytes = Some(1480)
    }),
    ("mtu.bridge", Severity::Warning, |facts| {
        link(facts, "cni0").mtu_bytes = Some(1500)
    }),
    ("bridge.subnet", Severity::Error, |facts| {
        facts.state.addrs = BTreeMap::from([(addr("cni0", "10.244.7.1/24"), Addr::default())]);
    }),
    ("interface.nat", Severity::Error, |facts| {
        lease(facts).public_ip = Some([10, 0, 2, 15].into())
    }),
    ("interface.shared-address", Severity::Error, |facts| {
        peers(facts)[0].public_ip = Some([192, 168, 77, 1].into());
    }),
    ("interface.shared-lease", Severity::Error, |facts| {
        lease(facts).shared_with = Some("02:00:00:00:00:77".to_owned());
    }),
    ("interface.address-lost", Severity::Error, |facts| {
        facts.inventory.links = vec![host_link("192.168.77.9/24")];
    }),
    ("interface.ecmp", Severity::Note, |facts| {
        facts.inventory.default_routes_v4 = vec![DefaultRoute {
            metric: 0,
            target: DefaultTarget::Several(vec![hop("eth0"), hop("eth1")]),
        }];
    }),
    ("leftover.device", Severity::Warning, |facts| {
        let link = device(facts).clone();
        facts.state.links.insert(name("flannel.7"), link);
    }),
    ("leftover.route", Severity::Warning, |facts| {
        route(facts, "10.244.9.0/24", "eth0", "192.168.77.9")
    }),
    ("leftover.device", Severity::Warning, |facts| {
        let device = facts.state.links.remove(&name("flannel.1")).unwrap();
        routed(facts);
        facts.state.links.insert(name("flannel.1"), device);
    }),
    ("path.peer-silent", Severity::Warning, |facts| {
        routed(facts);
        facts.probes[0].underlay = false;
    }),
    ("leftover.rules", Severity::Warning, |facts| {
        facts
            .rules
            .insert("nft", "table ip flannel-ipv4 {\n}\n".to_owned());
        facts.rules.insert(
            "iptables-save",
            "-A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT\n".to_owned(),
        );
    }),
    ("path.tunnel-silent", Severity::Error, |facts| {
        facts.probes[0].tunnel.as_mut().unwrap().answers = false
    }),
    ("path.peer-silent", Severity::Warning, |facts| {
        facts.probes[0].tunnel.as_mut().unwrap().answers = false;
        facts.probes[0].underlay = false;
    }),
    ("host.networkd", Severity::Warning, |facts| {
        facts.managers.networkd_removes_routes = Some(true)
    }),
    ("host.network-manager", Severity::Warning, |facts| {
        facts.managers.network_manager_leaves_alone = Some(false);
    }),
    ("host.mac-policy", Severity::Note, |facts| {
        facts.managers.mac_policy = Some("persistent".to_owned())
    }),
];

#[test]
fn each_trouble_is_named_with_its_severity_and_nothing_else_is() {
    for (id, severity, breaks) in TROUBLES {
        let mut facts = good();
        breaks(&mut facts);
        let found: Vec<_> = findings(&facts)
            .into_iter()
            .map(|finding| (finding.id, finding.severity))
            .collect();
        assert_eq!(found, [(*id, *severity)]);
    }
}

#[test]
fn firewalls_that_drop_the_tunnel_are_told_from_those_that_do_not() {
    use Severity::{Error, Warning};
    let rows = [
        (
            "iptables-save",
            "-A INPUT -p udp -m udp --dport 8472 -j DROP\n",
            Some(Error),
        ),
        (
            "iptables-save",
            "-A INPUT -p udp -m multiport --dports 53,8472 -j REJECT\n",
            Some(Error),
        ),
        (
            "iptables-save",
            "-A INPUT -p udp -m udp --dport 84720 -j DROP\n",
            None,
        ),
        (
            "iptables-save",
            "-A INPUT -p tcp -m tcp --dport 8472 -j DROP\n",
            None,
        ),
        (
            "iptables-save",
            ":INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n",
            Some(Warning),
        ),
        (
            "iptables-save",
            ":INPUT DROP [0:0]\n-A INPUT -p udp -m udp --dport 8472 -j ACCEPT\n",
            None,
        ),
        ("iptables-save", ":INPUT ACCEPT [0:0]\n", None),
        ("nft", "\tudp dport 8472 drop\n", Some(Error)),
        (
            "nft",
            "\tudp dport { 53, 8472 } counter packets 0 bytes 0 reject\n",
            Some(Error),
        ),
        ("nft", "\tudp dport 4789 drop\n", None),
        (
            "nft",
            "\ttype filter hook input priority filter; policy drop;\n\tudp dport 8472 accept\n",
            None,
        ),
        (
            "nft",
            "\ttype filter hook input priority filter; policy drop;\n\tct state established accept\n",
            Some(Warning),
        ),
        (
            "nft",
            "\ttype filter hook forward priority filter; policy drop;\n",
            None,
        ),
    ];
    for (program, text, severity) in rows {
        let mut facts = good();
        facts.rules.insert(program, text.to_owned());
        let found = findings(&facts);
        assert_eq!(found.first().map(|finding| finding.severity), severity, "{text}");
        assert!(
            found.iter().all(|finding| finding.id == "path.port-blocked"),
            "{text}"
        );
    }
}

#[test]
fn kernels_that_compute_wrong_checksums_are_known_by_their_release() {
    let rows = [
        ("4.14.180", true),
        ("4.14.181-generic", false),
        ("4.19.0-27-amd64", true),
        ("5.4.41", false),
        ("5.6.12", true),
        ("5.6.13", false),
        ("5.7.0", false),
        ("6.18.44", false),
        ("5.10.0-rc1", false),
        ("unknown", false),
    ];
    for (release, bad) in rows {
        let mut facts = good();
        facts.kernel_release = release.to_owned();
        set(&mut facts, "net/ipv4/neigh/default/gc_thresh3", "100000");
        let found = findings(&facts);
        assert_eq!(
            found
                .iter()
                .any(|finding| finding.id == "kernel.checksum-offload"),
            bad,
            "{release}"
        );
    }
}

#[test]
fn without_a_daemon_a_peer_that_is_programmed_by_half_is_named() {
    let mut facts = good();
    facts.daemon = Err("flanneld does not answer".to_owned());
    facts.state.fdb.clear();
    let found: Vec<_> = findings(&facts).into_iter().map(|finding| finding.id).collect();
    assert_eq!(found, ["daemon.silent", "leftover.incomplete-peer"]);
}

#[test]
fn the_worst_comes_first() {
    let mut facts = good();
    facts.managers.mac_policy = Some("persistent".to_owned());
    facts.managers.networkd_removes_routes = Some(true);
    set(&mut facts, "net/ipv4/ip_forward", "0");
    let found: Vec<_> = findings(&facts)
        .into_iter()
        .map(|finding| finding.severity)
        .collect();
    assert_eq!(found, [Severity::Error, Severity::Warning, Severity::Note]);
}

/// A node with one peer, on which nothing is wrong.
fn good() -> Facts {
    let mut facts = Facts {
        kernel_release: "6.1.0-40-amd64".to_owned(),
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
            links: vec![host_link("192.168.77.1/24")],
            ..Inventory::default()
        },
        state: State::default(),
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
            }),
        }],
    };
    set(&mut facts, "net/ipv4/ip_forward", "1");
    set(&mut facts, "net/ipv4/neigh/default/gc_thresh3", "1024");
    set(&mut facts, "net/ipv6/conf/all/disable_ipv6", "0");
    fill(&mut facts.state);
    route(&mut facts, "10.244.2.0/24", "flannel.1", "10.244.2.0");
    route(&mut facts, "0.0.0.0/0", "eth0", "192.168.77.254");
    facts
}

/// The interface below the tunnel, with this address.
fn host_link(addr: &str) -> HostLink {
    HostLink {
        name: name("eth0"),
        index: net_types::IfIndex::new(2).unwrap(),
        mtu_bytes: 1500,
        admin: AdminState::Up,
        loopback: false,
        addrs: vec![HostAddr {
            addr: addr.parse().unwrap(),
            scope: AddrScope::Global,
            permanent: true,
            temporary: false,
            deprecated: false,
            tentative: false,
        }],
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
            device: Some(DeviceStatus {
                name: "flannel.1".to_owned(),
                vni: 1,
                port: 8472,
                mac: "02:00:00:00:00:01".to_owned(),
                mtu_bytes: 1450,
                parent: "eth0".to_owned(),
                local: [192, 168, 77, 1].into(),
                network: "10.244.0.0/16".to_owned(),
                state: Part::Ok,
            }),
            ..NodeStatus::default()
        },
        log: LogCounts::default(),
    }
}

/// Turns the node into one of the backend host-gw.
fn routed(facts: &mut Facts) {
    let node = node(facts);
    node.device = None;
    node.backend = Some(BackendStatus {
        name: "host-gw".to_owned(),
        link: "eth0".to_owned(),
        pod_mtu_bytes: 1450,
    });
    peers(facts)[0].vtep_mac = None;
    facts.probes[0].tunnel = None;
    facts.state.links.remove(&name("flannel.1"));
    facts.state.neighs.clear();
    facts.state.fdb.clear();
    facts.state.routes.clear();
    route(facts, "10.244.2.0/24", "eth0", "192.168.77.2");
    facts
        .state
        .routes
        .values_mut()
        .for_each(|route| route.protocol = 102);
}

fn peer() -> PeerStatus {
    PeerStatus {
        subnet: "10.244.2.0/24".to_owned(),
        public_ip: Some([192, 168, 77, 2].into()),
        vtep_mac: Some("02:00:00:00:00:02".to_owned()),
        state: PeerState::Programmed,
        route: Part::Ok,
        neigh: Part::Ok,
        fdb: Part::Ok,
        error: None,
        attempts: 0,
    }
}

fn node(facts: &mut Facts) -> &mut NodeStatus {
    &mut facts.daemon.as_mut().unwrap().0.node
}

fn lease(facts: &mut Facts) -> &mut LeaseStatus {
    node(facts).lease.as_mut().unwrap()
}

fn peers(facts: &mut Facts) -> &mut Vec<PeerStatus> {
    &mut facts.daemon.as_mut().unwrap().1
}

fn env(facts: &mut Facts) -> &mut SubnetEnv {
    facts.subnet_file.as_mut().unwrap().as_mut().unwrap()
}

fn device(facts: &mut Facts) -> &mut Link {
    link(facts, "flannel.1")
}

fn link<'a>(facts: &'a mut Facts, ifname: &str) -> &'a mut Link {
    facts.state.links.get_mut(&name(ifname)).unwrap()
}

fn set(facts: &mut Facts, path: &str, value: &str) {
    facts.sysctls.insert(path.to_owned(), value.to_owned());
}

fn route(facts: &mut Facts, dst: &str, ifname: &str, gateway: &str) {
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

fn hop(ifname: &str) -> Hop {
    Hop {
        link: name(ifname),
        gateway: None,
        source: None,
    }
}

fn addr(ifname: &str, addr: &str) -> AddrKey {
    AddrKey {
        link: name(ifname),
        addr: addr.parse().unwrap(),
    }
}

fn name(ifname: &str) -> IfName {
    ifname.parse().unwrap()
}
