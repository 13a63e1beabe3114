//! A changed network configuration may come into force on the devices or not: where it does not, the one before counts again.

use std::time::Duration;

use net_types::sentence;

use super::holding::SubnetFile;
use super::{Action, Node, Stage, StopReason};

/// How long the kernel may refuse what the devices need. It is asked again and again meanwhile.
const LIMIT: Duration = Duration::from_secs(5);

impl Node {
    /// Gives the devices their time, where there is another configuration that can count again.
    pub(super) fn begin_trial(&mut self, now: Duration) {
        self.trial_until = self.settings.is_on_trial.then(|| now + LIMIT);
    }

    /// Gives up where the kernel refuses what the devices need. One that is only slow is waited for.
    pub(super) fn end_trial(&mut self, now: Duration) -> Option<Action> {
        let until = self.trial_until.filter(|until| *until <= now)?;
        let Stage::Holding(holding) = &self.stage else {
            return None;
        };
        if holding.file != SubnetFile::NotReady {
            self.trial_until = None;
            return None;
        }
        let Some(reason) = self.refusal() else {
            self.trial_until = Some(until.max(now) + LIMIT);
            return None;
        };
        Some(self.stop(StopReason::NotUp(reason)))
    }

    fn refusal(&self) -> Option<String> {
        let mut failures = self.engine.failures();
        failures.find_map(|(object, failure)| {
            let refusal = failure.refusal.as_ref()?;
            Some(format!("{object}: {}", sentence(refusal)))
        })
    }
}
