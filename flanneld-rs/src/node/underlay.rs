//! What a node does when the interface that carries its outer packets is not what it was.

use std::collections::BTreeSet;
use std::net::IpAddr;

use net_types::IfName;
use tracing::info;

use super::{CarrierSettings, HostAddrs, Node, Stage, telling};

impl Node {
    /// The interface that carries the outer packets.
    #[must_use]
    pub const fn parent(&self) -> &IfName {
        &self.settings.parent
    }

    /// Tells when an address goes by which this node and the others reach each other, and when it is back; follows it to
    /// the link that has it.
    pub(super) fn note_host_addrs(&mut self, addrs: &HostAddrs) {
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
