//! What a node does when the interface that carries its outer packets is not what it was.

use std::collections::BTreeSet;
use std::net::IpAddr;

use net_types::IfName;
use tracing::{debug, info, warn};

use super::{Action, CarrierSettings, HostAddrs, HostLinks, Move, Node, SideSettings, Stage, telling};
use crate::iface_match::External;
use crate::settings;

impl Node {
    /// The interface that carries the outer packets.
    #[must_use]
    pub const fn parent(&self) -> &IfName {
        &self.settings.parent
    }

    /// Takes what the host's links are now.
    pub(super) fn note_host_links(&mut self, links: &HostLinks) -> Option<Action> {
        self.note_host_addrs(&links.addrs);
        let carried_bytes = *links.mtus.get(&self.settings.parent)?;
        self.carry(carried_bytes)
    }

    /// Has the interface chosen anew, as long as this node lacks an address by which others reach it: lost while it holds
    /// its lease, or before.
    pub(super) fn look_for_interface(&mut self) -> Option<Action> {
        let is_due = !self.looks_for_interface
            && matches!(self.stage, Stage::Holding(_))
            && !self.standing.lost_addrs.is_empty();
        self.looks_for_interface |= is_due;
        is_due.then_some(Action::LookForInterface)
    }

    /// Moves to the addresses that a start would choose now, if an address is still lost. While the store is out of reach
    /// nobody could hear of them, and this node would have nothing to keep its kernel by.
    pub(super) fn interface_found(&mut self, found: Result<External, String>) -> Option<Action> {
        if let (Ok(to), Stage::Holding(holding)) = (&found, &self.stage)
            && !self.standing.lost_addrs.is_empty()
            && self.standing.store_connected
            && self.settings.sides.iter().all(|side| self.is_held(side, to))
        {
            let lease = holding.keeper.lease().clone();
            return Some(Action::Move(Box::new(Move {
                to: to.clone(),
                lease,
            })));
        }
        if let Err(reason) = &found {
            debug!(reason, "no interface has an address in place of the lost one");
        }
        self.looks_for_interface = false;
        None
    }

    /// Whether a family has an address there that this host did not lose.
    fn is_held(&self, side: &SideSettings, external: &External) -> bool {
        let ends = if side.is_ipv6() { external.v6 } else { external.v4 };
        ends.is_some_and(|ends| !self.standing.lost_addrs.contains(&ends.local))
    }

    /// Takes what the interface carries now: what pods may send follows.
    fn carry(&mut self, carried_bytes: u32) -> Option<Action> {
        let settings = &mut self.settings;
        let sides = settings.sides.iter();
        let mtus = sides.map(|side| settings::mtu_over(side, &settings.conf.backend, carried_bytes));
        let Some(mtus) = mtus.collect::<Option<Vec<_>>>() else {
            if self.standing.too_small_bytes.replace(carried_bytes) != Some(carried_bytes) {
                warn!(
                    link = %settings.parent,
                    mtu = carried_bytes,
                    pods = settings.pod_mtu_bytes,
                    "the interface's MTU leaves too little for pods, theirs stays: raise it, or their large packets are lost"
                );
            }
            return None;
        };
        let was_too_small = self.standing.too_small_bytes.take().is_some();
        let pod_mtu_bytes = mtus.iter().copied().min()?;
        let mut is_same = settings.pod_mtu_bytes == pod_mtu_bytes;
        for (side, mtu_bytes) in settings.sides.iter_mut().zip(&mtus) {
            let present = match &mut side.carrier {
                CarrierSettings::Vxlan(device) => &mut device.mtu_bytes,
                CarrierSettings::Wireguard(device) => &mut device.mtu_bytes,
                CarrierSettings::Ipip(device) => &mut device.mtu_bytes,
                CarrierSettings::HostGw | CarrierSettings::Alloc | CarrierSettings::Extension => continue,
            };
            is_same &= *present == *mtu_bytes;
            *present = *mtu_bytes;
        }
        if is_same {
            if was_too_small {
                info!(link = %settings.parent, mtu = carried_bytes, "the interface's MTU is large enough again");
            }
            return None;
        }
        info!(
            link = %settings.parent,
            mtu = carried_bytes,
            before = settings.pod_mtu_bytes,
            pods = pod_mtu_bytes,
            "the interface's MTU has changed: new pods have another one, too"
        );
        settings.pod_mtu_bytes = pod_mtu_bytes;
        match &mut self.stage {
            Stage::Holding(holding) => holding.carry(&mtus, pod_mtu_bytes),
            Stage::LookingForDevice
            | Stage::LookingForLease(_)
            | Stage::StartCommand(_)
            | Stage::AcquiringLease { .. }
            | Stage::Stopped => None,
        }
    }

    /// Tells when an address goes by which this node and the others reach each other, and when it is back; follows it to
    /// the link that has it.
    fn note_host_addrs(&mut self, addrs: &HostAddrs) {
        let sides = self.settings.sides.iter();
        let carrying = sides.filter(|side| !matches!(side.carrier, CarrierSettings::Alloc));
        let locals: BTreeSet<IpAddr> = carrying.map(|side| side.local).collect();
        let (kept, lost): (BTreeSet<_>, BTreeSet<_>) =
            locals.into_iter().partition(|local| addrs.contains_key(local));
        telling::compare_addrs(&self.standing.lost_addrs, &lost);
        self.standing.lost_addrs = lost;
        // Of two families that are on different links the first one decides, whose tunnel is the more common.
        let holders = kept.iter().filter_map(|local| addrs.get(local));
        let mut reachable = holders.filter(|links| !links.is_empty());
        if let Some(links) = reachable.next()
            && !links.contains(&self.settings.parent)
            && let Some(parent) = links.first()
        {
            self.follow(parent.clone());
        }
    }

    /// Takes this link for the one that carries the outer packets from here on.
    pub(super) fn follow(&mut self, parent: IfName) {
        let before = std::mem::replace(&mut self.settings.parent, parent);
        let parent = &self.settings.parent;
        if before == *parent {
            return;
        }
        info!(%before, now = %parent, "the interface with this node's addresses is another one, or has another name: following it");
        if let Stage::Holding(holding) = &mut self.stage {
            holding.follow(&before, parent);
        }
    }
}
