//! Watches.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use serde_json::json;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use crate::cluster::{Change, Cluster, Refusal};
use crate::reply::{self, Reply};
use crate::serve::{Query, is_true, number};

/// Pieces that wait for a client.
const QUEUE_DEPTH: usize = 16;
/// Small events are sent together, up to about this size.
const PIECE_BYTES: usize = 64 << 10;
/// How long a watch lasts that names no end (kube-apiserver, `--min-request-timeout`).
const DEFAULT_SECS: u64 = 1800;

/// A watch as it was asked for.
struct Watch {
    cluster: Arc<Cluster>,
    sender: Sender<Bytes, io::Error>,
    /// All changes up to this revision were sent.
    position: u64,
    has_bookmarks: bool,
    end: Instant,
    changes: Receiver<u64>,
    restarts: Receiver<u64>,
}

/// Whoever watched is gone.
struct Gone;

pub(crate) fn begin(cluster: &Arc<Cluster>, query: &Query) -> Result<Reply, Refusal> {
    let asked: Option<u64> = number(query, "resourceVersion")?;
    let is_stream = is_true(query, "sendInitialEvents");
    let has_bookmarks = is_true(query, "allowWatchBookmarks");
    let secs: u64 = number(query, "timeoutSeconds")?.unwrap_or(DEFAULT_SECS);
    let state = cluster.lock();
    check_stream(query, is_stream, has_bookmarks, state.has_streaming_lists)?;
    let from = asked.filter(|revision| *revision > 0 && !is_stream);
    if let Some(revision) = from.filter(|revision| *revision < state.oldest) {
        // With status 200 (measured).
        return Ok(reply::json(
            200,
            error_line(410, &too_old(revision, state.oldest)),
        ));
    }
    let present = if from.is_none() {
        state
            .nodes
            .values()
            .map(|node| Change {
                revision: node.revision,
                kind: "ADDED",
                json: node.json.clone(),
            })
            .collect()
    } else {
        Vec::new()
    };
    let (sender, body) = Channel::new(QUEUE_DEPTH);
    let watch = Watch {
        position: from.unwrap_or(state.revision),
        cluster: Arc::clone(cluster),
        sender,
        has_bookmarks,
        end: Instant::now() + Duration::from_secs(secs),
        changes: cluster.changes.subscribe(),
        restarts: cluster.restarts.subscribe(),
    };
    drop(state);
    tokio::spawn(watch.run(present, from.is_none()));
    Ok(reply::stream(body))
}

fn check_stream(query: &Query, is_stream: bool, has_bookmarks: bool, is_known: bool) -> Result<(), Refusal> {
    let invalid = |message: &str| {
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {message}");
        Err((422, "Invalid", message))
    };
    let is_newest = query
        .get("resourceVersionMatch")
        .is_some_and(|how| how == "NotOlderThan");
    match (is_stream, is_known) {
        (false, _) => Ok(()),
        (true, false) => invalid(
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate \
             is enabled",
        ),
        (true, true) if !is_newest => invalid(
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (true, true) if !has_bookmarks => {
            invalid("allowWatchBookmarks: Forbidden: sendInitialEvents requires allowWatchBookmarks")
        }
        (true, true) => Ok(()),
    }
}

impl Watch {
    async fn run(mut self, present: Vec<Change>, is_whole: bool) {
        self.changes.mark_changed();
        self.restarts.mark_unchanged();
        if self.send_all(&present).await.is_err() {
            return;
        }
        // Whoever asks for everything is told when that was all, whether or not it asked for a streaming list
        // (measured).
        let position = self.position;
        if is_whole && self.has_bookmarks && self.send(bookmark(position, true)).await.is_err() {
            return;
        }
        // Ends when the client is gone, the time is over or the server restarts.
        while self.step().await.is_ok() {}
    }

    async fn step(&mut self) -> Result<(), Gone> {
        let pause = self.cluster.lock().bookmark_every;
        tokio::select! {
            changed = self.changes.changed() => {
                changed.map_err(|_| Gone)?;
                let news = self.news()?;
                self.send_all(&news).await
            }
            _ = self.restarts.changed() => Err(Gone),
            () = sleep_until(self.end) => Err(Gone),
            () = tokio::time::sleep(pause), if self.has_bookmarks => {
                let revision = self.cluster.lock().revision;
                self.send(bookmark(revision, false)).await
            }
        }
    }

    fn news(&mut self) -> Result<Vec<Change>, Gone> {
        let state = self.cluster.lock();
        if self.position < state.oldest && !state.history.is_empty() {
            return Err(Gone);
        }
        let position = self.position;
        // The newest are at the end, and usually few.
        let mut news: Vec<_> = state
            .history
            .iter()
            .rev()
            .take_while(|change| change.revision > position)
            .cloned()
            .collect();
        news.reverse();
        self.position = news.last().map_or(position, |last| last.revision);
        Ok(news)
    }

    async fn send_all(&mut self, changes: &[Change]) -> Result<(), Gone> {
        let mut piece = Vec::new();
        for change in changes {
            piece.extend_from_slice(format!("{{\"type\":\"{}\",\"object\":", change.kind).as_bytes());
            piece.extend_from_slice(&change.json);
            piece.extend_from_slice(b"}\n");
            if piece.len() >= PIECE_BYTES {
                self.send(Bytes::from(std::mem::take(&mut piece))).await?;
            }
        }
        if piece.is_empty() {
            return Ok(());
        }
        self.send(Bytes::from(piece)).await
    }

    async fn send(&mut self, piece: Bytes) -> Result<(), Gone> {
        self.sender.send_data(piece).await.map_err(|_| Gone)
    }
}

/// A line that ends a watch.
pub(crate) fn error_line(code: u16, message: &str) -> Bytes {
    let reason = if code == 410 { "Expired" } else { "InternalError" };
    let status = reply::status(code, reason, message);
    let status = String::from_utf8_lossy(&status).into_owned();
    Bytes::from(format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n"))
}

pub(crate) fn too_old(revision: u64, oldest: u64) -> String {
    format!("too old resource version: {revision} ({oldest})")
}

fn bookmark(revision: u64, ends_list: bool) -> Bytes {
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if let (true, Some(metadata)) = (ends_list, metadata.as_object_mut()) {
        let end = json!({ "k8s.io/initial-events-end": "true" });
        metadata.insert("annotations".to_owned(), end);
    }
    let object =
        json!({ "kind": "Node", "apiVersion": "v1", "metadata": metadata, "spec": {}, "status": {} });
    Bytes::from(format!("{{\"type\":\"BOOKMARK\",\"object\":{object}}}\n"))
}
