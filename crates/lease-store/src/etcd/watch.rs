use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::etcd::messages::{Event, EventType, KeyValue, RangeRequest, WatchCreateRequest, WatchResponse};
use ::etcd::{Error, WatchStream};
use flannel_types::{Lease, NetConf};
use net_types::{SubnetKey, sentence};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::listing::{Listing, Malformed, parse_attrs};
use super::{Store, random, store_error};
use crate::error::StoreError;
use crate::{LeaseEvent, LeaseWatch};

/// The pause before the second try to reach the cluster; it doubles (flannel `pkg/subnet/etcd/registry.go`).
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The number of the leases' watch, which is asked for first.
const LEASES: i64 = 0;
/// Events that wait for the consumer; etcd keeps the others.
const QUEUE_DEPTH: usize = 64;
/// Of how many malformed leases the value before is looked for.
const MAX_LOOK_BACK: usize = 10;
/// How many different keys are warned of.
const MAX_WARNINGS: usize = 100;

/// The events of an [`super::EtcdStore`].
///
/// They come from a task of its own, which is cancelled when this is dropped: it only reads.
#[derive(Debug)]
pub struct EtcdWatch {
    events: mpsc::Receiver<LeaseEvent>,
    task: JoinHandle<()>,
}

impl EtcdWatch {
    pub(super) fn begin(store: Arc<Store>) -> Self {
        let (sender, events) = mpsc::channel(QUEUE_DEPTH);
        let watcher = Watcher {
            store,
            events: sender,
            position: None,
            config: None,
            contact: Contact::New,
            warned: BTreeSet::new(),
        };
        let task = tokio::spawn(watcher.run());
        Self { events, task }
    }
}

impl Drop for EtcdWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl LeaseWatch for EtcdWatch {
    async fn next_event(&mut self) -> LeaseEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The task ends only with its consumer.
            None => std::future::pending().await,
        }
    }
}

/// Up to where the changes are known.
#[derive(Debug, Clone, Copy)]
struct Position {
    /// The revision that changed the configuration last; 0 for none.
    config: i64,
    /// The first revision whose changes of leases are not known.
    next: i64,
}

/// What the consumer was told last about the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    New,
    Synced,
    Unsynced,
}

/// Why the news have an end.
#[derive(Debug)]
enum End {
    /// The connection or the cluster failed.
    Failed(StoreError),
    /// What is known must be read anew, but nothing is wrong.
    Stale,
    /// Nobody listens.
    Unheard,
}

struct Watcher {
    store: Arc<Store>,
    events: mpsc::Sender<LeaseEvent>,
    position: Option<Position>,
    /// The last good configuration.
    config: Option<NetConf>,
    contact: Contact,
    warned: BTreeSet<Vec<u8>>,
}

impl Watcher {
    async fn run(mut self) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let attached = self.attach().await;
            let since = Instant::now();
            let (end, was_attached) = match attached {
                Ok(stream) => (self.follow(stream).await, true),
                Err(end) => (end, false),
            };
            match end {
                End::Unheard => return,
                End::Stale => self.position = None,
                // The next connection tells whether it matters.
                End::Failed(err) if was_attached => {
                    debug!(reason = sentence(&err), "the watch of the leases ended")
                }
                End::Failed(err) => {
                    if self.tell_unsynced(&err).await.is_err() {
                        return;
                    }
                }
            }
            if since.elapsed() >= LONGEST_PAUSE {
                pause = SHORTEST_PAUSE;
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Begins where the last stream ended, unless the consumer needs a snapshot.
    async fn attach(&mut self) -> Result<WatchStream, End> {
        if let (Some(position), Contact::Synced) = (self.position, self.contact)
            && let Some(stream) = self.resume(position).await?
        {
            return Ok(stream);
        }
        let store = Arc::clone(&self.store);
        let listing = store.list().await.map_err(End::Failed)?;
        let position = Position {
            config: listing.config.as_ref().map_or(0, |found| found.mod_revision),
            next: listing.revision + 1,
        };
        let snapshot = self.snapshot(listing).await?;
        self.send(snapshot).await?;
        (self.contact, self.position) = (Contact::Synced, Some(position));
        self.open(position.next, position.next).await
    }

    /// Begins from a position; `None` if what was known then is not what is so.
    async fn resume(&self, position: Position) -> Result<Option<WatchStream>, End> {
        let request = RangeRequest {
            key: self.store.keys.config().into_bytes(),
            ..RangeRequest::default()
        };
        let answer = self
            .store
            .client
            .range(request)
            .await
            .map_err(|err| self.failed(err))?;
        let revision = answer.header.map_or(0, |header| header.revision);
        let config = answer.kvs.first().map_or(0, |found| found.mod_revision);
        // A cluster that was restored from a backup counts from an earlier revision.
        if config != position.config || revision + 1 < position.next {
            return Ok(None);
        }
        self.open(position.next, revision + 1).await.map(Some)
    }

    async fn open(&self, leases_from: i64, config_from: i64) -> Result<WatchStream, End> {
        let range = self.store.keys.leases();
        let create = |key, range_end, start_revision| WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: true,
            fragment: true,
        };
        let requests = vec![
            create(range.first, range.end, leases_from),
            create(self.store.keys.config().into_bytes(), Vec::new(), config_from),
        ];
        self.store
            .client
            .watch(requests)
            .await
            .map_err(|err| self.failed(err))
    }

