//! Brings the news of the Nodes, whatever happens to the API server.

use std::sync::Arc;
use std::time::Duration;

use flannel_types::{Lease, NetConf};
use http_body_util::BodyExt;
use kube_client::client::Body;
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use net_types::sentence;

use super::cache::{Cache, Saver};
use super::conf;
use super::follow::{End, Follower, Request, Step, Verdict};
use super::node::{Node, WatchLine};
use super::own::{self, Seen};
use super::pieces::{Lines, Page, Piece, PieceError};
use super::roster::Roster;
use super::{Store, random, unreachable};
use crate::error::StoreError;
use crate::{LeaseEvent, LeaseWatch};

/// Events that wait for the consumer; the connection keeps the others.
const QUEUE_DEPTH: usize = 64;
/// A server sends a bookmark a minute, whatever happens (Kubernetes `cacher.go`, `defaultBookmarkFrequency`); twice
/// this long without one, it is asked anew.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);
/// While Nodes are read in full there is no reason for silence.
const READING_LIMIT: Duration = Duration::from_secs(10);

/// The events of a [`super::KubeStore`].
///
/// They come from tasks of its own, which are cancelled when this is dropped: one reads, one keeps the own Node right,
/// and one looks at the network configuration.
#[derive(Debug)]
pub struct KubeWatch {
    events: mpsc::Receiver<LeaseEvent>,
    tasks: [JoinHandle<()>; 3],
}

impl KubeWatch {
    pub(super) fn begin(store: Arc<Store>) -> Result<Self, StoreError> {
        let (held, remembered) = {
            let mut known = store.lock();
            (known.held.clone(), known.remembered.take())
        };
        let Some((lease, conf, own)) = held else {
            return Err(unreachable(
                "the lease of this node".to_owned(),
                "it was not acquired",
            ));
        };
        let (sender, events) = mpsc::channel(QUEUE_DEPTH);
        let seen = channel::Sender::new(Seen::new(remembered.is_none().then(|| own.clone())));
        let keeper = own::keep(Arc::clone(&store), own.name.clone(), seen.subscribe());
        let told = channel::Sender::new(conf.clone());
        let news = told.subscribe();
        let confs = conf::follow(store.options.net_config.clone(), told);
        let watcher = Watcher {
            conf: news,
            roster: Roster::new(own.name.clone(), lease, conf),
            follower: Follower::new(),
            events: sender,
            seen,
            own,
            contact: Contact::New,
            saver: Saver::new(store.options.cache.clone()),
            store,
        };
        let tasks = [
            tokio::spawn(keeper),
            tokio::spawn(confs),
            tokio::spawn(watcher.run(remembered)),
        ];
        Ok(Self { events, tasks })
    }
}

impl Drop for KubeWatch {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl LeaseWatch for KubeWatch {
    async fn next_event(&mut self) -> LeaseEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The task ends only with its consumer.
            None => std::future::pending().await,
        }
    }
}

/// What the consumer was told last about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    New,
    Synced,
    Unsynced,
}

/// Nobody listens any more.
struct Unheard;

struct Watcher {
    store: Arc<Store>,
    roster: Roster,
    follower: Follower,
    events: mpsc::Sender<LeaseEvent>,
    /// The network configuration that the file holds.
    conf: channel::Receiver<NetConf>,
    /// The own Node as it was seen last, for whoever keeps it right.
    seen: channel::Sender<Seen>,
    /// The same, for the disk.
    own: Node,
    contact: Contact,
    saver: Saver,
}

/// What is read from an answer.
enum Reader {
    Page(Page),
    Lines(Lines),
}

/// Why a part of an answer ended its reading.
enum Stop {
    End(End),
    Unheard,
}

impl From<PieceError> for Stop {
    fn from(err: PieceError) -> Self {
        Self::End(End::Broken(err.to_string()))
    }
}

