//! `flanneld cleanup`: removes what flannel's daemon made on a node, ours or upstream's, and only that.
//!
//! It never touches the bridge of the pods and their interfaces, what the CNI plugins keep, or leases. What is found is
//! compared with an empty desired state by the planner that the daemon uses; success is a second look that finds nothing.
//! Start at [`command::main`].

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use net_types::registry::RTPROT_FLANNEL;
use net_types::{IfName, sentence};
use netstate::{
    ErrorClass, IptablesChange, Kernel, Link, LinkKind, LinkScope, MarkedRoutes, Op, Prune, Scope, State,
    plan,
};

use crate::desired::{is_former_device, is_ipip_device, is_wireguard_device, vni_in};

pub mod command;
#[cfg(test)]
mod tests;

/// Whether anything is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Remove,
    /// It is only told what would be.
    DryRun,
}

/// What became of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What became of it.
    pub outcome: Outcome,
    /// Which thing, with why where it stays.
    pub what: String,
}

/// What became of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is gone.
    Removed,
    /// It is there, and would be removed.
    WouldRemove,
    /// It stays, because it is not flannel's although it looks so.
    Kept,
    /// It could not be removed.
    Failed,
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::WouldRemove => "would remove",
            Self::Kept => "kept",
            Self::Failed => "failed",
        }
    }
}

impl Row {
    fn new(outcome: Outcome, what: String) -> Self {
        Self { outcome, what }
    }
}

/// The table that is printed.
#[must_use]
pub fn render(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "there is nothing of flannel's here\n".to_owned();
    }
    let width = rows.iter().map(|row| row.outcome.word().len()).max().unwrap_or(0);
    let mut text = String::new();
    for Row { outcome, what } in rows {
        // Writing to a text does not fail.
        let _written = writeln!(text, "{:<width$}  {what}", outcome.word());
    }
    text
}

/// What is looked at: a host's links with a name of the daemon's devices, and the routes that only its mark tells.
pub fn device_scope<'a>(names: impl IntoIterator<Item = &'a IfName>) -> Scope {
    let anything = [
        Ipv4Network::new(Ipv4Addr::UNSPECIFIED, 0).map(IpNetwork::V4).ok(),
        Ipv6Network::new(Ipv6Addr::UNSPECIFIED, 0).map(IpNetwork::V6).ok(),
    ];
    let own = names.into_iter().filter(|name| is_former_device(name));
    Scope {
        links: own.map(|name| (name.clone(), LinkScope::default())).collect(),
        marked: Some(MarkedRoutes {
            protocol: RTPROT_FLANNEL,
            inside: anything.into_iter().flatten().collect(),
        }),
        ..Scope::default()
    }
}

/// Why a link with such a name is not the daemon's; `None` when it is.
fn strangeness(name: &IfName, link: &Link) -> Option<String> {
    if is_wireguard_device(name) {
        let is_one = link.kind == LinkKind::Wireguard;
        return (!is_one).then(|| "it is no WireGuard device".to_owned());
    }
    if is_ipip_device(name) {
        let is_one = matches!(link.kind, LinkKind::Ipip(_));
        return (!is_one).then(|| "it is no device of IP in IP without a remote of its own".to_owned());
    }
    let wanted = vni_in(name)?;
    match &link.kind {
        LinkKind::Vxlan(vxlan) if vxlan.vni == wanted => None,
        LinkKind::Vxlan(vxlan) => Some(format!("it has the network identifier {}", vxlan.vni)),
        LinkKind::Wireguard
        | LinkKind::Ipip(_)
        | LinkKind::Bridge
        | LinkKind::Veth(_)
        | LinkKind::Other(_) => Some("it is no VXLAN device".to_owned()),
    }
}

/// Removes what a kernel holds in a scope.
pub fn clean(kernel: &mut impl Kernel, scope: &Scope, mode: Mode) -> Vec<Row> {
    let mut found = match kernel.observe(scope) {
        Ok(found) => found,
        Err(err) => return vec![unreadable(&err)],
    };
    let mut rows = Vec::new();
    found.links.retain(|name, link| {
        let reason = strangeness(name, link);
        rows.extend(
            reason
                .iter()
                .map(|reason| Row::new(Outcome::Kept, format!("link {name}: {reason}"))),
        );
        reason.is_none()
    });
    let ops = plan(&State::default(), &found, Prune::Remove);
    if mode == Mode::DryRun {
        rows.extend(ops.iter().map(|op| Row::new(Outcome::WouldRemove, describe(op))));
        return rows;
    }
    let results = kernel.apply(&ops);
    let left = match kernel.observe(scope) {
        Ok(left) => plan(&State::default(), &left, Prune::Remove),
        Err(err) => {
            rows.push(unreadable(&err));
            return rows;
        }
    };
    for (op, result) in ops.iter().zip(results) {
        let is_left = left.iter().any(|rest| rest.object() == op.object());
        rows.push(match result {
            _ if !is_left => Row::new(Outcome::Removed, describe(op)),
            Err(err) => Row::new(Outcome::Failed, format!("{}: {}", describe(op), sentence(&err))),
            Ok(()) => Row::new(Outcome::Failed, format!("{}: it is there again", describe(op))),
        });
    }
    rows
}

fn unreadable(err: &netstate::KernelError) -> Row {
    let mut what = format!("the kernel's state cannot be read: {}", sentence(err));
    if err.class == ErrorClass::Denied {
        what.push_str("; run this as root");
    }
    Row::new(Outcome::Failed, what)
}

/// What an operation that removes something is about.
fn describe(op: &Op) -> String {
    let mut text = op.object().to_string();
    if let Op::SetIptables(_, change) = op {
        let IptablesChange { observed, .. } = change.as_ref();
        for chain in observed.chains.keys() {
            let _written = write!(text, " {chain}");
        }
        let jumps = observed.jumps.len();
        if jumps > 0 {
            let _written = write!(text, ", rules that lead there: {jumps}");
        }
    }
    text
}
