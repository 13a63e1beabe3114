use super::*;
use crate::{Op, Prune, plan};

const LEASE: &str = "192.168.88.2:51820";
const ROAMED: &str = "192.168.88.99:1234";
const ROAMED_V6: &str = "[fd00:88::99]:1234";

fn key(n: u8) -> WgPeerKey {
    WgPeerKey {
        link: "flannel-wg".parse().unwrap(),
        public_key: WgPublicKey::new([n; 32]),
    }
}

fn peer(endpoint: &str, subnet: &str) -> WgPeer {
    WgPeer {
        preshared_key: Some(WgSecret::new([7; 32])),
        endpoint: Some(endpoint.parse().unwrap()),
        keepalive_secs: 25,
        allowed_ips: BTreeSet::from([subnet.parse().unwrap()]),
        answers: false,
    }
}

fn state(peers: &[(u8, WgPeer)]) -> State {
    State {
        wg_peers: peers.iter().map(|(n, peer)| (key(*n), peer.clone())).collect(),
        ..State::default()
    }
}

#[test]
fn an_endpoint_that_a_peer_roamed_to_stays_until_its_lease_changes() {
    let desired = state(&[(1, peer(LEASE, "10.244.2.0/24"))]);
    let lease: SocketAddr = LEASE.parse().unwrap();
    let other: SocketAddr = "192.168.88.3:51820".parse().unwrap();
    let table = [
        ("told it, then it roamed", ROAMED, Some(lease), false, true),
        ("the lease has changed since", ROAMED, Some(other), true, false),
        ("a first look at a peer that answers", ROAMED, None, true, true),
        ("a first look at a peer that does not", ROAMED, None, false, false),
        (
            "a first look after the other family was chosen",
            ROAMED_V6,
            None,
            true,
            false,
        ),
        (
            "told it, and the peer still uses the other family",
            ROAMED_V6,
            Some(lease),
            true,
            true,
        ),
    ];
    for (case, endpoint, told, answers, stays) in table {
        let mut roamed = peer(endpoint, "10.244.2.0/24");
        roamed.answers = answers;
        let mut observed = state(&[(1, roamed)]);
        let told = told.map(|endpoint| (key(1), endpoint)).into_iter().collect();
        observed.accept_roaming(&desired, &told);
        assert_eq!(
            plan(&desired, &observed, Prune::Remove).is_empty(),
            stays,
            "{case}"
        );
    }
}

#[test]
fn other_changes_of_a_peer_leave_its_endpoint_alone() {
    let desired = state(&[(1, peer(LEASE, "10.244.3.0/24"))]);
    let observed = state(&[(1, peer(LEASE, "10.244.2.0/24"))]);
    let mut expected = peer(LEASE, "10.244.3.0/24");
    expected.endpoint = None;
    let ops = plan(&desired, &observed, Prune::Remove);
    assert_eq!(ops, [Op::SetWgPeer(key(1), expected)]);
}

#[test]
fn a_changed_key_brings_the_new_peer_and_takes_the_old_one() {
    let desired = state(&[(2, peer(LEASE, "10.244.2.0/24"))]);
    let observed = state(&[(1, peer(LEASE, "10.244.2.0/24"))]);
    let set = Op::SetWgPeer(key(2), peer(LEASE, "10.244.2.0/24"));
    assert_eq!(plan(&desired, &observed, Prune::Keep), std::slice::from_ref(&set));
    assert_eq!(
        plan(&desired, &observed, Prune::Remove),
        [set, Op::DelWgPeer(key(1))]
    );
}

#[test]
fn no_secret_is_in_any_text_of_a_change() {
    let secret = WgSecret::new([7; 32]).reveal_text();
    let device = Wireguard {
        private_key: Some(WgSecret::new([7; 32])),
        listen_port: 51820,
    };
    let mut state = state(&[(1, peer(LEASE, "10.244.2.0/24"))]);
    state.wireguard.insert("flannel-wg".parse().unwrap(), device);
    let mut texts = vec![state.to_string(), format!("{state:?}")];
    for op in plan(&state, &State::default(), Prune::Remove) {
        texts.extend([op.to_string(), format!("{op:?}"), op.object().to_string()]);
    }
    for text in texts {
        assert!(!text.contains(&secret) && !text.contains("7, 7"), "{text}");
    }
}

#[test]
fn a_device_is_set_up_before_it_is_up_and_its_peers_before_routes() {
    let mut desired = state(&[(1, peer(LEASE, "10.244.2.0/24"))]);
    let text = "link flannel-wg wireguard mtu 1420 up
                addr flannel-wg 10.244.1.0/32
                route 10.244.0.0/16 dev flannel-wg proto 3";
    desired.absorb(text.parse().unwrap());
    let device = Wireguard {
        private_key: Some(WgSecret::new([1; 32])),
        listen_port: 51820,
    };
    desired.wireguard.insert("flannel-wg".parse().unwrap(), device);
    let ops: Vec<_> = plan(&desired, &State::default(), Prune::Keep)
        .iter()
        .map(|op| op.to_string().split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    let expected = [
        "add link",
        "set wireguard",
        "set link",
        "add addr",
        "set wgpeer",
        "add route",
    ];
    assert_eq!(ops, expected);
}
