//! A thread that owns a kernel's sockets: work in, answers out.

use std::sync::mpsc;

use netstate::{Kernel, KernelError, State};
use tokio::sync::mpsc as async_mpsc;

use crate::node::Event;
use crate::reconciler::Work;

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
}

fn run(
    mut kernel: impl Kernel,
    events: Events,
    requests: &mpsc::Receiver<Work>,
    answers: &async_mpsc::UnboundedSender<Event>,
) {
    while let Ok(work) = requests.recv() {
        let event = match work {
            Work::Observe(scope) => (events.observed)(kernel.observe(&scope)),
            Work::ObserveAt(scope, spots) => (events.observed)(kernel.observe_at(&scope, &spots)),
            Work::Apply(ops) => (events.applied)(kernel.apply(&ops)),
        };
        if answers.send(event).is_err() {
            return;
        }
    }
}
