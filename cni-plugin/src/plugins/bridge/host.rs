//! The host's side of an attachment.

use std::fs::{File, TryLockError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use cni_types::Target;
use ipnetwork::IpNetwork;
use net_types::{IfName, MacAddr};
use netlink::{Netns, RealKernel};
use netstate::{
    ErrorClass, Kernel, KernelError, Link, LinkKind, LinkScope, NeighKey, Op, Prune, Scope, State, plan,
};

use super::conf::OnConflict;
use super::desired::{Attachment, pod_label};
use super::kernel::{LinkError, UP_TIMEOUT, links_only, observe, refused, remove_link};
use super::names::HostVeth;
use crate::sandbox::{lock_handle, lock_within};

/// How often the host is looked at again because another process changed it meanwhile.
const PASSES: u32 = 5;

/// How long a removal of a bridge may keep others from attaching; it takes some milliseconds.
const BRIDGES_TIMEOUT: Duration = Duration::from_secs(5);

const HOST: &str = "the host's network namespace";

/// The host's kernel.
pub(crate) struct Host {
    kernel: RealKernel,
    /// The lock on the host's own namespace that guards the life of its bridges: shared by whoever attaches to one,
    /// exclusive for whoever removes one.
    bridges: File,
}

/// What an ADD made on the host so far, beside its interface: that is told by name and hardware address, even if the
/// kernel's answer was lost or a part of its making was refused.
#[derive(Debug, Default)]
pub(crate) struct Made {
    bridge: Option<IfName>,
}

/// The attachment's host interface and the bridge as they came out.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    pub(crate) veth: IfName,
    pub(crate) bridge_mac: Option<MacAddr>,
}

/// What an ADD needs to attach on the host.
pub(crate) struct Request<'a> {
    pub(crate) attachment: &'a Attachment,
    pub(crate) veth: &'a HostVeth,
    pub(crate) on_conflict: OnConflict,
    /// For a bridge that is made.
    pub(crate) bridge_mac: MacAddr,
}

impl Host {
    pub(crate) fn open() -> Result<Self, LinkError> {
        let own = Netns::current().map_err(LinkError::Enter)?;
        let bridges = lock_handle(&own).map_err(|e| LinkError::Open(io_failure(&e)))?;
        Ok(Self {
            kernel: RealKernel::open().map_err(LinkError::Open)?,
            bridges,
        })
    }

    /// Fails if the attachment's host interface is there: then the container is attached through another namespace.
    pub(crate) fn refuse_attached(&mut self, veth: &HostVeth, target: &Target) -> Result<(), LinkError> {
        match self.find(veth)?.first() {
            None => Ok(()),
            Some(name) => Err(LinkError::Attached {
                veth: name.as_str().to_owned(),
                container: target.container_id.as_str().to_owned(),
            }),
        }
    }

    /// The host interfaces that are this attachment's.
    pub(crate) fn find(&mut self, veth: &HostVeth) -> Result<Vec<IfName>, LinkError> {
        let observed = observe(&mut self.kernel, &links_only(&veth.names), HOST)?;
        let own = observed.links.into_iter().filter(|(_, link)| is_own(link, veth));
        Ok(own.map(|(name, _)| name).collect())
    }

    /// Makes and configures bridge and host interface, with the other end in the container's namespace. `made` holds
    /// what was made even if this fails.
    pub(crate) fn attach(
        &mut self,
        request: &Request<'_>,
        pod: Netns,
        made: &mut Made,
    ) -> Result<Attached, LinkError> {
        self.kernel.register_netns(pod_label(), pod);
        lock_within(BRIDGES_TIMEOUT, || self.bridges.try_lock_shared()).map_err(|e| match e {
            TryLockError::WouldBlock => LinkError::BridgesBusy,
            TryLockError::Error(e) => LinkError::Open(io_failure(&e)),
        })?;
        let attached = self.attach_locked(request, made);
        // The lock ends with the process in any case.
        drop(self.bridges.unlock());
        attached
    }

