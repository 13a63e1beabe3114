//! The container's side of an attachment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use net_types::IfName;
use netlink::RealKernel;
use netstate::{
    AdminState, ErrorClass, Kernel, LinkChange, LinkKind, LinkScope, Op, Prune, RouteKey, Scope, State, plan,
};

use super::desired::Attachment;
use super::kernel::{DAD_TIMEOUT, LinkError, UP_TIMEOUT, inside, links_only, observe, refused, remove_link};
use crate::sandbox::Sandbox;

/// The container's kernel. Its socket stays in the container's namespace.
pub(crate) struct Pod<'a> {
    sandbox: &'a Sandbox,
    kernel: RealKernel,
    ifname: IfName,
}

impl<'a> Pod<'a> {
    /// Opens the container's kernel; the interface must not exist.
    pub(crate) fn without(sandbox: &'a Sandbox, ifname: &IfName) -> Result<Self, LinkError> {
        let scope = links_only([ifname]);
        let (kernel, observed) = inside(&sandbox.netns, || {
            let mut kernel = RealKernel::open().map_err(LinkError::Open)?;
            let observed = observe(&mut kernel, &scope, &sandbox.path)?;
            Ok((kernel, observed))
        })?;
        if observed.links.is_empty() {
            let ifname = ifname.clone();
            return Ok(Self {
                sandbox,
                kernel,
                ifname,
            });
        }
        Err(LinkError::Exists {
            ifname: ifname.as_str().to_owned(),
            netns: sandbox.path.clone(),
        })
    }

    /// Brings the interface, which the host made, to what is desired. Returns the routes that are left out because
    /// another attachment of the container has them already (CNI SPEC 0.4.0 asks for that with the default route;
    /// a second interface on one network meets it with every route).
    pub(crate) fn configure(&mut self, desired: &State) -> Result<Vec<RouteKey>, LinkError> {
        let scope = Scope {
            links: [(self.ifname.clone(), LinkScope::default())].into(),
            sysctls: desired.sysctls.keys().cloned().collect(),
            ..Scope::default()
        };
        let (kernel, place) = (&mut self.kernel, self.sandbox.path.as_str());
        inside(&self.sandbox.netns, || {
            let observed = observe(kernel, &scope, place)?;
            let ops = plan(desired, &observed, Prune::Keep);
            let mut skipped = Vec::new();
            let mut waiting = Vec::new();
            for (op, result) in ops.iter().zip(kernel.apply(&ops)) {
                match (op, result) {
                    (_, Ok(())) => {}
                    (Op::AddRoute(key, _), Err(e)) if e.class == ErrorClass::Exists => {
                        skipped.push(key.clone())
                    }
                    // Its gateway may be reached by a route that came later.
                    (Op::AddRoute(..), Err(e)) if e.class == ErrorClass::Unreachable => {
                        waiting.push(op.clone());
                    }
                    (op, Err(source)) => return Err(refused(op, place, source)),
                }
            }
            let results = if waiting.is_empty() {
                Vec::new()
            } else {
                kernel.apply(&waiting)
            };
            for (op, result) in waiting.iter().zip(results) {
                result.map_err(|source| refused(op, place, source))?;
            }
            Ok(skipped)
        })
    }

    /// Waits until the interface sends: a frame before that, such as the first answer to an ARP request, is dropped.
    /// Then tells the neighbours whose the addresses are.
    pub(crate) fn wait_until_up(&mut self, attachment: &Attachment) -> Result<(), LinkError> {
        if attachment.container == AdminState::Down {
            return Ok(());
        }
        let up = self.kernel.wait_oper_up(&self.ifname, UP_TIMEOUT);
        up.map_err(LinkError::Port)?;
        if attachment.ips.is_empty() {
            return Ok(());
        }
        let ips = attachment.ips.iter().map(|ip| ip.address.ip());
        let ips: Vec<_> = ips.filter(IpAddr::is_ipv6).collect();
        let settled = self.kernel.wait_settled(&self.ifname, &ips, DAD_TIMEOUT);
        settled.map_err(LinkError::Duplicate)?;
        self.announce(attachment)
    }

    /// Lets the kernel send a gratuitous ARP request and an unsolicited neighbour advertisement for every address:
    /// whoever remembers an earlier holder would else lose packets until that memory is refreshed. The kernel does so,
    /// with `arp_notify` and `ndisc_notify` set, when the hardware address is set, to the same value as well (linux
    /// `devinet.c`, `inetdev_event`; `ndisc.c`, `ndisc_netdev_event`), but not when an address is added.
    fn announce(&mut self, attachment: &Attachment) -> Result<(), LinkError> {
        let op = Op::SetLink(self.ifname.clone(), LinkChange::Mac(attachment.mac));
        let result = self.kernel.apply(std::slice::from_ref(&op)).pop();
        match result {
            Some(Err(source)) => Err(refused(&op, &self.sandbox.path, source)),
            Some(Ok(())) | None => Ok(()),
        }
    }
}

/// Removes an interface and with it its host end, if it is one of a virtual pair: nothing else is of bridge's making. One
/// that has addresses, and none of these, is another's.
pub(crate) fn remove(sandbox: &Sandbox, ifname: &IfName, ips: Option<&[IpAddr]>) -> Result<(), LinkError> {
    let everywhere = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let everywhere = everywhere.into_iter().filter_map(|ip| IpNetwork::new(ip, 0).ok());
    let with_addrs = LinkScope {
        addrs_inside: everywhere.collect(),
        ..LinkScope::default()
    };
    let scope = Scope {
        links: [(ifname.clone(), with_addrs)].into(),
        ..Scope::default()
    };
    let place = sandbox.path.as_str();
    inside(&sandbox.netns, || {
        let mut kernel = RealKernel::open().map_err(LinkError::Open)?;
        let observed = observe(&mut kernel, &scope, place)?;
        let is_veth = |link: &netstate::Link| matches!(link.kind, LinkKind::Veth(_));
        let mut addrs = observed.addrs.keys().map(|key| key.addr.ip()).peekable();
        let is_anothers =
            ips.is_some_and(|ips| addrs.peek().is_some() && !addrs.any(|addr| ips.contains(&addr)));
        if is_anothers || !observed.links.get(ifname).is_some_and(is_veth) {
            return Ok(());
        }
        remove_link(&mut kernel, ifname, place)
    })
}
