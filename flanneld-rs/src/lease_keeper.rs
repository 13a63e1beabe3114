//! When this node's own lease is renewed.

use std::time::Duration;

use flannel_types::{Lease, UnixTime};

#[cfg(test)]
mod tests;

/// Renewals, failed ones included, are at least this far apart (flannel `pkg/subnet/etcd/local_manager.go`).
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// Keeps watch over the own lease's expiry. Wall-clock time, because the expiry is; a jump of the clock is met at
/// the next call.
#[derive(Debug)]
pub struct LeaseKeeper {
    lease: Lease,
    margin: Duration,
    not_before: UnixTime,
    renewing: bool,
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
        }
    }

    /// The lease as it was last acquired or renewed.
    #[must_use]
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Whether the lease has run out.
    #[must_use]
    pub fn is_expired(&self, wall: UnixTime) -> bool {
        self.lease.expires.is_some_and(|end| end <= wall)
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
        }
    }

    /// How long to wait for the next renewal; `None` for a reservation, or while one is under way.
    #[must_use]
    pub fn wait(&self, wall: UnixTime) -> Option<Duration> {
        let at = self.renew_at().filter(|_| !self.renewing)?;
        Some(Duration::from_secs(at.secs().saturating_sub(wall.secs())))
    }

    fn renew_at(&self) -> Option<UnixTime> {
        let due = UnixTime::from_secs(self.lease.expires?.secs().saturating_sub(self.margin.as_secs()));
        Some(due.max(self.not_before))
    }
}
