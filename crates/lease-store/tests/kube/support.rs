use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fake_apiserver::{Cluster, NodeShape, Server, Transport, Trouble};
use flannel_types::{Lease, LeaseAttrs, NetConf, PreviousSubnets};
use lease_store::{
    ApiSource, KubeOptions, KubeStore, KubeWatch, LeaseEvent, LeaseRequest, LeaseStore, LeaseWatch,
    NodeIdentity,
};
use serde_json::Value;
use tempfile::TempDir;

/// Far above what anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) const DATA: &str = r#"{"VNI":1,"VtepMAC":"92:d6:5e:e3:a2:ad"}"#;

/// What a server answers that is starting or overloaded.
pub(crate) const UNAVAILABLE: Trouble = Trouble::Refuse {
    code: 503,
    retry_after: None,
};

/// A server with the Node `own`, and a node's files.
pub(crate) struct Bed {
    pub(crate) server: Server,
    pub(crate) dir: TempDir,
}

impl Bed {
    pub(crate) async fn new() -> Self {
        let server = Server::start(([127, 0, 0, 1], 0).into(), Transport::Plain)
            .await
            .unwrap();
        let bed = Self {
            server,
            dir: tempfile::tempdir().unwrap(),
        };
        bed.write_conf(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#);
        bed.cluster().put_node(&bare("own", &["10.244.0.0/24"]));
        bed
    }

    pub(crate) fn write_conf(&self, text: &str) {
        std::fs::write(self.conf_path(), text).unwrap();
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        self.server.cluster()
    }

    pub(crate) fn conf_path(&self) -> PathBuf {
        self.dir.path().join("net-conf.json")
    }

    pub(crate) fn cache_path(&self) -> PathBuf {
        self.dir.path().join("state/kube.json")
    }

    pub(crate) fn options(&self) -> KubeOptions {
        KubeOptions {
            node: NodeIdentity::Named("own".to_owned()),
            api: ApiSource {
                url: Some(self.server.url()),
                kubeconfig: None,
            },
            prefix: "flannel.alpha.coreos.com".parse().unwrap(),
            net_config: self.conf_path(),
            cache: None,
            sets_condition: true,
        }
    }

    pub(crate) fn options_with_cache(&self) -> KubeOptions {
        KubeOptions {
            cache: Some(self.cache_path()),
            ..self.options()
        }
    }

    pub(crate) fn store(&self) -> KubeStore {
        KubeStore::new(self.options())
    }

    /// Ends the server, and starts another one at its address with what it knew.
    pub(crate) async fn restart(self) -> Self {
        let (address, cluster) = (self.server.address(), Arc::clone(self.server.cluster()));
        cluster.compact();
        drop(self.server);
        let start = || Server::start_on(address, Transport::Plain, Arc::clone(&cluster));
        let server = eventually("the port to be free", async || start().await.ok()).await;
        Self { server, ..self }
    }

    /// Waits until an annotation of a Node has a value.
    pub(crate) async fn wait_for_annotation(&self, node: &str, suffix: &str, value: &str) {
        let name = format!("flannel.alpha.coreos.com/{suffix}");
        eventually(&format!("{suffix} to be {value}"), async || {
            let found = self.cluster().annotation(node, &name);
            (found.as_deref() == Some(value)).then_some(())
        })
        .await;
    }
}

/// A Node that no daemon has announced anything on.
pub(crate) fn bare(name: &str, cidrs: &[&str]) -> NodeShape {
    NodeShape::bare(name, cidrs)
}

/// A Node whose daemon has announced what the VXLAN backend does.
pub(crate) fn peer(name: &str, cidr: &str, address: &str) -> NodeShape {
    bare(name, &[cidr]).announced(address, "92:d6:5e:e3:a2:ad")
}

pub(crate) fn attrs(address: [u8; 4]) -> LeaseAttrs {
    LeaseAttrs {
        public_ip: Some(Ipv4Addr::from(address)),
        public_ipv6: None,
        backend_type: "vxlan".to_owned(),
        backend_data: Some(DATA.to_owned()),
        backend_v6_data: None,
    }
}

pub(crate) fn conf(path: &Path) -> NetConf {
    NetConf::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub(crate) async fn acquire(bed: &Bed, store: &KubeStore) -> Lease {
    let request = LeaseRequest {
        conf: conf(&bed.conf_path()),
        attrs: attrs([192, 168, 77, 1]),
        previous: PreviousSubnets::default(),
    };
    store.acquire(&request).await.unwrap()
}

/// A watch of a node that holds its lease.
pub(crate) async fn watching(bed: &Bed, store: &KubeStore) -> KubeWatch {
    acquire(bed, store).await;
    store.watch().unwrap()
}

pub(crate) async fn next(watch: &mut KubeWatch) -> LeaseEvent {
    tokio::time::timeout(LONG, watch.next_event())
        .await
        .expect("an event")
}

/// The next event that is a snapshot of exactly these subnets; others before it are let pass.
pub(crate) async fn snapshot_of(watch: &mut KubeWatch, subnets: &[&str]) {
    loop {
        if let LeaseEvent::Snapshot { leases, .. } = next(watch).await {
            let keys: Vec<_> = leases.keys().map(ToString::to_string).collect();
            assert_eq!(keys, subnets);
            return;
        }
    }
}

/// The subnet and the address of a lease that was put.
pub(crate) async fn put(watch: &mut KubeWatch) -> (String, Option<Ipv4Addr>) {
    let event = next(watch).await;
    let LeaseEvent::Put(lease) = event else {
        panic!("no lease was put: {event:?}");
    };
    (lease.key.to_string(), lease.attrs.public_ip)
}

pub(crate) async fn removed(watch: &mut KubeWatch) -> String {
    let event = next(watch).await;
    let LeaseEvent::Remove(key) = event else {
        panic!("no lease was removed: {event:?}");
    };
    key.to_string()
}

pub(crate) async fn unsynced(watch: &mut KubeWatch) -> String {
    let event = next(watch).await;
    let LeaseEvent::Unsynced { reason } = event else {
        panic!("the store is in reach: {event:?}");
    };
    reason
}

/// The path, the kind and the body of each patch since the log was taken.
pub(crate) fn patches(bed: &Bed) -> Vec<(String, String, Value)> {
    let log = bed.cluster().take_log().into_iter();
    log.filter(|request| request.method == "PATCH")
        .map(|request| {
            let body = serde_json::from_str(&request.body).unwrap();
            (request.uri, request.content_type, body)
        })
        .collect()
}

/// Looks again and again until something is so.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + LONG;
    while tokio::time::Instant::now() < end {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited too long for {what}");
}
