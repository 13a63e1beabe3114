//! The runner's end of an agent.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::connection::{Carrier, Connection};
use super::protocol::{Answer, Greeting, KEEP_ALIVE, Numbered, Output, PROTOCOL, Place, Request};
use crate::lab::wait_until;

/// How long an agent may take until it greets: it may have to be carried to its host first.
const GREETING_LIMIT: Duration = Duration::from_secs(120);
/// How long an answer may take, beyond what the request itself may.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// How long an agent may take to detach its pods.
const END_LIMIT: Duration = Duration::from_secs(60);
/// How long a program that only looks may run.
const LOOK_LIMIT: Duration = Duration::from_secs(20);
/// How long an agent that has gone may take to have said all.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);
/// As much is written between two looks at the clock, in bytes.
const PART_BYTES: usize = 1 << 16;
/// As much of an agent's standard error is kept.
const STDERR_BYTES: u64 = 1 << 16;

type Answers = BTreeMap<u64, Sender<Result<Value, String>>>;

/// An agent's standard input; `None` once it was closed.
type Stdin = Mutex<Option<Box<dyn Write + Send>>>;

/// An agent on a node or in a pod; it detaches its pods and ends when this value is dropped.
pub(super) struct Remote {
    name: String,
    carrier: Box<dyn Carrier>,
    stdin: Arc<Stdin>,
    /// Its end is that of the thread that tells the agent that the runner is there.
    _keeps: Sender<()>,
    /// Empty again once the agent's output has ended: then nobody will be answered.
    waiting: Arc<Mutex<Option<Answers>>>,
    stderr: Arc<Mutex<String>>,
    collector: JoinHandle<()>,
    next: AtomicU64,
}

impl Remote {
    /// Takes charge of an agent that was started. What is to be read by what starts it goes before all else.
    ///
    /// # Errors
    /// Fails when it does not greet, with its own words.
    pub(super) fn start(name: &str, connection: Connection, before: &[u8]) -> Result<Self> {
        Self::start_within(GREETING_LIMIT, name, connection, before)
    }

