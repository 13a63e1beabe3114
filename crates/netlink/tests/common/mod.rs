//! Helpers of the tests: a namespace per test thread, iproute2 as the independent witness, and short constructors.
#![allow(dead_code, reason = "each test file uses its part")]

use std::process::Command;
use std::thread;

use net_types::{IfName, MacAddr, Vni};
use netlink::Netns;
use netstate::{
    Addr, AddrKey, AdminState, FdbKey, Kernel, KernelError, Link, LinkChange, LinkKind, LinkScope, Neigh,
    NeighKey, Nexthop, Op, Route, RouteKey, RouteKind, Scope, State, Vxlan,
};
use nix::sched::{CloneFlags, unshare};

/// Runs a test in a network namespace of its own, which goes with it.
pub(crate) fn in_netns(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Makes another network namespace, which lives as long as the value.
pub(crate) fn new_netns() -> Netns {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Netns::current().unwrap()
    };
    thread::spawn(make).join().unwrap()
}

/// Runs a command line without quoting in the thread's namespace and returns its standard output.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs several command lines.
pub(crate) fn run_all(lines: &str) {
    lines
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .for_each(|line| {
            run(line);
        });
}

/// Makes an underlay `eth0` with 192.168.77.11/24 and fd00:77::11/64.
pub(crate) fn underlay() {
    run_all(
        "ip link set lo up
         ip link add eth0 type veth peer name far0
         ip link set far0 up
         ip link set eth0 up
         ip addr add 192.168.77.11/24 dev eth0
         ip addr add fd00:77::11/64 dev eth0 nodad",
    );
}

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

pub(crate) fn mac(text: &str) -> MacAddr {
    text.parse().unwrap()
}

/// A device as flannel makes it.
pub(crate) fn flannel_link() -> Link {
    let vxlan = Vxlan {
        vni: Vni::DEFAULT,
        port: 8472,
        local: Some("192.168.77.11".parse().unwrap()),
        parent: Some(name("eth0")),
        learning: false,
        gbp: false,
        tx_checksum: None,
    };
    Link {
        kind: LinkKind::Vxlan(vxlan),
        mac: Some(mac("e6:2c:26:5a:4c:4a")),
        mtu_bytes: Some(1450),
        admin: AdminState::Up,
        port: None,
    }
}

pub(crate) fn link_of_kind(kind: LinkKind) -> Link {
    Link {
        kind,
        mac: None,
        mtu_bytes: None,
        admin: AdminState::Down,
        port: None,
    }
}

pub(crate) fn up(link: &str) -> Op {
    Op::SetLink(name(link), LinkChange::Admin(AdminState::Up))
}

pub(crate) fn add_addr(link: &str, addr: &str) -> Op {
    Op::AddAddr(addr_key(link, addr), Addr::default())
}

pub(crate) fn addr_key(link: &str, addr: &str) -> AddrKey {
    AddrKey {
        link: name(link),
        addr: addr.parse().unwrap(),
    }
}

/// Makes flannel.1, up, with its address.
pub(crate) fn flannel_device(kernel: &mut impl Kernel) {
    let ops = [
        Op::AddLink(name("flannel.1"), flannel_link()),
        up("flannel.1"),
        add_addr("flannel.1", "10.244.4.0/32"),
    ];
    all_ok(kernel.apply(&ops));
}

pub(crate) fn route_key(dst: &str, metric: u32) -> RouteKey {
    RouteKey {
        table: 254,
        dst: dst.parse().unwrap(),
        metric,
    }
}

pub(crate) fn route(link: &str, gateway: Option<&str>, onlink: bool) -> Route {
    let hop = Nexthop {
        link: name(link),
        gateway: gateway.map(|ip| ip.parse().unwrap()),
        onlink,
    };
    Route {
        kind: RouteKind::Unicast(hop),
        protocol: 3,
        source: None,
        mtu_bytes: None,
        advmss_bytes: None,
        scope: None,
    }
}

pub(crate) fn neigh_key(link: &str, ip: &str) -> NeighKey {
    NeighKey {
        link: name(link),
        ip: ip.parse().unwrap(),
    }
}

pub(crate) fn fdb_key(link: &str, lladdr: &str, remote: &str) -> FdbKey {
    FdbKey {
        link: name(link),
        mac: mac(lladdr),
        remote: remote.parse().unwrap(),
    }
}

/// The three objects of a peer on flannel.1.
pub(crate) fn peer(subnet: &str, lladdr: &str, public_ip: &str) -> [Op; 3] {
    let (gateway, _) = subnet.split_once('/').unwrap();
    [
        Op::SetNeigh(neigh_key("flannel.1", gateway), Neigh { mac: mac(lladdr) }),
        Op::SetFdb(fdb_key("flannel.1", lladdr, public_ip)),
        Op::AddRoute(route_key(subnet, 0), route("flannel.1", Some(gateway), true)),
    ]
}

/// Everything of one link is in scope.
pub(crate) fn whole_scope(link: &str) -> Scope {
    let content = LinkScope {
        addrs_inside: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        neighs: true,
        fdb: true,
        routes: true,
        ..LinkScope::default()
    };
    Scope {
        links: [(name(link), content)].into(),
        ..Scope::default()
    }
}

pub(crate) fn observe(kernel: &mut impl Kernel, link: &str) -> State {
    kernel.observe(&whole_scope(link)).unwrap()
}

#[track_caller]
pub(crate) fn all_ok(results: Vec<Result<(), KernelError>>) {
    for (number, result) in results.into_iter().enumerate() {
        result.unwrap_or_else(|e| panic!("operation {number}: {e}"));
    }
}