impl From<serde_json::Error> for Stop {
    fn from(err: serde_json::Error) -> Self {
        Self::End(End::Broken(format!("the API server sent what is no Node: {err}")))
    }
}

impl Watcher {
    async fn run(mut self, remembered: Option<Vec<Lease>>) {
        if let Some(leases) = remembered
            && self.recall(leases).await.is_err()
        {
            return;
        }
        loop {
            let end = match self.follow().await {
                Stop::End(end) => end,
                Stop::Unheard => return,
            };
            let Verdict {
                pause,
                trouble,
                is_unknown,
            } = self.follower.ended(end, random());
            if is_unknown {
                self.store.api.forget();
            }
            if let Some(reason) = trouble
                && self.tell_unsynced(reason).await.is_err()
            {
                return;
            }
            self.save_if_due().await;
            tokio::time::sleep(pause).await;
        }
    }

    /// Tells of the peers of an earlier run. Nothing is concluded from their number.
    async fn recall(&mut self, leases: Vec<Lease>) -> Result<(), Unheard> {
        for lease in leases {
            self.send(LeaseEvent::Put(lease)).await?;
        }
        self.tell_unsynced("the API server was out of reach at the start".to_owned())
            .await
    }

    /// Sends one request and takes its answer.
    async fn follow(&mut self) -> Stop {
        let request = self.follower.request();
        debug!(?request, "asking the API server");
        if self.follower.begins_anew() {
            self.roster.begin();
            // Nobody needs to look before it brings something.
            self.seen.send_if_modified(|seen| {
                seen.begin_reading();
                false
            });
        }
        let body = match self.store.api.open(&request, random()).await {
            Ok(body) => body,
            Err(err) => return Stop::End(err.into_end()),
        };
        if let (Request::Watch { .. }, Contact::Unsynced) = (&request, self.contact) {
            // What was known still counts, and what changed meanwhile follows.
            self.contact = Contact::Synced;
            let snapshot = self.roster.complete();
            if let Err(Unheard) = self.send(snapshot).await {
                return Stop::Unheard;
            }
        }
        let mut reader = match request {
            Request::Page { .. } => Reader::Page(Page::default()),
            Request::Stream | Request::Watch { .. } => Reader::Lines(Lines::default()),
        };
        match self.read(body, &mut reader).await {
            Err(stop) => stop,
            Ok(()) => match self.ended(&reader).await {
                Ok(end) => Stop::End(end),
                Err(Unheard) => Stop::Unheard,
            },
        }
    }

