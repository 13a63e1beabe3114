//! Single routes, neighbours and forwarding entries are read as they are in the whole tables, whatever else is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::collections::BTreeSet;
use std::time::Instant;

use common::*;
use netlink::RealKernel;
use netstate::{Kernel, Spot, State};

#[test]
fn what_stands_at_a_spot_is_read_and_nothing_beside() {
    in_netns(|| {
        let mut kernel = with_peers();
        let all = observe(&mut kernel, "flannel.1");
        let spots = all.spots();
        assert_eq!(spots.len(), 6);
        for spot in &spots {
            look(&mut kernel, std::slice::from_ref(spot));
        }
        let absent = [
            Spot::Route(route_key("10.244.9.0/24", 0)),
            Spot::Neigh(neigh_key("flannel.1", "10.244.9.0")),
            Spot::Fdb(name("flannel.1"), mac("02:00:00:00:00:99")),
            Spot::Neigh(neigh_key("eth0", "192.168.77.1")),
            Spot::Fdb(name("missing"), mac("02:00:00:00:00:99")),
        ];
        assert_eq!(look(&mut kernel, &absent), State::default());
        let every: Vec<_> = spots.into_iter().chain(absent).collect();
        assert_eq!(look(&mut kernel, &every), all.at(&all.spots()));
    });
}

#[test]
fn a_route_is_told_from_those_that_a_packet_would_rather_take() {
    let neighbours = [
        "ip route add 10.244.47.0/32 via 192.168.77.1 dev eth0",
        "ip route add 10.244.47.0/25 dev flannel.1",
        "ip route add 10.244.0.0/16 dev eth0",
        "ip route add blackhole 10.244.0.0/16",
        "ip route add unreachable 10.244.47.0/25",
        "ip route add default via 192.168.77.1 dev eth0",
        "ip route add 10.244.47.0/24 dev eth0 metric 7",
        "ip route append 10.244.47.0/24 via 192.168.77.1 dev eth0",
        "ip route add 10.244.47.0/24 dev eth0 table 99",
        "ip rule add priority 10 lookup 99",
        "ip addr add 10.244.47.0/32 dev eth0",
    ];
    let own = ["10.244.47.0/24", "10.244.84.0/24", "10.244.9.0/24"];
    let spots: Vec<_> = own
        .iter()
        .flat_map(|dst| [0, 7].map(|metric| Spot::Route(route_key(dst, metric))))
        .collect();
    for line in neighbours {
        for removal in [None, Some("ip route del 10.244.47.0/24 dev flannel.1")] {
            let spots = spots.clone();
            in_netns(move || {
                let mut kernel = with_peers();
                run("ip route add 10.244.0.1/32 dev eth0 table 99");
                run(line);
                removal.map(run);
                println!("{line}, {removal:?}");
                look(&mut kernel, &spots);
            });
        }
    }
}

#[test]
fn a_route_through_another_link_or_of_another_kind_is_not_in_scope() {
    in_netns(|| {
        let mut kernel = with_peers();
        run("ip route replace 10.244.47.0/24 via 192.168.77.1 dev eth0");
        run("ip route replace blackhole 10.244.84.0/24");
        let spots = ["10.244.47.0/24", "10.244.84.0/24"].map(|dst| Spot::Route(route_key(dst, 0)));
        assert_eq!(look(&mut kernel, &spots), State::default());
    });
}

#[test]
fn entries_that_are_not_permanent_or_of_a_group_are_read_as_in_the_whole() {
    in_netns(|| {
        let mut kernel = with_peers();
        run_all(
            "ip neigh replace 10.244.47.0 lladdr 02:00:00:00:00:05 dev flannel.1 nud reachable
             bridge fdb add 02:00:00:00:00:06 dst 192.168.77.6 dev flannel.1 self dynamic
             bridge fdb add 02:00:00:00:00:07 dst 192.168.77.6 port 4789 dev flannel.1 self permanent
             bridge fdb append 00:00:00:00:00:00 dst 192.168.77.6 dev flannel.1 self permanent
             bridge fdb append 00:00:00:00:00:00 dst 192.168.77.7 dev flannel.1 self permanent",
        );
        let fdb = |lladdr| Spot::Fdb(name("flannel.1"), mac(lladdr));
        let spots = [
            Spot::Neigh(neigh_key("flannel.1", "10.244.47.0")),
            fdb("02:00:00:00:00:06"),
            fdb("02:00:00:00:00:07"),
            fdb("00:00:00:00:00:00"),
        ];
        assert_eq!(look(&mut kernel, &spots).fdb.len(), 2);
    });
}

#[test]
fn a_few_spots_among_thousands_are_read_sooner_than_all() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);
        let ops: Vec<_> = (0..5000_u32)
            .flat_map(|n| {
                let [_, _, high, low] = n.to_be_bytes();
                peer(
                    &format!("10.{}.{low}.0/24", 100 + high),
                    &format!("02:00:00:00:{high:02x}:{low:02x}"),
                    &format!("192.168.{}.{}", 100 + high, low),
                )
            })
            .collect();
        all_ok(kernel.apply(&ops));
        let begun = Instant::now();
        let all = observe(&mut kernel, "flannel.1");
        let whole = begun.elapsed();
        assert_eq!(all.routes.len(), 5000);
        let (scope, spots) = (whole_scope("flannel.1"), all.spots());
        for count in [3_usize, 30, 300, 600, 1200, 3000] {
            let some: BTreeSet<_> = spots.iter().step_by(spots.len() / count).cloned().collect();
            let begun = Instant::now();
            let looked = kernel.observe_at(&scope, &some).unwrap();
            let took = begun.elapsed();
            println!(
                "{} of {} spots: {took:?}, all: {whole:?}",
                some.len(),
                spots.len()
            );
            assert_eq!(looked, all.at(&some));
            assert!(count > 30 || took < whole, "{count} spots took {took:?}");
        }
    });
}

/// A device with two peers.
fn with_peers() -> RealKernel {
    underlay();
    let mut kernel = RealKernel::open().unwrap();
    flannel_device(&mut kernel);
    for (subnet, lladdr, public_ip) in [
        ("10.244.47.0/24", "ee:a0:95:3e:f2:fa", "192.168.77.12"),
        ("10.244.84.0/24", "72:e5:67:00:44:8c", "192.168.77.13"),
    ] {
        all_ok(kernel.apply(&peer(subnet, lladdr, public_ip)));
    }
    kernel
}

/// Reads some spots, which must show what the whole shows there.
#[track_caller]
fn look(kernel: &mut RealKernel, spots: &[Spot]) -> State {
    let spots = spots.iter().cloned().collect();
    let looked = kernel.observe_at(&whole_scope("flannel.1"), &spots).unwrap();
    assert_eq!(looked, observe(kernel, "flannel.1").at(&spots));
    looked
}
