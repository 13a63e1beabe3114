//! What this node writes on its own Node, and when.
//!
//! The Node is looked at whenever it changes, and brought back to what it should be: annotations that somebody removed,
//! an address that an administrator put in another's place, a condition that a cloud's controller set anew.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flannel_types::LeaseAttrs;
use net_types::sentence;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Store;
use super::annotations::AnnotationPrefix;
use super::follow::is_before;
use super::lease::{annotations_of, annotations_patch, condition_patch, published};
use super::node::Node;

/// The pause after the first failure; it doubles.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, and the shortest time between two times of one repair: somebody may write against us.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What the Node should say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// What this node announces, before an administrator's addresses take their place; `None` before it has a lease.
    pub(super) attrs: Option<LeaseAttrs>,
    /// Whether pods may be scheduled.
    pub(super) network_is_up: bool,
}

/// The own Node as the API server told of it last.
///
/// Revisions tell the order of what was seen and what was written only while the server goes on counting. One that was
/// restored from a backup counts from before, so that a reading in full which was begun after a write is believed
/// whatever its revisions are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// `None` while it is not known, or there is none.
    node: Option<Node>,
    /// The reading in full that it was seen in or after.
    in_reading: u64,
    /// How many were begun.
    readings: u64,
}

impl Seen {
    pub(super) const fn new(node: Option<Node>) -> Self {
        Self {
            node,
            in_reading: 0,
            readings: 0,
        }
    }

    /// Takes the news that all Nodes are asked for anew.
    pub(super) const fn begin_reading(&mut self) {
        self.readings += 1;
    }

    /// Takes the Node, or the news that there is none.
    pub(super) fn see(&mut self, node: Option<Node>) {
        self.node = node;
        self.in_reading = self.readings;
    }

    /// Whether the reading that was begun last has not brought the Node.
    pub(super) const fn is_missing(&self) -> bool {
        self.node.is_some() && self.in_reading < self.readings
    }
}

/// What is known of the own Node: what was seen, or what was written since.
#[derive(Debug)]
struct Known {
    node: Option<Node>,
    written: Option<Written>,
}

#[derive(Debug)]
struct Written {
    revision: String,
    /// How many readings in full had been begun by then.
    readings: u64,
}

impl Known {
    const fn new(node: Option<Node>) -> Self {
        Self { node, written: None }
    }

    /// Takes what was seen, unless it tells of an older state than what was written: it was under way.
    fn see(&mut self, seen: &Seen) {
        let is_older = |written: &Written, node: &Node| {
            seen.in_reading <= written.readings && is_before(&node.revision, &written.revision)
        };
        if !(self.written.as_ref().zip(seen.node.as_ref()))
            .is_some_and(|(written, node)| is_older(written, node))
        {
            self.node = seen.node.clone();
        }
    }

    /// Takes the Node as it was written.
    fn wrote(&mut self, node: Node, readings: u64) {
        let revision = node.revision.clone();
        self.written = Some(Written { revision, readings });
        self.node = Some(node);
    }
}

/// What there is to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Patch {
    Annotations(Value),
    Condition(Value),
}

impl Patch {
    /// The first thing that is to be changed on the Node; `None` if it is as it should be.
    pub(super) fn needed(
        prefix: &AnnotationPrefix,
        node: &Node,
        wanted: &Wanted,
        now: SystemTime,
    ) -> Option<Self> {
        let attrs = wanted.attrs.as_ref()?;
        let told = published(attrs, node, &mut |problem| debug!(problem));
        let annotations = annotations_patch(prefix, node, &annotations_of(&told)).map(Self::Annotations);
        let is_down = wanted.network_is_up && !node.network_is_up;
        let condition = || {
            let now = humantime::format_rfc3339_seconds(now).to_string();
            is_down.then(|| Self::Condition(condition_patch(&now)))
        };
        annotations.or_else(condition)
    }

    /// Whether it does what another one has done before.
    fn repeats(&self, other: &Self) -> bool {
        match (self, other) {
            // They differ in their time.
            (Self::Condition(_), Self::Condition(_)) => true,
            (Self::Annotations(one), Self::Annotations(other)) => one == other,
            (Self::Annotations(_), Self::Condition(_)) | (Self::Condition(_), Self::Annotations(_)) => false,
        }
    }

    const fn body(&self) -> &Value {
        match self {
            Self::Annotations(body) | Self::Condition(body) => body,
        }
    }
}

