//! The store on the Node objects of a Kubernetes cluster, with Flannel's annotations, so that upstream's daemons and
//! ours share one cluster.
//!
//! The cluster gives each Node its subnet (`spec.podCIDRs`); a lease is that subnet together with the annotations that
//! the node's daemon writes. It has no end and is not renewed. Nothing but annotations and one condition of the own Node
//! is ever written, with the rights of upstream's role: get, list and watch Nodes, and patch their status.
//!
//! What was last known is kept in a file, so that a node starts while the API server is out of reach; from the file
//! alone nothing is ever concluded to be gone.

mod annotations;
mod api;
mod cache;
mod conf;
mod follow;
mod lease;
mod node;
mod own;
mod pieces;
mod roster;
mod watch;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flannel_types::{Lease, LeaseAttrs, NetConf, PublicAddrs};
use net_types::sentence;
use tokio::sync::watch as channel;
use tracing::{info, warn};

use crate::error::StoreError;
use crate::{LeaseRequest, LeaseStore};
use annotations::Annotation;
use api::{Api, ApiError};
use cache::Cache;
use lease::{SubnetError, annotations_of, annotations_patch, attrs_of, own_key, parsed, published};
use node::Node;
use own::Wanted;

pub use annotations::{AnnotationPrefix, AnnotationPrefixError};
pub use api::ApiSource;
pub use watch::KubeWatch;

/// How long a server may take to answer where its last answers are on the disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a node must know to keep its lease on its Node object.
#[derive(Debug, Clone)]
pub struct KubeOptions {
    /// Which Node is its own.
    pub node: NodeIdentity,
    /// Where the API server is.
    pub api: ApiSource,
    /// What its annotations' names begin with.
    pub prefix: AnnotationPrefix,
    /// The network configuration.
    pub net_config: PathBuf,
    /// Where the last known state is kept; `None` for nowhere.
    pub cache: Option<PathBuf>,
    /// Whether the Node's condition `NetworkUnavailable` is set to false when the network is up.
    pub sets_condition: bool,
}

