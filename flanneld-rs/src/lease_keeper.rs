//! When this node's own lease is renewed.

use std::time::Duration;

use flannel_types::{Lease, UnixTime};

#[cfg(test)]
mod tests;

/// Renewals, failed ones included, are at least this far apart (flannel `pkg/subnet/etcd/local_manager.go`).
const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// A store that does not show the lease within this time is asked for it; watches take a few seconds at most.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);

/// Keeps watch over the own lease's expiry. Wall-clock time, because the expiry is; a jump of the clock is met at
/// the next call.
#[derive(Debug)]
pub struct LeaseKeeper {
    lease: Lease,
    margin: Duration,
    not_before: UnixTime,
    renewing: bool,
    /// Until when the store must have shown the lease.
    shown_by: Option<UnixTime>,
}

impl LeaseKeeper {
    /// Watches over a lease that is to be renewed this long before its end.
    #[must_use]
    pub const fn new(lease: Lease, margin: Duration) -> Self {
        Self {
            lease,
            margin,
            not_before: UnixTime::from_secs(0),
            renewing: false,
            shown_by: None,
        }
    }

    /// Takes the news that the store does not show the lease. If it does not soon, a renewal tells whether the lease
    /// is lost: it may have been removed before the store's watch ever showed it.
    pub fn doubt(&mut self, wall: UnixTime) {
        self.shown_by.get_or_insert(wall.plus(SHOWN_WITHIN));
    }

    /// Takes the news that the store shows the lease.
    pub const fn shown(&mut self) {
        self.shown_by = None;
    }

    /// The lease as it was last acquired or renewed.
    #[must_use]
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Returns the lease when it is time to renew it; at most once until [`Self::renewed`] is called.
    pub fn due(&mut self, wall: UnixTime) -> Option<Lease> {
        if self.renewing || self.renew_at()? > wall {
            return None;
        }
        self.renewing = true;
        Some(self.lease.clone())
    }

    /// Takes the outcome of a renewal; `None` when it failed.
    pub fn renewed(&mut self, wall: UnixTime, lease: Option<Lease>) {
        self.renewing = false;
        self.not_before = wall.plus(MIN_INTERVAL);
        if let Some(lease) = lease {
            self.lease = lease;
            self.shown_by = None;
        }
    }

    /// How long to wait for the next renewal; `None` while one is under way, and for a reservation that is not in doubt.
    #[must_use]
    pub fn wait(&self, wall: UnixTime) -> Option<Duration> {
        let at = self.renew_at().filter(|_| !self.renewing)?;
        Some(Duration::from_secs(at.secs().saturating_sub(wall.secs())))
    }

    fn renew_at(&self) -> Option<UnixTime> {
        let expires = self.lease.expires.map(UnixTime::secs);
        let regular = expires.map(|end| UnixTime::from_secs(end.saturating_sub(self.margin.as_secs())));
        let due = regular.into_iter().chain(self.shown_by).min()?;
        Some(due.max(self.not_before))
    }
}
