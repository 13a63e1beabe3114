use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use net_types::{IfName, MacAddr, Vni};
use netstate::{
    Addr, AddrKey, AdminState, BridgePort, FdbKey, Ipip, Link, LinkChange, LinkKind, Neigh, NeighKey,
    NetnsLabel, Nexthop, ObjectKey, Op, Route, RouteKey, RouteKind, State, SysctlKey, VethPeer, Vxlan,
};
use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;

/// States of every shape, with names and values that need quoting among them.
pub fn any_state() -> impl Strategy<Value = State> {
    (
        btree_map(name(), link(), 0..4),
        btree_map(addr_key(), addr(), 0..4),
        btree_map(route_key(), route(), 0..4),
        btree_map(neigh_key(), mac().prop_map(|mac| Neigh { mac }), 0..4),
        btree_set(fdb_key(), 0..4),
        btree_map(sysctl_key(), text(), 0..4),
    )
        .prop_map(|(links, addrs, routes, neighs, fdb, sysctls)| State {
            links,
            addrs,
            routes,
            neighs,
            fdb,
            sysctls,
            ..State::default()
        })
}

/// Changes of every shape.
pub fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (name(), link()).prop_map(|(name, link)| Op::AddLink(name, link)),
        (name(), link()).prop_map(|(name, link)| Op::ReplaceLink(name, link)),
        (name(), change()).prop_map(|(name, change)| Op::SetLink(name, change)),
        name().prop_map(Op::DelLink),
        (addr_key(), addr()).prop_map(|(key, addr)| Op::AddAddr(key, addr)),
        addr_key().prop_map(Op::DelAddr),
        (route_key(), route()).prop_map(|(key, route)| Op::AddRoute(key, route)),
        (route_key(), route()).prop_map(|(key, route)| Op::ReplaceRoute(key, route)),
        (route_key(), route()).prop_map(|(key, route)| Op::DelRoute(key, route)),
        (neigh_key(), mac()).prop_map(|(key, mac)| Op::SetNeigh(key, Neigh { mac })),
        neigh_key().prop_map(Op::DelNeigh),
        fdb_key().prop_map(Op::SetFdb),
        fdb_key().prop_map(Op::DelFdb),
        (sysctl_key(), text()).prop_map(|(key, value)| Op::SetSysctl(key, value)),
    ]
}

/// Objects of every kind.
pub fn any_object() -> impl Strategy<Value = ObjectKey> {
    any_op().prop_map(|op| op.object())
}

fn name() -> impl Strategy<Value = IfName> {
    let odd =
        "[!-.0-9;-~äß]{1,7}".prop_filter_map("a name the kernel refuses", |name| IfName::new(&name).ok());
    let plain = "[a-z][a-z0-9.]{0,8}[a-z0-9]"
        .prop_filter_map("a name the kernel refuses", |name| IfName::new(&name).ok());
    prop_oneof![plain, odd]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[0-9]{1,4}", "[ -~\t\nä\u{85}]{0,8}"]
}

fn sysctl_key() -> impl Strategy<Value = SysctlKey> {
    let part = || "[a-zA-Z0-9_. \t\"\\\\#-]{1,8}";
    let path = (part(), part(), part()).prop_map(|(a, b, c)| format!("{a}/{b}/{c}"));
    path.prop_filter_map("a path that leaves /proc/sys", |path| SysctlKey::new(&path))
}

fn mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(MacAddr::new)
}

fn ip() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
    let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
    let mapped = any::<u32>().prop_map(|bits| IpAddr::V6(Ipv4Addr::from_bits(bits).to_ipv6_mapped()));
    prop_oneof![v4, v6, mapped]
}

fn network() -> impl Strategy<Value = IpNetwork> {
    (ip(), any::<u8>()).prop_filter_map("a prefix that is too long", |(ip, prefix)| {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        IpNetwork::new(ip, prefix % (longest + 1)).ok()
    })
}

fn admin() -> impl Strategy<Value = AdminState> {
    prop_oneof![Just(AdminState::Up), Just(AdminState::Down)]
}

fn port() -> impl Strategy<Value = BridgePort> {
    (name(), any::<bool>(), any::<bool>()).prop_map(|(bridge, hairpin, isolated)| BridgePort {
        bridge,
        hairpin,
        isolated,
    })
}

