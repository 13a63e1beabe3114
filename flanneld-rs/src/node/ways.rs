//! Which way each peer is reached, where the backend leaves a choice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use netstate::{ErrorClass, ObjectKey};
use tracing::{info, warn};

use super::holding::{Holding, MAX_LOGGED_CHANGES};
use super::reach::{Found, Reach};
use super::{Node, Now, Stage};
use crate::desired::{Carrier, Peer, Way};

impl Node {
    pub(super) fn host_changed(&mut self) {
        if let Stage::Holding(holding) = &mut self.stage {
            holding.host_changed();
        }
    }

    pub(super) fn routes_found(&mut self, now: Now, found: Found) {
        if let Err(reason) = &found {
            warn!(
                reason,
                "cannot look up the routes to peers, will try again: new ones are tunnelled"
            );
        }
        if let Stage::Holding(holding) = &mut self.stage {
            holding.ways_found(now.monotonic, found);
        }
    }

    /// A peer is not cut off by a look-up that promised too much, or was overtaken: a route whose place is taken aside, which
    /// the tunnel would need as well, what the kernel refuses the tunnel can do.
    pub(super) fn leave_refused_to_the_tunnel(&mut self) {
        let Stage::Holding(holding) = &mut self.stage else {
            return;
        };
        if !holding.looks_up_ways() {
            return;
        }
        for (object, failure) in self.engine.failures() {
            let refusal = failure.refusal.as_ref();
            if let (ObjectKey::Route(key), Some(refusal)) = (object, refusal)
                && refusal.class != ErrorClass::Exists
                && holding.refused_route(key.dst)
            {
                warn!(subnet = %key.dst, err = %refusal, "the kernel refuses the plain route to a peer, tunnelling it");
            }
        }
    }
}

impl Holding {
    /// The way to a peer, as far as it is known.
    pub(super) fn way(&self, peer: &Peer) -> Way {
        let known = self.reach.as_ref().and_then(|reach| reach.way(peer.public_ip));
        known.cloned().unwrap_or(Way::Carrier)
    }

    pub(super) fn knows_way(&self, peer: &Peer) -> bool {
        let Some(reach) = &self.reach else { return true };
        reach.way(peer.public_ip).is_some()
    }

    /// Whether peers are left out of the goal until the ways to them are known.
    pub(super) fn awaits_ways(&self) -> bool {
        self.reach.as_ref().is_some_and(Reach::is_waiting)
    }

    /// Whether the ways to peers are looked up.
    pub(super) const fn looks_up_ways(&self) -> bool {
        self.reach.is_some()
    }

    /// The addresses whose routes are to be looked up now, if any.
    pub(super) fn look_up(&mut self, now: Duration) -> Option<BTreeSet<IpAddr>> {
        let peers = self.sides.iter().flat_map(|held| held.peers.accepted.values());
        let all = || peers.map(|peer| peer.public_ip).collect();
        self.reach.as_mut()?.next(now, all)
    }

    /// When that may be the case next.
    pub(super) fn look_up_at(&self) -> Option<Duration> {
        self.reach.as_ref()?.wake_at()
    }

    /// Notes that routes, addresses or links of this host changed.
    pub(super) fn host_changed(&mut self) {
        if let Some(reach) = &mut self.reach {
            reach.host_changed();
        }
    }

    /// Takes what a look-up found.
    pub(super) fn ways_found(&mut self, now: Duration, found: Found) {
        let devices = self.sides.iter().filter_map(|held| match &held.side.carrier {
            Carrier::Vxlan(device) => Some(device.name.clone()),
            Carrier::Ipip(device) => Some(device.name.clone()),
            Carrier::HostGw(_) | Carrier::Wireguard(_) | Carrier::Alloc | Carrier::Extension => None,
        });
        let devices = devices.collect();
        if let Some(reach) = &mut self.reach {
            let changed = reach.found(now, found, &devices);
            self.take_ways(&changed);
        }
    }

    /// Leaves a peer to the tunnel where the kernel refused the plain route to it; true if it was to have one.
    pub(super) fn refused_route(&mut self, subnet: IpNetwork) -> bool {
        let Some(peer) = self.accepted(subnet).copied() else {
            return false;
        };
        let before = self.way(&peer);
        let is_refused = self
            .reach
            .as_mut()
            .is_some_and(|reach| reach.refuse(peer.public_ip));
        if is_refused {
            self.take_ways(&[(peer.public_ip, Some(before))].into());
        }
        is_refused
    }

    /// Notes the peers to whose addresses the way has changed, given as it was before.
    fn take_ways(&mut self, before: &BTreeMap<IpAddr, Option<Way>>) {
        if before.is_empty() {
            return;
        }
        let mut moved = Vec::new();
        for (subnet, peer) in self.sides.iter().flat_map(|held| &held.peers.accepted) {
            // A peer whose way was not known is among those that changed, as it was in the goal.
            if let Some(Some(way)) = before.get(&peer.public_ip) {
                moved.push((*subnet, *peer));
                let was = || Some((*peer, way.clone()));
                self.changed.entry(*subnet).or_insert_with(was);
            }
        }
        self.log_moves(&moved);
    }

    pub(super) fn accepted(&self, subnet: IpNetwork) -> Option<&Peer> {
        self.side_of(subnet)?.peers.accepted.get(&subnet)
    }

    fn log_moves(&self, moved: &[(IpNetwork, Peer)]) {
        if moved.len() > MAX_LOGGED_CHANGES {
            info!(
                moved = moved.len(),
                "peers moved between the tunnel and plain routes"
            );
            return;
        }
        for (subnet, peer) in moved {
            match self.way(peer) {
                Way::Direct(link) => {
                    info!(%subnet, public_ip = %peer.public_ip, %link, "peer is on a link of this host, moving it to a plain route");
                }
                Way::Carrier => {
                    info!(%subnet, public_ip = %peer.public_ip, "no plain route leads to the peer, moving it to the tunnel");
                }
            }
        }
    }
}
