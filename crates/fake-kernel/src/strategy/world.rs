use netstate::{LinkScope, MarkedRoutes, Op, Scope};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// The links that the small world can have: `u0`–`u1` and `p0`–`p1` are veth pairs, `b0` and `b1` bridges, `x0` and
/// `x1` VXLAN devices.
const LINKS: [&str; 8] = ["u0", "u1", "p0", "p1", "b0", "b1", "x0", "x1"];
const VXLANS: [&str; 2] = ["x0", "x1"];
const MACS: [&str; 3] = ["02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"];

/// Changes of a small world, so that they often meet: few links, addresses, subnets and MACs.
///
/// Links are always made with a MAC, because the kernel would take a random one.
pub fn world_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => add_link(),
        4 => set_link(),
        1 => one_link().prop_map(|link| format!("del link {link}")),
        4 => addr(),
        6 => route(),
        3 => neigh(),
        3 => fdb(),
        1 => sysctl(),
    ]
    .prop_filter_map("text of a change", |text| text.parse().ok())
}

/// Sequences of changes, after a start that makes most links and brings them up.
pub fn world_ops(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Op>> {
    let start = vec![
        "add link u0 veth peer u1 peermac 02:00:00:00:00:f1 mac 02:00:00:00:00:f0 mtu 1500 down",
        "set link u0 up",
        "set link u1 up",
        "add addr u0 10.0.0.1/24",
        "add link b0 bridge mac 02:00:00:00:00:b0 down",
        "set link b0 up",
        "add link x0 vxlan vni 1 port 8472 local 10.0.0.1 parent u0 nolearning mac 02:00:00:00:00:01 mtu 1450 down",
        "set link x0 up",
    ];
    let start = proptest::sample::subsequence(start, 0..=8);
    (start, vec(world_op(), length)).prop_map(|(start, rest)| {
        let start = start.into_iter().filter_map(|text| text.parse().ok());
        start.chain(rest).collect()
    })
}

/// The scope that shows everything in the small world that a scope can show.
#[must_use]
pub fn world_scope() -> Scope {
    let everything = LinkScope {
        addrs_inside: ["0.0.0.0/0", "::/0"]
            .iter()
            .filter_map(|net| net.parse().ok())
            .collect(),
        neighs: true,
        fdb: true,
        tx_checksum: true,
        routes: true,
        ..LinkScope::default()
    };
    let links = LINKS.iter().filter_map(|link| link.parse().ok());
    Scope {
        links: links.map(|link| (link, everything.clone())).collect(),
        marked: Some(MarkedRoutes {
            protocol: 3,
            inside: ["0.0.0.0/0", "::/0"]
                .iter()
                .filter_map(|net| net.parse().ok())
                .collect(),
        }),
        ..Scope::default()
    }
}

fn one_link() -> impl Strategy<Value = &'static str> {
    select(&LINKS[..])
}

/// One of the words, which may be empty.
fn word(words: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    select(words)
}

fn mac() -> impl Strategy<Value = &'static str> {
    select(&MACS[..])
}

fn add_link() -> impl Strategy<Value = String> {
    let veth = (
        word(&[
            "u0 veth peer u1",
            "p0 veth peer p1",
            "u0 veth peer p1",
            "p0 veth peer p0",
        ]),
        mac(),
        mac(),
        word(&["", "mtu 1450", "mtu 1500"]),
        word(&["", "", "", "master b0", "master b0 hairpin", "master u1"]),
    )
        .prop_map(|(pair, mac, peer, mtu, port)| format!("{pair} peermac {peer} mac {mac} {mtu} {port}"));
    let bridge = (word(&["b0", "b1"]), mac(), word(&["", "mtu 1450"]))
        .prop_map(|(name, mac, mtu)| format!("{name} bridge mac {mac} {mtu}"));
    let vxlan = (
        select(&VXLANS[..]),
        word(&[
            "vni 1 port 8472",
            "vni 1 port 8472",
            "vni 2 port 8472",
            "vni 1 port 4789",
        ]),
        word(&["", "local 10.0.0.1", "local 10.0.0.2"]),
        word(&["", "parent u0", "parent u0", "parent b0", "parent x0"]),
        word(&["learning", "nolearning"]),
        (mac(), word(&["", "mtu 1450", "mtu 1400", "mtu 1500"])),
    )
        .prop_map(|(name, id, local, parent, learning, (mac, mtu))| {
            format!("{name} vxlan {id} {local} {parent} {learning} mac {mac} {mtu}")
        });
    let verb = word(&["add", "add", "add", "replace"]);
    (verb, prop_oneof![veth, bridge, vxlan]).prop_map(|(verb, link)| format!("{verb} link {link} down"))
}

