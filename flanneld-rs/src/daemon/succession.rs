//! Which network configuration counts in this process, one after another.

use flannel_types::{Lease, NetConf};
use tracing::warn;

use super::DaemonError;
use crate::iface_match::External;
use crate::node::{Move, RefusedConf, StopReason};

/// The configuration that counts, between those before and after it.
pub(super) struct Succession {
    pub(super) conf: NetConf,
    /// The interface that it was tried out with.
    pub(super) external: Option<External>,
    /// What counts again if it does not come into force.
    pub(super) before: Option<(NetConf, External)>,
    /// The own lease of the run before, if this node had other addresses then.
    pub(super) earlier: Option<Lease>,
    /// What did not come into force.
    pub(super) refused: Option<RefusedConf>,
}

/// One configuration follows another.
pub(super) struct Handover {
    /// With the interface that it was tried out with.
    pub(super) new: (NetConf, External),
    pub(super) before: (NetConf, External),
}

impl Succession {
    pub(super) const fn of(conf: NetConf) -> Self {
        Self {
            conf,
            external: None,
            before: None,
            earlier: None,
            refused: None,
        }
    }

    pub(super) fn advance(&mut self, change: Handover) {
        let (conf, external) = change.new;
        (self.conf, self.external) = (conf, Some(external));
        self.before = Some(change.before);
        self.earlier = None;
    }

    /// Lets the same configuration count at other addresses of this node.
    pub(super) fn move_to(&mut self, moved: Move) {
        self.external = Some(moved.to);
        self.before = None;
        self.earlier = Some(moved.lease);
    }

    /// Lets the configuration before count again, if the end is one that it may not come to.
    pub(super) fn go_back(&mut self, err: DaemonError) -> Result<(), DaemonError> {
        let DaemonError::Stopped(StopReason::NoLease(reason) | StopReason::NotUp(reason)) = &err else {
            return Err(err);
        };
        let Some((earlier, external)) = self.before.take() else {
            return Err(err);
        };
        warn!(
            reason,
            "the changed network configuration does not come into force, the one before counts again"
        );
        let conf = std::mem::replace(&mut self.conf, earlier);
        self.external = Some(external);
        let known = self.refused.take().filter(|refused| refused.conf == conf);
        let attempts = known.map_or(1, |refused| refused.attempts.saturating_add(1));
        self.refused = Some(RefusedConf { conf, attempts });
        Ok(())
    }
}