    /// Reports the changes of a stream until it ends.
    async fn follow(&mut self, mut stream: WatchStream) -> End {
        loop {
            let news = match stream.next().await {
                Ok(news) => news,
                Err(Error::Compacted { .. }) => return End::Stale,
                Err(err) => return self.failed(err),
            };
            if let Err(end) = self.report(news).await {
                return end;
            }
        }
    }

    async fn report(&mut self, news: WatchResponse) -> Result<(), End> {
        let is_whole = !news.fragment;
        let known_to = leases_known_to(&news);
        let config_key = self.store.keys.config().into_bytes();
        let mut events = news.events;
        // Of changes made at once, what is new is told first: a lease under another name is never gone in between.
        events.sort_by_key(|event| {
            let is_deleted = event.r#type == i32::from(EventType::Delete);
            (event.kv.as_ref().map_or(0, |kv| kv.mod_revision), is_deleted)
        });
        for event in events {
            let Event { r#type, kv: Some(kv) } = event else {
                continue;
            };
            if kv.key == config_key {
                return Err(End::Stale);
            }
            let is_deleted = r#type == i32::from(EventType::Delete);
            if let Some(event) = self.lease_event(is_deleted, &kv) {
                self.send(event).await?;
            }
        }
        if let (Some(position), true) = (&mut self.position, is_whole) {
            position.next = position.next.max(known_to + 1);
        }
        Ok(())
    }

    fn lease_event(&mut self, is_deleted: bool, kv: &KeyValue) -> Option<LeaseEvent> {
        let Some(key) = self.store.keys.parse(&kv.key) else {
            self.warn_of_stranger(&kv.key);
            return None;
        };
        if is_deleted {
            self.warned.remove(&kv.key);
            return Some(LeaseEvent::Remove(key));
        }
        match parse_attrs(&kv.value) {
            Ok(attrs) => {
                self.warned.remove(&kv.key);
                let expires = None;
                Some(LeaseEvent::Put(Lease { key, attrs, expires }))
            }
            Err(why) => {
                self.warn_of_malformed(key, &why, "its last good value counts");
                None
            }
        }
    }

    async fn snapshot(&mut self, listing: Listing) -> Result<LeaseEvent, End> {
        let config = self.config_of(&listing).map_err(End::Failed)?;
        self.config = Some(config.clone());
        for stranger in &listing.strangers {
            self.warn_of_stranger(stranger.as_bytes());
        }
        let mut leases = listing.leases;
        for (count, (key, malformed)) in listing.malformed.into_iter().enumerate() {
            let before = if count < MAX_LOOK_BACK {
                self.value_before(key, &malformed).await
            } else {
                None
            };
            let outcome = if before.is_some() {
                "its last good value counts"
            } else {
                "it is ignored"
            };
            self.warn_of_malformed(key, &malformed.why, outcome);
            leases.extend(before.map(|lease| (key, lease)));
        }
        Ok(LeaseEvent::Snapshot { config, leases })
    }

