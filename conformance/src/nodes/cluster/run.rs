//! A run in a cluster from its begin to its end, whatever ends it.

use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::Cluster;
use crate::nodes::runner::{self, Judged, Plan};

/// The signals that end a run.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// The end of the terminal.
    hang_up: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("waiting for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("waiting for SIGTERM")?,
            hang_up: signal(SignalKind::hangup()).context("waiting for SIGHUP")?,
        })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        // All branches are cancel-safe.
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}

/// Judges a cluster, and removes what was made there, whatever ends the run; a second signal ends the removal.
///
/// # Errors
/// Fails when something cannot be made or reached, and when a signal came.
pub(in crate::nodes) fn judge(cluster: Cluster, plan: Plan) -> Result<Judged> {
    let cluster = Arc::new(cluster);
    let (tell, told) = oneshot::channel();
    let runs = Arc::clone(&cluster);
    let (judged, removed) = cluster.api.wait(async {
        let mut signals = Signals::catch()?;
        // Where a signal comes first it goes on without anybody to listen, and ends with the program.
        thread::spawn(move || tell.send(runner::run(&*runs, &plan, || Ok(()))).ok());
        let judged = tokio::select! {
            judged = told => judged.unwrap_or_else(|_| Err(anyhow!("the run panicked"))),
            name = signals.next() => Err(anyhow!("{name} ended the run")),
        };
        let removed = tokio::select! {
            removed = cluster.remove() => removed,
            name = signals.next() => Err(anyhow!(
                "{name} ended the removal: {}", cluster.made.way_out()
            )),
        };
        anyhow::Ok((judged, removed))
    })?;
    match (judged, removed) {
        (Ok(Judged { report, ended }), removed) => Ok(Judged {
            report,
            ended: ended.and(removed),
        }),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(left)) => Err(left.context(format!("{error:#}; and then"))),
    }
}
