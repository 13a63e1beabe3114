use netlink::inventory::{DefaultRoute, DefaultTarget};
use netstate::{Addr, AdminState};

use super::*;
use crate::status::{PeerState, PeerWay};

use facts::*;

mod facts;
mod firewall;

#[test]
fn nothing_is_wrong_with_a_good_node() {
    assert_eq!(findings(&good()), []);
}

#[test]
fn nothing_is_wrong_with_a_good_node_that_needs_no_tunnel() {
    let rows: [(Break, &[&str]); 2] = [
        (routed, &["daemon.silent"]),
        // Without the daemon nothing tells that there is to be no device.
        (
            leased_only,
            &["daemon.silent", "device.missing", "path.port-blocked"],
        ),
    ];
    for (become_one, without_daemon) in rows {
        let mut facts = good();
        become_one(&mut facts);
        facts.missing_modules.insert("vxlan");
        facts.rules.insert("nft", "\tudp dport 8472 drop\n".to_owned());
        assert_eq!(findings(&facts), []);
        facts.daemon = Err("flanneld does not answer".to_owned());
        facts.missing_modules.clear();
        let mut found: Vec<_> = findings(&facts).iter().map(|finding| finding.id).collect();
        found.sort_unstable();
        assert_eq!(found, without_daemon);
    }
}

#[test]
fn nothing_is_wrong_with_a_good_node_whose_tunnels_are_of_ip_in_ip() {
    let mut facts = good();
    by_ipip(&mut facts);
    facts.missing_modules.insert("vxlan");
    facts.rules.insert("nft", "\tudp dport 8472 drop\n".to_owned());
    facts.kernel_version = Some(KernelVersion(5, 4, 40));
    assert_eq!(findings(&facts), []);
    facts.daemon = Err("flanneld does not answer".to_owned());
    let found: Vec<_> = findings(&facts).iter().map(|finding| finding.id).collect();
    assert_eq!(found, ["daemon.silent"]);
}

#[test]
fn nothing_is_wrong_with_a_good_node_that_uses_wireguard() {
    let mut facts = good();
    by_wireguard(&mut facts);
    facts.missing_modules.insert("vxlan");
    facts.rules.insert("nft", "\tudp dport 8472 drop\n".to_owned());
    facts.kernel_version = Some(KernelVersion(5, 4, 40));
    assert_eq!(findings(&facts), []);
    // Over IPv4 the tunnel takes less than the MTU leaves for it.
    link(&mut facts, "eth0").mtu_bytes = Some(1480);
    assert_eq!(findings(&facts), []);
    // Nothing is sent to a peer without need, so that it may be silent for long.
    heard(&mut facts).keepalive_secs = 0;
    heard(&mut facts).last_handshake = Some(Duration::from_secs(1));
    assert_eq!(findings(&facts), []);
    // The first handshake is under way.
    let peer = heard(&mut facts);
    (peer.last_handshake, peer.sent_bytes) = (None, 148);
    assert_eq!(findings(&facts), []);
    facts.daemon = Err("flanneld does not answer".to_owned());
    let found: Vec<_> = findings(&facts).iter().map(|finding| finding.id).collect();
    assert_eq!(found, ["daemon.silent"]);
}

/// A daemon that holds no lease yet says nothing of its backend.
#[test]
fn what_is_in_the_kernel_tells_the_backend_where_the_daemon_does_not() {
    let rows: [(Break, Option<Backend>); 6] = [
        (|_| {}, Some(Backend::Vxlan)),
        (by_wireguard, Some(Backend::Wireguard)),
        (by_ipip, Some(Backend::Ipip)),
        (routed, Some(Backend::HostGw)),
        (leased_only, None),
        // With direct routing a node has both, and a device.
        (
            |facts| {
                route(facts, "10.244.3.0/24", "eth0", "192.168.77.3");
                let routes = facts.state.routes.values_mut();
                routes.for_each(|route| route.protocol = 102);
            },
            Some(Backend::Vxlan),
        ),
    ];
    for (change, expected) in rows {
        let mut facts = good();
        change(&mut facts);
        node(&mut facts).backend = None;
        node(&mut facts).device = None;
        assert_eq!(facts.backend(), expected);
        facts.daemon = Err("flanneld does not answer".to_owned());
        assert_eq!(facts.backend(), expected);
    }
    let mut facts = good();
    node(&mut facts).backend.as_mut().unwrap().name = "pigeon".to_owned();
    assert_eq!(facts.backend(), Some(Backend::Other));
}