fn set_link() -> impl Strategy<Value = String> {
    let change = prop_oneof![
        4 => Just("up".to_owned()),
        2 => Just("down".to_owned()),
        1 => mac().prop_map(|mac| format!("mac {mac}")),
        1 => word(&["mtu 1400", "mtu 1450", "mtu 1500"]).prop_map(str::to_owned),
    ];
    let any_link = (one_link(), change).prop_map(|(link, change)| format!("set link {link} {change}"));
    let port = (
        word(&["u1", "p0", "p1", "b1"]),
        word(&["b0", "b0 hairpin", "b1", "u0"]),
    )
        .prop_map(|(link, bridge)| format!("set link {link} master {bridge}"));
    let vxlan = (
        select(&VXLANS[..]),
        word(&[
            "local 10.0.0.1",
            "local 10.0.0.2",
            "learning",
            "nolearning",
            "txcsum",
            "notxcsum",
        ]),
    )
        .prop_map(|(link, change)| format!("set link {link} {change}"));
    prop_oneof![4 => any_link, 1 => port, 1 => vxlan]
}

fn addr() -> impl Strategy<Value = String> {
    let addr = word(&[
        "10.0.0.1/24",
        "10.0.0.2/24",
        "10.0.0.1/16",
        "10.1.0.0/32",
        "10.1.0.1/24",
        "fd00::1/64",
        "fd00::2/64",
        "fd01::/128",
    ]);
    (word(&["add", "add", "del"]), one_link(), addr).prop_map(|(verb, link, addr)| {
        let nodad = if verb == "add" && addr.contains(':') {
            "nodad"
        } else {
            ""
        };
        format!("{verb} addr {link} {addr} {nodad}")
    })
}

fn route() -> impl Strategy<Value = String> {
    let v4 = (
        word(&[
            "10.0.0.0/24",
            "10.1.0.0/24",
            "10.2.0.0/24",
            "10.2.0.0/24",
            "10.2.0.1/32",
            "10.2.0.1/24",
            "0.0.0.0/0",
        ]),
        word(&[
            "",
            "via 10.0.0.2",
            "via 10.0.0.1",
            "via 10.0.0.255",
            "via 10.1.0.2",
            "via 10.2.0.0 onlink",
            "via 10.2.0.0 onlink",
            "via 10.0.0.1 onlink",
            "onlink",
        ]),
        word(&["", "", "", "", "src 10.0.0.1", "src 10.1.0.0"]),
    );
    let v6 = (
        word(&[
            "fd00::/64",
            "fd01::/64",
            "fd02::/64",
            "fd02::1/128",
            "fd02::1/64",
            "::/0",
        ]),
        word(&[
            "",
            "via fd00::2",
            "via fd00::1",
            "via fe80::1",
            "via fd02:: onlink",
            "via fd00::2 onlink",
        ]),
        word(&["", "", "", "src fd00::1"]),
    );
    let verb = word(&["add", "add", "replace", "del"]);
    let end = (
        word(&["proto 3", "proto 3", "proto 80"]),
        word(&["", "", "mtu 1400"]),
        word(&["", "", "metric 100"]),
    );
    let unicast = (
        verb,
        prop_oneof![2 => v4.boxed(), 1 => v6.boxed()],
        one_link(),
        end,
    )
        .prop_map(|(verb, (dst, via, source), link, (proto, mtu, metric))| {
            format!("{verb} route {dst} {via} dev {link} {proto} {source} {mtu} {metric}")
        });
    let blackhole = (
        word(&["add", "replace", "del"]),
        word(&["10.2.0.0/24", "10.0.0.0/24"]),
    )
        .prop_map(|(verb, dst)| format!("{verb} route {dst} blackhole proto 3"));
    prop_oneof![9 => unicast, 1 => blackhole]
}

fn neigh() -> impl Strategy<Value = String> {
    let ip = word(&["10.0.0.2", "10.2.0.0", "10.0.0.1", "fd00::2", "fd02::"]);
    let set = (one_link(), ip, mac()).prop_map(|(link, ip, mac)| format!("set neigh {link} {ip} mac {mac}"));
    let ip = word(&["10.0.0.2", "10.2.0.0", "fd00::2"]);
    let del = (one_link(), ip).prop_map(|(link, ip)| format!("del neigh {link} {ip}"));
    prop_oneof![2 => set, 1 => del]
}

fn fdb() -> impl Strategy<Value = String> {
    let verb = word(&["set", "set", "del"]);
    let remote = word(&["10.0.0.2", "10.0.0.3"]);
    (verb, select(&VXLANS[..]), mac(), remote)
        .prop_map(|(verb, link, mac, remote)| format!("{verb} fdb {link} {mac} remote {remote}"))
}

fn sysctl() -> impl Strategy<Value = String> {
    (
        one_link(),
        word(&["ipv6", "ipv6", "ipv4"]),
        word(&["disable_ipv6", "accept_ra", "proxy_arp", "nonsense"]),
        word(&["0", "1", "x"]),
    )
        .prop_map(|(link, family, name, value)| format!("set sysctl net/{family}/conf/{link}/{name} {value}"))
}
