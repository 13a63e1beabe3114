use net_types::MacAddr;
use netstate::{FdbKey, LinkKind, NeighKey};

use crate::namespace::{Device, HeldNeigh, Namespace};
use crate::refusal::{Answer, invalid, not_found, unsupported};

impl Namespace {
    pub(crate) fn set_neigh(&mut self, key: &NeighKey, mac: MacAddr, permanent: bool) -> Answer {
        let ipv6_is_off = key.ip.is_ipv6() && self.ipv6_is_off(&key.link);
        let device = self.device_mut(&key.link)?;
        if ipv6_is_off {
            return Err(invalid("IPv6 is disabled on this device"));
        }
        device.neighs.insert(key.ip, HeldNeigh { mac, permanent });
        Ok(())
    }

    pub(crate) fn del_neigh(&mut self, key: &NeighKey) -> Answer {
        let device = self.device_mut(&key.link)?;
        match device.neighs.remove(&key.ip) {
            Some(_) => Ok(()),
            None => Err(not_found("ENOENT: no such neighbour")),
        }
    }

    pub(crate) fn set_fdb(&mut self, key: &FdbKey) -> Answer {
        let device = vxlan_device(self.device_mut(&key.link)?)?;
        let remotes = device.fdb.entry(key.mac).or_default();
        if remotes.is_empty() || key.mac.is_unicast() {
            *remotes = vec![key.remote];
            return Ok(());
        }
        Err(unsupported("cannot replace a group entry"))
    }

    pub(crate) fn del_fdb(&mut self, key: &FdbKey) -> Answer {
        let device = vxlan_device(self.device_mut(&key.link)?)?;
        let Some(remotes) = device.fdb.get_mut(&key.mac) else {
            return Err(not_found("ENOENT: no such forwarding entry"));
        };
        remotes.retain(|remote| *remote != key.remote);
        if remotes.is_empty() {
            device.fdb.remove(&key.mac);
        }
        Ok(())
    }
}

fn vxlan_device(device: &mut Device) -> Result<&mut Device, netstate::KernelError> {
    match device.link.kind {
        LinkKind::Vxlan(_) => Ok(device),
        LinkKind::Wireguard
        | LinkKind::Ipip(_)
        | LinkKind::Bridge
        | LinkKind::Veth(_)
        | LinkKind::Other(_) => Err(unsupported("forwarding entries are for VXLAN devices")),
    }
}