    fn start_within(limit: Duration, name: &str, connection: Connection, before: &[u8]) -> Result<Self> {
        let start = Instant::now();
        let Connection {
            mut stdin,
            stdout,
            stderr,
            carrier,
        } = connection;
        let text = Arc::new(Mutex::new(String::new()));
        let keep = Arc::clone(&text);
        let collector = thread::spawn(move || collect(stderr, &keep));
        let waiting = Arc::new(Mutex::new(Some(Answers::new())));
        let (greets, greeting) = mpsc::channel();
        let answers = Arc::clone(&waiting);
        thread::spawn(move || listen(stdout, &greets, &answers));
        // Why it does not take it is in its standard error.
        let taken = carry_in(&mut stdin, before, || start.elapsed() < limit);
        let stdin = Arc::new(Mutex::new(Some(stdin)));
        let (keeps, kept) = mpsc::channel();
        let remote = Self {
            name: name.to_owned(),
            carrier,
            stdin,
            _keeps: keeps,
            waiting,
            stderr: text,
            collector,
            next: AtomicU64::new(1),
        };
        match greeting.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(true) if taken.is_ok() => {
                // Not before: what reads the program might take what is the agent's.
                let stdin = Arc::clone(&remote.stdin);
                thread::spawn(move || keep_alive(&stdin, &kept, KEEP_ALIVE));
                Ok(remote)
            }
            Ok(_) | Err(RecvTimeoutError::Disconnected) => bail!(
                "{name}: the agent did not start: {}; it has to be a static program where the host has other libraries \
                 than this one, and the host's /tmp must not be mounted noexec (docs/conformance.md)",
                remote.last_words()
            ),
            Err(RecvTimeoutError::Timeout) => bail!("{name}: the agent did not greet in time"),
        }
    }

    /// The node's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Asks the agent and waits for its answer.
    ///
    /// # Errors
    /// Fails with the agent's own words, or when it is gone.
    pub(super) fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let limit = ANSWER_LIMIT.saturating_add(request.may_take());
        let value = self
            .ask_within(request, limit)
            .with_context(|| self.name.clone())?;
        serde_json::from_value(value).with_context(|| format!("reading the answer of {}", self.name))
    }

    fn ask_within(&self, request: Request, limit: Duration) -> Result<Value> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = mpsc::channel();
        let gone = || anyhow!("the agent is gone: {}", self.last_words());
        locked(&self.waiting)
            .as_mut()
            .ok_or_else(gone)?
            .insert(number, tell);
        let line = serde_json::to_string(&Numbered { number, request }).context("writing a request")?;
        {
            let mut stdin = locked(&self.stdin);
            let stdin = stdin.as_mut().ok_or_else(gone)?;
            writeln!(stdin, "{line}")
                .and_then(|()| stdin.flush())
                .map_err(|_| gone())?;
        }
        match told.recv_timeout(limit) {
            Ok(answer) => answer.map_err(|words| anyhow!(words)),
            Err(RecvTimeoutError::Timeout) => bail!("no answer in {} s", limit.as_secs()),
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }

    /// Runs a program on the node that only looks.
    ///
    /// # Errors
    /// Fails when the agent cannot start it, though it is there.
    pub(super) fn run(&self, argv: &[&str]) -> Result<Output> {
        self.run_in(Place::Node, argv)
    }

    /// Runs a program at a place.
    ///
    /// # Errors
    /// Fails when the agent cannot start it, though it is there.
    pub(super) fn run_in(&self, place: Place, argv: &[&str]) -> Result<Output> {
        self.ask(Request::Run {
            place,
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            limit: LOOK_LIMIT,
        })
    }

    /// Lets the agent detach its pods and end.
    ///
    /// # Errors
    /// Fails when it cannot, with its own words.
    pub(super) fn end(mut self) -> Result<()> {
        if self.close()? != Some(true) {
            bail!("{}: the agent did not end well: {}", self.name, self.last_words());
        }
        Ok(())
    }

    /// Whether it ended well; `None` when it had to be killed.
    fn close(&mut self) -> Result<Option<bool>> {
        *locked(&self.stdin) = None;
        let mut good = None;
        let ended = wait_until("an agent to end", END_LIMIT, || {
            good = self.carrier.ended()?;
            Ok(good.is_some())
        });
        if ended.is_err() {
            self.carrier.kill()?;
        }
        Ok(good)
    }

    /// What the agent has said on its standard error; its end is awaited for a moment.
    fn last_words(&self) -> String {
        // What is there by then is told.
        let said_all = || Ok(self.collector.is_finished());
        wait_until("an agent's last words", LAST_WORDS_LIMIT, said_all).ok();
        let text = locked(&self.stderr);
        let words = text.trim();
        if words.is_empty() {
            "it said nothing".to_owned()
        } else {
            words.to_owned()
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // After `end` it has ended already; otherwise the first error is the one to tell.
        self.close().ok();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what goes before all else, while there is time.
fn carry_in(stdin: &mut impl Write, before: &[u8], is_in_time: impl Fn() -> bool) -> io::Result<()> {
    for part in before.chunks(PART_BYTES) {
        if !is_in_time() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stdin.write_all(part)?;
    }
    stdin.flush()
}

/// Tells the agent now and then that the runner is there, until the agent or the sender's end is gone.
fn keep_alive(stdin: &Stdin, kept: &Receiver<()>, pause: Duration) {
    let alive = Numbered {
        // Nobody waits for the answer.
        number: 0,
        request: Request::KeepAlive,
    };
    let Ok(line) = serde_json::to_string(&alive) else {
        return;
    };
    while kept.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let mut stdin = locked(stdin);
        let told = stdin
            .as_mut()
            .map(|stdin| writeln!(stdin, "{line}").and_then(|()| stdin.flush()));
        if !matches!(told, Some(Ok(()))) {
            return;
        }
    }
}

/// Hands answers to those who wait for them, until the agent's output ends.
fn listen(stdout: impl Read, greets: &Sender<bool>, waiting: &Mutex<Option<Answers>>) {
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let greeting = lines.next().and_then(|line| serde_json::from_str(&line).ok());
    // Nobody waits any more when the receiver is gone.
    greets.send(greeting == Some(Greeting { agent: PROTOCOL })).ok();
    for line in lines {
        let Ok(Answer { number, result }) = serde_json::from_str(&line) else {
            break;
        };
        let waits = locked(waiting).as_mut().and_then(|all| all.remove(&number));
        waits.map(|waits| waits.send(result).ok());
    }
    *locked(waiting) = None;
}

fn collect(stderr: impl Read, text: &Mutex<String>) {
    let mut lines = BufReader::new(stderr.take(STDERR_BYTES))
        .lines()
        .map_while(Result::ok);
    lines.by_ref().for_each(|line| {
        let mut text = locked(text);
        text.push_str(&line);
        text.push('\n');
    });
}

/// Does something for each of many at the same time; the results are in their order.
///
/// # Errors
/// Fails with the first error, after all have ended.
pub(super) fn side_by_side<A: Send, T: Send>(
    all: impl IntoIterator<Item = A>,
    action: impl Fn(A) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let action = &action;
        let threads: Vec<_> = all
            .into_iter()
            .map(|one| scope.spawn(move || action(one)))
            .collect();
        let results: Vec<_> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .map_err(|_| anyhow!("a thread of the runner panicked"))
            })
            .collect();
        results.into_iter().map(|result| result?).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn child(script: &str) -> Child {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        let pipes = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        pipes.spawn().unwrap()
    }

    fn started(script: &str) -> Result<Remote> {
        Remote::start("there", Connection::of_child(child(script))?, b"")
    }

    #[test]
    fn an_agent_that_does_not_start_is_told_with_its_own_words() {
        for script in [
            "echo no such host >&2; exit 255",
            "echo hello; echo no such host >&2; cat",
        ] {
            let error = started(script).err().unwrap().to_string();
            assert!(
                error.contains("there") && error.contains("no such host"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_agent_that_takes_nothing_of_the_program_is_not_awaited_for_ever() {
        let (own, _theirs) = UnixStream::pair().unwrap();
        own.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut connection = Connection::of_child(child("sleep 1")).unwrap();
        connection.stdin = Box::new(own);
        let limit = Duration::from_millis(200);
        let started = Remote::start_within(limit, "there", connection, &vec![0; 1 << 22]);
        let error = started.err().unwrap().to_string();
        assert_eq!(error, "there: the agent did not greet in time");
    }

    #[test]
    fn who_waits_for_an_agent_that_goes_is_told() {
        let remote = started("echo '{\"agent\":1}'; read -r line; echo gone >&2; exit 3").unwrap();
        let error = remote.run(&["true"]).unwrap_err();
        assert!(
            format!("{error:#}").contains("there: the agent is gone"),
            "{error:#}"
        );
        assert!(remote.end().is_err());
    }

    #[test]
    fn an_agent_is_told_that_the_runner_is_there_until_it_is_not() {
        let mut child = child("read -r one; read -r two; echo \"$two\"");
        let stdin: Stdin = Mutex::new(child.stdin.take().map(|stdin| Box::new(stdin) as Box<_>));
        let (keeps, kept) = mpsc::channel();
        // It ends by itself once the shell does not read any more.
        keep_alive(&stdin, &kept, Duration::from_millis(20));
        let output = child.wait_with_output().unwrap();
        let line = String::from_utf8(output.stdout).unwrap();
        let told: Numbered = serde_json::from_str(&line).unwrap();
        assert_eq!((told.number, told.request), (0, Request::KeepAlive));
        drop(keeps);
        keep_alive(&stdin, &kept, Duration::from_secs(60));
    }

    #[test]
    fn an_error_of_the_agent_is_the_callers() {
        let answer = r#"{"number":1,"result":{"Err":"no such pod"}}"#;
        let remote = started(&format!(
            "echo '{{\"agent\":1}}'; read -r line; echo '{answer}'; cat >/dev/null"
        ))
        .unwrap();
        let error = remote.run(&["true"]).unwrap_err();
        assert_eq!(format!("{error:#}"), "there: no such pod");
        remote.end().unwrap();
    }
}
