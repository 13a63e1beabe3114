//! What is read of a Node, and of what else a server sends while it is watched.
//!
//! A Node is ten kilobytes and more; the few hundred bytes that matter are picked out while it is parsed, and the rest
//! is never held.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::annotations::{AnnotationPrefix, Annotations};

/// The annotation of the bookmark that ends a streaming list (Kubernetes `api-concepts`, streaming lists).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// The condition that the scheduler waits for.
pub(super) const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

/// A Node, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) revision: String,
    /// `spec.podCIDRs`, or `spec.podCIDR` alone.
    pub(super) pod_cidrs: Vec<String>,
    pub(super) annotations: Annotations,
    /// Whether the condition `NetworkUnavailable` is there and says `False`.
    pub(super) network_is_up: bool,
}

/// One line of a watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WatchLine {
    /// A Node is new or changed; boxed, because the others are small.
    Put(Box<Node>),
    /// A Node is gone; its last state.
    Gone { name: String, revision: String },
    /// All changes up to this revision were sent.
    Bookmark { revision: String, ends_list: bool },
    /// The server gives up.
    Error(Refusal),
}

/// What a server answers instead of what it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    pub(super) code: u16,
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default)]
    pub(super) message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.message.is_empty() {
            &self.reason
        } else {
            &self.message
        };
        write!(f, "the API server answered {}: {text}", self.code)
    }
}

/// What a page of a list says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct PageMeta {
    #[serde(default, rename = "resourceVersion")]
    pub(super) revision: String,
    #[serde(default, rename = "continue")]
    pub(super) next: String,
}

#[derive(Deserialize)]
struct WireNode {
    metadata: WireMeta,
    #[serde(default)]
    spec: Option<WireSpec>,
    #[serde(default)]
    status: Option<WireStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMeta {
    #[serde(default)]
    name: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct WireSpec {
    #[serde(default, rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(default, rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct WireStatus {
    #[serde(default)]
    conditions: Option<Vec<WireCondition>>,
}

#[derive(Deserialize)]
struct WireCondition {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    status: String,
}

#[derive(Deserialize)]
struct WireLine<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl Node {
    /// Reads a Node's JSON.
    pub(super) fn parse(prefix: &AnnotationPrefix, json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json).map(|wire| Self::from_wire(prefix, wire))
    }

    fn from_wire(prefix: &AnnotationPrefix, wire: WireNode) -> Self {
        let (pod_cidr, pod_cidrs) = wire
            .spec
            .map_or((None, None), |spec| (spec.pod_cidr, spec.pod_cidrs));
        let single = || pod_cidr.into_iter().filter(|cidr| !cidr.is_empty()).collect();
        let annotations = wire.metadata.annotations.unwrap_or_default();
        let ours = annotations
            .into_iter()
            .filter_map(|(name, value)| Some((prefix.annotation(&name)?, value)));
        let mut conditions = wire
            .status
            .and_then(|status| status.conditions)
            .into_iter()
            .flatten();
        Self {
            name: wire.metadata.name,
            revision: wire.metadata.resource_version,
            pod_cidrs: pod_cidrs.filter(|cidrs| !cidrs.is_empty()).unwrap_or_else(single),
            annotations: ours.collect(),
            network_is_up: conditions
                .any(|condition| condition.kind == NETWORK_UNAVAILABLE && condition.status == "False"),
        }
    }
}

impl WatchLine {
    /// Reads a line of a watch; `None` for a kind of event that is not known.
    pub(super) fn parse(prefix: &AnnotationPrefix, line: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        let WireLine { kind, object } = serde_json::from_slice(line)?;
        let object = object.get();
        Ok(match kind.as_str() {
            "ADDED" | "MODIFIED" => Some(Self::Put(Box::new(Node::parse(prefix, object.as_bytes())?))),
            "DELETED" => {
                let Meta { metadata } = serde_json::from_str(object)?;
                Some(Self::Gone {
                    name: metadata.name,
                    revision: metadata.resource_version,
                })
            }
            "BOOKMARK" => {
                let Meta { metadata } = serde_json::from_str(object)?;
                let annotations = metadata.annotations.unwrap_or_default();
                Some(Self::Bookmark {
                    revision: metadata.resource_version,
                    ends_list: annotations
                        .get(INITIAL_EVENTS_END)
                        .is_some_and(|value| value == "true"),
                })
            }
            "ERROR" => Some(Self::Error(serde_json::from_str(object)?)),
            _ => None,
        })
    }
}

#[derive(Deserialize)]
struct Meta {
    metadata: WireMeta,
}

#[cfg(test)]
mod tests {
    use super::super::annotations::Annotation;
    use super::*;

