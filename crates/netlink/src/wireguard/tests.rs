use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use net_types::{WgPublicKey, WgSecret};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::tlv::{Attributes, attribute};

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn key(n: u8) -> WgPeerKey {
    WgPeerKey {
        link: "flannel-wg".parse().unwrap(),
        public_key: WgPublicKey::new([n; 32]),
    }
}

fn network() -> impl Strategy<Value = IpNetwork> {
    (any::<std::net::IpAddr>(), 0..=128_u8).prop_map(|(ip, prefix)| {
        let prefix = if ip.is_ipv4() { prefix % 33 } else { prefix };
        let net = IpNetwork::new(ip, prefix).unwrap();
        IpNetwork::new(net.network(), prefix).unwrap()
    })
}

fn endpoint() -> impl Strategy<Value = SocketAddr> {
    (any::<std::net::IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

fn any_peer() -> impl Strategy<Value = WgPeer> {
    let secret = option::of((1..=255_u8).prop_map(|n| WgSecret::new([n; 32])));
    let allowed = btree_set(network(), 0..6);
    (secret, option::of(endpoint()), any::<u16>(), allowed).prop_map(
        |(preshared_key, endpoint, keepalive_secs, allowed_ips)| WgPeer {
            preshared_key,
            endpoint,
            keepalive_secs,
            allowed_ips,
            answers: false,
        },
    )
}

proptest! {
    #[test]
    fn a_peer_reads_back_as_it_is_told(peer in any_peer(), n in any::<u8>()) {
        let bytes = encode::peer(Attributes::default(), &key(n), &peer).finish().unwrap();
        let (_, peers) = decode::joined(vec![decode::part(&bytes).unwrap()], NOW);
        prop_assert_eq!(peers.into_iter().collect::<Vec<_>>(), vec![(key(n).public_key, peer)]);
    }

    #[test]
    fn hostile_bytes_are_refused_or_read_without_a_panic(bytes in vec(any::<u8>(), 0..600)) {
        if let Ok(part) = decode::part(&bytes) {
            decode::reported(vec![part.clone()]);
            decode::joined(vec![part], NOW);
        }
    }

    #[test]
    fn a_message_with_a_changed_byte_is_read_without_a_panic(
        peer in any_peer(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode::peer(Attributes::default(), &key(1), &peer).finish().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(length.index(bytes.len()) + 1);
        if let Ok(part) = decode::part(&bytes) {
            decode::joined(vec![part], NOW);
        }
    }
}

#[test]
fn a_device_reads_back_as_it_is_told() {
    let device = Wireguard {
        private_key: Some(WgSecret::new([5; 32])),
        listen_port: 51820,
    };
    let bytes = encode::device(Attributes::default(), &key(1).link, &device)
        .finish()
        .unwrap();
    let (read, peers) = decode::joined(vec![decode::part(&bytes).unwrap()], NOW);
    assert_eq!((read, peers.len()), (device, 0));
}

#[test]
fn a_peer_that_goes_on_in_the_next_message_is_one_peer() {
    let whole = |nets: &[&str]| WgPeer {
        preshared_key: Some(WgSecret::new([2; 32])),
        endpoint: Some("192.168.88.2:51820".parse().unwrap()),
        keepalive_secs: 0,
        allowed_ips: nets.iter().map(|net| net.parse().unwrap()).collect(),
        answers: false,
    };
    let first = encode::peer(Attributes::default(), &key(1), &whole(&["10.0.0.0/24"]));
    let mut rest = Attributes::default();
    rest.nest(DEVICE_PEERS, |list| {
        list.nest(0, |entry| {
            entry.put(PEER_PUBLIC_KEY, &[1; 32]);
            entry.nest(PEER_ALLOWED_IPS, |list| {
                list.nest(0, |entry| {
                    entry.put(ALLOWED_FAMILY, &AF_INET.to_ne_bytes());
                    entry.put(ALLOWED_ADDR, &[10, 0, 1, 0]);
                    entry.put(ALLOWED_PREFIX, &[24]);
                });
            });
        });
    });
    let parts = [first, rest].map(|part| decode::part(&part.finish().unwrap()).unwrap());
    let (_, peers) = decode::joined(parts.into(), NOW);
    assert_eq!(peers[&key(1).public_key], whole(&["10.0.0.0/24", "10.0.1.0/24"]));
}

#[test]
fn a_peer_answers_when_its_handshake_is_younger_than_a_session() {
    for (seconds_ago, answers) in [(0, true), (179, true), (180, false), (100_000, false)] {
        let mut message = Attributes::default();
        message.nest(DEVICE_PEERS, |list| {
            list.nest(0, |entry| {
                entry.put(PEER_PUBLIC_KEY, &[1; 32]);
                let mut time = (1_800_000_000_i64 - seconds_ago).to_ne_bytes().to_vec();
                time.extend([0; 8]);
                entry.put(PEER_LAST_HANDSHAKE, &time);
            });
        });
        let part = decode::part(&message.finish().unwrap()).unwrap();
        let (_, peers) = decode::joined(vec![part], NOW);
        assert_eq!(peers[&key(1).public_key].answers, answers, "{seconds_ago}");
    }
}

#[test]
fn a_removal_names_the_peer_and_nothing_else() {
    let bytes = encode::peer_removal(Attributes::default(), &key(3))
        .finish()
        .unwrap();
    let peers = attribute(&bytes, DEVICE_PEERS).unwrap();
    let entry = attribute(peers, 0).unwrap();
    let kinds: BTreeSet<u16> = crate::tlv::attributes(entry).map(|(kind, _)| kind).collect();
    assert_eq!(kinds, BTreeSet::from([PEER_PUBLIC_KEY, PEER_FLAGS]));
    assert_eq!(attribute(entry, PEER_FLAGS), Some(&REMOVE.to_ne_bytes()[..]));
}

#[test]
fn what_is_reported_has_the_times_and_counts_but_no_secret() {
    let mut bytes = Attributes::default();
    bytes.put(DEVICE_PRIVATE_KEY, &[5; 32]);
    bytes.put(DEVICE_PUBLIC_KEY, &[6; 32]);
    bytes.put(DEVICE_LISTEN_PORT, &51820_u16.to_ne_bytes());
    bytes.nest(DEVICE_PEERS, |list| {
        list.nest(0, |entry| {
            entry.put(PEER_PUBLIC_KEY, &[1; 32]);
            entry.put(PEER_KEEPALIVE, &25_u16.to_ne_bytes());
            entry.put(
                PEER_LAST_HANDSHAKE,
                &[1_800_000_000_i64, 5].map(i64::to_ne_bytes).concat(),
            );
            entry.put(PEER_RX_BYTES, &92_u64.to_ne_bytes());
            entry.put(PEER_TX_BYTES, &148_u64.to_ne_bytes());
        });
        list.nest(0, |entry| {
            entry.put(PEER_PUBLIC_KEY, &[2; 32]);
            entry.put(PEER_LAST_HANDSHAKE, &[0; 16]);
        });
    });
    let report = decode::reported(vec![decode::part(&bytes.finish().unwrap()).unwrap()]);
    let heard = PeerReport {
        endpoint: None,
        last_handshake: Some(NOW),
        keepalive_secs: 25,
        received_bytes: 92,
        sent_bytes: 148,
    };
    let expected = WireguardReport {
        public_key: Some(WgPublicKey::new([6; 32])),
        listen_port: 51820,
        peers: [
            (key(1).public_key, heard),
            (key(2).public_key, PeerReport::default()),
        ]
        .into(),
    };
    assert_eq!(report, expected);
}
