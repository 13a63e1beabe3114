//! A changed network configuration on its way into force: it is tried out before the one that counts is given up, and tried
//! again where it cannot be used.

use std::time::Duration;

use flannel_types::NetConf;
use tracing::{debug, info, warn};

use super::{Action, RefusedConf};
use crate::conf_change::{self, ConfChange};

/// A configuration that cannot be used is tried again after this long, which doubles each time.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// Nobody waits for it longer than this. Each attempt costs a look at the host, or a moment without news of the peers.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// What the store says of the configuration, beside the one that counts.
#[derive(Debug)]
pub(super) struct NewConf {
    /// The one that counts.
    running: NetConf,
    /// The one that was last seen in the store.
    seen: NetConf,
    wanted: Option<Wanted>,
    /// The one that is being tried out.
    trying: Option<NetConf>,
    /// The one that an earlier life could not go on by.
    refused: Option<RefusedConf>,
}

/// A configuration that is to come into force.
#[derive(Debug)]
struct Wanted {
    conf: NetConf,
    /// How often it was tried in vain.
    attempts: u32,
    try_at: Duration,
    /// Why it could not be used last, as the log said it.
    told: Option<String>,
}

impl NewConf {
    pub(super) fn new(running: NetConf, refused: Option<RefusedConf>) -> Self {
        Self {
            seen: running.clone(),
            running,
            wanted: None,
            trying: None,
            refused,
        }
    }

    /// Takes what the store says; a change that must wait for a restart is warned of once.
    pub(super) fn see(&mut self, now: Duration, conf: &NetConf) {
        if self.seen == *conf {
            return;
        }
        self.seen = conf.clone();
        self.wanted = match conf_change::change(&self.running, conf) {
            None => {
                info!("the network configuration is again the one that counts");
                None
            }
            Some(ConfChange::Live) => Some(self.wanted_now(now, conf)),
            Some(ConfChange::AtRestart(what)) => {
                warn!(
                    "the network configuration has changed in {what}, which may cut pods off: the one before counts until \
                     flanneld is restarted, on one node after the other"
                );
                None
            }
        };
    }

    fn wanted_now(&self, now: Duration, conf: &NetConf) -> Wanted {
        let refused = self.refused.as_ref().filter(|refused| refused.conf == *conf);
        let attempts = refused.map_or(0, |refused| refused.attempts);
        Wanted {
            conf: conf.clone(),
            attempts,
            try_at: now + wait_after(attempts),
            told: None,
        }
    }

    /// Takes the one that counts for the one that was last seen: another one is looked at when it is seen again.
    pub(super) fn forget(&mut self) {
        self.seen = self.running.clone();
        self.wanted = None;
    }

    /// What is to be tried out now.
    pub(super) fn due(&mut self, now: Duration) -> Option<Action> {
        let wanted = self.wanted.as_ref().filter(|wanted| wanted.try_at <= now)?;
        if self.trying.is_some() {
            return None;
        }
        self.trying = Some(wanted.conf.clone());
        Some(Action::TryConf(Box::new(wanted.conf.clone())))
    }

    /// When something is to be tried out, by time alone.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        let wanted = self.wanted.as_ref().filter(|_| self.trying.is_none());
        wanted.map(|wanted| wanted.try_at)
    }

    /// Takes what came of it. What was changed or taken back meanwhile is not applied.
    pub(super) fn tried(&mut self, now: Duration, result: Result<(), String>) -> Option<Action> {
        let tried = self.trying.take()?;
        let wanted = self.wanted.as_mut().filter(|wanted| wanted.conf == tried)?;
        let Err(reason) = result else {
            self.wanted = None;
            return Some(Action::ApplyConf(Box::new(tried)));
        };
        wanted.attempts = wanted.attempts.saturating_add(1);
        let wait = wait_after(wanted.attempts);
        wanted.try_at = now + wait;
        let again_secs = wait.as_secs();
        if wanted.told.as_ref() == Some(&reason) {
            debug!(
                reason,
                again_secs, "the changed network configuration still cannot be used"
            );
        } else {
            warn!(
                reason,
                again_secs,
                "the network configuration has changed and cannot be used here; the one before counts, will try again"
            );
            wanted.told = Some(reason);
        }
        None
    }
}

