use std::collections::BTreeMap;

use net_types::{IfName, WgPublicKey};
use netstate::{LinkKind, State, WgPeer, WgPeerKey, Wireguard};

use crate::namespace::{Device, Namespace};
use crate::refusal::{Answer, unsupported};

/// What a WireGuard device holds beside a link.
#[derive(Debug, Clone)]
pub(crate) struct HeldWireguard {
    settings: Wireguard,
    peers: BTreeMap<WgPublicKey, WgPeer>,
}

impl Default for HeldWireguard {
    fn default() -> Self {
        let settings = Wireguard {
            private_key: None,
            listen_port: 0,
        };
        Self {
            settings,
            peers: BTreeMap::new(),
        }
    }
}

impl Namespace {
    pub(crate) fn set_wireguard(&mut self, name: &IfName, settings: &Wireguard) -> Answer {
        self.wireguard_mut(name)?.settings = settings.clone();
        Ok(())
    }

    /// Takes the peer's allowed addresses from all others. Without an endpoint the peer keeps the one that it has.
    pub(crate) fn set_wg_peer(&mut self, key: &WgPeerKey, peer: &WgPeer) -> Answer {
        let device = self.wireguard_mut(&key.link)?;
        for (other, held) in &mut device.peers {
            if *other != key.public_key {
                held.allowed_ips.retain(|net| !peer.allowed_ips.contains(net));
            }
        }
        let held = device.peers.get(&key.public_key);
        let endpoint = peer.endpoint.or_else(|| held.and_then(|held| held.endpoint));
        let peer = WgPeer {
            endpoint,
            ..peer.clone()
        };
        device.peers.insert(key.public_key, peer);
        Ok(())
    }

    /// Removing a peer that is not there succeeds.
    pub(crate) fn del_wg_peer(&mut self, key: &WgPeerKey) -> Answer {
        self.wireguard_mut(&key.link)?.peers.remove(&key.public_key);
        Ok(())
    }

    fn wireguard_mut(&mut self, name: &IfName) -> Result<&mut HeldWireguard, netstate::KernelError> {
        let device = self.device_mut(name)?;
        match device.link.kind {
            LinkKind::Wireguard => Ok(device.wireguard.get_or_insert_default()),
            LinkKind::Vxlan(_)
            | LinkKind::Ipip(_)
            | LinkKind::Bridge
            | LinkKind::Veth(_)
            | LinkKind::Other(_) => Err(unsupported("the link is no WireGuard device")),
        }
    }
}

/// Adds what a WireGuard device holds.
pub(crate) fn observe(state: &mut State, name: &IfName, device: &Device) {
    if device.link.kind != LinkKind::Wireguard {
        return;
    }
    let held = device.wireguard.clone().unwrap_or_default();
    state.wireguard.insert(name.clone(), held.settings);
    for (public_key, peer) in held.peers {
        let link = name.clone();
        state.wg_peers.insert(WgPeerKey { link, public_key }, peer);
    }
}