    fn attach_locked(&mut self, request: &Request<'_>, made: &mut Made) -> Result<Attached, LinkError> {
        let attachment = request.attachment;
        for _ in 0..PASSES {
            let observed = observe(&mut self.kernel, &scope(request), HOST)?;
            let present = observed.links.get(&attachment.bridge);
            if present.is_some_and(|link| link.kind != LinkKind::Bridge) {
                return Err(LinkError::NotABridge(attachment.bridge.as_str().to_owned()));
            }
            let bridge_mac = match present {
                Some(link) => link.mac,
                None => Some(request.bridge_mac),
            };
            let veth = choose_name(request.veth, &observed)?;
            let choice = if present.is_some() { None } else { bridge_mac };
            let desired = attachment.host(&veth, request.veth.mac, choice);
            let (seen, prune) = own_part(request, &desired, &observed, &veth)?;
            let mut ops = plan(&desired, &seen, prune);
            ops.extend(forgotten_neighbours(attachment, present));
            if self.apply(&ops, made)? == Outcome::Done {
                return Ok(Attached { veth, bridge_mac });
            }
        }
        Err(LinkError::Unsettled(PASSES))
    }

    fn apply(&mut self, ops: &[Op], made: &mut Made) -> Result<Outcome, LinkError> {
        let mut outcome = Outcome::Done;
        let mut first_failure = None;
        for (op, result) in ops.iter().zip(self.kernel.apply(ops)) {
            match (result, op) {
                (Ok(()), Op::AddLink(name, link)) if link.kind == LinkKind::Bridge => {
                    made.bridge = Some(name.clone());
                }
                (Ok(()), _) => {}
                (Err(e), op) => match verdict(op, &e) {
                    Verdict::Harmless => {}
                    Verdict::LookAgain => outcome = Outcome::LookAgain,
                    Verdict::Fatal => {
                        first_failure.get_or_insert((op.clone(), e));
                    }
                },
            }
        }
        match first_failure {
            None => Ok(outcome),
            Some((op, source)) => Err(refused(&op, HOST, source)),
        }
    }

    /// Waits until the bridge forwards the interface's frames.
    pub(crate) fn wait_until_up(&mut self, veth: &IfName) -> Result<(), LinkError> {
        self.kernel
            .wait_oper_up(veth, UP_TIMEOUT)
            .map_err(LinkError::Port)
    }

    /// Removes a link; one that is gone is fine.
    pub(crate) fn remove(&mut self, name: &IfName) -> Result<(), LinkError> {
        remove_link(&mut self.kernel, name, HOST)
    }

    /// Removes what a failed ADD made: the interface, and the bridge if nobody else uses it.
    pub(crate) fn undo(&mut self, veth: &HostVeth, made: &Made) -> Result<(), LinkError> {
        for name in self.find(veth)? {
            self.remove(&name)?;
        }
        let Some(bridge) = &made.bridge else {
            return Ok(());
        };
        // While others attach, the bridge is theirs.
        if self.bridges.try_lock().is_err() {
            return Ok(());
        }
        let removed = match self.has_ports(bridge) {
            Ok(false) => self.remove(bridge),
            Ok(true) => Ok(()),
            Err(e) => Err(e),
        };
        drop(self.bridges.unlock());
        removed
    }

    fn has_ports(&mut self, bridge: &IfName) -> Result<bool, LinkError> {
        let inventory = self.kernel.inventory().map_err(|source| LinkError::Observe {
            place: HOST.to_owned(),
            source,
        })?;
        let names: Vec<_> = inventory.links.iter().map(|link| link.name.clone()).collect();
        let observed = observe(&mut self.kernel, &links_only(&names), HOST)?;
        let is_port = |link: &Link| link.port.as_ref().is_some_and(|port| port.bridge == *bridge);
        Ok(observed.links.values().any(is_port))
    }
}

