use cni_types::AddResult;
use net_types::{IfIndex, IfName};
use netlink::tc::{TcLink, TcLinkKind, TrafficControl};

use super::error::BandwidthError;
use crate::sandbox::Sandbox;

const HOST: &str = "the host's network namespace";

/// The host's end of the container's pair of interfaces: the kernel says which it is, and the result must list it.
pub(crate) fn host_end(
    host: &mut TrafficControl,
    sandbox: &Sandbox,
    ifname: &IfName,
    result: &AddResult,
) -> Result<TcLink, BandwidthError> {
    let elsewhere = || BandwidthError::PeerElsewhere(ifname.to_string());
    let (own, peer) = container_end(sandbox, ifname)?;
    let found = host.link_at(peer).map_err(|source| BandwidthError::Look {
        link: peer.to_string(),
        place: HOST.to_owned(),
        source,
    })?;
    // The number may be that of some other link if the other end is in a third namespace.
    let link = found
        .filter(|link| link.kind == TcLinkKind::Veth(Some(own)))
        .ok_or_else(elsewhere)?;
    let mut of_host = result
        .interfaces
        .iter()
        .filter(|interface| !interface.is_in_sandbox());
    let listed = of_host.any(|interface| interface.name == link.name.as_str());
    listed.then_some(link).ok_or_else(elsewhere)
}

/// The numbers of the container's end and of its peer.
fn container_end(sandbox: &Sandbox, ifname: &IfName) -> Result<(IfIndex, IfIndex), BandwidthError> {
    let mut pod = TrafficControl::open_in(&sandbox.netns).map_err(BandwidthError::Open)?;
    let found = pod
        .links(std::slice::from_ref(ifname))
        .map_err(|source| BandwidthError::Look {
            link: ifname.to_string(),
            place: sandbox.path.clone(),
            source,
        })?
        .pop();
    let Some(link) = found else {
        return Err(BandwidthError::NoInterface {
            ifname: ifname.to_string(),
            netns: sandbox.path.clone(),
        });
    };
    match link.kind {
        TcLinkKind::Veth(Some(peer)) => Ok((link.index, peer)),
        TcLinkKind::Veth(None) | TcLinkKind::Ifb | TcLinkKind::Other => {
            Err(BandwidthError::NoPeer(ifname.to_string()))
        }
    }
}
