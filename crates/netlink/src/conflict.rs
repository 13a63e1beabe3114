//! What stands in the way of a VXLAN device that the kernel refused to make.

use std::net::IpAddr;

use net_types::IfName;
use netlink_packet_route::RouteNetlinkMessage;
use netstate::{ErrorClass, KernelError, LinkKind, Vxlan};

use crate::attr::only;
use crate::socket::Socket;
use crate::{decode, encode};

/// Names the culprit in a refusal of class [`ErrorClass::Exists`]; every other refusal stays as it is, and so does one
/// whose cause cannot be asked for.
pub(crate) fn explained(
    socket: &mut Socket,
    name: &IfName,
    vxlan: &Vxlan,
    refusal: KernelError,
) -> KernelError {
    if refusal.class != ErrorClass::Exists {
        return refusal;
    }
    match message(socket, name, vxlan, &refusal) {
        Ok(message) => KernelError { message, ..refusal },
        Err(_) => refusal,
    }
}

fn message(
    socket: &mut Socket,
    name: &IfName,
    vxlan: &Vxlan,
    refusal: &KernelError,
) -> Result<String, KernelError> {
    let wanted = name.as_str();
    if let Some(holder) = holder_of_name(socket, name)? {
        return Ok(if holder == *name {
            format!("there is already a link {wanted:?}: remove it, or choose another name")
        } else {
            let holder = holder.as_str();
            format!(
                "the link {holder:?} already has the alternative name {wanted:?}: remove that name, or choose another"
            )
        });
    }
    let (vni, port) = (vxlan.vni, vxlan.port);
    Ok(match holder_of_vni(socket, vxlan)? {
        Some(holder) => {
            let holder = holder.as_str();
            format!(
                "the link {holder:?} already has VNI {vni} on UDP port {port}: remove it, or choose another VNI or port"
            )
        }
        // A device counts where it was made, even when it was moved away (linux `vxlan_core.c`, `vxlan_vni_in_use`).
        None => format!(
            "{refusal}, but no link in this network namespace has VNI {vni} on UDP port {port}: look for one that was \
             moved to another"
        ),
    })
}

/// The link that is found by a name: its own, or an alternative one.
fn holder_of_name(socket: &mut Socket, name: &IfName) -> Result<Option<IfName>, KernelError> {
    match socket.ask_one(encode::link_by_name(name)) {
        Ok(RouteNetlinkMessage::NewLink(message)) => Ok(decode::link(&message).map(|link| link.name)),
        Ok(_) => Ok(None),
        Err(err) if err.class == ErrorClass::NoDevice => Ok(None),
        Err(err) => Err(err),
    }
}

/// The link of equal VNI and port. There may be several, which the kernel tells apart by what else decides about a
/// received packet: the address family and the group policy among it (linux `vxlan_core.c`, `vxlan_vni_in_use`).
fn holder_of_vni(socket: &mut Socket, wanted: &Vxlan) -> Result<Option<IfName>, KernelError> {
    let holders = socket.dump(&encode::all_links(), |message| {
        let link = decode::link(&only!(message, RouteNetlinkMessage::NewLink)?)?;
        let held = only!(link.link.kind, LinkKind::Vxlan)?;
        (held.vni == wanted.vni && held.port == wanted.port).then_some((link.name, held))
    })?;
    let is_v6 = |vxlan: &Vxlan| vxlan.local.is_some_and(|ip: IpAddr| ip.is_ipv6());
    let likeness = |held: &Vxlan| (is_v6(held) == is_v6(wanted), held.gbp == wanted.gbp);
    let nearest = holders.into_iter().max_by_key(|(_, held)| likeness(held));
    Ok(nearest.map(|(name, _)| name))
}
