//! The host's side of an attachment.

mod addresses;
mod status;
mod vlan;

use std::fs::{File, TryLockError};
use std::net::IpAddr;
use std::time::Duration;

use cni_types::Target;
use net_types::{IfName, MacAddr};
use netlink::{LinkSetting, Netns, RealKernel};
use netstate::{
    AdminState, ErrorClass, Kernel, KernelError, Link, LinkKind, LinkScope, Op, Scope, State, plan,
};

use self::addresses::{any_address, forgotten_neighbours, own_part};
use self::vlan::gateway_port;
use super::conf::{Conf, OnConflict};
use super::desired::{Attachment, pod_label};
use super::kernel::{DAD_TIMEOUT, LinkError, UP_TIMEOUT, links_only, observe, refused, remove_link};
use super::names::HostVeth;
use crate::locks::{Guarded, lock_file};
use crate::sandbox::lock_within;

/// How often the host is looked at again because another process changed it meanwhile.
const PASSES: u32 = 5;

/// How long a removal of a bridge may keep others from attaching; it takes some milliseconds.
const BRIDGES_TIMEOUT: Duration = Duration::from_secs(5);

const HOST: &str = "the host's network namespace";

/// The host's kernel.
pub(crate) struct Host {
    kernel: RealKernel,
    /// The lock that guards the life of the host's bridges: shared by whoever attaches to one, exclusive for whoever removes one.
    bridges: File,
}

/// What an ADD made on the host so far, beside its interface: that is told by name and hardware address, even if the
/// kernel's answer was lost or a part of its making was refused.
#[derive(Debug, Default)]
pub(crate) struct Made {
    bridge: Option<IfName>,
    /// The bridge's port whose other end is the gateway in the containers' VLAN.
    gateway_port: Option<IfName>,
}

/// The attachment's host interface and the bridge as they came out.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    pub(crate) veth: IfName,
    pub(crate) bridge_mac: Option<MacAddr>,
    /// Of the interface that the gateway in a VLAN has for itself.
    pub(crate) vlan_gateway_mac: Option<MacAddr>,
}

/// What an ADD needs to attach on the host.
pub(crate) struct Request<'a> {
    pub(crate) own: &'a Conf,
    pub(crate) attachment: &'a Attachment,
    pub(crate) veth: &'a HostVeth,
    /// For a bridge that is made.
    pub(crate) bridge_mac: MacAddr,
}

impl Host {
    pub(crate) fn open() -> Result<Self, LinkError> {
        let own = Netns::current().map_err(LinkError::Enter)?;
        let bridges = lock_file(&own, Guarded::Bridges).map_err(LinkError::LockFile)?;
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
        let on_conflict = request.own.on_conflict;
        let attached = self.with_bridges(Access::Shared, |host| {
            host.attach_locked(request, on_conflict, made)
        });
        match attached {
            Err(LinkError::Address { found, .. }) if request.attachment.has_earlier_gateway(&found) => {
                self.with_bridges(Access::Alone, |host| host.attach_anew(request, made))
            }
            attached => attached,
        }
    }

    fn with_bridges<T>(
        &mut self,
        access: Access,
        work: impl FnOnce(&mut Self) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        let locked = lock_within(BRIDGES_TIMEOUT, || match access {
            Access::Shared => self.bridges.try_lock_shared(),
            Access::Alone => self.bridges.try_lock(),
        });
        locked.map_err(|e| match e {
            TryLockError::WouldBlock => LinkError::BridgesBusy,
            TryLockError::Error(e) => LinkError::Open(io_failure(&e)),
        })?;
        let done = work(self);
        // The lock ends with the process in any case.
        drop(self.bridges.unlock());
        done
    }

    /// Attaches to a bridge that has another address than it shall have. Without a port nobody uses that address, and
    /// nobody begins to while the bridge is locked: it makes room. Which containers use it is written nowhere on the
    /// host, so any port keeps it.
    fn attach_anew(&mut self, request: &Request<'_>, made: &mut Made) -> Result<Attached, LinkError> {
        let own = &request.own.bridge;
        let mut ports = self.ports(own)?;
        let gateway = gateway_port(request.own).map(|port| port.name);
        ports.retain(|name| !request.veth.names.contains(name) && Some(name) != gateway.as_ref());
        if ports.is_empty() {
            return self.attach_locked(request, OnConflict::Replace, made);
        }
        match self.attach_locked(request, OnConflict::Refuse, made) {
            Err(LinkError::Address { link, wanted, found }) => Err(LinkError::AddressInUse {
                link,
                wanted,
                found,
                ports,
            }),
            attached => attached,
        }
    }

    fn attach_locked(
        &mut self,
        request: &Request<'_>,
        on_conflict: OnConflict,
        made: &mut Made,
    ) -> Result<Attached, LinkError> {
        if let Some(vlans) = &request.own.vlans {
            self.prepare_vlans(request, vlans, made)?;
        }
        let attached = self.attach_port(request, on_conflict, made)?;
        if let Some(vlans) = &request.own.vlans {
            self.join_vlans(&attached.veth, &request.own.bridge, vlans)?;
        }
        if request.own.promiscuous {
            self.set_promiscuous(&request.own.bridge)?;
        }
        Ok(attached)
    }

