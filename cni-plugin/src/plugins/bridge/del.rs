use std::net::IpAddr;
use std::path::Path;

use cni_types::{Code, NetConf, Target};

use super::conf::{self, Conf, Gateway, OnConflict};
use super::desired;
use super::guards::{self, Guards, OtherInterfaces};
use super::host::Host;
use super::kernel::LinkError;
use super::names::HostVeth;
use super::pod;
use crate::context::{Attachments, Context};
use crate::error::{CniError, Failure, Failures};
use crate::locks;
use crate::plugins::data_dir;
use crate::plugins::host_local::{self, Detached};
use crate::plugins::ipam::{Held, Ipam};
use crate::sandbox::Sandbox;

/// Detaches a container, then frees its addresses; `noted` are all of them, if somebody took note. Whatever is gone already is fine, the container's namespace too.
pub(crate) fn del(
    context: &Context<'_>,
    conf: &NetConf,
    target: &Target,
    sandbox: Option<&Sandbox>,
    noted: &[IpAddr],
) -> Result<(), Failure> {
    let removed = detach(conf, target)?;
    let ipam = Ipam::of(conf)?;
    // The reference's host interfaces have random names; the container's is known by its own and by its addresses, because
    // the namespace may be another container's by now.
    if !removed && let Some(sandbox) = sandbox {
        match ipam.held(conf, target)? {
            Held::Nothing => {}
            Held::These(ips) => pod::remove(sandbox, &target.ifname, Some(&ips))?,
            Held::Unknown => pod::remove(sandbox, &target.ifname, None)?,
        }
    }
    // Before the addresses are free for others.
    remove_rules(conf, target)?;
    ipam.del(context, conf, target, noted)
}

/// Removes the packet filter's rules of the attachment.
pub(super) fn remove_rules(conf: &NetConf, target: &Target) -> Result<(), Failure> {
    let guards = Guards::of_del(conf);
    if guards == Guards::default() {
        return Ok(());
    }
    guards.teardown(&conf.name, target, other_interfaces(conf, target)?)
}

/// Whether the container has further interfaces in this network, so far as its addresses tell.
fn other_interfaces(conf: &NetConf, target: &Target) -> Result<OtherInterfaces, Failure> {
    let holders = match Ipam::of(conf)? {
        Ipam::HostLocal => host_local::holders(conf, &target.container_id)?,
        Ipam::None | Ipam::Program(_) => Vec::new(),
    };
    Ok(if holders.iter().any(|ifname| *ifname != target.ifname) {
        OtherInterfaces::Some
    } else {
        OtherInterfaces::None
    })
}

/// Removes the attachment's host interface, and with it the container's; tells whether there was one.
fn detach(conf: &NetConf, target: &Target) -> Result<bool, Failure> {
    let mut host = Host::open()?;
    let found = host.find(&HostVeth::of(&conf.name, target))?;
    for name in &found {
        host.remove(name)?;
    }
    Ok(!found.is_empty())
}

/// Fails when an ADD could not be served.
pub(crate) fn status(context: &Context<'_>, conf: &NetConf) -> Result<(), Failure> {
    let own = Conf::parse(conf, "")?;
    Guards::parse(conf)?;
    let ipam = Ipam::of(conf)?;
    ipam.status(context, conf)?;
    data_dir::require_room(Path::new(locks::DIR))?;
    let mut host = Host::open().map_err(not_available)?;
    host.check_bridge(&own.bridge).map_err(not_available)?;
    if ipam != Ipam::HostLocal {
        return Ok(());
    }
    let gateways = host_local::gateways(conf)?;
    desired::check_mtu(own.mtu_bytes, gateways.iter().copied()).map_err(not_available)?;
    if own.gateway == Gateway::No || own.on_conflict == OnConflict::Replace {
        return Ok(());
    }
    let checked = host.check_gateways(&own, &gateways, &host_local::routed(conf)?);
    checked.map_err(|error| {
        // Pods are attached whose range this node does not have any more.
        let is_limited = matches!(error, LinkError::AddressInUse { .. });
        let mut failure = not_available(error);
        if is_limited {
            failure.code = Code::LIMITED_CONNECTIVITY;
        }
        failure
    })
}

/// What an ADD would fail with, as STATUS says it.
fn not_available(error: impl CniError) -> Failure {
    Failure {
        code: Code::NOT_AVAILABLE,
        ..Failure::from(error)
    }
}

/// Detaches what is attached to this network and not valid, and frees its addresses. Goes on over failures.
///
/// The reference's host interfaces have random names, and nothing on the host says for whom they are: a neighbour or
/// forwarding entry may be old, or not yet there. So an attachment without an interface of ours may be one of them, as
/// long as the bridge has a port that no reservation of the network explains; then its address stays reserved until its
/// DEL, or until such ports are gone with their containers.
pub(crate) fn gc(context: &Context<'_>, conf: &NetConf, valid: &Attachments) -> Result<(), Failure> {
    let mut failures = Failures::default();
    failures.note(guards::gc(&conf.name, valid));
    let ipam = Ipam::of(conf)?;
    let unexplained = match ipam {
        Ipam::HostLocal => unexplained_ports(conf)?,
        Ipam::None | Ipam::Program(_) => Unexplained::None,
    };
    failures.note(ipam.gc(context, conf, valid, |target| {
        Ok(match (detach(conf, target)?, unexplained) {
            (true, _) | (false, Unexplained::None) => Detached::Yes,
            (false, Unexplained::Some) => Detached::Unknown,
        })
    }));
    failures.into_result()
}

/// Ports of the bridge that no reservation explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unexplained {
    None,
    Some,
}

fn unexplained_ports(conf: &NetConf) -> Result<Unexplained, Failure> {
    let mut host = Host::open()?;
    let bridge = conf::bridge_name(&conf.object)?;
    let mut ports = host.ports(&bridge)?;
    for target in host_local::attachments(conf)? {
        if ports.is_empty() {
            break;
        }
        let own = host.find(&HostVeth::of(&conf.name, &target))?;
        ports.retain(|port| !own.contains(port));
    }
    if !ports.is_empty() {
        // The kernel may have removed one, whose container has ended, before it was looked for.
        let remaining = host.ports(&bridge)?;
        ports.retain(|port| remaining.contains(port));
    }
    Ok(if ports.is_empty() {
        Unexplained::None
    } else {
        Unexplained::Some
    })
}