type Break = fn(&mut Facts);

/// One row a finding: what is broken, and what must then be named.
static TROUBLES: &[(&str, Severity, Break)] = &[
    ("daemon.silent", Severity::Warning, |facts| {
        facts.daemon = Err("flanneld does not answer".to_owned())
    }),
    ("host.no-node", Severity::Error, |facts| {
        facts.daemon = Err("flanneld does not answer".to_owned());
        facts.subnet_file = None;
        facts.state = State::default();
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
        with_ipv6(facts);
    }),
    ("kernel.ipv6-off", Severity::Error, |facts| {
        facts.sysctls.remove("net/ipv6/conf/all/disable_ipv6");
        with_ipv6(facts);
    }),
    ("kernel.ipv6-off", Severity::Error, |facts| {
        set(facts, "net/ipv6/conf/flannel.1/disable_ipv6", "1");
        with_ipv6(facts);
    }),
    ("kernel.ipv6-forward", Severity::Error, |facts| {
        set(facts, "net/ipv6/conf/all/forwarding", "0");
        with_ipv6(facts);
    }),
    ("kernel.link-forward", Severity::Error, |facts| {
        set(facts, "net/ipv4/conf/flannel.1/forwarding", "0");
    }),
    ("kernel.link-forward", Severity::Error, |facts| {
        set(facts, "net/ipv4/conf/cni0/forwarding", "0");
    }),
    ("kernel.link-forward", Severity::Error, |facts| {
        routed(facts);
        set(facts, "net/ipv4/conf/eth0/forwarding", "0");
    }),
    ("kernel.bridge-nf-call", Severity::Warning, |facts| {
        set(facts, "net/bridge/bridge-nf-call-iptables", "0");
    }),
    ("kernel.checksum-offload", Severity::Warning, |facts| {
        facts.kernel_version = Some(KernelVersion(5, 4, 40))
    }),
    ("kernel.vmxnet3", Severity::Note, |facts| {
        facts.drivers.insert(name("eth0"), "vmxnet3".to_owned());
    }),
    ("kernel.neighbour-limit", Severity::Warning, |facts| {
        facts.kernel_version = Some(KernelVersion(4, 19, 200));
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
    ("device.address", Severity::Error, |facts| {
        facts.inventory.links[1].addrs.clear();
    }),
    ("device.source", Severity::Warning, |facts| {
        facts.inventory.links[1] = host_link("flannel.1", &["192.0.2.7/32", "10.244.1.0/32"]);
    }),
    ("interface.nat", Severity::Error, |facts| {
        lease(facts).public_ip = Some([10, 0, 2, 15].into())
    }),
    ("interface.shared-address", Severity::Error, |facts| {
        peers(facts)[0].public_ip = Some([192, 168, 77, 1].into());
    }),
    ("interface.shared-lease", Severity::Error, |facts| {
        lease(facts).shared_with = Some("the VTEP MAC 02:00:00:00:00:77".to_owned());
    }),
    ("interface.address-lost", Severity::Error, |facts| {
        facts.inventory.links[0] = host_link("eth0", &["192.168.77.9/24"]);
    }),
    ("interface.address-lost", Severity::Error, |facts| {
        routed(facts);
        facts.inventory.links[0] = host_link("eth0", &["192.168.77.9/24"]);
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
    ("leftover.route", Severity::Warning, |facts| {
        routed(facts);
        route(facts, "10.244.9.0/24", "eth0", "192.168.77.9")
    }),
    ("leftover.device", Severity::Warning, |facts| {
        let device = device(facts).clone();
        leased_only(facts);
        facts.state.links.insert(name("flannel.1"), device);
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
    ("leftover.rules", Severity::Warning, |facts| {
        let of_nft = "# Generated by iptables-save v1.8.9 (nf_tables)\n-A FLANNEL-FWD -j ACCEPT\n";
        facts.rules.insert("iptables-save", of_nft.to_owned());
        let legacy = "# Generated by iptables-save v1.8.9\n-A FLANNEL-POSTRTG -j RETURN\n";
        facts.rules.insert("iptables-legacy-save", legacy.to_owned());
    }),
    ("path.direct-silent", Severity::Error, |facts| {
        let end = facts.probes[0].tunnel.as_mut().unwrap();
        (end.answers, end.way) = (false, PeerWay::Direct);
    }),
    ("path.tunnel-silent", Severity::Error, |facts| {
        facts.probes[0].tunnel.as_mut().unwrap().answers = false
    }),
    ("path.peer-silent", Severity::Warning, |facts| {
        facts.probes[0].tunnel.as_mut().unwrap().answers = false;
        facts.probes[0].underlay = false;
    }),
    ("kernel.feature-missing", Severity::Error, |facts| {
        by_ipip(facts);
        facts.missing_modules.insert("ipip");
    }),
    ("device.missing", Severity::Error, |facts| {
        by_ipip(facts);
        facts.state.links.remove(&name("flannel.ipip"));
        facts.state.routes.clear();
    }),
    ("device.down", Severity::Error, |facts| {
        by_ipip(facts);
        link(facts, "flannel.ipip").admin = AdminState::Down;
    }),
    ("mtu.underlay", Severity::Error, |facts| {
        by_ipip(facts);
        link(facts, "eth0").mtu_bytes = Some(1499);
    }),
    ("device.address", Severity::Error, |facts| {
        by_ipip(facts);
        facts.inventory.links[1].addrs.clear();
    }),
    ("interface.address-lost", Severity::Error, |facts| {
        by_ipip(facts);
        facts.inventory.links[0] = host_link("eth0", &["192.168.77.9/24"]);
    }),
    ("leftover.device", Severity::Warning, |facts| {
        let vxlan = device(facts).clone();
        by_ipip(facts);
        facts.state.links.insert(name("flannel.1"), vxlan);
    }),
    ("leftover.device", Severity::Warning, |facts| {
        let mut by_ipip_before = good();
        by_ipip(&mut by_ipip_before);
        let left = link(&mut by_ipip_before, "flannel.ipip").clone();
        facts.state.links.insert(name("flannel.ipip"), left);
    }),
    ("path.tunnel-silent", Severity::Error, |facts| {
        by_ipip(facts);
        facts.probes[0].tunnel.as_mut().unwrap().answers = false;
    }),
    ("path.direct-silent", Severity::Error, |facts| {
        by_ipip(facts);
        let end = facts.probes[0].tunnel.as_mut().unwrap();
        (end.answers, end.way) = (false, PeerWay::Direct);
    }),
    ("kernel.feature-missing", Severity::Error, |facts| {
        by_wireguard(facts);
        facts.missing_modules.insert("wireguard");
    }),
    ("device.missing", Severity::Error, |facts| {
        by_wireguard(facts);
        facts.state.links.remove(&name("flannel-wg"));
        facts.state.routes.clear();
    }),
    ("device.down", Severity::Error, |facts| {
        by_wireguard(facts);
        link(facts, "flannel-wg").admin = AdminState::Down;
        facts.udp_ports.clear();
    }),
    ("wireguard.port-taken", Severity::Error, |facts| {
        by_wireguard(facts);
        facts.wireguard.get_mut(&name("flannel-wg")).unwrap().listen_port = 40000;
    }),
    ("mtu.underlay", Severity::Error, |facts| {
        by_wireguard(facts);
        link(facts, "eth0").mtu_bytes = Some(1479);
    }),
    ("mtu.underlay", Severity::Error, |facts| {
        by_wireguard(facts);
        heard(facts).endpoint = Some("[fd00::2]:51820".parse().unwrap());
        link(facts, "eth0").mtu_bytes = Some(1499);
    }),
    ("device.address", Severity::Error, |facts| {
        by_wireguard(facts);
        facts.inventory.links[1].addrs.clear();
    }),
    ("leftover.device", Severity::Warning, |facts| {
        let vxlan = device(facts).clone();
        by_wireguard(facts);
        facts.state.links.insert(name("flannel.1"), vxlan);
    }),
    ("leftover.device", Severity::Warning, |facts| {
        let mut wireguard_before = good();
        by_wireguard(&mut wireguard_before);
        let left = link(&mut wireguard_before, "flannel-wg").clone();
        facts.state.links.insert(name("flannel-wg"), left);
    }),
    ("leftover.route", Severity::Warning, |facts| {
        by_wireguard(facts);
        route(facts, "10.244.9.0/24", "eth0", "192.168.77.9")
    }),
    ("path.tunnel-silent", Severity::Error, |facts| {
        by_wireguard(facts);
        facts.probes[0].tunnel.as_mut().unwrap().answers = false;
    }),
    ("wireguard.no-handshake", Severity::Warning, |facts| {
        by_wireguard(facts);
        let peer = heard(facts);
        (peer.last_handshake, peer.sent_bytes) = (None, 296);
    }),
    ("wireguard.no-handshake", Severity::Warning, |facts| {
        by_wireguard(facts);
        heard(facts).last_handshake = Some(NOW - Duration::from_secs(206));
    }),
    ("wireguard.key-readable", Severity::Warning, |facts| {
        by_wireguard(facts);
        facts.loose_key_files.push("/run/flannel/wgkey".into());
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
fn what_a_device_does_not_leave_to_the_hardware_is_not_spoiled_there() {
    let spoiling: [(Break, &str); 2] = [
        (
            |facts| facts.kernel_version = Some(KernelVersion(5, 4, 40)),
            "kernel.checksum-offload",
        ),
        (
            |facts| {
                facts.drivers.insert(name("eth0"), "vmxnet3".to_owned());
            },
            "kernel.vmxnet3",
        ),
    ];
    for (spoil, id) in spoiling {
        for (tx_checksum, told) in [(None, true), (Some(true), true), (Some(false), false)] {
            let mut facts = good();
            spoil(&mut facts);
            let LinkKind::Vxlan(vxlan) = &mut device(&mut facts).kind else {
                panic!("flannel.1 is no VXLAN device")
            };
            vxlan.tx_checksum = tx_checksum;
            let found = findings(&facts);
            assert_eq!(
                found.iter().any(|finding| finding.id == id),
                told,
                "{id} {tx_checksum:?}"
            );
        }
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

/// Legacy iptables that two names show is one place.
#[test]
fn rules_in_one_place_are_no_left_over() {
    let mut facts = good();
    let shown = "# Generated by iptables-save v1.8.9\n-A FLANNEL-FWD -j ACCEPT\n";
    for program in ["iptables-save", "iptables-legacy-save"] {
        facts.rules.insert(program, shown.to_owned());
    }
    assert_eq!(findings(&facts), []);
}

/// What the daemon says of peers that it refuses depends on what they can be refused for.
#[test]
fn a_refused_peer_of_plain_routes_is_told_of_the_link() {
    for (change, told) in [((|_| {}) as Break, false), (routed, true)] {
        let mut facts = good();
        change(&mut facts);
        peers(&mut facts)[0].state = PeerState::Refused;
        let found = findings(&facts);
        assert_eq!(found[0].id, "daemon.peer-refused");
        assert_eq!(
            found[0].way_out.contains("onto one link"),
            told,
            "{}",
            found[0].way_out
        );
    }
}

fn with_ipv6(facts: &mut Facts) {
    env(facts).ipv6_networks = vec!["fd00:10:5::/48".parse().unwrap()];
}
