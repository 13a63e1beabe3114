//! A command in a pod, behind the pipes of a child.

use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use kube_client::api::AttachedProcess;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::UnixStream as Pipe;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use super::api::Api;
use crate::nodes::connection::{Carrier, Connection};

/// How long a command that has ended may take to have said all.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);
/// How long a command may take to end once its input has.
const END_LIMIT: Duration = Duration::from_secs(15);

/// How long a command may take nothing of what it is told, as one in a pod that is frozen.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// All commands of a run.
pub(super) struct Execs {
    /// Set when all inputs shall end.
    close: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// One command; the task that carries it ends with it.
#[derive(Debug)]
struct Exec {
    /// Whether the command ended well, once it has ended.
    good: watch::Receiver<Option<bool>>,
    task: AbortHandle,
}

impl Default for Execs {
    fn default() -> Self {
        Self {
            close: watch::Sender::new(false),
            tasks: Mutex::default(),
        }
    }
}

impl Execs {
    /// Starts a command.
    ///
    /// # Errors
    /// Fails when the API refuses it.
    pub(super) fn start(&self, api: &Api, namespace: &str, pod: &str, argv: &[String]) -> Result<Connection> {
        let process = api.wait(api.exec(namespace, pod, argv))?;
        let _entered = api.runtime().enter();
        let ((stdin, input), (stdout, output), (stderr, errors)) = (pipe()?, pipe()?, pipe()?);
        stdin
            .set_write_timeout(Some(WRITE_LIMIT))
            .context("making a pipe")?;
        let (tell, good) = watch::channel(None);
        let carried = carry(process, [input, output, errors], self.close.subscribe(), tell);
        let task = api.runtime().spawn(carried);
        let abort = task.abort_handle();
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(task);
        Ok(Connection {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            carrier: Box::new(Exec { good, task: abort }),
        })
    }

    /// Ends the input of every command, and waits for their ends, though not for long.
    pub(super) async fn end(&self) {
        self.close.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // Each has its own limit; one that was aborted has ended.
            task.await.ok();
        }
    }
}

impl Carrier for Exec {
    fn ended(&mut self) -> Result<Option<bool>> {
        // In this order: one that ends in between has said it by then.
        let is_finished = self.task.is_finished();
        let good = *self.good.borrow();
        // A task that is gone without a word was aborted.
        Ok(good.or_else(|| is_finished.then_some(false)))
    }

    fn kill(&mut self) -> Result<()> {
        self.task.abort();
        Ok(())
    }
}

/// Our end of a pipe and the task's.
fn pipe() -> Result<(UnixStream, Pipe)> {
    let (own, other) = UnixStream::pair().context("making a pipe")?;
    other.set_nonblocking(true).context("making a pipe")?;
    Ok((own, Pipe::from_std(other).context("making a pipe")?))
}

/// Carries what is said to a command and back until it ends, and tells whether it ended well. Owned by [`Execs`]; it may be
/// cancelled anywhere, which breaks the connection.
async fn carry(
    mut process: AttachedProcess,
    [input, output, errors]: [Pipe; 3],
    mut close: watch::Receiver<bool>,
    tell: watch::Sender<Option<bool>>,
) {
    let status = process.take_status();
    let (stdin, stdout, stderr) = (process.stdin(), process.stdout(), process.stderr());
    let said = tokio::spawn(async move { tokio::join!(drain(stdout, output), drain(stderr, errors)) });
    let said_all = said.abort_handle();
    let feed = async {
        let Some(mut stdin) = stdin else { return };
        let mut input = input;
        // Both branches may be cancelled: what is lost by then nobody waits for.
        tokio::select! {
            // Who does not take more has ended.
            copied = copy(&mut input, &mut stdin) => drop(copied),
            // Its sender is gone only when the whole run is.
            closed = close.wait_for(|close| *close) => drop(closed),
        }
        stdin.shutdown().await.ok();
    };
    let ends = async {
        match status {
            Some(status) => status.await,
            None => None,
        }
    };
    tokio::pin!(ends);
    let status = tokio::select! {
        status = &mut ends => status,
        () = feed => timeout(END_LIMIT, ends).await.ok().flatten(),
    };
    // Without a status nobody closes the pipes.
    timeout(LAST_WORDS_LIMIT, said).await.map(drop).ok();
    said_all.abort();
    let good = status.is_some_and(|status| status.status.as_deref() == Some("Success"));
    tell.send_replace(Some(good));
}

/// Hands on what a command says.
async fn drain(from: Option<impl AsyncRead + Unpin>, mut to: impl AsyncWrite + Unpin) {
    if let Some(mut from) = from {
        // Who does not listen any more has ended.
        copy(&mut from, &mut to).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_command_that_ended_well_has_done_so_at_whatever_moment_one_looks() {
        let runtime = Builder::new_multi_thread().worker_threads(2).build().unwrap();
        for _ in 0..20_000 {
            let (tell, good) = watch::channel(None);
            let task = runtime.spawn(async move {
                tell.send_replace(Some(true));
            });
            let task = task.abort_handle();
            let mut exec = Exec { good, task };
            let ended = std::iter::repeat_with(|| exec.ended().unwrap()).find_map(|ended| ended);
            assert_eq!(ended, Some(true));
        }
    }

    #[test]
    fn a_command_that_was_aborted_did_not_end_well() {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (_tell, good) = watch::channel(None);
        let task = runtime.spawn(std::future::pending::<()>()).abort_handle();
        let mut exec = Exec { good, task };
        assert_eq!(exec.ended().unwrap(), None);
        exec.kill().unwrap();
        let ended = std::iter::repeat_with(|| exec.ended().unwrap()).find_map(|ended| ended);
        assert_eq!(ended, Some(false));
    }
}
