use net_types::{IfName, MacAddr};
use netstate::{BridgePort, LinkKind};

use crate::links::ETHERNET_MTU;
use crate::namespace::{Device, Namespace};
use crate::refusal::{Answer, enslaves_itself, invalid, unsupported};

impl Namespace {
    /// A link leaves its bridge before the next one is asked, and stays out when that one refuses.
    pub(crate) fn set_port(&mut self, name: &IfName, port: &BridgePort) -> Answer {
        self.device(&port.bridge)?;
        let device = self.device_mut(name)?;
        let kind = device.link.kind.clone();
        if device
            .link
            .port
            .as_ref()
            .is_none_or(|held| held.bridge != port.bridge)
        {
            let left = device.link.port.take();
            self.follow_ports_of(left.as_ref());
            self.check_port(&kind, port)?;
        }
        self.device_mut(name)?.link.port = Some(port.clone());
        self.follow_ports_of(Some(port));
        Ok(())
    }

    pub(crate) fn check_port(&self, kind: &LinkKind, port: &BridgePort) -> Answer {
        if !self.device(&port.bridge)?.is_bridge() {
            return Err(unsupported("the master is no bridge"));
        }
        match kind {
            LinkKind::Bridge => Err(enslaves_itself()),
            LinkKind::Wireguard | LinkKind::Ipip(_) => {
                Err(invalid("a link without a hardware address is no port"))
            }
            LinkKind::Vxlan(_) | LinkKind::Veth(_) | LinkKind::Other(_) => Ok(()),
        }
    }

    /// Gives the bridge of a port the MAC and MTU that follow from its ports, where nobody chose them.
    pub(crate) fn follow_ports_of(&mut self, port: Option<&BridgePort>) {
        let Some(port) = port else { return };
        let is_port = |device: &&Device| {
            let bridge = device.link.port.as_ref().map(|port| &port.bridge);
            bridge == Some(&port.bridge)
        };
        let lowest_mac = self.links.values().filter(is_port).map(|device| device.mac).min();
        let lowest_mtu = self
            .links
            .values()
            .filter(is_port)
            .map(|device| device.mtu_bytes)
            .min();
        let Some(bridge) = self.links.get_mut(&port.bridge) else {
            return;
        };
        if !bridge.mac_is_fixed {
            bridge.mac = lowest_mac.unwrap_or(MacAddr::new([0; 6]));
        }
        if !bridge.mtu_is_fixed {
            bridge.mtu_bytes = lowest_mtu.unwrap_or(ETHERNET_MTU);
        }
    }
}