/// Keeps the Node as it should be for as long as it runs. Its owner is the watch, which cancels it; a request under way
/// may then be carried out or not, and either is mended by the next run.
pub(super) async fn keep(store: Arc<Store>, name: String, mut seen: watch::Receiver<Seen>) {
    let mut wanted = store.wanted.subscribe();
    let mut known = Known::new(seen.borrow_and_update().node.clone());
    let mut repaired: Option<(Patch, Instant)> = None;
    let mut pause = SHORTEST_PAUSE;
    loop {
        match seen.has_changed() {
            Ok(true) => known.see(&seen.borrow_and_update()),
            Ok(false) => {}
            Err(_) => return,
        }
        let want = wanted.borrow_and_update().clone();
        let needed = |node| Patch::needed(&store.prefix, node, &want, SystemTime::now());
        let patch = known.node.as_ref().and_then(needed);
        let Some(patch) = patch else {
            let changed = tokio::select! {
                changed = seen.changed() => {
                    seen.mark_changed();
                    changed
                }
                changed = wanted.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            continue;
        };
        if let Some((last, at)) = repaired.take()
            && patch.repeats(&last)
        {
            warn!(node = name, body = %patch.body(), "somebody undoes what this node writes; it will be put back");
            tokio::time::sleep(LONGEST_PAUSE.saturating_sub(at.elapsed())).await;
            continue;
        }
        match store.api.patch_status(&name, patch.body()).await {
            Ok(node) => {
                tell(&name, &patch);
                repaired = Some((patch, Instant::now()));
                known.wrote(node, seen.borrow().readings);
                pause = SHORTEST_PAUSE;
            }
            Err(err) => {
                let reason = sentence(&err);
                warn!(
                    node = name,
                    reason, "the Node could not be changed, will try again"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn tell(name: &str, patch: &Patch) {
    match patch {
        Patch::Annotations(body) => info!(node = name, %body, "the Node's annotations were put right"),
        Patch::Condition(_) => info!(node = name, "the Node's network is announced as available"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::annotations::Annotation;
    use super::*;

    fn wanted(network_is_up: bool) -> Wanted {
        let attrs = Some(LeaseAttrs {
            public_ip: Some([192, 168, 77, 1].into()),
            public_ipv6: None,
            backend_type: "vxlan".to_owned(),
            backend_data: Some(r#"{"VNI":1,"VtepMAC":"92:d6:5e:e3:a2:ad"}"#.to_owned()),
            backend_v6_data: None,
        });
        Wanted { attrs, network_is_up }
    }

    fn complete() -> Node {
        Node {
            annotations: annotations_of(&wanted(true).attrs.unwrap()),
            ..Node::default()
        }
    }

    fn needed(node: &Node, wanted: &Wanted) -> Option<Patch> {
        let prefix = "flannel.alpha.coreos.com".parse().unwrap();
        Patch::needed(&prefix, node, wanted, UNIX_EPOCH)
    }

    #[test]
    fn nothing_is_written_before_there_is_a_lease_or_when_all_is_well() {
        let no_lease = Wanted {
            network_is_up: true,
            ..Wanted::default()
        };
        assert_eq!(needed(&Node::default(), &no_lease), None);
        assert_eq!(needed(&complete(), &wanted(false)), None);
        let up = Node {
            network_is_up: true,
            ..complete()
        };
        assert_eq!(needed(&up, &wanted(true)), None);
    }

    #[test]
    fn annotations_come_before_the_condition() {
        let first = needed(&Node::default(), &wanted(true));
        assert!(matches!(first, Some(Patch::Annotations(_))), "{first:?}");
        let Some(Patch::Condition(body)) = needed(&complete(), &wanted(true)) else {
            panic!("no condition");
        };
        assert!(body.to_string().contains("1970-01-01T00:00:00Z"), "{body}");
    }

    #[test]
    fn an_address_that_an_administrator_sets_later_is_published() {
        let mut node = complete();
        node.annotations
            .insert(Annotation::PublicIpOverwrite, "203.0.113.7".to_owned());
        let Some(Patch::Annotations(body)) = needed(&node, &wanted(true)) else {
            panic!("no annotations");
        };
        assert_eq!(
            body.to_string(),
            r#"{"metadata":{"annotations":{"flannel.alpha.coreos.com/public-ip":"203.0.113.7"}}}"#
        );
    }

    fn at(revision: &str) -> Node {
        Node {
            revision: revision.to_owned(),
            ..Node::default()
        }
    }

    /// The revision that counts after 12 was written, when this was seen in a reading; empty for none.
    fn counts(seen: Option<&str>, reading: Reading) -> String {
        let mut told = Seen::new(Some(at("8")));
        told.begin_reading();
        let mut known = Known::new(told.node.clone());
        known.wrote(at("12"), told.readings);
        if reading == Reading::Later {
            told.begin_reading();
        }
        told.see(seen.map(at));
        known.see(&told);
        known.node.map(|node| node.revision).unwrap_or_default()
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Reading {
        /// Begun before the write.
        Earlier,
        /// Begun after it.
        Later,
    }

    #[test]
    fn an_older_notice_does_not_count_against_what_was_written() {
        assert_eq!(counts(Some("9"), Reading::Earlier), "12");
        assert_eq!(counts(Some("13"), Reading::Earlier), "13");
        assert_eq!(counts(None, Reading::Earlier), "", "it was deleted");
    }

    #[test]
    fn a_reading_that_began_after_a_write_counts_whatever_its_revisions() {
        assert_eq!(counts(Some("9"), Reading::Later), "9");
        assert_eq!(counts(Some("13"), Reading::Later), "13");
    }

    #[test]
    fn a_node_that_a_reading_does_not_bring_is_missing() {
        let mut seen = Seen::new(Some(at("8")));
        assert!(!seen.is_missing());
        seen.begin_reading();
        assert!(seen.is_missing());
        seen.see(None);
        assert!(!seen.is_missing());
    }
}
