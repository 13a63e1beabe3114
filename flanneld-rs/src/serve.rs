//! What the daemon tells to others: health and metrics over HTTP, the node's state over a local socket.
//!
//! Both servers ask the daemon's loop and never touch the node: a question is answered between two events, so that what
//! is told is true at one moment, and a loop that hangs is seen from outside as a server that hangs. A peer of either
//! server can cost the daemon a bounded number of connections, bytes and seconds, and nothing else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use net_types::SubnetKey;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::log;
use crate::node::{Node, Now};
use crate::status::{NodeStatus, PeerStatus, Status};

mod http;
mod socket;

/// Questions that wait for the loop.
const QUEUE: usize = 16;
/// Connections of one server; a further one ends the oldest, so that hanging clients lock nobody out.
const MAX_CONNECTIONS: usize = 32;
/// A connection ends after this long, whatever it does.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// After an error that may last, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Peers told at once.
const PAGE: usize = 256;

/// Something that a server must know of the node.
#[derive(Debug)]
pub struct Question(Wanted);

#[derive(Debug)]
enum Wanted {
    Status(oneshot::Sender<Status>),
    /// The peers behind this one.
    Peers(Option<SubnetKey>, oneshot::Sender<Page>),
}

type Page = Vec<(SubnetKey, PeerStatus)>;

/// Why health cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve health on {addr}: choose another --healthz-ip or --healthz-port, or none with port 0")]
pub struct ServeError {
    addr: SocketAddr,
    #[source]
    source: io::Error,
}

/// The daemon's side: the servers, and the questions that they put. Dropping it ends them.
#[derive(Debug)]
pub struct Desk {
    questions: mpsc::Receiver<Question>,
    started: Instant,
    notices: Vec<&'static str>,
    /// Kept so that the questions never end, also without a server.
    _asker: Asker,
    _servers: Vec<Owned>,
    _socket: socket::SocketFile,
}

/// The servers' side.
#[derive(Debug, Clone)]
struct Asker(mpsc::Sender<Question>);

/// A task that ends with its owner; it holds nothing that must be finished.
#[derive(Debug)]
struct Owned(JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Desk {
    /// Begins to serve. A status socket that cannot be had is only warned about: nothing that pods need hangs on it.
    ///
    /// # Errors
    /// The address for health is in use, or is not one of this host.
    pub async fn open(config: &Config) -> Result<Self, ServeError> {
        let (asker, questions) = mpsc::channel(QUEUE);
        let asker = Asker(asker);
        let mut servers = Vec::new();
        let addr = config.healthz;
        if addr.port() != 0 {
            let listener = http::listen(addr)
                .await
                .map_err(|source| ServeError { addr, source })?;
            servers.push(Owned(tokio::spawn(http::serve(listener, asker.clone()))));
        }
        let (listening, socket) = socket::listen(&status_socket(config));
        servers.push(Owned(tokio::spawn(socket::serve(listening, asker.clone()))));
        Ok(Self {
            questions,
            started: Instant::now(),
            notices: config.notices.clone(),
            _asker: asker,
            _servers: servers,
            _socket: socket,
        })
    }

    /// Waits for the next question. Cancel-safe: it is taken in one step.
    pub async fn next(&mut self) -> Question {
        match self.questions.recv().await {
            Some(question) => question,
            None => std::future::pending().await,
        }
    }

    /// Answers about the node.
    pub fn answer(&self, question: Question, node: &Node, now: Now) {
        // Whoever asked may have gone.
        match question.0 {
            Wanted::Status(reply) => {
                let _gone = reply.send(self.status(node.status(now)));
            }
            Wanted::Peers(after, reply) => {
                let _gone = reply.send(node.peers_after(after, PAGE));
            }
        }
    }

    /// Answers for as long as there is no node; `status` says why. Cancel-safe as [`Self::next`].
    pub async fn answer_without_node(&mut self, status: impl Fn() -> NodeStatus) -> Infallible {
        loop {
            match self.next().await.0 {
                Wanted::Status(reply) => {
                    let _gone = reply.send(self.status(status()));
                }
                Wanted::Peers(_, reply) => {
                    let _gone = reply.send(Vec::new());
                }
            }
        }
    }

    fn status(&self, node: NodeStatus) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_secs: self.started.elapsed().as_secs(),
            node,
            notices: self.notices.iter().map(|notice| (*notice).to_owned()).collect(),
            log: log::counts(),
        }
    }
}

/// Where the status is told: as configured, or beside the subnet file.
fn status_socket(config: &Config) -> PathBuf {
    let beside = || {
        config
            .subnet_file
            .with_file_name(crate::config::STATUS_SOCKET_NAME)
    };
    config.status_socket.clone().unwrap_or_else(beside)
}

impl Asker {
    /// `None` when the daemon ends.
    async fn status(&self) -> Option<Status> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Question(Wanted::Status(reply))).await.ok()?;
        answer.await.ok()
    }

    async fn peers(&self, after: Option<SubnetKey>) -> Option<Page> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Question(Wanted::Peers(after, reply))).await.ok()?;
        answer.await.ok()
    }
}

/// The connections of one server. They may be ended at any time: nothing depends on an answer.
#[derive(Debug, Default)]
struct Connections(VecDeque<Owned>);

impl Connections {
    fn add(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        self.0.retain(|task| !task.0.is_finished());
        if self.0.len() >= MAX_CONNECTIONS {
            self.0.pop_front();
        }
        self.0.push_back(Owned(tokio::spawn(async {
            // A client that is too slow has itself to blame.
            let _too_slow = tokio::time::timeout(CONNECTION_LIMIT, connection).await;
        })));
    }
}
