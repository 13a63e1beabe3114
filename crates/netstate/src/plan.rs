//! From two states to the ordered changes between them.
//!
//! The order keeps traffic flowing and makes one pass suffice: what is needed comes before what needs it (link, up,
//! address, forwarding entry, neighbour, route), a replacement comes before the removal of what it replaces, and what
//! the kernel flushes on the way counts as gone, so that it is made again in the same pass.

use std::borrow::Cow;
use std::collections::BTreeSet;

use net_types::IfName;

use crate::iptables::{IptablesKey, OwnRules};
use crate::{
    AddrKey, AdminState, FdbKey, IptablesChange, Link, LinkChange, LinkKind, Op, RouteKey, State, Vxlan,
    Wireguard,
};

#[cfg(test)]
mod tests;

/// Whether observed objects that are not desired are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// They stay: what is desired is not known in full.
    Keep,
    /// Only addresses are removed: what this node itself is, is known before the others are.
    Addrs,
    /// They are removed.
    Remove,
}

/// Returns the changes that turn `observed` into `desired`; none when nothing needs to change.
///
/// Both states must come from one scope: what `observed` does not hold is taken to be absent. Applied in order to the
/// kernel that was observed, the changes leave nothing for a second call to do.
#[must_use]
pub fn plan(desired: &State, observed: &State, prune: Prune) -> Vec<Op> {
    let links = plan_links(desired, observed, prune);
    let mut ops = moved_routes(desired, observed, &links);
    let observed = &with_routes(observed, &ops);
    let remaining = remaining(&links, desired, observed, prune);
    ops.extend(links.ops);
    ops.extend(sysctls(desired, observed, &links.made));
    ops.extend(wireguard(desired, &remaining));
    ops.extend(links.ups);
    ops.extend(plan_addrs(desired, &remaining, prune));
    ops.extend(plan_content(desired, &remaining));
    ops.extend(rules(desired, observed, prune));
    if prune == Prune::Remove {
        ops.extend(removals(desired, &remaining));
    }
    ops
}

/// Tables of packet filter rules, each made over as a whole. New ones come before the removal of others, so that
/// traffic is translated at every moment of a change from one kind to the other.
fn rules(desired: &State, observed: &State, prune: Prune) -> Vec<Op> {
    let mut ops = Vec::new();
    for (key, table) in &desired.nft {
        if observed.nft.get(key) != Some(table) {
            ops.push(Op::SetNftTable(key.clone(), table.clone()));
        }
    }
    let none = OwnRules::default();
    for (key, rules) in &desired.iptables {
        let present = observed.iptables.get(key).unwrap_or(&none);
        if present != rules {
            ops.push(set_iptables(key, present, rules));
        }
    }
    if prune == Prune::Remove {
        let stale = observed.nft.keys().filter(|key| !desired.nft.contains_key(*key));
        ops.extend(stale.cloned().map(Op::DelNftTable));
        for (key, present) in &observed.iptables {
            if !desired.iptables.contains_key(key) {
                ops.push(set_iptables(key, present, &none));
            }
        }
    }
    ops
}

fn set_iptables(key: &IptablesKey, observed: &OwnRules, desired: &OwnRules) -> Op {
    let change = IptablesChange {
        observed: observed.clone(),
        desired: desired.clone(),
    };
    Op::SetIptables(key.clone(), Box::new(change))
}

/// What is to be done to links, and what that does to their content.
#[derive(Default)]
struct LinkPlan {
    ops: Vec<Op>,
    ups: Vec<Op>,
    /// Links that are created, for the first time or again: the kernel holds nothing on them.
    made: BTreeSet<IfName>,
    /// Links that go, or are replaced: what they held goes with them.
    gone: BTreeSet<IfName>,
    /// Links whose neighbours the kernel flushes.
    neighs_flushed: BTreeSet<IfName>,
    /// Links that are set down: routes and neighbours are flushed.
    downed: BTreeSet<IfName>,
}

fn plan_links(desired: &State, observed: &State, prune: Prune) -> LinkPlan {
    let mut plan = LinkPlan::default();
    if prune == Prune::Remove {
        for name in observed
            .links
            .keys()
            .filter(|name| !desired.links.contains_key(*name))
        {
            plan.delete(name);
        }
    }
    let bridges_first = |(_, link): &(&IfName, &Link)| link.kind != LinkKind::Bridge;
    let mut wanted: Vec<_> = desired.links.iter().collect();
    wanted.sort_by_key(bridges_first);
    for (name, link) in wanted {
        match observed.links.get(name) {
            Some(present) if is_changeable_into(present, link) => plan.change(name, link, present),
            Some(_) => plan.replace(name, link),
            None => plan.create(name, link),
        }
    }
    plan
}

