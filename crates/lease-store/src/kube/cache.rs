//! The last known state on disk, for a start while the API server is out of reach.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flannel_types::{Lease, LeaseAttrs};
use net_types::{SubnetKey, sentence};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use statefile::Durability;
use tokio::time::Instant;
use tracing::warn;

use super::annotations::{Annotation, AnnotationPrefix};
use super::node::Node;

/// The form of the file; another one is not read.
const VERSION: u32 = 1;
/// Nothing in it is secret, and a person may want to look.
const MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o755;
/// Five thousand leases of both families take 2 MB.
const MAX_BYTES: u64 = 32 << 20;

/// Changes are written this long after the first one, and no more often.
const PAUSE: Duration = Duration::from_secs(10);

/// What was known of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cache {
    pub(super) own: Node,
    pub(super) peers: Vec<Lease>,
}

/// The file, as JSON: leases as etcd would hold them.
#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    prefix: String,
    node: String,
    pod_cidrs: Vec<String>,
    annotations: BTreeMap<String, String>,
    leases: BTreeMap<String, Box<RawValue>>,
}

/// Why the file cannot be used; it is then as if there were none.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] statefile::Error),
    /// It is not what this program writes.
    #[error("{path:?} is not of the form that this version writes")]
    Form {
        path: PathBuf,
        #[source]
        err: serde_json::Error,
    },
}

impl Cache {
    /// Reads the file; `None` where there is none, or one of another version, prefix or node.
    pub(super) fn load(
        path: &Path,
        prefix: &AnnotationPrefix,
        name: Option<&str>,
    ) -> Result<Option<Self>, CacheError> {
        let Some(text) = statefile::read_text_within(path, MAX_BYTES)? else {
            return Ok(None);
        };
        let form = |err| CacheError::Form {
            path: path.to_owned(),
            err,
        };
        let file: File = serde_json::from_str(&text).map_err(form)?;
        let is_other = name.is_some_and(|name| name != file.node);
        if file.version != VERSION || file.prefix != prefix.as_str() || is_other {
            return Ok(None);
        }
        let annotations = file
            .annotations
            .into_iter()
            .filter_map(|(suffix, value)| Some((Annotation::from_suffix(&suffix)?, value)));
        let own = Node {
            name: file.node,
            pod_cidrs: file.pod_cidrs,
            annotations: annotations.collect(),
            ..Node::default()
        };
        let peers = file.leases.into_iter().filter_map(|(key, value)| {
            Some(Lease {
                key: key.parse::<SubnetKey>().ok()?,
                attrs: LeaseAttrs::parse(value.get()).ok()?,
                expires: None,
            })
        });
        Ok(Some(Self {
            own,
            peers: peers.collect(),
        }))
    }

    /// The file's text.
    pub(super) fn text<'a>(
        prefix: &AnnotationPrefix,
        own: &Node,
        peers: impl Iterator<Item = &'a Lease>,
    ) -> Result<String, serde_json::Error> {
        let leases = peers.map(|lease| {
            let value = RawValue::from_string(lease.attrs.to_json())?;
            Ok((lease.key.to_string(), value))
        });
        let annotations = own.annotations.iter();
        serde_json::to_string(&File {
            version: VERSION,
            prefix: prefix.as_str().to_owned(),
            node: own.name.clone(),
            pod_cidrs: own.pod_cidrs.clone(),
            annotations: annotations
                .map(|(annotation, value)| (annotation.suffix().to_owned(), value.clone()))
                .collect(),
            leases: leases.collect::<Result<_, serde_json::Error>>()?,
        })
    }

    /// Writes the file in place of an older one.
    pub(super) fn save(path: &Path, text: &str) -> Result<(), CacheError> {
        if let Some(dir) = path.parent() {
            statefile::ensure_dir(dir, DIR_MODE)?;
        }
        Ok(statefile::replace(
            path,
            text.as_bytes(),
            MODE,
            Durability::PowerCut,
        )?)
    }
}

/// When the file is to be written.
#[derive(Debug)]
pub(super) struct Saver {
    /// `None` for nowhere.
    path: Option<PathBuf>,
    /// Since when the file differs from what is known.
    stale_since: Option<Instant>,
}

impl Saver {
    pub(super) const fn new(path: Option<PathBuf>) -> Self {
        let stale_since = None;
        Self { path, stale_since }
    }

    /// Takes the news that the file differs from what is known.
    pub(super) fn note_change(&mut self) {
        if self.path.is_some() {
            self.stale_since.get_or_insert_with(Instant::now);
        }
    }

    /// How long to wait until the file is to be written; `None` while it is as it should be.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.stale_since
            .map(|since| PAUSE.saturating_sub(since.elapsed()))
    }

    pub(super) fn is_due(&self) -> bool {
        self.wait().is_some_and(|wait| wait.is_zero())
    }

    /// Writes the file; what goes wrong is told, and tried again after the next change.
    pub(super) async fn save(&mut self, text: Result<String, serde_json::Error>) {
        self.stale_since = None;
        let Some(path) = self.path.clone() else {
            return;
        };
        let text = match text {
            Ok(text) => text,
            Err(err) => {
                warn!(%err, "the last known state cannot be written");
                return;
            }
        };
        let saved = tokio::task::spawn_blocking(move || Cache::save(&path, &text)).await;
        if let Ok(Err(err)) = saved {
            let reason = sentence(&err);
            warn!(
                reason,
                "the last known state could not be kept for the next start"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::annotations::Annotations;
    use super::*;

    fn prefix(text: &str) -> AnnotationPrefix {
        text.parse().unwrap()
    }

    fn cache() -> Cache {
        let attrs =
            r#"{"PublicIP":"192.168.77.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1}}"#;
        Cache {
            own: Node {
                name: "n1".to_owned(),
                pod_cidrs: vec!["10.244.0.0/24".to_owned()],
                annotations: Annotations::from([(Annotation::PublicIp, "192.168.77.1".to_owned())]),
                ..Node::default()
            },
            peers: vec![Lease {
                key: "10.244.1.0-24".parse().unwrap(),
                attrs: LeaseAttrs::parse(attrs).unwrap(),
                expires: None,
            }],
        }
    }

    fn saved(dir: &Path) -> PathBuf {
        let path = dir.join("state/kube.json");
        let text = Cache::text(&prefix("x.com"), &cache().own, cache().peers.iter()).unwrap();
        Cache::save(&path, &text).unwrap();
        path
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = saved(dir.path());
        let load = |prefix_text, name| Cache::load(&path, &prefix(prefix_text), name).unwrap();
        assert_eq!(load("x.com", Some("n1")), Some(cache()));
        assert_eq!(load("x.com", None), Some(cache()));
        assert_eq!(load("x.com", Some("n2")), None, "another node's");
        assert_eq!(load("y.com", Some("n1")), None, "of another prefix");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = saved(dir.path());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.get(..text.len() / 2).unwrap()).unwrap();
        assert!(Cache::load(&path, &prefix("x.com"), None).is_err());
        let absent = dir.path().join("absent");
        assert_eq!(Cache::load(&absent, &prefix("x.com"), None).unwrap(), None);
    }
}
