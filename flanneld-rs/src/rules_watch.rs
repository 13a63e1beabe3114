//! Which of the kernel's notices concern this node's packet filter rules.

use std::collections::BTreeSet;
use std::future::pending;
use std::time::Duration;

use netlink_monitor::{MonitorError, RulesMonitor, RulesNotice};
use netstate::iptables::IptablesVariant;
use netstate::nft::TableKey;
use tokio::time::{Instant, sleep_until};

use crate::desired::{FilterMode, rules_scope_of};

/// Between two looks at rules where nobody tells of changes, as a safeguard where the kernel does.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);
/// So many changes are reported without a pause after quiet: two that a start makes itself, and one of somebody else.
const BURST: u32 = 3;

/// Follows the kernel's notices about rules.
pub struct RulesWatch {
    /// `None` where the kernel gives no notices.
    monitor: Option<RulesMonitor>,
    tables: BTreeSet<TableKey>,
    allowance: Allowance,
    /// Whether a change waits to be reported.
    changed: bool,
}

/// How often changes are reported: others change iptables' tables all the time, and looking at them costs processes.
/// A few are reported at once, so that a flush after quiet is, although our own changes are noticed too.
struct Allowance {
    /// Between two reports in the long run.
    pause: Duration,
    /// Until when, had they come one a pause, the reports made so far would have reached.
    used_until: Option<Instant>,
}

impl Allowance {
    /// The earliest moment of the next report; `None` when there was none yet.
    fn next(&self) -> Option<Instant> {
        self.used_until
            .and_then(|end| end.checked_sub(self.pause * (BURST - 1)))
    }

    /// Counts a report.
    fn take(&mut self, now: Instant) {
        let begin = self.used_until.map_or(now, |end| end.max(now));
        self.used_until = Some(begin + self.pause);
    }
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
                    family: key.family.into(),
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
            allowance: Allowance {
                pause,
                used_until: None,
            },
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
                if let Some(then) = self.allowance.next() {
                    sleep_until(then).await;
                }
                self.changed = false;
                self.allowance.take(Instant::now());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_changes_are_reported_at_once_and_then_one_a_pause() {
        let pause = Duration::from_secs(5);
        let mut allowance = Allowance {
            pause,
            used_until: None,
        };
        let start = Instant::now() + pause * 10;
        let mut now = start;
        let mut reports = Vec::new();
        for _ in 0..6 {
            now = allowance.next().map_or(now, |then| then.max(now));
            allowance.take(now);
            reports.push((now - start).as_secs());
        }
        assert_eq!(reports, [0, 0, 0, 5, 10, 15]);
        now += pause * 2;
        assert!(allowance.next().is_some_and(|then| then <= now));
    }
}
