//! WireGuard devices over generic netlink (linux `include/uapi/linux/wireguard.h`): no program `wg` is needed.

use std::time::{SystemTime, UNIX_EPOCH};

use net_types::IfName;
use netstate::{ErrorClass, KernelError, Scope, State, WgPeer, WgPeerKey, Wireguard};

use crate::Netns;
use crate::errno::unusable_netns;
use crate::generic::Family;

mod decode;
mod encode;
mod report;
#[cfg(test)]
mod tests;

pub use report::{PeerReport, WireguardReport};

/// The family's name and version (`WG_GENL_NAME`, `WG_GENL_VERSION`).
const FAMILY: &str = "wireguard";
const VERSION: u8 = 1;

/// Its messages (`WG_CMD_GET_DEVICE`, `WG_CMD_SET_DEVICE`).
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;

/// Attributes of a device (`WGDEVICE_A_*`).
const DEVICE_IFNAME: u16 = 2;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_PUBLIC_KEY: u16 = 4;
const DEVICE_LISTEN_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;

/// Attributes of a peer (`WGPEER_A_*`).
const PEER_PUBLIC_KEY: u16 = 1;
const PEER_PRESHARED_KEY: u16 = 2;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_LAST_HANDSHAKE: u16 = 6;
const PEER_RX_BYTES: u16 = 7;
const PEER_TX_BYTES: u16 = 8;
const PEER_ALLOWED_IPS: u16 = 9;

/// What is done with a peer (`WGPEER_F_REMOVE_ME`, `WGPEER_F_REPLACE_ALLOWEDIPS`).
const REMOVE: u32 = 1;
const REPLACE_ALLOWED_IPS: u32 = 1 << 1;

/// Attributes of an allowed address (`WGALLOWEDIP_A_*`).
const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDR: u16 = 2;
const ALLOWED_PREFIX: u16 = 3;

/// Address families (linux `socket.h`).
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// The WireGuard devices of one namespace; the socket is opened when it is needed.
#[derive(Default)]
pub(crate) struct Devices {
    family: Option<Family>,
}

impl Devices {
    /// Adds what the devices in scope hold beside links. A link that is no WireGuard device, or goes away, holds
    /// nothing.
    pub(crate) fn observe(
        &mut self,
        netns: Option<&Netns>,
        scope: &Scope,
        state: &mut State,
    ) -> Result<(), KernelError> {
        let in_scope = scope.links.iter().filter(|(_, content)| content.wireguard);
        let names: Vec<_> = in_scope.map(|(name, _)| name).collect();
        if names.is_empty() {
            return Ok(());
        }
        // Without the family there is no device.
        let Some(family) = self.family(netns)? else {
            return Ok(());
        };
        for name in names {
            match read(family, name, state) {
                Err(e) if matches!(e.class, ErrorClass::NoDevice | ErrorClass::Unsupported) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// What a device tells of itself; `None` of what is no WireGuard device.
    pub(crate) fn report(
        &mut self,
        netns: Option<&Netns>,
        name: &IfName,
    ) -> Result<Option<WireguardReport>, KernelError> {
        let Some(family) = self.family(netns)? else {
            return Ok(None);
        };
        match parts(family, name) {
            Ok(parts) => Ok(Some(decode::reported(parts))),
            Err(e) if matches!(e.class, ErrorClass::NoDevice | ErrorClass::Unsupported) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn set(
        &mut self,
        netns: Option<&Netns>,
        name: &IfName,
        device: &Wireguard,
    ) -> Result<(), KernelError> {
        let family = self.needed(netns)?;
        let message = encode::device(family.message(SET_DEVICE), name, device);
        family.change(message)
    }

    pub(crate) fn set_peer(
        &mut self,
        netns: Option<&Netns>,
        key: &WgPeerKey,
        peer: &WgPeer,
    ) -> Result<(), KernelError> {
        let family = self.needed(netns)?;
        let message = encode::peer(family.message(SET_DEVICE), key, peer);
        family.change(message)
    }

    pub(crate) fn remove_peer(&mut self, netns: Option<&Netns>, key: &WgPeerKey) -> Result<(), KernelError> {
        let family = self.needed(netns)?;
        let message = encode::peer_removal(family.message(SET_DEVICE), key);
        family.change(message)
    }

    fn needed(&mut self, netns: Option<&Netns>) -> Result<&mut Family, KernelError> {
        self.family(netns)?.ok_or_else(absent)
    }

    /// The open family; `None` when the kernel has none, which may change when a module is loaded.
    fn family(&mut self, netns: Option<&Netns>) -> Result<Option<&mut Family>, KernelError> {
        if self.family.is_none() {
            let open = || Family::open(FAMILY, VERSION);
            self.family = match netns {
                Some(netns) => netns.run(open).map_err(|e| unusable_netns(&e))??,
                None => open()?,
            };
        }
        Ok(self.family.as_mut())
    }
}

/// The kernel has no WireGuard.
pub(crate) fn absent() -> KernelError {
    KernelError {
        class: ErrorClass::Unsupported,
        message: "this kernel has no WireGuard: load the module wireguard (CONFIG_WIREGUARD, Linux 5.6 and later), or \
                  choose another backend"
            .to_owned(),
    }
}

fn parts(family: &mut Family, name: &IfName) -> Result<Vec<decode::Part>, KernelError> {
    let mut question = family.message(GET_DEVICE);
    question.put_text(DEVICE_IFNAME, name.as_str());
    family.dump(question, decode::part)
}

fn read(family: &mut Family, name: &IfName, state: &mut State) -> Result<(), KernelError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (device, peers) = decode::joined(parts(family, name)?, now);
    state.wireguard.insert(name.clone(), device);
    state.wg_peers.extend(peers.into_iter().map(|(public_key, peer)| {
        let link = name.clone();
        (WgPeerKey { link, public_key }, peer)
    }));
    Ok(())
}