    /// The configuration that counts: when it is gone or turned bad, the last good one. Without any lease either, the
    /// cluster has lost its content, and nothing counts.
    fn config_of(&self, listing: &Listing) -> Result<NetConf, StoreError> {
        let fresh = match &listing.config {
            Some(found) => self.store.parse_config(found),
            None => Err(self.store.config_missing()),
        };
        let is_empty = listing.config.is_none() && listing.leases.is_empty() && listing.malformed.is_empty();
        match (fresh, &self.config) {
            (Err(err), Some(last_good)) if !is_empty => {
                warn!("{}; the last good configuration counts", sentence(&err));
                Ok(last_good.clone())
            }
            (fresh, _) => fresh,
        }
    }

    /// The value that a malformed lease had before, if etcd still has it and it was good.
    async fn value_before(&self, key: SubnetKey, malformed: &Malformed) -> Option<Lease> {
        let request = RangeRequest {
            key: self.store.keys.lease(key).into_bytes(),
            revision: malformed.mod_revision - 1,
            ..RangeRequest::default()
        };
        let answer = self.store.client.range(request).await.ok()?;
        let attrs = parse_attrs(&answer.kvs.first()?.value).ok()?;
        let expires = None;
        Some(Lease { key, attrs, expires })
    }

    fn failed(&self, err: Error) -> End {
        End::Failed(store_error(self.store.keys.subnets(), err))
    }

    async fn tell_unsynced(&mut self, err: &StoreError) -> Result<(), End> {
        if self.contact == Contact::Unsynced {
            return Ok(());
        }
        self.contact = Contact::Unsynced;
        let reason = sentence(err);
        self.send(LeaseEvent::Unsynced { reason }).await
    }

    async fn send(&self, event: LeaseEvent) -> Result<(), End> {
        self.events.send(event).await.map_err(|_| End::Unheard)
    }

    fn warn_of_stranger(&mut self, key: &[u8]) {
        if self.is_first_warning(key) {
            warn!(
                "{} in etcd is ignored: its name is not of the form 10.5.57.0-24, 10.5.57.0-24&fd00:10:5:46::-64 or fd00:10:5:46::-64",
                String::from_utf8_lossy(key)
            );
        }
    }

    fn warn_of_malformed(&mut self, key: SubnetKey, why: &str, outcome: &str) {
        let name = self.store.keys.lease(key);
        if self.is_first_warning(name.as_bytes()) {
            let place = format!("{name} in etcd");
            let why = why.to_owned();
            warn!("{}; {outcome}", StoreError::Malformed { place, why });
        }
    }

    /// Whether a key was not warned of before; of very many keys, none is any more.
    fn is_first_warning(&mut self, key: &[u8]) -> bool {
        self.warned.len() < MAX_WARNINGS && self.warned.insert(key.to_vec())
    }
}

/// Up to which revision all changes of leases are known after these news; 0 if they do not tell.
fn leases_known_to(news: &WatchResponse) -> i64 {
    let last = news
        .events
        .iter()
        .filter_map(|event| event.kv.as_ref())
        .next_back();
    match last {
        Some(last) => last.mod_revision,
        // What says that a watch has begun tells nothing of what it has yet to bring.
        None if news.created => 0,
        // A sign of progress of this watch; another one may be ahead.
        None if news.watch_id == LEASES => news.header.map_or(0, |header| header.revision),
        None => 0,
    }
}

/// Half of a pause and a random part of the other half, so that all nodes do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let half = pause / 2;
    let nanos = half.as_nanos().max(1);
    half + Duration::from_nanos(u64::try_from(u128::from(random()) % nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use ::etcd::messages::ResponseHeader;

    use super::*;

    #[test]
    fn progress_of_the_configurations_watch_tells_nothing_of_the_leases() {
        let progress = |watch_id| WatchResponse {
            header: Some(ResponseHeader {
                revision: 70,
                ..ResponseHeader::default()
            }),
            watch_id,
            ..WatchResponse::default()
        };
        assert_eq!(leases_known_to(&progress(LEASES)), 70);
        assert_eq!(leases_known_to(&progress(LEASES + 1)), 0);
        let begun = WatchResponse {
            created: true,
            ..progress(LEASES)
        };
        assert_eq!(leases_known_to(&begun), 0);
        let changed = WatchResponse {
            events: vec![Event {
                kv: Some(KeyValue {
                    mod_revision: 60,
                    ..KeyValue::default()
                }),
                ..Event::default()
            }],
            ..progress(LEASES)
        };
        assert_eq!(leases_known_to(&changed), 60);
    }
}
