//! WireGuard devices and peers on the real kernel, or what is said where it has none. The guests of `conformance` run
//! this program on Debian's kernel.
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

use common::{in_netns, name};
use fake_kernel::FakeKernel;
use net_types::{WgPublicKey, WgSecret};
use netlink::{PeerReport, RealKernel};
use netstate::{
    AdminState, ErrorClass, Kernel, Link, LinkKind, LinkScope, Op, Prune, Scope, State, WgPeer, WgPeerKey,
    Wireguard, plan,
};

#[test]
fn devices_and_peers_become_what_is_desired_or_the_missing_module_is_named() {
    in_netns(|| {
        let mut kernel = RealKernel::open().unwrap();
        let creation = Op::AddLink(name("probe"), link());
        if let Err(error) = kernel.apply(&[creation]).remove(0) {
            assert_eq!(error.class, ErrorClass::Unsupported, "{error}");
            assert!(error.message.contains("load the module wireguard"), "{error}");
            let refused = kernel.apply(&[Op::DelWgPeer(key(1))]).remove(0).unwrap_err();
            assert_eq!(refused, error);
            assert_eq!(kernel.observe(&scope()).unwrap(), State::default());
            return;
        }
        let many: Vec<_> = (1..=200).map(|n| (n, peer(n))).collect();
        let moved: Vec<_> = [(1, peer(2)), (3, peer(1)), (4, without_psk(peer(4)))].into();
        let mut fake = FakeKernel::new();
        for desired in [
            state(1, 51820, &many[..3]),
            state(1, 51820, &moved),
            state(2, 51830, &many),
            state(2, 51830, &[]),
        ] {
            for kernel in [&mut kernel as &mut dyn Kernel, &mut fake] {
                let ops = plan(&desired, &kernel.observe(&scope()).unwrap(), Prune::Remove);
                for (op, result) in ops.iter().zip(kernel.apply(&ops)) {
                    assert_eq!(result, Ok(()), "{op}");
                }
                let observed = kernel.observe(&scope()).unwrap();
                assert_eq!(plan(&desired, &observed, Prune::Remove), vec![], "{observed}");
                assert_eq!(
                    (observed.wireguard, observed.wg_peers),
                    (desired.wireguard.clone(), desired.wg_peers.clone())
                );
            }
            let report = kernel.wireguard_report(&name("flannel-wg")).unwrap().unwrap();
            assert_eq!(
                report.listen_port,
                desired.wireguard[&name("flannel-wg")].listen_port
            );
            assert!(report.public_key.is_some());
            let told = |(key, peer): (&WgPeerKey, &WgPeer)| {
                let report = PeerReport {
                    endpoint: peer.endpoint,
                    keepalive_secs: peer.keepalive_secs,
                    ..PeerReport::default()
                };
                (key.public_key, report)
            };
            let reported = report.peers.into_iter().map(|(key, peer)| {
                // The kernel tries to reach them.
                let silent = PeerReport {
                    sent_bytes: 0,
                    ..peer
                };
                (key, silent)
            });
            assert!(reported.eq(desired.wg_peers.iter().map(told)));
        }
        assert_eq!(kernel.wireguard_report(&name("lo")).unwrap(), None);
        assert_eq!(kernel.apply(&[Op::DelWgPeer(key(9))]), [Ok(())]);
        let absent = Op::SetWireguard(name("absent"), device(1, 1));
        assert_eq!(
            kernel.apply(&[absent])[0].as_ref().unwrap_err().class,
            ErrorClass::NoDevice
        );
        let other = Op::SetWireguard(name("lo"), device(1, 1));
        assert_eq!(
            kernel.apply(&[other])[0].as_ref().unwrap_err().class,
            ErrorClass::Unsupported
        );
    });
}

fn link() -> Link {
    Link {
        kind: LinkKind::Wireguard,
        mac: None,
        mtu_bytes: Some(1420),
        admin: AdminState::Up,
        port: None,
    }
}

/// A private key that the kernel leaves as it is: it clamps others (RFC 7748 §5).
fn device(n: u8, listen_port: u16) -> Wireguard {
    let mut bytes = [n; 32];
    bytes[0] &= 0xf8;
    bytes[31] = bytes[31] & 0x7f | 0x40;
    Wireguard {
        private_key: Some(WgSecret::new(bytes)),
        listen_port,
    }
}

fn key(n: u8) -> WgPeerKey {
    WgPeerKey {
        link: name("flannel-wg"),
        public_key: WgPublicKey::new([n; 32]),
    }
}

fn peer(n: u8) -> WgPeer {
    WgPeer {
        preshared_key: Some(WgSecret::new([9; 32])),
        endpoint: Some(if n.is_multiple_of(2) {
            ([192, 168, 77, n], 51820).into()
        } else {
            (std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into()), 51821).into()
        }),
        keepalive_secs: 25,
        allowed_ips: BTreeSet::from([
            format!("10.244.{n}.0/24").parse().unwrap(),
            format!("fd00:10:{n:x}::/64").parse().unwrap(),
        ]),
        answers: false,
    }
}

fn without_psk(mut peer: WgPeer) -> WgPeer {
    peer.preshared_key = None;
    peer.keepalive_secs = 0;
    peer
}

fn state(private: u8, port: u16, peers: &[(u8, WgPeer)]) -> State {
    let mut state = State::default();
    state.links.insert(name("flannel-wg"), link());
    state.wireguard.insert(name("flannel-wg"), device(private, port));
    state.wg_peers = peers.iter().map(|(n, peer)| (key(*n), peer.clone())).collect();
    state
}

fn scope() -> Scope {
    let mut scope = Scope::default();
    let content = LinkScope {
        wireguard: true,
        ..LinkScope::default()
    };
    scope.links.insert(name("flannel-wg"), content);
    scope
}
