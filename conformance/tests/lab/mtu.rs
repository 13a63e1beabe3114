//! The interface's MTU changes under pods that run: in both families, with tunnels and with plain routes.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};
use std::thread;

use conformance::lab::{Ip, NODE_LINK, Namespaces, Node, POD_LINK, Pod, TUNNEL, wait_until};

use crate::dual_stack::{V4_HEADERS, V6_HEADERS, reaches, started, v6_of};
use crate::support::{LONG, run_all};

/// Far more than what fits into the buffers of a connection.
const BYTES: usize = 4 << 20;

/// What a backend leaves of an outer MTU of 1400, and of 1500, for each family, and the devices that have it.
struct Expected {
    conf: &'static str,
    devices: &'static [&'static str],
    mtus: [[u64; 2]; 2],
}

const VXLAN: Expected = Expected {
    conf: r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan"}}"#,
    devices: &[TUNNEL, "flannel-v6.1"],
    mtus: [[1350, 1330], [1450, 1430]],
};
const HOST_GW: Expected = Expected {
    conf: r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"host-gw"}}"#,
    devices: &[],
    mtus: [[1400, 1400], [1500, 1500]],
};

#[test]
fn tunnels_of_both_families_follow_and_connections_of_pods_that_run_go_on() {
    follows_and_goes_on(&VXLAN);
}

#[test]
fn plain_routes_of_both_families_follow_and_connections_of_pods_that_run_go_on() {
    follows_and_goes_on(&HOST_GW);
}

fn follows_and_goes_on(expected: &Expected) {
    let bed = started(2, expected.conf);
    let [near, far] = [bed.pod_on(1), bed.pod_on(2)];
    let addresses = |pod: &Pod| [IpAddr::V4(pod.address()), v6_of(pod).parse().unwrap()];
    for target in addresses(far) {
        reaches(near.namespaces(), &target.to_string(), 1200);
    }
    let ways = || (0..2).flat_map(|family| [(near, far, family), (far, near, family)]);
    let mut old: Vec<_> = ways()
        .map(|(from, to, family)| connect(from, to, addresses(to)[family]))
        .collect();
    old.iter_mut().for_each(transfer);

    for (outer, mtus) in [(1400, expected.mtus[0]), (1500, expected.mtus[1])] {
        let pods_mtu = mtus[0].min(mtus[1]);
        // A link whose ends differ drops what is too large without a word.
        for node in bed.lab.nodes() {
            run_all(node, &[&format!("ip link set {NODE_LINK} mtu {outer}")]);
        }
        wait_until("devices and subnet files to have the new MTU", LONG, || {
            let follows = |node: &Node| {
                let told = node.subnet_env("FLANNEL_MTU").ok();
                let mut devices = expected.devices.iter().zip(mtus);
                devices.all(|(device, mtu)| mtu_of(node.namespaces(), device) == mtu)
                    && told == Some(pods_mtu.to_string())
            };
            Ok(bed.lab.nodes().iter().all(follows))
        })
        .unwrap();
        // What was opened before, in which packets are as large as before, and what is opened now.
        old.iter_mut().for_each(transfer);
        for (from, to, family) in ways() {
            transfer(&mut connect(from, to, addresses(to)[family]));
            if outer == 1400 {
                // The host told it: the pod's own link still has what it had.
                assert_eq!(path_mtu(from, addresses(to)[family]), Some(mtus[family]));
                assert_eq!(
                    mtu_of(from.namespaces(), POD_LINK),
                    expected.mtus[1].into_iter().min().unwrap()
                );
            }
        }
        let new = bed.node(1).add_pod(&format!("new-{outer}")).unwrap();
        assert_eq!(mtu_of(new.namespaces(), POD_LINK), pods_mtu);
        let headers = [V4_HEADERS, V6_HEADERS];
        for (target, headers) in addresses(far).into_iter().zip(headers) {
            let full = usize::try_from(pods_mtu).unwrap() - headers;
            reaches(new.namespaces(), &target.to_string(), full);
            transfer(&mut connect(&new, far, target));
        }
        // Between an older and a newer pod of one node.
        for target in addresses(&new) {
            transfer(&mut connect(near, &new, target));
        }
    }
}

/// A connection: the end that sends first, and the other one.
struct Connection {
    near: TcpStream,
    far: TcpStream,
}

fn connect(from: &Pod, to: &Pod, address: IpAddr) -> Connection {
    let listener = to
        .namespaces()
        .run(|| Ok(TcpListener::bind((IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0))?))
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let near = from
        .namespaces()
        .run(|| Ok(TcpStream::connect_timeout(&(address, port).into(), LONG)?))
        .unwrap();
    let (far, _) = listener.accept().unwrap();
    for end in [&near, &far] {
        end.set_read_timeout(Some(LONG)).unwrap();
        end.set_write_timeout(Some(LONG)).unwrap();
    }
    Connection { near, far }
}

/// Brings bytes there and back.
fn transfer(connection: &mut Connection) {
    let Connection { near, far } = connection;
    bring(near, far);
    bring(far, near);
}

fn bring(from: &mut TcpStream, to: &mut TcpStream) {
    thread::scope(|scope| {
        let sender = scope.spawn(|| from.write_all(&vec![7; BYTES]));
        let mut received = vec![0; BYTES];
        to.read_exact(&mut received).unwrap();
        sender.join().unwrap().unwrap();
        assert!(received.iter().all(|byte| *byte == 7));
    });
}

/// What a pod knows of the path to an address.
fn path_mtu(pod: &Pod, address: IpAddr) -> Option<u64> {
    let routes = pod
        .namespaces()
        .json(&["ip", "-j", "route", "get", &address.to_string()])
        .unwrap();
    routes[0]["metrics"][0]["mtu"].as_u64()
}

fn mtu_of(namespaces: &Namespaces, link: &str) -> u64 {
    let links = namespaces
        .json(&["ip", "-j", "link", "show", "dev", link])
        .unwrap();
    links[0]["mtu"].as_u64().unwrap()
}