fn link() -> impl Strategy<Value = Link> {
    let kind = prop_oneof![
        vxlan().prop_map(LinkKind::Vxlan),
        option::of(any::<Ipv4Addr>()).prop_map(|local| LinkKind::Ipip(Ipip { local })),
        Just(LinkKind::Bridge),
        option::of(veth_peer()).prop_map(LinkKind::Veth),
        text().prop_map(LinkKind::Other),
    ];
    let rest = (
        option::of(mac()),
        option::of(any::<u32>()),
        admin(),
        option::of(port()),
    );
    (kind, rest).prop_map(|(kind, (mac, mtu_bytes, admin, port))| Link {
        kind,
        mac,
        mtu_bytes,
        admin,
        port,
    })
}

fn vxlan() -> impl Strategy<Value = Vxlan> {
    let vni = (0_u32..1 << 24).prop_filter_map("24 bits fit", |vni| Vni::try_from(vni).ok());
    let rest = (
        any::<u16>(),
        option::of(ip()),
        option::of(name()),
        any::<bool>(),
        any::<bool>(),
        option::of(any::<bool>()),
    );
    (vni, rest).prop_map(|(vni, (port, local, parent, learning, gbp, tx_checksum))| Vxlan {
        vni,
        port,
        local,
        parent,
        learning,
        gbp,
        tx_checksum,
    })
}

fn veth_peer() -> impl Strategy<Value = VethPeer> {
    (name(), option::of(mac()), option::of(text().prop_map(NetnsLabel)))
        .prop_map(|(name, mac, netns)| VethPeer { name, mac, netns })
}

fn change() -> impl Strategy<Value = LinkChange> {
    prop_oneof![
        admin().prop_map(LinkChange::Admin),
        any::<u32>().prop_map(LinkChange::Mtu),
        mac().prop_map(LinkChange::Mac),
        port().prop_map(LinkChange::Port),
        ip().prop_map(LinkChange::VxlanLocal),
        any::<bool>().prop_map(LinkChange::VxlanLearning),
        any::<bool>().prop_map(LinkChange::VxlanTxChecksum),
        any::<Ipv4Addr>().prop_map(LinkChange::IpipLocal),
    ]
}

fn addr_key() -> impl Strategy<Value = AddrKey> {
    (name(), network()).prop_map(|(link, addr)| AddrKey { link, addr })
}

fn addr() -> impl Strategy<Value = Addr> {
    let broadcast = option::of(any::<u32>().prop_map(Ipv4Addr::from_bits));
    (broadcast, any::<bool>()).prop_map(|(broadcast, nodad)| Addr { broadcast, nodad })
}

fn route_key() -> impl Strategy<Value = RouteKey> {
    let table = prop_oneof![Just(254), any::<u32>()];
    let metric = prop_oneof![Just(0), any::<u32>()];
    (table, network(), metric).prop_map(|(table, dst, metric)| RouteKey { table, dst, metric })
}

fn route() -> impl Strategy<Value = Route> {
    let hop = (name(), option::of(ip()), any::<bool>()).prop_map(|(link, gateway, onlink)| Nexthop {
        link,
        gateway,
        onlink,
    });
    let kind = prop_oneof![3 => hop.prop_map(RouteKind::Unicast), 1 => Just(RouteKind::Blackhole)];
    let rest = (
        any::<u8>(),
        option::of(ip()),
        option::of(any::<u32>()),
        option::of(any::<u32>()),
        option::of(any::<u8>()),
    );
    (kind, rest).prop_map(
        |(kind, (protocol, source, mtu_bytes, advmss_bytes, scope))| Route {
            kind,
            protocol,
            source,
            mtu_bytes,
            advmss_bytes,
            scope,
        },
    )
}

fn neigh_key() -> impl Strategy<Value = NeighKey> {
    (name(), ip()).prop_map(|(link, ip)| NeighKey { link, ip })
}

fn fdb_key() -> impl Strategy<Value = FdbKey> {
    (name(), mac(), ip()).prop_map(|(link, mac, remote)| FdbKey { link, mac, remote })
}