    async fn read(&mut self, mut body: Body, reader: &mut Reader) -> Result<(), Stop> {
        loop {
            let limit = if matches!(self.follower.request(), Request::Watch { .. }) {
                SILENCE_LIMIT
            } else {
                READING_LIMIT
            };
            let wait = self.saver.wait().map_or(limit, |due| due.min(limit));
            // Each may be dropped without loss.
            let frame = tokio::select! {
                frame = timeout(wait, body.frame()) => frame,
                Ok(()) = self.conf.changed() => {
                    self.take_conf().await.map_err(|Unheard| Stop::Unheard)?;
                    continue;
                }
            };
            let frame = match frame {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(err))) => {
                    let reason = sentence(&err);
                    return Err(Stop::End(End::Broken(format!(
                        "the connection to the API server broke: {reason}"
                    ))));
                }
                Ok(None) => return Ok(()),
                Err(_) if wait < limit => {
                    self.save_if_due().await;
                    continue;
                }
                Err(_) => {
                    let reason = format!("the API server was silent for {} s", limit.as_secs());
                    return Err(Stop::End(End::Broken(reason)));
                }
            };
            if let Some(part) = frame.data_ref() {
                self.take(part, reader).await?;
            }
            self.save_if_due().await;
        }
    }

    /// Tells of a configuration that the file has come to hold, or leaves it to the snapshot that comes.
    async fn take_conf(&mut self) -> Result<(), Unheard> {
        let conf = self.conf.borrow_and_update().clone();
        match self.roster.reconfigure(conf) {
            Some(snapshot) if self.contact == Contact::Synced => self.send(snapshot).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Takes a part of an answer. The events that it leads to wait until the consumer has room for them.
    async fn take(&mut self, part: &[u8], reader: &mut Reader) -> Result<(), Stop> {
        let mut events = Vec::new();
        let taken = match reader {
            Reader::Page(page) => page.feed(part, |piece| self.piece(piece)),
            Reader::Lines(lines) => lines.feed(part, |line| {
                let line = WatchLine::parse(&self.store.prefix, line)?;
                if let Some(line) = line
                    && let Some(step) = self.follower.line(line).map_err(Stop::End)?
                {
                    events.extend(self.step(step));
                }
                Ok(())
            }),
        };
        for event in events {
            self.send(event).await.map_err(|Unheard| Stop::Unheard)?;
        }
        taken
    }

    fn piece(&mut self, piece: Piece<'_>) -> Result<(), Stop> {
        match piece {
            Piece::Item(json) => {
                let node = Node::parse(&self.store.prefix, json)?;
                // No event: the list is not complete.
                self.step(Step::Put(Box::new(node)));
            }
            Piece::Meta(json) => self.follower.page_meta(serde_json::from_slice(json)?),
        }
        Ok(())
    }

    /// Takes the end of an answer that nothing was wrong with.
    async fn ended(&mut self, reader: &Reader) -> Result<End, Unheard> {
        if let Reader::Page(page) = reader {
            if !page.is_whole() {
                return Ok(End::Broken("the API server broke off a list".to_owned()));
            }
            if let Some(step) = self.follower.page_ended() {
                for event in self.step(step) {
                    self.send(event).await?;
                }
            }
        }
        Ok(End::Done)
    }

    fn step(&mut self, step: Step) -> Vec<LeaseEvent> {
        let events = match step {
            Step::Put(node) => {
                let events = self.roster.put(&node);
                if node.name == self.own.name {
                    self.see_own(*node);
                }
                events
            }
            Step::Gone(name) => {
                if name == self.own.name {
                    self.miss_own();
                }
                self.roster.gone(&name)
            }
            Step::Complete => {
                info!(peers = self.roster.peers().len(), "the Nodes are known in full");
                self.contact = Contact::Synced;
                if self.seen.borrow().is_missing() {
                    self.miss_own();
                }
                vec![self.roster.complete()]
            }
        };
        if !events.is_empty() {
            self.saver.note_change();
        }
        events
    }

    fn see_own(&mut self, node: Node) {
        if node.annotations != self.own.annotations || node.pod_cidrs != self.own.pod_cidrs {
            self.saver.note_change();
        }
        self.own = node.clone();
        self.seen.send_modify(|seen| seen.see(Some(node)));
    }

    fn miss_own(&self) {
        warn!(
            node = self.own.name,
            "this node's Node object was deleted; the data plane stays as it is"
        );
        self.seen.send_modify(|seen| seen.see(None));
    }

    async fn tell_unsynced(&mut self, reason: String) -> Result<(), Unheard> {
        if self.contact == Contact::Unsynced {
            debug!(reason, "the API server is still out of reach");
            return Ok(());
        }
        self.contact = Contact::Unsynced;
        self.send(LeaseEvent::Unsynced { reason }).await
    }

    async fn send(&mut self, event: LeaseEvent) -> Result<(), Unheard> {
        self.events.send(event).await.map_err(|_| Unheard)
    }

    /// Writes what is known to the disk, if it changed and the consumer had time to act on it.
    async fn save_if_due(&mut self) {
        if self.contact == Contact::Synced && self.saver.is_due() {
            let text = Cache::text(&self.store.prefix, &self.own, self.roster.peers().values());
            self.saver.save(text).await;
        }
    }
}