/// Which Node is this node's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeIdentity {
    /// The one of this name.
    Named(String),
    /// The one that a pod runs on.
    OfPod {
        /// The pod's namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// A lease store on Node objects. Clones are the same store.
///
/// Its calls need tokio's runtime; each ends within seconds, whatever the API server does.
#[derive(Debug, Clone)]
pub struct KubeStore(Arc<Store>);

#[derive(Debug)]
struct Store {
    options: KubeOptions,
    prefix: AnnotationPrefix,
    api: Api,
    /// What the own Node should say.
    wanted: channel::Sender<Wanted>,
    known: Mutex<Known>,
}

/// What this run has found out.
#[derive(Debug, Default)]
struct Known {
    name: Option<String>,
    /// The lease, its configuration, and the Node that it was taken from.
    held: Option<(Lease, NetConf, Node)>,
    /// The peers of an earlier run, if the API server was out of reach when this one began.
    remembered: Option<Vec<Lease>>,
}

impl KubeStore {
    /// Names the API server and the Node; whether they can be used shows when they are.
    #[must_use]
    pub fn new(options: KubeOptions) -> Self {
        Self(Arc::new(Store {
            prefix: options.prefix.clone(),
            api: Api::new(options.api.clone(), options.prefix.clone()),
            wanted: channel::Sender::new(Wanted::default()),
            known: Mutex::default(),
            options,
        }))
    }
}

impl LeaseStore for KubeStore {
    type Watch = KubeWatch;

    async fn read_config(&self) -> Result<NetConf, StoreError> {
        conf::read(self.0.options.net_config.clone()).await
    }

    /// The lease that the own Node tells of, whatever its addresses.
    async fn find(&self, _: PublicAddrs) -> Result<Option<Lease>, StoreError> {
        let node = self.0.own_node().await?;
        let attrs = attrs_of(&node, &mut |problem| warn!(problem));
        // In one family or the other: the caller wants nothing but what its peers know.
        let conf = self.read_config().await?;
        let key = own_key(&node, &conf).map_err(subnet_error)?;
        let mut ours = [Annotation::Managed, Annotation::BackendData].into_iter();
        let is_announced = ours.any(|annotation| node.annotations.contains_key(&annotation));
        let expires = None;
        Ok(is_announced.then_some(Lease { key, attrs, expires }))
    }

    async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, StoreError> {
        self.0.acquire(request).await
    }

    /// Leases have no end: what is announced is kept right by the watch.
    async fn renew(&self, lease: &Lease) -> Result<Lease, StoreError> {
        self.0.announce(&lease.attrs);
        Ok(lease.clone())
    }

    /// The Node is this node's, whatever addresses it has.
    async fn readdress(&self, lease: &Lease, to: PublicAddrs) -> Result<Lease, StoreError> {
        let attrs = lease.attrs.at(to);
        self.renew(&Lease {
            attrs,
            ..lease.clone()
        })
        .await
    }

    fn watch(&self) -> Result<KubeWatch, StoreError> {
        KubeWatch::begin(Arc::clone(&self.0))
    }

    async fn public_addrs(&self) -> Result<PublicAddrs, StoreError> {
        let node = self.0.own_node().await?;
        let mut tell = |problem| warn!(problem);
        Ok(PublicAddrs {
            v4: parsed(&node, Annotation::NodePublicIp, &mut tell),
            v6: parsed(&node, Annotation::NodePublicIpv6, &mut tell),
        })
    }

    fn network_is_up(&self) {
        if self.0.options.sets_condition {
            self.0.wanted.send_modify(|wanted| wanted.network_is_up = true);
        }
    }
}

impl Store {
    async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, StoreError> {
        let mut node = self.own_node().await?;
        let key = own_key(&node, &request.conf).map_err(subnet_error)?;
        let attrs = published(&request.attrs, &node, &mut |problem| warn!(problem));
        let patch = annotations_patch(&self.prefix, &node, &annotations_of(&attrs));
        if let Some(patch) = patch
            && self.lock().remembered.is_none()
        {
            let patched = self.api.patch_status(&node.name, &patch).await;
            node = patched.map_err(|err| node_error(&node.name, err))?;
            info!(node = node.name, %patch, "the Node's annotations were written");
        }
        self.announce(&request.attrs);
        let lease = Lease {
            key,
            attrs,
            expires: None,
        };
        self.lock().held = Some((lease.clone(), request.conf.clone(), node));
        Ok(lease)
    }

    /// Says what the own Node is to announce from now on.
    fn announce(&self, attrs: &LeaseAttrs) {
        self.wanted.send_if_modified(|wanted| {
            let is_new = wanted.attrs.as_ref() != Some(attrs);
            wanted.attrs = Some(attrs.clone());
            is_new
        });
    }

    /// The own Node: as the server has it, or else as it was in an earlier run.
    async fn own_node(&self) -> Result<Node, StoreError> {
        let cache = self.load_cache().await;
        let asked = self.ask_own_node();
        let answer = if cache.is_some() {
            let late = format!("it did not answer within {} s", PATIENCE.as_secs());
            let late = |_| Err(unreachable("the API server".to_owned(), late));
            tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(late)
        } else {
            asked.await
        };
        match (answer, cache) {
            (Ok(node), _) => {
                self.lock().remembered = None;
                Ok(node)
            }
            (Err(err @ StoreError::Unreachable { .. }), Some(cache)) => {
                let reason = sentence(&err);
                let Cache { own, peers } = cache;
                warn!(reason, peers = peers.len(), "starting from the last known state");
                let mut known = self.lock();
                known.name = Some(own.name.clone());
                known.remembered = Some(peers);
                Ok(own)
            }
            (Err(err), _) => Err(err),
        }
    }

    async fn ask_own_node(&self) -> Result<Node, StoreError> {
        let name = self.name().await?;
        let node = self.api.node(&name).await;
        node.map_err(|err| node_error(&name, err))
    }

    async fn name(&self) -> Result<String, StoreError> {
        let (namespace, pod) = match &self.options.node {
            NodeIdentity::Named(name) => return Ok(name.clone()),
            NodeIdentity::OfPod { namespace, name } => (namespace, name),
        };
        if let Some(name) = self.lock().name.clone() {
            return Ok(name);
        }
        let place = format!("the pod '{namespace}/{pod}'");
        let name = self.api.node_of_pod(namespace, pod).await;
        let name = name.map_err(|err| unreachable(place.clone(), err))?;
        if name.is_empty() {
            return Err(unreachable(place, "node name not present in pod spec"));
        }
        self.lock().name = Some(name.clone());
        Ok(name)
    }

    async fn load_cache(&self) -> Option<Cache> {
        let path = self.options.cache.clone()?;
        let prefix = self.prefix.clone();
        let name = match &self.options.node {
            NodeIdentity::Named(name) => Some(name.clone()),
            NodeIdentity::OfPod { .. } => self.lock().name.clone(),
        };
        let load = move || Cache::load(&path, &prefix, name.as_deref());
        match tokio::task::spawn_blocking(load).await.ok()? {
            Ok(cache) => cache,
            Err(err) => {
                let reason = sentence(&err);
                warn!(reason, "the last known state cannot be used");
                None
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        // No change leaves it half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn node_error(name: &str, err: ApiError) -> StoreError {
    let place = if err.is_absence() {
        format!("the Node {name:?}, which NODE_NAME or the pod names")
    } else {
        format!("the Node {name:?}")
    };
    unreachable(place, err)
}

fn subnet_error(err: SubnetError) -> StoreError {
    let place = "this node's pod CIDR".to_owned();
    let is_yet_to_come = matches!(err, SubnetError::NotAssigned(_));
    let source = err.into();
    if is_yet_to_come {
        StoreError::NotYet { place, source }
    } else {
        StoreError::Unfit { place, source }
    }
}

fn unreachable(place: String, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    let source = source.into();
    StoreError::Unreachable { place, source }
}

/// A number that is not foreseen.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
