//! The end of a run with one network configuration, which another one follows.

use std::pin::pin;
use std::time::Duration;

use flannel_types::NetConf;
use lease_store::LeaseStore;
use tokio::time::timeout;

use super::jobs::finish;
use super::{DaemonError, Driver, Ended, Handover};
use crate::serve::Desk;
use crate::signals::Signals;

/// What was asked of the store is waited for this long: one that is out of reach may never answer.
const STORE_LIMIT: Duration = Duration::from_secs(5);

impl<S: LeaseStore> Driver<'_, S> {
    /// Lets what is under way finish: what begins anew must not meet what is yet to be changed or written. Answers meanwhile.
    pub(super) async fn hand_over(
        self,
        ended: Ended,
        signals: &mut Signals,
        desk: &mut Desk,
    ) -> Result<Ended, DaemonError> {
        let now = self.now();
        let Self {
            executor,
            rules_executor,
            mut job,
            mut file,
            mut command,
            node,
            ..
        } = self;
        let under_way = async {
            executor.end().await;
            rules_executor.end().await;
            if file.is_some() {
                finish(&mut file).await;
            }
            if command.is_some() {
                finish(&mut command).await;
            }
            if job.is_some() {
                let _late = timeout(STORE_LIMIT, finish(&mut job)).await;
            }
        };
        let mut under_way = pin!(under_way);
        loop {
            tokio::select! {
                () = &mut under_way => break,
                signal = signals.end() => return Ok(Ended::Signal(signal)),
                question = desk.next() => desk.answer(question, &node, now),
            }
        }
        Ok(ended)
    }

    /// From this run's configuration to another one.
    pub(super) fn handover_to(&mut self, conf: NetConf) -> Box<Handover> {
        let tried = self.tried.take();
        Box::new(Handover {
            new: (conf, tried.unwrap_or_else(|| self.external.clone())),
            before: (self.conf.clone(), self.external.clone()),
        })
    }
}
