//! What all tests of this file use.

use std::collections::BTreeMap;
use std::future::Future;
use std::process::Command;
use std::time::Duration;

use etcd::messages::{
    DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, Request, RequestOp, TxnRequest, TxnResponse,
};
use etcd::{Client, Options, TlsFiles};
use flannel_types::{Lease, LeaseAttrs, NetConf, PreviousSubnets, VxlanData};
use lease_store::{EtcdStore, EtcdWatch, LeaseEvent, LeaseRequest, LeaseWatch};
use net_types::SubnetKey;
use nix::sched::{CloneFlags, unshare};

use crate::member::Member;

pub const PREFIX: &str = "/coreos.com/network";
pub const CONFIG: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
pub const DUAL_STACK: &str = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}"#;
pub const V6_ONLY: &str = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48"}"#;
/// An event that does not come within this time does not come. Two limits of five seconds and a pause are in it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test in a network namespace of its own, with the loopback up, on a runtime like the daemon's.
pub fn in_netns<T>(test: impl Future<Output = T>) -> T {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    assert!(
        Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()
            .unwrap()
            .success()
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(test)
}

/// Changes the firewall of the test's namespace.
pub fn nft(script: &str) {
    assert!(
        Command::new("nft").arg(script).status().unwrap().success(),
        "{script}"
    );
}

/// A single server with a configuration, and what a test does to it.
pub struct Lab {
    pub member: Member,
    pub raw: Raw,
}

/// A client that reads and writes keys as they are.
pub struct Raw(pub Client);

impl Lab {
    pub async fn new(config: &str) -> Self {
        Self::on(Member::start(), config).await
    }

    pub async fn on(member: Member, config: &str) -> Self {
        let raw = Raw(Client::new(options(&[&member.own_url()])));
        raw.put("config", config, 0).await;
        Self { member, raw }
    }

    /// A store as another daemon would open it.
    pub fn store(&self) -> EtcdStore {
        EtcdStore::new(options(&[&self.member.url()]), PREFIX)
    }
}

impl Raw {
    async fn txn(&self, request: Request) -> TxnResponse {
        let operation = RequestOp {
            request: Some(request),
        };
        let request = TxnRequest {
            success: vec![operation],
            ..TxnRequest::default()
        };
        // The server may have been started this moment.
        for _ in 0..100 {
            match self.0.txn(request.clone()).await {
                Ok(answer) => return answer,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        self.0.txn(request).await.unwrap()
    }

    /// Sets a key below the prefix.
    pub async fn put(&self, name: &str, value: &str, etcd_lease: i64) {
        self.txn(Request::Put(PutRequest {
            key: format!("{PREFIX}/{name}").into_bytes(),
            value: value.as_bytes().to_vec(),
            lease: etcd_lease,
        }))
        .await;
    }

    pub async fn delete(&self, name: &str) {
        let key = format!("{PREFIX}/{name}").into_bytes();
        self.txn(Request::DeleteRange(DeleteRangeRequest { key })).await;
    }

    /// Everything below the prefix, by name.
    pub async fn dump(&self) -> BTreeMap<String, KeyValue> {
        let request = RangeRequest {
            key: format!("{PREFIX}/").into_bytes(),
            range_end: format!("{PREFIX}0").into_bytes(),
            ..RangeRequest::default()
        };
        let name = |found: &KeyValue| {
            let key = String::from_utf8(found.key.clone()).unwrap();
            key.strip_prefix(&format!("{PREFIX}/")).unwrap().to_owned()
        };
        let found = self.0.range(request).await.unwrap().kvs;
        found.into_iter().map(|found| (name(&found), found)).collect()
    }

    /// One lease's key.
    pub async fn stored(&self, key: SubnetKey) -> KeyValue {
        self.dump().await.remove(&format!("subnets/{key}")).unwrap()
    }
}

pub fn options(endpoints: &[&str]) -> Options {
    Options {
        endpoints: endpoints.iter().map(|url| url.parse().unwrap()).collect(),
        tls: TlsFiles::default(),
        credentials: None,
    }
}

pub fn attrs(node: u8) -> LeaseAttrs {
    let data = VxlanData {
        vni: 1.try_into().unwrap(),
        vtep_mac: format!("02:00:00:00:00:{node:02x}").parse().unwrap(),
    };
    LeaseAttrs {
        public_ip: Some([192, 168, 77, node].into()),
        public_ipv6: None,
        backend_type: "vxlan".to_owned(),
        backend_data: Some(data.to_json()),
        backend_v6_data: None,
    }
}

/// The value of a node's lease, as upstream writes it.
pub fn value(node: u8) -> String {
    format!(
        "{{\"PublicIP\":\"192.168.77.{node}\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\"BackendData\":{{\"VNI\":1,\
         \"VtepMAC\":\"02:00:00:00:00:{node:02x}\"}}}}"
    )
}

pub fn request(config: &str, node: u8) -> LeaseRequest {
    LeaseRequest {
        conf: NetConf::parse(config).unwrap(),
        attrs: attrs(node),
        previous: PreviousSubnets::default(),
    }
}

pub fn key(text: &str) -> SubnetKey {
    text.parse().unwrap()
}

/// A lease as a watch reports it.
pub fn lease(text: &str, node: u8) -> Lease {
    Lease {
        key: key(text),
        attrs: attrs(node),
        expires: None,
    }
}

pub async fn next(watch: &mut EtcdWatch) -> LeaseEvent {
    let event = tokio::time::timeout(PATIENCE, watch.next_event()).await;
    event.expect("no event comes")
}

/// Waits for the next snapshot, and returns its leases.
pub async fn snapshot(watch: &mut EtcdWatch) -> BTreeMap<SubnetKey, Lease> {
    loop {
        if let LeaseEvent::Snapshot { leases, .. } = next(watch).await {
            return leases;
        }
    }
}

/// Waits until the store is said to be out of reach, and returns why.
pub async fn unsynced(watch: &mut EtcdWatch) -> String {
    let event = next(watch).await;
    let LeaseEvent::Unsynced { reason } = event else {
        panic!("{event:?}")
    };
    reason
}
