//! What stands in the way of a device that the kernel refused to make or to change.

use std::net::{IpAddr, Ipv4Addr};

use net_types::IfName;
use netlink_packet_route::RouteNetlinkMessage;
use netstate::{ErrorClass, Ipip, KernelError, LinkKind, Vxlan};

use crate::attr::only;
use crate::socket::Socket;
use crate::{decode, encode, wireguard};

/// Names the culprit in a refusal: the link in the way, or the module that is missing. A refusal for another reason
/// stays as it is, and so does one whose cause cannot be asked for.
pub(crate) fn explained(
    socket: &mut Socket,
    name: &IfName,
    kind: &LinkKind,
    refusal: KernelError,
) -> KernelError {
    let message = match (kind, refusal.class) {
        (LinkKind::Wireguard, ErrorClass::Unsupported) => return wireguard::absent(),
        (LinkKind::Ipip(_), ErrorClass::Unsupported) => return no_ipip(),
        (LinkKind::Vxlan(vxlan), ErrorClass::Exists) => vxlan_message(socket, name, vxlan, &refusal),
        (LinkKind::Ipip(ipip), ErrorClass::Exists) => match name_is_taken(socket, name) {
            Ok(None) => ipip_message(socket, ipip, &refusal),
            Ok(Some(message)) => Ok(message),
            Err(error) => Err(error),
        },
        (
            LinkKind::Vxlan(_)
            | LinkKind::Wireguard
            | LinkKind::Ipip(_)
            | LinkKind::Bridge
            | LinkKind::Veth(_)
            | LinkKind::Other(_),
            _,
        ) => return refusal,
    };
    with_message(refusal, message)
}

/// Names the tunnel in the way of a new local address of a tunnel of IP in IP; a refusal for another reason stays.
pub(crate) fn explained_ipip_local(
    socket: &mut Socket,
    local: Ipv4Addr,
    refusal: KernelError,
) -> KernelError {
    if refusal.class != ErrorClass::Exists {
        return refusal;
    }
    let message = ipip_message(socket, &Ipip { local: Some(local) }, &refusal);
    with_message(refusal, message)
}

fn with_message(refusal: KernelError, message: Result<String, KernelError>) -> KernelError {
    match message {
        Ok(message) => KernelError { message, ..refusal },
        Err(_) => refusal,
    }
}

/// The kernel has no tunnels of IP in IP.
fn no_ipip() -> KernelError {
    KernelError {
        class: ErrorClass::Unsupported,
        message: "this kernel has no tunnels of IP in IP: load the module ipip (CONFIG_NET_IPIP), or choose another \
                  backend"
            .to_owned(),
    }
}

fn vxlan_message(
    socket: &mut Socket,
    name: &IfName,
    vxlan: &Vxlan,
    refusal: &KernelError,
) -> Result<String, KernelError> {
    if let Some(message) = name_is_taken(socket, name)? {
        return Ok(message);
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

/// Two end points without a remote of their own must differ by their local address (linux `ip_tunnel.c`,
/// `ip_tunnel_find`).
fn ipip_message(socket: &mut Socket, ipip: &Ipip, refusal: &KernelError) -> Result<String, KernelError> {
    let holder = socket.dump(&encode::all_links(), |message| {
        let message = only!(message, RouteNetlinkMessage::NewLink)?;
        let held = decode::ipip_ends(&message)?;
        let link = decode::link(&message)?;
        (held == *ipip).then_some(link.name)
    })?;
    let local = ipip.local.unwrap_or(Ipv4Addr::UNSPECIFIED);
    Ok(match holder.first() {
        Some(holder) => {
            let holder = holder.as_str();
            format!(
                "the link {holder:?} already is a tunnel of IP in IP from {local} to any remote: remove it"
            )
        }
        // Here too a device counts where it was made.
        None => format!(
            "{refusal}, but no link in this network namespace is a tunnel of IP in IP from {local} to any remote: look \
             for one that was moved to another"
        ),
    })
}

/// What to say of a name that a link has, be it as an alternative one.
fn name_is_taken(socket: &mut Socket, name: &IfName) -> Result<Option<String>, KernelError> {
    let wanted = name.as_str();
    let holder = holder_of_name(socket, name)?;
    Ok(holder.map(|holder| {
        if holder == *name {
            return format!("there is already a link {wanted:?}: remove it, or choose another name");
        }
        let holder = holder.as_str();
        format!("the link {holder:?} already has the alternative name {wanted:?}: remove that name, or choose another")
    }))
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
