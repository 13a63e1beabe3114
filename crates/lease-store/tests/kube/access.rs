//! Credentials, rights and encryption.

use fake_apiserver::{NodeShape, Role, Server, Transport};
use flannel_types::PublicAddrs;
use lease_store::{KubeOptions, KubeStore, LeaseStore};

use crate::support::{Bed, bare, peer, put, snapshot_of, watching};

const NOBODY: PublicAddrs = PublicAddrs { v4: None, v6: None };

/// A kubeconfig whose user has this token in a file.
fn with_token(bed: &Bed, token: &str, ca: Option<&str>) -> KubeOptions {
    write_token(bed, token);
    let authority = ca.map(|pem| {
        std::fs::write(bed.dir.path().join("ca.crt"), pem).unwrap();
        "    certificate-authority: ca.crt\n"
    });
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: k\n  cluster:\n    server: {}\n{}\
         contexts:\n- name: c\n  context: {{cluster: k, user: u}}\nusers:\n- name: u\n  user:\n    tokenFile: {}\n",
        bed.server.url(),
        authority.unwrap_or_default(),
        bed.dir.path().join("token").display()
    );
    let path = bed.dir.path().join("kubeconfig");
    std::fs::write(&path, text).unwrap();
    let mut options = bed.options();
    options.api.url = None;
    options.api.kubeconfig = Some(path);
    options
}

fn write_token(bed: &Bed, token: &str) {
    std::fs::write(bed.dir.path().join("token"), token).unwrap();
}

#[tokio::test]
async fn the_rights_of_upstreams_role_are_enough() {
    let bed = Bed::new().await;
    bed.cluster().allow("secret", Role::Flannel);
    let store = KubeStore::new(with_token(&bed, "secret", None));
    let mut watch = watching(&bed, &store).await;
    snapshot_of(&mut watch, &["10.244.0.0-24"]).await;
    store.network_is_up();
    crate::support::eventually("the condition", async || {
        let node = bed.cluster().node("own").unwrap();
        (node["status"]["conditions"][0]["status"] == "False").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_token_that_is_replaced_on_the_disk_is_used_at_once() {
    let bed = Bed::new().await;
    bed.cluster().allow("first", Role::Flannel);
    let store = KubeStore::new(with_token(&bed, "first", None));
    let mut watch = watching(&bed, &store).await;
    snapshot_of(&mut watch, &["10.244.0.0-24"]).await;
    bed.cluster().allow("second", Role::Flannel);
    write_token(&bed, "second");
    bed.cluster().forbid("first");
    bed.cluster().restart();
    bed.cluster()
        .put_node(&peer("a", "10.244.1.0/24", "192.168.77.2"));
    let mut seen = Vec::new();
    while !seen.iter().any(|key| key == "10.244.1.0-24") {
        match crate::support::next(&mut watch).await {
            lease_store::LeaseEvent::Put(lease) => seen.push(lease.key.to_string()),
            lease_store::LeaseEvent::Snapshot { leases, .. } => {
                seen.extend(leases.keys().map(ToString::to_string));
            }
            lease_store::LeaseEvent::Remove(_) | lease_store::LeaseEvent::Unsynced { .. } => {}
        }
    }
}

#[tokio::test]
async fn missing_rights_are_named() {
    let bed = Bed::new().await;
    bed.cluster().allow("secret", Role::Nobody);
    let store = KubeStore::new(with_token(&bed, "secret", None));
    let sentence = net_types::sentence(&store.find(NOBODY).await.unwrap_err());
    assert!(
        sentence.contains("403") && sentence.contains("forbidden"),
        "{sentence}"
    );
    assert!(!sentence.contains("secret"), "{sentence}");
    let stranger = KubeStore::new(with_token(&bed, "unknown-one", None));
    let sentence = net_types::sentence(&stranger.find(NOBODY).await.unwrap_err());
    assert!(
        sentence.contains("401") && !sentence.contains("unknown-one"),
        "{sentence}"
    );
}

#[tokio::test]
async fn an_encrypted_server_is_known_by_its_authority_alone() {
    let server = Server::start(([127, 0, 0, 1], 0).into(), Transport::Tls)
        .await
        .unwrap();
    let bed = Bed {
        server,
        ..Bed::new().await
    };
    bed.cluster().put_node(&bare("own", &["10.244.0.0/24"]));
    bed.cluster().put_node(&NodeShape {
        bytes: 30_000,
        ..peer("a", "10.244.1.0/24", "192.168.77.2")
    });
    bed.cluster().allow("secret", Role::Flannel);
    let ca = bed.server.ca_pem().unwrap().to_owned();
    let store = KubeStore::new(with_token(&bed, "secret", Some(&ca)));
    let mut watch = watching(&bed, &store).await;
    snapshot_of(&mut watch, &["10.244.0.0-24", "10.244.1.0-24"]).await;
    bed.cluster()
        .put_node(&peer("b", "10.244.2.0/24", "192.168.77.3"));
    assert_eq!(put(&mut watch).await.0, "10.244.2.0-24");
    let other = Server::start(([127, 0, 0, 1], 0).into(), Transport::Tls)
        .await
        .unwrap();
    let stranger = with_token(&bed, "secret", other.ca_pem());
    let err = KubeStore::new(stranger).find(NOBODY).await.unwrap_err();
    assert!(
        net_types::sentence(&err).contains("certificate"),
        "{}",
        net_types::sentence(&err)
    );
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_is_named() {
    let bed = Bed::new().await;
    let mut options = bed.options();
    options.api.url = None;
    options.api.kubeconfig = Some(bed.dir.path().join("absent"));
    let sentence = net_types::sentence(&KubeStore::new(options).find(NOBODY).await.unwrap_err());
    assert!(sentence.contains("absent"), "{sentence}");
}
