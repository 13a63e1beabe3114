//! What a bridge and its ports have beside the state that is planned: VLANs.

use std::ops::RangeInclusive;

use net_types::{IfIndex, IfName};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoBridge, InfoData, LinkAttribute, LinkInfo};
use netstate::{ErrorClass, KernelError};

use crate::RealKernel;
use crate::attr::find;
use crate::encode::{self, Request};
use crate::errno::{no_link, other};
use crate::observe::index_of;
use crate::raw::Requests;

/// VLANs of a bridge's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortVlans {
    /// Frames without a tag belong to this VLAN, in both directions.
    Access(u16),
    /// Frames with a tag of one of these VLANs pass; each range is of at least one.
    Trunk(Vec<RangeInclusive<u16>>),
}

/// How a bridge treats VLANs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeVlans {
    /// Whether it tells them apart.
    pub filtering: bool,
    /// The VLAN that each port is in from the start; 0 for none.
    pub default_vlan: u16,
}

impl RealKernel {
    /// How a bridge treats VLANs; `None` when this kernel's bridges know none (`CONFIG_BRIDGE_VLAN_FILTERING`).
    ///
    /// # Errors
    /// The link is absent or cannot be read.
    pub fn bridge_vlans(&mut self, bridge: &IfName) -> Result<Option<BridgeVlans>, KernelError> {
        let attributes = self.link_attributes(bridge)?;
        let infos: &[LinkInfo] = find!(attributes, LinkAttribute::LinkInfo).map_or(&[], Vec::as_slice);
        let Some(InfoData::Bridge(data)) = find!(infos, LinkInfo::Data) else {
            return Ok(None);
        };
        // Without the option the kernel tells no default VLAN (linux `br_netlink.c`, `br_fill_info`).
        let default_vlan = find!(data, InfoBridge::VlanDefaultPvid).copied();
        let filtering = find!(data, InfoBridge::VlanFiltering).copied();
        Ok(default_vlan.map(|default_vlan| BridgeVlans {
            filtering: filtering.unwrap_or(false),
            default_vlan,
        }))
    }

    /// Makes a bridge tell VLANs apart.
    ///
    /// # Errors
    /// The link is absent or no bridge, or this kernel's bridges know no VLANs.
    pub fn set_vlan_filtering(&mut self, bridge: &IfName) -> Result<(), KernelError> {
        self.change_one(encode::set_vlan_filtering(bridge))
    }

    /// Puts a bridge's port into VLANs; those it is in already stay.
    ///
    /// # Errors
    /// The link is absent or no port of a bridge, or this kernel's bridges know no VLANs.
    pub fn add_port_vlans(&mut self, port: &IfName, vlans: &PortVlans) -> Result<(), KernelError> {
        let index = self.index(port)?;
        self.change_one(encode::add_port_vlans(index, vlans))
    }

    /// Takes a bridge's port out of a VLAN; one that it isn't in is fine.
    ///
    /// # Errors
    /// As [`Self::add_port_vlans`].
    pub fn del_port_vlan(&mut self, port: &IfName, vlan: u16) -> Result<(), KernelError> {
        let index = self.index(port)?;
        match self.change_one(encode::del_port_vlan(index, vlan)) {
            Err(e) if e.class == ErrorClass::NotFound => Ok(()),
            result => result,
        }
    }

    fn index(&mut self, link: &IfName) -> Result<IfIndex, KernelError> {
        index_of(&mut self.socket, link)
    }

    fn change_one(&mut self, request: Request) -> Result<(), KernelError> {
        let mut requests = Requests::default();
        requests.push_route(request.message, request.flags);
        self.socket.change(&mut requests).into_iter().collect()
    }

    pub(crate) fn link_attributes(&mut self, link: &IfName) -> Result<Vec<LinkAttribute>, KernelError> {
        match self.socket.ask_one(encode::link_by_name(link)) {
            Ok(RouteNetlinkMessage::NewLink(message)) => Ok(message.attributes),
            Ok(_) => Err(other(
                "the kernel answered a question about a link with something else",
            )),
            Err(e) if e.class == ErrorClass::NoDevice => Err(no_link(link)),
            Err(e) => Err(e),
        }
    }
}