impl LinkPlan {
    fn delete(&mut self, name: &IfName) {
        self.ops.push(Op::DelLink(name.clone()));
        self.gone.insert(name.clone());
    }

    fn replace(&mut self, name: &IfName, link: &Link) {
        self.gone.insert(name.clone());
        self.make(Op::ReplaceLink(name.clone(), link.clone()), name, link);
    }

    fn create(&mut self, name: &IfName, link: &Link) {
        self.make(Op::AddLink(name.clone(), link.clone()), name, link);
    }

    fn make(&mut self, op: Op, name: &IfName, link: &Link) {
        self.ops.push(op);
        self.made.insert(name.clone());
        if let LinkKind::Vxlan(Vxlan {
            tx_checksum: Some(tx_checksum),
            ..
        }) = link.kind
        {
            let change = LinkChange::VxlanTxChecksum(tx_checksum);
            self.ops.push(Op::SetLink(name.clone(), change));
        }
        if link.admin == AdminState::Up {
            self.ups
                .push(Op::SetLink(name.clone(), LinkChange::Admin(AdminState::Up)));
        }
    }

    fn change(&mut self, name: &IfName, desired: &Link, observed: &Link) {
        for change in link_changes(desired, observed) {
            match &change {
                LinkChange::Mac(_) => {
                    self.neighs_flushed.insert(name.clone());
                }
                LinkChange::Admin(AdminState::Down) => {
                    self.downed.insert(name.clone());
                }
                LinkChange::Admin(AdminState::Up) => {
                    self.ups.push(Op::SetLink(name.clone(), change));
                    continue;
                }
                LinkChange::Mtu(_)
                | LinkChange::Port(_)
                | LinkChange::VxlanLocal(_)
                | LinkChange::VxlanLearning(_)
                | LinkChange::VxlanTxChecksum(_)
                | LinkChange::IpipLocal(_) => {}
            }
            self.ops.push(Op::SetLink(name.clone(), change));
        }
    }
}

/// Routes that lead away from a link that goes, through one that nobody here changes: they move before it goes, so that
/// traffic does not wait for what follows.
fn moved_routes(desired: &State, observed: &State, links: &LinkPlan) -> Vec<Op> {
    if links.gone.is_empty() {
        return Vec::new();
    }
    let leaves = |key: &RouteKey| {
        let present = observed.routes.get(key).and_then(|route| route.kind.link());
        present.is_some_and(|link| links.gone.contains(link))
    };
    let is_steady = |link: &IfName| {
        !observed.links.contains_key(link) && !desired.links.contains_key(link) && !links.gone.contains(link)
    };
    let moved = desired
        .routes
        .iter()
        .filter(|(key, route)| leaves(key) && route.kind.link().is_some_and(is_steady));
    moved
        .map(|(key, route)| Op::ReplaceRoute(key.clone(), route.clone()))
        .collect()
}

/// What is observed once these routes are replaced.
fn with_routes<'a>(observed: &'a State, ops: &[Op]) -> Cow<'a, State> {
    let mut observed = Cow::Borrowed(observed);
    for op in ops {
        if let Op::ReplaceRoute(key, route) = op {
            observed.to_mut().routes.insert(key.clone(), route.clone());
        }
    }
    observed
}

/// Whether the kernel can turn one link into the other without making it anew.
fn is_changeable_into(observed: &Link, desired: &Link) -> bool {
    match (&observed.kind, &desired.kind) {
        (LinkKind::Vxlan(observed), LinkKind::Vxlan(desired)) => {
            let parent_fits = desired.parent.is_none() || desired.parent == observed.parent;
            observed.vni == desired.vni
                && observed.port == desired.port
                && observed.gbp == desired.gbp
                && parent_fits
                && is_same_family(observed, desired)
        }
        (LinkKind::Bridge, LinkKind::Bridge)
        | (LinkKind::Veth(_), LinkKind::Veth(_))
        | (LinkKind::Wireguard, LinkKind::Wireguard)
        | (LinkKind::Ipip(_), LinkKind::Ipip(_)) => true,
        (LinkKind::Other(observed), LinkKind::Other(desired)) => observed == desired,
        (
            LinkKind::Vxlan(_)
            | LinkKind::Wireguard
            | LinkKind::Ipip(_)
            | LinkKind::Bridge
            | LinkKind::Veth(_)
            | LinkKind::Other(_),
            _,
        ) => false,
    }
}

