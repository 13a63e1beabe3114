//! Which addresses of the host's side an attachment may change. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use net_types::IfName;
use netstate::{AddrKey, Link, NeighKey, Op, Prune, State};

use crate::plugins::bridge::conf::OnConflict;
use crate::plugins::bridge::desired::Attachment;
use crate::plugins::bridge::kernel::LinkError;
use crate::plugins::bridge::names::mac_of_holder;

/// The part of what is there that this attachment may change, and whether addresses may be removed.
pub(super) fn own_part(
    attachment: &Attachment,
    desired: &State,
    observed: &State,
    veth: &IfName,
    on_conflict: OnConflict,
) -> Result<(State, Prune), LinkError> {
    let mut seen = observed.clone();
    seen.links
        .retain(|name, _| *name == attachment.bridge || name == veth);
    let wanted: Vec<IpNetwork> = missing(desired, observed).map(|key| key.addr).collect();
    let in_the_way = |key: &AddrKey| wanted.iter().any(|wanted| conflicts(*wanted, key.addr));
    seen.addrs
        .retain(|key, _| desired.addrs.contains_key(key) || in_the_way(key));
    let stale: Vec<_> = seen
        .addrs
        .keys()
        .filter(|key| !desired.addrs.contains_key(*key))
        .map(|key| key.addr)
        .collect();
    match (stale.is_empty(), on_conflict) {
        (true, _) => Ok((seen, Prune::Keep)),
        (false, OnConflict::Replace) => Ok((seen, Prune::Remove)),
        (false, OnConflict::Refuse) => Err(LinkError::Address {
            link: attachment.gateway_link.as_str().to_owned(),
            wanted: wanted
                .into_iter()
                .find(|wanted| stale.iter().any(|found| conflicts(*wanted, *found)))
                .map(|wanted| wanted.to_string())
                .unwrap_or_default(),
            found: stale,
        }),
    }
}

fn missing<'a>(desired: &'a State, observed: &State) -> impl Iterator<Item = &'a AddrKey> {
    let present = &observed.addrs;
    desired.addrs.keys().filter(|key| !present.contains_key(*key))
}

/// Those of a link's addresses that are in the way of others.
pub(super) fn in_the_way(wanted: &[IpNetwork], present: &[IpNetwork]) -> Vec<IpNetwork> {
    let missing: Vec<_> = wanted.iter().filter(|ip| !present.contains(ip)).collect();
    let others = present.iter().filter(|ip| !wanted.contains(ip));
    let conflicting = others.filter(|found| missing.iter().any(|wanted| conflicts(**wanted, **found)));
    conflicting.copied().collect()
}

/// Whether a link cannot have both addresses: one of IPv4 only, of IPv6 several that don't overlap.
fn conflicts(wanted: IpNetwork, found: IpNetwork) -> bool {
    match (wanted, found) {
        (IpNetwork::V4(_), IpNetwork::V4(_)) => true,
        (IpNetwork::V6(wanted), IpNetwork::V6(found)) => {
            wanted.contains(found.network()) || found.contains(wanted.network())
        }
        (IpNetwork::V4(_), IpNetwork::V6(_)) | (IpNetwork::V6(_), IpNetwork::V4(_)) => false,
    }
}

/// The host's memory of who had the container's addresses before. An IPv4 holder has always the same hardware address,
/// unless one was asked for; an IPv6 one has it by its IPv4 address, which may have been another then.
pub(super) fn forgotten_neighbours(attachment: &Attachment, bridge: Option<&Link>) -> Vec<Op> {
    if bridge.is_none() {
        return Vec::new();
    }
    let others = attachment
        .ips
        .iter()
        .filter(|ip| ip.address.is_ipv6() || mac_of_holder(ip.address) != attachment.mac);
    others
        .map(|ip| {
            Op::DelNeigh(NeighKey {
                link: attachment.gateway_link.clone(),
                ip: ip.address.ip(),
            })
        })
        .collect()
}

/// Every address there is.
pub(super) fn any_address() -> Vec<IpNetwork> {
    let any = [
        IpNetwork::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        IpNetwork::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    ];
    any.into_iter().flatten().collect()
}
