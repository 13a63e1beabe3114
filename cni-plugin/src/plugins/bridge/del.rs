use cni_types::{NetConf, Target};

use super::conf::Conf;
use super::guards::{self, Guards, OtherInterfaces};
use super::host::Host;
use super::names::HostVeth;
use super::pod;
use crate::context::{Attachments, Context};
use crate::error::{Failure, Failures};
use crate::plugins::host_local;
use crate::plugins::ipam::Ipam;
use crate::sandbox::Sandbox;

/// Detaches a container, then frees its addresses. Whatever is gone already is fine, the container's namespace too.
pub(crate) fn del(
    context: &Context<'_>,
    conf: &NetConf,
    target: &Target,
    sandbox: Option<&Sandbox>,
) -> Result<(), Failure> {
    let removed = detach(conf, target)?;
    let ipam = Ipam::of(conf)?;
    // The reference's host interfaces have random names; the container's is known by its own.
    if !removed
        && let Some(sandbox) = sandbox
        && ipam.may_hold(conf, target)?
    {
        pod::remove(sandbox, &target.ifname)?;
    }
    // Before the addresses are free for others.
    remove_rules(conf, target)?;
    ipam.del(context, conf, target)
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
    Conf::parse(conf, "")?;
    Guards::parse(conf)?;
    Ipam::of(conf)?.status(context, conf)
}

/// Detaches what is attached to this network and not valid, and frees its addresses. Goes on over failures.
pub(crate) fn gc(context: &Context<'_>, conf: &NetConf, valid: &Attachments) -> Result<(), Failure> {
    let mut failures = Failures::default();
    failures.note(guards::gc(&conf.name, valid));
    let ipam = Ipam::of(conf)?;
    failures.note(ipam.gc(context, conf, valid, |target| detach(conf, target).map(drop)));
    failures.into_result()
}