    fn attach_port(
        &mut self,
        request: &Request<'_>,
        on_conflict: OnConflict,
        made: &mut Made,
    ) -> Result<Attached, LinkError> {
        let attachment = request.attachment;
        for _ in 0..PASSES {
            let observed = observe(&mut self.kernel, &scope(request), HOST)?;
            let present = observed.links.get(&attachment.bridge);
            refuse_other_kind(&attachment.bridge, present)?;
            let bridge_mac = match present {
                Some(link) => link.mac,
                None => Some(request.bridge_mac),
            };
            let veth = choose_name(request.veth, &observed)?;
            let choice = if present.is_some() { None } else { bridge_mac };
            let desired = attachment.host(&veth, request.veth.mac, choice);
            let (seen, prune) = own_part(attachment, &desired, &observed, &veth, on_conflict)?;
            let mut ops = plan(&desired, &seen, prune);
            ops.extend(forgotten_neighbours(attachment, present));
            if self.apply(&ops, made)? == Outcome::Done {
                let gateway = observed.links.get(&attachment.gateway_link);
                return Ok(Attached {
                    veth,
                    bridge_mac,
                    vlan_gateway_mac: gateway_port(request.own).and(gateway).and_then(|link| link.mac),
                });
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

    fn set_promiscuous(&mut self, bridge: &IfName) -> Result<(), LinkError> {
        let wanted = LinkSetting::Promiscuous(true);
        let failed = |source| LinkError::Promiscuous {
            bridge: bridge.as_str().to_owned(),
            source,
        };
        if self.kernel.link_settings(bridge).map_err(failed)?.has(wanted) {
            return Ok(());
        }
        let set = self.kernel.set_link(bridge, &[wanted]).into_iter();
        set.collect::<Result<(), _>>().map_err(failed)
    }

    /// Waits until the bridge forwards the interface's frames, and the gateways can be used: a bridge that had no port
    /// before drops what the host itself sends for some more moments.
    pub(crate) fn wait_until_up(&mut self, veth: &IfName, attachment: &Attachment) -> Result<(), LinkError> {
        if attachment.container == AdminState::Down {
            return Ok(());
        }
        let up = self.kernel.wait_oper_up(veth, UP_TIMEOUT);
        up.map_err(LinkError::Port)?;
        if attachment.gateways.is_empty() {
            return Ok(());
        }
        let link = &attachment.gateway_link;
        let up = self.kernel.wait_oper_up(link, UP_TIMEOUT);
        up.map_err(LinkError::Port)?;
        let gateways = attachment.gateways.iter().map(|net| net.ip());
        let gateways: Vec<_> = gateways.filter(IpAddr::is_ipv6).collect();
        let settled = self.kernel.wait_settled(link, &gateways, DAD_TIMEOUT);
        settled.map_err(LinkError::Duplicate)
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
        let removed = self.remove_unused(bridge, made.gateway_port.as_ref());
        drop(self.bridges.unlock());
        removed
    }

    fn remove_unused(&mut self, bridge: &IfName, gateway_port: Option<&IfName>) -> Result<(), LinkError> {
        let ports = self.ports(bridge)?;
        if ports.iter().any(|port| Some(port) != gateway_port) {
            return Ok(());
        }
        if let Some(port) = gateway_port {
            self.remove(port)?;
        }
        self.remove(bridge)
    }

    /// The ports of a bridge; none if it is absent.
    pub(super) fn ports(&mut self, bridge: &IfName) -> Result<Vec<IfName>, LinkError> {
        let inventory = self.kernel.inventory().map_err(|source| LinkError::Observe {
            place: HOST.to_owned(),
            source,
        })?;
        let names: Vec<_> = inventory.links.iter().map(|link| link.name.clone()).collect();
        let observed = observe(&mut self.kernel, &links_only(&names), HOST)?;
        let is_port = |link: &Link| link.port.as_ref().is_some_and(|port| port.bridge == *bridge);
        let ports = observed.links.into_iter().filter(|(_, link)| is_port(link));
        Ok(ports.map(|(name, _)| name).collect())
    }
}

/// Fails if a bridge's name is something else's.
fn refuse_other_kind(bridge: &IfName, present: Option<&Link>) -> Result<(), LinkError> {
    match present {
        Some(link) if link.kind != LinkKind::Bridge => Err(LinkError::NotABridge(bridge.as_str().to_owned())),
        Some(_) | None => Ok(()),
    }
}

fn io_failure(error: &std::io::Error) -> KernelError {
    KernelError {
        class: ErrorClass::Other(error.raw_os_error().unwrap_or(0)),
        message: error.to_string(),
    }
}

/// How the host's bridges are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// With others that attach.
    Shared,
    Alone,
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
    let mut gateway = LinkScope::default();
    if !attachment.gateways.is_empty() {
        gateway.addrs_inside = any_address();
    }
    scope
        .links
        .insert(attachment.bridge.clone(), LinkScope::default());
    scope.links.insert(attachment.gateway_link.clone(), gateway);
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

#[cfg(test)]
mod tests;