fn io_failure(error: &std::io::Error) -> KernelError {
    KernelError {
        class: ErrorClass::Other(error.raw_os_error().unwrap_or(0)),
        message: error.to_string(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Another process was faster somewhere: what is there now decides.
    LookAgain,
}

enum Verdict {
    Harmless,
    LookAgain,
    Fatal,
}

/// What a refusal means for an ADD. Others attach at the same time, and may make or remove the bridge.
fn verdict(op: &Op, error: &KernelError) -> Verdict {
    match (error.class, op) {
        (ErrorClass::Exists, Op::AddAddr(..)) | (ErrorClass::NotFound, Op::DelAddr(_) | Op::DelNeigh(_)) => {
            Verdict::Harmless
        }
        // Without IPv6 there is nothing to switch off; an address of IPv6 fails by itself.
        (ErrorClass::NotFound, Op::SetSysctl(..)) => Verdict::Harmless,
        (ErrorClass::Exists, Op::AddLink(..)) | (ErrorClass::NoDevice | ErrorClass::Busy, _) => {
            Verdict::LookAgain
        }
        _ => Verdict::Fatal,
    }
}

fn is_own(link: &Link, veth: &HostVeth) -> bool {
    matches!(link.kind, LinkKind::Veth(_)) && link.mac == Some(veth.mac)
}

/// What has to be known: the bridge with its addresses, who has the names, the parameters.
fn scope(request: &Request<'_>) -> Scope {
    let attachment = request.attachment;
    let mut scope = links_only(&request.veth.names);
    let any = [
        IpNetwork::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        IpNetwork::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    ];
    let mut bridge = LinkScope::default();
    if !attachment.gateways.is_empty() {
        bridge.addrs_inside = any.into_iter().flatten().collect();
    }
    scope.links.insert(attachment.bridge.clone(), bridge);
    let desired = attachment.host(&attachment.bridge, request.veth.mac, None);
    scope.sysctls = desired.sysctls.into_keys().collect();
    scope
}

/// The name of the attachment's interface if an earlier pass made it, else the first that is free.
///
/// An interface that is there is of this ADD: there was none before it, and a runtime makes no two calls for one
/// container at once (CNI SPEC 1.1.0 §Lifecycle & Ordering).
fn choose_name(veth: &HostVeth, observed: &State) -> Result<IfName, LinkError> {
    let of_name = |name: &IfName| observed.links.get(name);
    let mut names = veth.names.iter();
    let own = names.find(|name| of_name(name).is_some_and(|link| is_own(link, veth)));
    let found = own.or_else(|| veth.names.iter().find(|name| of_name(name).is_none()));
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = veth.names.iter().map(IfName::as_str).collect();
        LinkError::NamesTaken(names.join(", "))
    })
}

/// The part of what is there that this attachment may change, and whether addresses may be removed.
fn own_part(
    request: &Request<'_>,
    desired: &State,
    observed: &State,
    veth: &IfName,
) -> Result<(State, Prune), LinkError> {
    let mut seen = observed.clone();
    let bridge = &request.attachment.bridge;
    seen.links.retain(|name, _| name == bridge || name == veth);
    let mut prune = Prune::Keep;
    for key in observed.addrs.keys() {
        if desired.addrs.contains_key(key) {
            continue;
        }
        let mut missing = desired
            .addrs
            .keys()
            .filter(|wanted| !observed.addrs.contains_key(*wanted));
        let conflict = missing.find(|wanted| conflicts(wanted.addr, key.addr));
        match (conflict, request.on_conflict) {
            (None, _) => {
                seen.addrs.remove(key);
            }
            (Some(_), OnConflict::Replace) => prune = Prune::Remove,
            (Some(wanted), OnConflict::Refuse) => {
                return Err(LinkError::Address {
                    bridge: bridge.as_str().to_owned(),
                    wanted: wanted.addr.to_string(),
                    found: key.addr.to_string(),
                });
            }
        }
    }
    Ok((seen, prune))
}

/// Whether a bridge cannot have both addresses: one of IPv4 only, of IPv6 several that don't overlap.
fn conflicts(wanted: IpNetwork, found: IpNetwork) -> bool {
    match (wanted, found) {
        (IpNetwork::V4(_), IpNetwork::V4(_)) => true,
        (IpNetwork::V6(wanted), IpNetwork::V6(found)) => {
            wanted.contains(found.network()) || found.contains(wanted.network())
        }
        (IpNetwork::V4(_), IpNetwork::V6(_)) | (IpNetwork::V6(_), IpNetwork::V4(_)) => false,
    }
}

/// The host's memory of who had the container's IPv6 addresses before. An IPv4 holder always has the same hardware
/// address; an IPv6 one has it by its IPv4 address, which may have been another then.
fn forgotten_neighbours(attachment: &Attachment, bridge: Option<&Link>) -> Vec<Op> {
    let ips = attachment.ips.iter().map(|ip| ip.address.ip());
    let forget = |ip| {
        Op::DelNeigh(NeighKey {
            link: attachment.bridge.clone(),
            ip,
        })
    };
    match bridge {
        None => Vec::new(),
        Some(_) => ips.filter(IpAddr::is_ipv6).map(forget).collect(),
    }
}

#[cfg(test)]
mod tests;
