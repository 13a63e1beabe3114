//! Which of the kernel's notices concern this node's packet filter rules.

use std::collections::BTreeSet;
use std::future::pending;
use std::time::Duration;

use netlink_monitor::{MonitorError, RulesMonitor, RulesNotice};
use netstate::iptables::{IptablesFamily, IptablesVariant};
use netstate::nft::{Family, TableKey};
use tokio::time::{Instant, sleep_until};

use crate::desired::{FilterMode, rules_scope_of};

/// Between two looks at rules where nobody tells of changes, as a safeguard where the kernel does.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);

/// Follows the kernel's notices about rules.
pub struct RulesWatch {
    /// `None` where the kernel gives no notices.
    monitor: Option<RulesMonitor>,
    tables: BTreeSet<TableKey>,
    /// Least time between two reports: others change iptables' tables all the time, and looking at them costs
    /// processes.
    pause: Duration,
    /// Not before this is the next change reported.
    quiet_until: Option<Instant>,
    /// Whether a change waits to be reported.
    changed: bool,
}

impl RulesWatch {
    /// Begins to follow the tables that a mode's rules are in.
    ///
    /// # Errors
    /// No connection to the kernel can be had, though it has the rules.
    pub fn open(mode: FilterMode, audit_interval: Duration) -> Result<Self, MonitorError> {
        let scope = rules_scope_of(mode);
        let (tables, pause) = match mode {
            FilterMode::Nftables => (scope.nft, Duration::ZERO),
            FilterMode::Iptables(_) => {
                let tables = scope.iptables.into_keys().map(|key| TableKey {
                    family: match key.family {
                        IptablesFamily::V4 => Family::Ip,
                        IptablesFamily::V6 => Family::Ip6,
                    },
                    name: key.table,
                });
                (tables.collect(), audit_interval)
            }
        };
        let monitor = match mode {
            FilterMode::Nftables | FilterMode::Iptables(IptablesVariant::Nft) => Some(RulesMonitor::open()?),
            FilterMode::Iptables(IptablesVariant::Legacy) => None,
        };
        Ok(Self {
            monitor,
            tables,
            pause,
            quiet_until: None,
            changed: false,
        })
    }

    /// How often the rules must be looked at without a notice, given how often where there are none.
    #[must_use]
    pub fn audit_interval(&self, without_notices: Duration) -> Duration {
        match self.monitor {
            Some(_) => AUDIT_INTERVAL.max(without_notices),
            None => without_notices,
        }
    }

    /// Waits until rules changed that may be this node's. Cancel-safe: what was heard is noted in one step.
    pub async fn changed(&mut self) {
        loop {
            if self.changed {
                if let Some(end) = self.quiet_until {
                    sleep_until(end).await;
                }
                self.changed = false;
                self.quiet_until = Some(Instant::now() + self.pause);
                return;
            }
            let Some(monitor) = &mut self.monitor else {
                return pending().await;
            };
            let mut notice = Some(monitor.next().await);
            while let Some(taken) = notice {
                self.changed |= match &taken {
                    RulesNotice::Lost => true,
                    RulesNotice::NftChanged(table) => self.tables.contains(table),
                };
                notice = monitor.try_next();
            }
        }
    }
}