/// The kernel refuses to change the outer address to one of the other family, and a device without one is of IPv4
/// (linux `vxlan_core.c`).
fn is_same_family(observed: &Vxlan, desired: &Vxlan) -> bool {
    let is_v6 = |vxlan: &Vxlan| vxlan.local.is_some_and(|local| local.is_ipv6());
    desired.local.is_none() || is_v6(desired) == is_v6(observed)
}

fn link_changes(desired: &Link, observed: &Link) -> Vec<LinkChange> {
    let mut changes = Vec::new();
    if let (LinkKind::Vxlan(desired), LinkKind::Vxlan(observed)) = (&desired.kind, &observed.kind) {
        changes.extend(
            desired
                .local
                .filter(|_| desired.local != observed.local)
                .map(LinkChange::VxlanLocal),
        );
        if desired.learning != observed.learning {
            changes.push(LinkChange::VxlanLearning(desired.learning));
        }
        // A kernel that does not tell could not be seen to have changed.
        if let (Some(wanted), Some(present)) = (desired.tx_checksum, observed.tx_checksum)
            && wanted != present
        {
            changes.push(LinkChange::VxlanTxChecksum(wanted));
        }
    }
    if let (LinkKind::Ipip(desired), LinkKind::Ipip(observed)) = (&desired.kind, &observed.kind) {
        let local = desired.local.filter(|_| desired.local != observed.local);
        changes.extend(local.map(LinkChange::IpipLocal));
    }
    changes.extend(
        desired
            .mac
            .filter(|_| desired.mac != observed.mac)
            .map(LinkChange::Mac),
    );
    changes.extend(
        desired
            .mtu_bytes
            .filter(|_| desired.mtu_bytes != observed.mtu_bytes)
            .map(LinkChange::Mtu),
    );
    if let Some(port) = desired.port.as_ref().filter(|_| desired.port != observed.port) {
        changes.push(LinkChange::Port(port.clone()));
    }
    if desired.admin != observed.admin {
        changes.push(LinkChange::Admin(desired.admin));
    }
    changes
}

/// What is left of the observed content when the link changes are made.
fn remaining<'a>(links: &LinkPlan, desired: &State, observed: &'a State, prune: Prune) -> Cow<'a, State> {
    let emptied = without_ipv4(desired, observed, prune);
    if links.flushes_nothing() && emptied.is_empty() {
        return Cow::Borrowed(observed);
    }
    let gone = |link: &IfName| links.gone.contains(link) || links.made.contains(link);
    let flushed = |link: &IfName| gone(link) || links.downed.contains(link) || emptied.contains(link);
    let mut left = observed.clone();
    left.addrs
        .retain(|key, _| !gone(&key.link) && !links.flushes(key));
    left.fdb.retain(|key| !gone(&key.link));
    left.wireguard.retain(|link, _| !gone(link));
    left.wg_peers.retain(|key, _| !gone(&key.link));
    left.neighs
        .retain(|key, _| !flushed(&key.link) && !links.neighs_flushed.contains(&key.link));
    left.routes
        .retain(|_, route| !route.kind.link().is_some_and(flushed));
    Cow::Owned(left)
}

impl LinkPlan {
    fn flushes_nothing(&self) -> bool {
        let flushing = [&self.gone, &self.made, &self.neighs_flushed, &self.downed];
        flushing.iter().all(|links| links.is_empty())
    }

    /// Whether the kernel drops an address because its link is set down: IPv6 only (measured on 6.18).
    fn flushes(&self, key: &AddrKey) -> bool {
        key.addr.is_ipv6() && self.downed.contains(&key.link)
    }
}

/// Links that lose their last IPv4 address: the kernel then flushes their routes and neighbours.
fn without_ipv4(desired: &State, observed: &State, prune: Prune) -> BTreeSet<IfName> {
    if prune == Prune::Keep {
        return BTreeSet::new();
    }
    let holders = |state: &State| -> BTreeSet<IfName> {
        state
            .addrs
            .keys()
            .filter(|key| key.addr.is_ipv4())
            .map(|key| key.link.clone())
            .collect()
    };
    holders(observed).difference(&holders(desired)).cloned().collect()
}