/// How long to wait after so many attempts in vain.
fn wait_after(attempts: u32) -> Duration {
    let doubled = |times: u32| FIRST_WAIT.saturating_mul(2_u32.saturating_pow(times));
    attempts
        .checked_sub(1)
        .map_or(Duration::ZERO, |times| doubled(times).min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "";
    const SMALL: &str = r#","Backend":{"Type":"vxlan","MTU":1400}"#;
    const NFT: &str = r#","EnableNFTables":true"#;

    fn conf(rest: &str) -> NetConf {
        NetConf::parse(&format!(r#"{{"Network":"10.244.0.0/16"{rest}}}"#)).unwrap()
    }

    fn tries(rest: &str) -> Action {
        Action::TryConf(Box::new(conf(rest)))
    }

    const fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn one_that_cannot_be_used_is_tried_again_less_and_less_often() {
        let mut new = NewConf::new(conf(PLAIN), None);
        new.see(at(0), &conf(SMALL));
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(new.due(now), Some(tries(SMALL)));
            assert_eq!((new.due(now), new.wake_at()), (None, None));
            assert_eq!(new.tried(now, Err("no route".to_owned())), None);
            let next = new.wake_at().unwrap();
            assert_eq!(new.due(next - Duration::from_millis(1)), None);
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(new.due(now), Some(tries(SMALL)));
        let apply = Action::ApplyConf(Box::new(conf(SMALL)));
        assert_eq!(new.tried(now, Ok(())), Some(apply));
    }

    #[test]
    fn what_changes_while_it_is_tried_out_is_not_applied() {
        let mut new = NewConf::new(conf(PLAIN), None);
        new.see(at(0), &conf(SMALL));
        assert_eq!(new.due(at(0)), Some(tries(SMALL)));
        new.see(at(1), &conf(NFT));
        assert_eq!(new.due(at(1)), None);
        assert_eq!(new.tried(at(1), Ok(())), None);
        assert_eq!(new.due(at(1)), Some(tries(NFT)));
        // Taken back.
        new.see(at(2), &conf(PLAIN));
        assert_eq!(new.tried(at(2), Ok(())), None);
        assert_eq!((new.due(at(999)), new.wake_at()), (None, None));
        // There and back is the same as there.
        new.see(at(1000), &conf(SMALL));
        assert_eq!(new.due(at(1000)), Some(tries(SMALL)));
        new.see(at(1001), &conf(PLAIN));
        new.see(at(1002), &conf(SMALL));
        let apply = Action::ApplyConf(Box::new(conf(SMALL)));
        assert_eq!(new.tried(at(1003), Ok(())), Some(apply));
    }

    #[test]
    fn one_that_an_earlier_life_could_not_go_on_by_waits_for_its_time() {
        let refused = RefusedConf {
            conf: conf(SMALL),
            attempts: 2,
        };
        let mut new = NewConf::new(conf(PLAIN), Some(refused));
        new.see(at(5), &conf(SMALL));
        assert_eq!((new.due(at(5)), new.wake_at()), (None, Some(at(25))));
        assert_eq!(new.due(at(25)), Some(tries(SMALL)));
        // Another one does not wait.
        new.see(at(26), &conf(NFT));
        assert_eq!(new.tried(at(26), Ok(())), None);
        assert_eq!(new.due(at(26)), Some(tries(NFT)));
    }

    #[test]
    fn one_that_waits_for_a_restart_is_not_tried() {
        let mut new = NewConf::new(conf(PLAIN), None);
        new.see(at(0), &conf(SMALL));
        new.see(at(0), &conf(r#","Backend":{"Type":"host-gw"}"#));
        assert_eq!((new.due(at(0)), new.wake_at()), (None, None));
    }
}
