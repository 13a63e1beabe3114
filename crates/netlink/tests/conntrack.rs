//! UDP connections through a translation are forgotten, and no other ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use common::*;
use netlink::conntrack::{Conntrack, IpVersion, OriginalDestination};

const LOCALHOST: [&str; 2] = ["127.0.0.1", "::1"];

fn to(port: u16, addr: Option<IpAddr>, version: IpVersion) -> OriginalDestination {
    OriginalDestination { version, addr, port }
}

fn socket(ip: &str, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((ip, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// Has what is sent to port 53 and 54 of this host translated to another port.
fn translate_to(port: u16) {
    run_all("nft flush ruleset\nnft add table inet t");
    run("nft add chain inet t c { type nat hook output priority -100 ; }");
    for (family, addr) in [("ip", "127.0.0.1"), ("ip6", "[::1]")] {
        for original in [53, 54] {
            run(&format!(
                "nft add rule inet t c {family} daddr {} udp dport {original} dnat {family} to {addr}:{port}",
                addr.trim_matches(['[', ']'])
            ));
        }
    }
}

/// Sends a text from a socket to a port, and waits until the one of the receivers has it that is named.
fn arrives(client: &UdpSocket, port: u16, receiver: &UdpSocket, text: &str) {
    let ip = client.local_addr().unwrap().ip();
    client.send_to(text.as_bytes(), (ip, port)).unwrap();
    let mut buffer = [0; 64];
    let len = receiver.recv(&mut buffer).expect("nothing arrived in time");
    assert_eq!(&buffer[..len], text.as_bytes());
}

#[test]
fn a_connection_to_a_port_goes_the_new_way_once_it_is_forgotten() {
    for ip in LOCALHOST {
        in_netns(move || {
            run("ip link set lo up");
            let version = if ip == "::1" { IpVersion::V6 } else { IpVersion::V4 };
            let (old, new) = (socket(ip, 6000), socket(ip, 6001));
            let (client, other) = (socket(ip, 0), socket(ip, 0));
            translate_to(6000);
            arrives(&client, 53, &old, "first");
            arrives(&other, 54, &old, "other");
            translate_to(6001);
            arrives(&client, 53, &old, "still the old way");

            let mut conntrack = Conntrack::open().unwrap();
            let forgotten = conntrack
                .forget_udp(&BTreeSet::from([to(53, None, version)]))
                .unwrap();
            assert_eq!(forgotten, 1);
            arrives(&client, 53, &new, "the new way");
            arrives(&other, 54, &old, "not forgotten");
        });
    }
}

#[test]
fn only_connections_to_the_address_are_forgotten_and_many_at_once() {
    in_netns(|| {
        run("ip link set lo up");
        run_all("ip addr add 127.0.0.2/32 dev lo");
        // Nothing is tracked without a rule that needs it.
        translate_to(6000);
        let clients: Vec<_> = (0..500).map(|_| socket("127.0.0.1", 0)).collect();
        for client in &clients {
            client.send_to(b"a", "127.0.0.1:53").unwrap();
            client.send_to(b"b", "127.0.0.2:53").unwrap();
            client.send_to(b"c", "127.0.0.1:55").unwrap();
        }
        let mut conntrack = Conntrack::open().unwrap();
        let mut forget = |addr: Option<IpAddr>| {
            conntrack
                .forget_udp(&BTreeSet::from([to(53, addr, IpVersion::V4)]))
                .unwrap()
        };
        assert_eq!(forget(Some("127.0.0.3".parse().unwrap())), 0);
        assert_eq!(forget(Some("127.0.0.1".parse().unwrap())), 500);
        assert_eq!(forget(None), 500);
        assert_eq!(forget(None), 0);
        assert_eq!(conntrack.forget_udp(&BTreeSet::new()), Ok(0));
        let left = BTreeSet::from([to(55, None, IpVersion::V4), to(55, None, IpVersion::V6)]);
        assert_eq!(conntrack.forget_udp(&left), Ok(500));
    });
}
