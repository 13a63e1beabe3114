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
pub(super) async fn keep(store: Arc<Store>, name: String, mut seen: watch::Receiver<Option<Node>>) {
    let mut wanted = store.wanted.subscribe();
    let mut written: Option<Node> = None;
    let mut repaired: Option<(Patch, Instant)> = None;
    let mut pause = SHORTEST_PAUSE;
    loop {
        let node = newest(seen.borrow_and_update().clone(), written.as_ref());
        let want = wanted.borrow_and_update().clone();
        let patch = node.and_then(|node| Patch::needed(&store.prefix, &node, &want, SystemTime::now()));
        let Some(patch) = patch else {
            let changed = tokio::select! {
                changed = seen.changed() => changed,
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
                written = Some(node);
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

/// What was written last, unless something newer was seen: a notice that was under way tells of an older state.
fn newest(seen: Option<Node>, written: Option<&Node>) -> Option<Node> {
    match (seen, written) {
        (Some(seen), Some(written)) if is_before(&seen.revision, &written.revision) => Some(written.clone()),
        (None, written) => written.cloned(),
        (seen, _) => seen,
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

    #[test]
    fn an_older_notice_does_not_count_against_what_was_written() {
        let at = |revision: &str| Node {
            revision: revision.to_owned(),
            ..Node::default()
        };
        let newest = |seen: Option<Node>| newest(seen, Some(&at("12"))).unwrap().revision;
        assert_eq!(newest(Some(at("9"))), "12");
        assert_eq!(newest(Some(at("13"))), "13");
        assert_eq!(newest(None), "12");
    }
}
