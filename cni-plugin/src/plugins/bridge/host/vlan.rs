//! What a bridge needs beside its ports so that containers are in VLANs.

use net_types::IfName;
use netlink::BridgeVlans;
use netstate::{AdminState, BridgePort, Link, LinkChange, LinkKind, Op, Prune, State, VethPeer, plan};

use super::{HOST, Host, Made, Request};
use crate::plugins::bridge::conf::Conf;
use crate::plugins::bridge::kernel::{LinkError, links_only, observe};
use crate::plugins::bridge::names::{GatewayPort, mac_of_holder};
use crate::plugins::bridge::vlan::Vlans;

impl Host {
    /// Makes the bridge if need be, lets it tell VLANs apart, and gives it its interface in the containers' VLAN.
    /// Nothing is left on a kernel whose bridges know no VLANs.
    pub(super) fn prepare_vlans(
        &mut self,
        request: &Request<'_>,
        vlans: &Vlans,
        made: &mut Made,
    ) -> Result<(), LinkError> {
        let bridge = &request.attachment.bridge;
        let observed = observe(&mut self.kernel, &links_only([bridge]), HOST)?;
        match observed.links.get(bridge) {
            Some(link) if link.kind != LinkKind::Bridge => {
                return Err(LinkError::NotABridge(bridge.as_str().to_owned()));
            }
            Some(_) => {}
            None => {
                let desired = request.attachment.bridge(Some(request.bridge_mac));
                self.apply(&plan(&desired, &observed, Prune::Keep), made)?;
            }
        }
        let found = self.kernel.bridge_vlans(bridge);
        let found = found.map_err(|source| refused(bridge, source))?;
        let Some(BridgeVlans { filtering, .. }) = found else {
            return Err(LinkError::NoVlans(bridge.as_str().to_owned()));
        };
        if !filtering {
            let set = self.kernel.set_vlan_filtering(bridge);
            set.map_err(|source| refused(bridge, source))?;
        }
        match gateway_port(request.own) {
            Some(port) => self.ensure_gateway(request, vlans, &port, made),
            None => Ok(()),
        }
    }

    /// Makes the pair of interfaces whose one end is a port of the bridge in the VLAN, and whose other end has the
    /// gateways' addresses. One that is there is used as it is, whoever made it.
    fn ensure_gateway(
        &mut self,
        request: &Request<'_>,
        vlans: &Vlans,
        port: &GatewayPort,
        made: &mut Made,
    ) -> Result<(), LinkError> {
        let attachment = request.attachment;
        let link = &attachment.gateway_link;
        let observed = observe(&mut self.kernel, &links_only([link, &port.name]), HOST)?;
        if !observed.links.contains_key(link) {
            let peer = VethPeer {
                name: link.clone(),
                mac: attachment.gateways.first().map(|ip| mac_of_holder(*ip)),
                netns: None,
            };
            let pair = Link {
                kind: LinkKind::Veth(Some(peer)),
                mac: Some(port.mac),
                mtu_bytes: attachment.mtu_bytes,
                admin: AdminState::Up,
                port: Some(BridgePort {
                    bridge: attachment.bridge.clone(),
                    hairpin: false,
                    isolated: false,
                }),
            };
            let desired = State {
                links: [(port.name.clone(), pair)].into(),
                ..State::default()
            };
            let mut ops = plan(&desired, &State::default(), Prune::Keep);
            ops.push(Op::SetLink(link.clone(), LinkChange::Admin(AdminState::Up)));
            self.apply(&ops, made)?;
            made.gateway_port = Some(port.name.clone());
        }
        let own = observe(&mut self.kernel, &links_only([&port.name]), HOST)?;
        match own.links.contains_key(&port.name) {
            true => self.join_vlans(&port.name, &attachment.bridge, vlans),
            // Somebody else's pair, with a port of another name, is in the VLAN already.
            false => Ok(()),
        }
    }

    /// Puts a port into its VLANs.
    pub(super) fn join_vlans(
        &mut self,
        port: &IfName,
        bridge: &IfName,
        vlans: &Vlans,
    ) -> Result<(), LinkError> {
        let failed = |source| refused(port, source);
        if !vlans.with_default
            && let Some(found) = self.kernel.bridge_vlans(bridge).map_err(failed)?
            && found.default_vlan != 0
        {
            self.kernel
                .del_port_vlan(port, found.default_vlan)
                .map_err(failed)?;
        }
        self.kernel.add_port_vlans(port, &vlans.of_port).map_err(failed)
    }
}

/// The bridge's port whose other end is the gateway in the containers' VLAN, if the configuration has one.
pub(super) fn gateway_port(own: &Conf) -> Option<GatewayPort> {
    let vlan = own.vlans.as_ref().and_then(Vlans::access)?;
    (own.gateway_link != own.bridge)
        .then(|| GatewayPort::of(&own.bridge, vlan))
        .flatten()
}

fn refused(link: &IfName, source: netstate::KernelError) -> LinkError {
    LinkError::Vlan {
        link: link.as_str().to_owned(),
        source,
    }
}
