use ipnetwork::IpNetwork;
use net_types::IfName;

use super::addresses::{any_address, in_the_way};
use super::vlan::gateway_port;
use super::{HOST, Host, refuse_other_kind};
use crate::plugins::bridge::conf::Conf;
use crate::plugins::bridge::desired::is_earlier_gateway;
use crate::plugins::bridge::kernel::{LinkError, links_only, list, observe};

impl Host {
    /// Fails if the bridge's name is something else's.
    pub(crate) fn check_bridge(&mut self, bridge: &IfName) -> Result<(), LinkError> {
        let observed = observe(&mut self.kernel, &links_only([bridge]), HOST)?;
        refuse_other_kind(bridge, observed.links.get(bridge))
    }

    /// Fails if the gateways' link has addresses that an ADD could not replace. With ports attached, it is the gateway of
    /// containers of another range, which this node's network does not have any more.
    pub(crate) fn check_gateways(
        &mut self,
        own: &Conf,
        gateways: &[IpNetwork],
        routed: &[IpNetwork],
    ) -> Result<(), LinkError> {
        let mut scope = links_only([&own.gateway_link]);
        for content in scope.links.values_mut() {
            content.addrs_inside = any_address();
        }
        let observed = observe(&mut self.kernel, &scope, HOST)?;
        let present: Vec<_> = observed.addrs.keys().map(|key| key.addr).collect();
        let found = in_the_way(gateways, &present);
        if found.is_empty() {
            return Ok(());
        }
        let link = own.gateway_link.as_str().to_owned();
        let wanted = list(gateways);
        let gateway = gateway_port(own).map(|port| port.name);
        let mut ports = self.ports(&own.bridge)?;
        ports.retain(|name| Some(name) != gateway.as_ref());
        match (ports.is_empty(), is_earlier_gateway(&found, gateways, routed)) {
            (true, true) => Ok(()),
            (true, _) => Err(LinkError::Address { link, wanted, found }),
            (false, _) => Err(LinkError::AddressInUse {
                link,
                wanted,
                found,
                ports,
            }),
        }
    }
}
