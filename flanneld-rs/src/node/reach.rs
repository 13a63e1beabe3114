//! Which peers are on a link of this host, as far as it is known, and when that is looked up.
//!
//! Routes to peers are looked up in batches outside of the node: of a new peer at once, of all when something changed
//! that they may follow from, and now and then without a notice. A peer whose way is not known yet is not programmed,
//! and what was programmed for it stays: at a start its route may be either kind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use net_types::IfName;

use crate::desired::Way;

/// All are looked up this long after the last time, even if nothing seems to have changed: policy rules and other tables
/// than the main one give no notice.
const REFRESH: Duration = Duration::from_secs(60);
/// Under a storm of changes all are looked up as often as this.
const INTERVAL: Duration = Duration::from_secs(1);
/// A look-up that failed is repeated after this long.
const RETRY: Duration = Duration::from_secs(5);

/// What a look-up found: the addresses that are on a link, with the link; or why there is no answer.
pub(super) type Found = Result<BTreeMap<IpAddr, IfName>, String>;

/// The ways to the peers' addresses.
#[derive(Debug, Default)]
pub(super) struct Reach {
    known: BTreeMap<IpAddr, Way>,
    /// Those of peers that were never looked up.
    unknown: BTreeSet<IpAddr>,
    /// Where the kernel refused a plain route although its look-up promised one: the tunnel serves until the look-up says
    /// something else, or something changes.
    refused: BTreeMap<IpAddr, IfName>,
    /// What is being looked up.
    under_way: Option<BTreeSet<IpAddr>>,
    /// What is known may be outdated.
    is_stale: bool,
    /// When all may be looked up again.
    all_from: Duration,
    /// When all are looked up without a reason.
    refresh_at: Duration,
}

impl Reach {
    /// The way to an address; `None` as long as it was not looked up.
    pub(super) fn way(&self, address: IpAddr) -> Option<&Way> {
        self.known.get(&address)
    }

    /// Asks for the way to an address.
    pub(super) fn want(&mut self, address: IpAddr) {
        if !self.known.contains_key(&address) {
            self.unknown.insert(address);
        }
    }

    /// Whether the way to an address that was asked for is not known yet.
    pub(super) fn is_waiting(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Notes that routes, addresses or links of this host changed.
    pub(super) fn host_changed(&mut self) {
        self.is_stale = true;
        self.refused.clear();
    }

    /// Takes one link for another, until the next look-up: what is on it is most likely on the other.
    pub(super) fn rename(&mut self, before: &IfName, now: &IfName) {
        for way in self.known.values_mut() {
            if *way == Way::Direct(before.clone()) {
                *way = Way::Direct(now.clone());
            }
        }
    }

    /// Notes that the kernel refused a plain route to an address; true if it was to have one.
    pub(super) fn refuse(&mut self, address: IpAddr) -> bool {
        let Some(way) = self.known.get_mut(&address) else {
            return false;
        };
        let Way::Direct(link) = std::mem::replace(way, Way::Carrier) else {
            return false;
        };
        self.refused.insert(address, link);
        self.is_stale = true;
        true
    }

    /// What to look up now, if anything, of all that peers have; one look-up is under way at a time.
    pub(super) fn next(
        &mut self,
        now: Duration,
        all: impl FnOnce() -> BTreeSet<IpAddr>,
    ) -> Option<BTreeSet<IpAddr>> {
        if self.under_way.is_some() {
            return None;
        }
        let asked = if self.is_due(now) {
            let all = all();
            self.known.retain(|address, _| all.contains(address));
            self.is_stale = false;
            self.all_from = now + INTERVAL;
            self.refresh_at = now + REFRESH;
            all
        } else {
            self.unknown.clone()
        };
        if asked.is_empty() {
            self.unknown.clear();
            return None;
        }
        self.under_way = Some(asked.clone());
        Some(asked)
    }

    fn is_due(&self, now: Duration) -> bool {
        self.is_stale && self.all_from <= now || self.refresh_at <= now
    }

    /// Takes the answer; returns the addresses whose ways are others than before, with those. `own` are the devices of this
    /// node's, through which no peer's address is reached.
    pub(super) fn found(
        &mut self,
        now: Duration,
        found: Found,
        own: &BTreeSet<IfName>,
    ) -> BTreeMap<IpAddr, Option<Way>> {
        let asked = self.under_way.take().unwrap_or_default();
        let mut changed = BTreeMap::new();
        let found = found.map_err(|_| {
            self.is_stale = true;
            self.all_from = now + RETRY;
        });
        for address in asked {
            self.unknown.remove(&address);
            let way = match &found {
                Ok(on_link) => {
                    self.way_by(address, on_link.get(&address).filter(|link| !own.contains(*link)))
                }
                // The tunnel works in any case; what is known stays.
                Err(()) => self.known.get(&address).cloned().unwrap_or(Way::Carrier),
            };
            let before = self.known.get(&address).cloned();
            if before.as_ref() != Some(&way) {
                self.known.insert(address, way);
                changed.insert(address, before);
            }
        }
        changed
    }

    /// The way to an address that was found on a link, or on none.
    fn way_by(&mut self, address: IpAddr, link: Option<&IfName>) -> Way {
        if self.refused.get(&address) != link {
            self.refused.remove(&address);
        }
        match link {
            Some(link) if !self.refused.contains_key(&address) => Way::Direct(link.clone()),
            Some(_) | None => Way::Carrier,
        }
    }

    /// When [`Self::next`] may next have something without any call in between.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        if self.under_way.is_some() {
            return None;
        }
        let stale = self.is_stale.then_some(self.all_from);
        Some(stale.map_or(self.refresh_at, |at| at.min(self.refresh_at)))
    }
}

#[cfg(test)]
mod tests;
