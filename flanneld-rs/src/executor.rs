//! A thread that owns a kernel's sockets: work in, answers out.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use netstate::{Kernel, KernelError, State};
use tokio::sync::mpsc as async_mpsc;

use crate::heap;
use crate::node::Event;
use crate::reconciler::Work;

/// After a time this long without work none is expected.
const QUIET: Duration = Duration::from_secs(1);

/// Hands work to the thread and brings its answers back. Dropping it ends the thread when its work is done.
#[derive(Debug)]
pub struct Executor {
    work: mpsc::Sender<Work>,
    answers: async_mpsc::UnboundedReceiver<Event>,
}

/// As which events the answers come.
#[derive(Debug, Clone, Copy)]
pub struct Events {
    /// Of an observation.
    pub observed: fn(Result<State, KernelError>) -> Event,
    /// Of changes.
    pub applied: fn(Vec<Result<(), KernelError>>) -> Event,
}

/// The thread ended before its time; it cannot without a defect.
#[derive(Debug, thiserror::Error)]
#[error("the thread that programs the kernel has ended unexpectedly")]
pub struct ExecutorEnded;

impl Executor {
    /// Starts the thread.
    ///
    /// # Errors
    /// The host has no thread to give.
    pub fn start(name: &str, kernel: impl Kernel + Send + 'static, events: Events) -> std::io::Result<Self> {
        let (work, requests) = mpsc::channel();
        let (answer, answers) = async_mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(kernel, events, &requests, &answer))?;
        Ok(Self { work, answers })
    }

    /// Hands over work; its answer comes from [`Self::answer`].
    ///
    /// # Errors
    /// The thread has ended.
    pub fn submit(&self, work: Work) -> Result<(), ExecutorEnded> {
        self.work.send(work).map_err(|_| ExecutorEnded)
    }

    /// Waits for the next answer. Cancel-safe: a dropped wait loses no answer.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn answer(&mut self) -> Result<Event, ExecutorEnded> {
        self.answers.recv().await.ok_or(ExecutorEnded)
    }

    /// Ends the thread and waits until its work is done.
    pub async fn end(self) {
        let Self { work, mut answers } = self;
        drop(work);
        while answers.recv().await.is_some() {}
    }
}

fn run(
    mut kernel: impl Kernel,
    events: Events,
    requests: &mpsc::Receiver<Work>,
    answers: &async_mpsc::UnboundedSender<Event>,
) {
    let mut has_leftovers = false;
    loop {
        let work = if has_leftovers {
            requests.recv_timeout(QUIET)
        } else {
            requests.recv().map_err(RecvTimeoutError::from)
        };
        let event = match work {
            Ok(Work::Observe(scope)) => {
                has_leftovers = true;
                (events.observed)(kernel.observe(&scope))
            }
            Ok(Work::ObserveAt(scope, spots)) => (events.observed)(kernel.observe_at(&scope, &spots)),
            Ok(Work::Apply(ops)) => (events.applied)(kernel.apply(&ops)),
            Err(RecvTimeoutError::Timeout) => {
                heap::give_back();
                has_leftovers = false;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if answers.send(event).is_err() {
            return;
        }
    }
}
