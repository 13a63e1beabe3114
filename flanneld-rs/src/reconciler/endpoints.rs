//! What the kernel was told about the endpoints of WireGuard peers. It changes them by itself when a peer is heard from
//! elsewhere, which is not to be mended: only a desired endpoint that is another than it was told is.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use netstate::{KernelError, Op, State, WgPeerKey};

/// The endpoints told, and those on their way.
#[derive(Debug, Default)]
pub(super) struct ToldEndpoints {
    told: BTreeMap<WgPeerKey, SocketAddr>,
    /// In the order of the changes under way; `None` for those that tell none.
    on_their_way: Vec<Option<(WgPeerKey, SocketAddr)>>,
}

impl ToldEndpoints {
    /// Takes what was observed, and lets endpoints that peers roamed to pass for the desired ones.
    pub(super) fn settle(&mut self, desired: &State, observed: &mut State) {
        if desired.wg_peers.is_empty() {
            self.told.clear();
            return;
        }
        observed.accept_roaming(desired, &self.told);
        self.told.retain(|key, _| desired.wg_peers.contains_key(key));
        for (key, peer) in &observed.wg_peers {
            let wanted = desired.wg_peers.get(key).and_then(|peer| peer.endpoint);
            if let Some(wanted) = wanted.filter(|_| peer.endpoint == wanted) {
                self.told.insert(key.clone(), wanted);
            }
        }
    }

    /// Takes the changes that are about to be made.
    pub(super) fn tell(&mut self, ops: &[Op]) {
        let endpoint = |op: &Op| {
            if let Op::SetWgPeer(key, peer) = op {
                peer.endpoint.map(|endpoint| (key.clone(), endpoint))
            } else {
                None
            }
        };
        self.on_their_way = ops.iter().map(endpoint).collect();
    }

    /// Takes the results of these changes.
    pub(super) fn applied(&mut self, results: &[Result<(), KernelError>]) {
        let acknowledged = std::mem::take(&mut self.on_their_way).into_iter().zip(results);
        for (endpoint, _) in acknowledged.filter(|(_, result)| result.is_ok()) {
            self.told.extend(endpoint);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use net_types::WgPublicKey;
    use netstate::{Prune, WgPeer, plan};

    use super::*;

    const LEASE: &str = "192.168.88.2:51820";
    const MOVED: &str = "192.168.88.3:51820";
    const ROAMED: &str = "192.168.88.99:1234";

    fn holding(endpoint: &str) -> State {
        let key = WgPeerKey {
            link: "flannel-wg".parse().unwrap(),
            public_key: WgPublicKey::new([1; 32]),
        };
        let peer = WgPeer {
            preshared_key: None,
            endpoint: Some(endpoint.parse().unwrap()),
            keepalive_secs: 0,
            allowed_ips: BTreeSet::new(),
            answers: false,
        };
        State {
            wg_peers: BTreeMap::from([(key, peer)]),
            ..State::default()
        }
    }

    /// The changes that remain after an observation.
    fn left(endpoints: &mut ToldEndpoints, desired: &str, observed: &str) -> Vec<Op> {
        let (desired, mut observed) = (holding(desired), holding(observed));
        endpoints.settle(&desired, &mut observed);
        plan(&desired, &observed, Prune::Remove)
    }

    #[test]
    fn a_peer_may_roam_once_its_endpoint_was_seen_as_told() {
        let mut endpoints = ToldEndpoints::default();
        assert!(left(&mut endpoints, LEASE, LEASE).is_empty());
        assert!(left(&mut endpoints, LEASE, ROAMED).is_empty());
        assert_eq!(left(&mut endpoints, MOVED, ROAMED).len(), 1);
    }

    #[test]
    fn a_peer_that_roams_before_the_first_look_is_not_told_again() {
        let mut endpoints = ToldEndpoints::default();
        let ops = left(&mut endpoints, LEASE, ROAMED);
        assert_eq!(ops.len(), 1);
        endpoints.tell(&ops);
        endpoints.applied(&[Ok(())]);
        assert!(left(&mut endpoints, LEASE, ROAMED).is_empty());
    }

    #[test]
    fn a_refused_change_told_nothing() {
        let mut endpoints = ToldEndpoints::default();
        let ops = left(&mut endpoints, LEASE, ROAMED);
        endpoints.tell(&ops);
        let refusal = KernelError {
            class: netstate::ErrorClass::Busy,
            message: "later".to_owned(),
        };
        endpoints.applied(&[Err(refusal)]);
        assert_eq!(left(&mut endpoints, LEASE, ROAMED).len(), 1);
    }
}
