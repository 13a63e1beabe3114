//! The thread that owns the netlink socket: work in, answers out.

use std::sync::mpsc;

use netlink::RealKernel;
use netstate::Kernel;
use tokio::sync::mpsc as async_mpsc;

use crate::node::Event;
use crate::reconciler::Work;

/// Hands work to the thread and brings its answers back. Dropping it ends the thread when its work is done.
#[derive(Debug)]
pub struct Executor {
    work: mpsc::Sender<Work>,
    answers: async_mpsc::UnboundedReceiver<Event>,
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
    pub fn start(kernel: RealKernel) -> std::io::Result<Self> {
        let (work, requests) = mpsc::channel();
        let (answer, answers) = async_mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("executor".to_owned())
            .spawn(move || run(kernel, &requests, &answer))?;
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
    mut kernel: RealKernel,
    requests: &mpsc::Receiver<Work>,
    answers: &async_mpsc::UnboundedSender<Event>,
) {
    while let Ok(work) = requests.recv() {
        let event = match work {
            Work::Observe(scope) => Event::Observed(kernel.observe(&scope)),
            Work::Apply(ops) => Event::Applied(kernel.apply(&ops)),
        };
        if answers.send(event).is_err() {
            return;
        }
    }
}