fn sysctls(desired: &State, observed: &State, made: &BTreeSet<IfName>) -> Vec<Op> {
    let belongs_to_made = |path: &str| {
        path.split('/')
            .any(|part| made.iter().any(|link| link.as_str() == part))
    };
    let differs = |(key, value): &(&_, &String)| match observed.sysctls.get(*key) {
        Some(present) => present != *value,
        None => false,
    };
    let wanted = desired.sysctls.iter();
    wanted
        .filter(|entry| belongs_to_made(entry.0.as_str()) || differs(entry))
        .map(|(key, value)| Op::SetSysctl(key.clone(), value.clone()))
        .collect()
}

/// New addresses, then the removal of old ones: a link that keeps one keeps its routes. Both come before routes, whose
/// gateway the kernel refuses while it is an address of this node.
fn plan_addrs(desired: &State, observed: &State, prune: Prune) -> Vec<Op> {
    let missing = desired
        .addrs
        .iter()
        .filter(|(key, _)| !observed.addrs.contains_key(*key));
    let mut ops: Vec<_> = missing
        .map(|(key, addr)| Op::AddAddr(key.clone(), *addr))
        .collect();
    if prune != Prune::Keep {
        let stale = observed
            .addrs
            .keys()
            .filter(|key| !desired.addrs.contains_key(*key));
        ops.extend(stale.cloned().map(Op::DelAddr));
    }
    ops
}

/// WireGuard devices are set up before they are up: a device that comes up without its port takes a random one.
fn wireguard(desired: &State, observed: &State) -> Vec<Op> {
    let differs = |(link, wanted): &(&IfName, &Wireguard)| observed.wireguard.get(*link) != Some(*wanted);
    let differing = desired.wireguard.iter().filter(differs);
    differing
        .map(|(link, wanted)| Op::SetWireguard(link.clone(), wanted.clone()))
        .collect()
}

/// New peers and changed ones, before the removal of others: an allowed address moves without a gap. A peer's endpoint
/// is told only where it differs, so that another change does not undo the kernel's own roaming.
fn plan_wg_peers(desired: &State, observed: &State) -> Vec<Op> {
    let mut ops = Vec::new();
    for (key, wanted) in &desired.wg_peers {
        let present = observed.wg_peers.get(key);
        if present == Some(wanted) {
            continue;
        }
        let mut peer = wanted.clone();
        if present.is_some_and(|present| present.endpoint == wanted.endpoint) {
            peer.endpoint = None;
        }
        ops.push(Op::SetWgPeer(key.clone(), peer));
    }
    ops
}

/// Forwarding entries, then neighbours, then routes: a packet never meets a route whose next steps are missing.
fn plan_content(desired: &State, observed: &State) -> Vec<Op> {
    let mut ops: Vec<_> = desired
        .fdb
        .difference(&observed.fdb)
        .cloned()
        .map(Op::SetFdb)
        .collect();
    ops.extend(plan_wg_peers(desired, observed));
    for (key, neigh) in &desired.neighs {
        if observed.neighs.get(key) != Some(neigh) {
            ops.push(Op::SetNeigh(key.clone(), *neigh));
        }
    }
    for (key, route) in &desired.routes {
        match observed.routes.get(key) {
            Some(present) if present == route => {}
            Some(_) => ops.push(Op::ReplaceRoute(key.clone(), route.clone())),
            None => ops.push(Op::AddRoute(key.clone(), route.clone())),
        }
    }
    ops
}

fn removals(desired: &State, observed: &State) -> Vec<Op> {
    let mut ops = Vec::new();
    for (key, route) in observed
        .routes
        .iter()
        .filter(|(key, _)| !desired.routes.contains_key(*key))
    {
        ops.push(Op::DelRoute(key.clone(), route.clone()));
    }
    for key in observed
        .neighs
        .keys()
        .filter(|key| !desired.neighs.contains_key(*key))
    {
        ops.push(Op::DelNeigh(key.clone()));
    }
    let stale = observed
        .wg_peers
        .keys()
        .filter(|key| !desired.wg_peers.contains_key(*key));
    ops.extend(stale.cloned().map(Op::DelWgPeer));
    let wanted: BTreeSet<_> = desired.fdb.iter().map(|key| (&key.link, key.mac)).collect();
    let replaced = |key: &FdbKey| key.mac.is_unicast() && wanted.contains(&(&key.link, key.mac));
    for key in observed.fdb.difference(&desired.fdb).filter(|key| !replaced(key)) {
        ops.push(Op::DelFdb(key.clone()));
    }
    ops
}