    fn prefix() -> AnnotationPrefix {
        "flannel.alpha.coreos.com".parse().unwrap()
    }

    #[test]
    fn a_node_is_read_as_far_as_it_matters() {
        let json = r#"{"kind":"Node","metadata":{"name":"n1","resourceVersion":"17","labels":{"a":"b"},
            "annotations":{"flannel.alpha.coreos.com/public-ip":"192.168.77.1","node.alpha.kubernetes.io/ttl":"0",
            "flannel.alpha.coreos.com/kube-subnet-manager":"true"}},
            "spec":{"podCIDR":"10.244.0.0/24","podCIDRs":["10.244.0.0/24","fd00:10:244::/64"]},
            "status":{"images":[{"names":["x"]}],"conditions":[{"type":"Ready","status":"True"},
            {"type":"NetworkUnavailable","status":"False"}]}}"#;
        let node = Node::parse(&prefix(), json.as_bytes()).unwrap();
        assert_eq!((node.name.as_str(), node.revision.as_str()), ("n1", "17"));
        assert_eq!(node.pod_cidrs, ["10.244.0.0/24", "fd00:10:244::/64"]);
        assert!(node.network_is_up);
        let annotations: Vec<_> = node.annotations.into_iter().collect();
        assert_eq!(
            annotations,
            [
                (Annotation::Managed, "true".to_owned()),
                (Annotation::PublicIp, "192.168.77.1".to_owned())
            ]
        );
    }

    #[test]
    fn a_node_without_its_optional_parts_is_read_too() {
        for (json, cidrs) in [
            (r#"{"metadata":{"name":"n1"}}"#, vec![]),
            (
                r#"{"metadata":{"name":"n1","annotations":null},"spec":{},"status":{"conditions":null}}"#,
                vec![],
            ),
            (
                r#"{"metadata":{"name":"n1"},"spec":{"podCIDR":"10.1.0.0/24","podCIDRs":[]}}"#,
                vec!["10.1.0.0/24"],
            ),
            (r#"{"metadata":{"name":"n1"},"spec":{"podCIDR":""}}"#, vec![]),
        ] {
            let node = Node::parse(&prefix(), json.as_bytes()).unwrap();
            assert_eq!(node.pod_cidrs, cidrs, "{json}");
            assert!(!node.network_is_up, "{json}");
        }
    }

    #[test]
    fn lines_of_a_watch_are_told_apart() {
        let line = |text: &str| WatchLine::parse(&prefix(), text.as_bytes()).unwrap();
        assert!(matches!(
            line(r#"{"type":"ADDED","object":{"metadata":{"name":"n1","resourceVersion":"3"}}}"#),
            Some(WatchLine::Put(node)) if node.name == "n1"
        ));
        assert_eq!(
            line(r#"{"type":"DELETED","object":{"metadata":{"name":"n1","resourceVersion":"4"}}}"#),
            Some(WatchLine::Gone {
                name: "n1".to_owned(),
                revision: "4".to_owned()
            })
        );
        let end = r#"{"type":"BOOKMARK","object":{"kind":"Node","metadata":{"resourceVersion":"9",
            "annotations":{"k8s.io/initial-events-end":"true"}},"spec":{},"status":{}}}"#;
        assert_eq!(
            line(end),
            Some(WatchLine::Bookmark {
                revision: "9".to_owned(),
                ends_list: true
            })
        );
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired",
            "message":"too old resource version: 1734 (1757)"}}"#;
        let Some(WatchLine::Error(refusal)) = line(gone) else {
            panic!("not an error");
        };
        assert_eq!(
            refusal.to_string(),
            "the API server answered 410: too old resource version: 1734 (1757)"
        );
        assert_eq!(line(r#"{"type":"NEWS","object":{}}"#), None);
        assert!(WatchLine::parse(&prefix(), b"{}").is_err());
    }
}
