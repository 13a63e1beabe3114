//! Encrypted connections, and users.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use etcd::{Credentials, Options, TlsFiles};
use lease_store::{ErrorClass, EtcdStore, LeaseStore};
use net_types::sentence;

use crate::admin::enable_auth;
use crate::certificates::{Authority, Pair};
use crate::member::{Member, ServerTls};
use crate::support::{CONFIG, Lab, PREFIX, in_netns, next, options, request, snapshot};

const ADMIN: u16 = 12_379;

/// A server that speaks TLS; without a second authority, it wants no client's certificate.
fn server(pair: &Pair, client_authority: Option<PathBuf>) -> Member {
    let tls = ServerTls {
        certificate: &pair.certificate,
        key: &pair.key,
        client_authority: client_authority.as_deref(),
    };
    Member::start_with(&[], Some(&tls))
}

fn store(member: &Member, ca: Option<PathBuf>, client: Option<&Pair>) -> EtcdStore {
    let client = client.map(|pair| (pair.certificate.clone(), pair.key.clone()));
    let options = Options {
        tls: TlsFiles { ca, client },
        ..options(&[&member.url()])
    };
    EtcdStore::new(options, PREFIX)
}

async fn refusal(store: &EtcdStore) -> (ErrorClass, String) {
    // A server that was started this moment may answer nothing yet.
    let mut result = store.read_config().await;
    for _ in 0..50 {
        match &result {
            Err(err) if sentence(err).contains("cannot answer") => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                result = store.read_config().await;
            }
            Ok(_) | Err(_) => break,
        }
    }
    let err = result.unwrap_err();
    (err.class(), sentence(&err))
}

#[test]
fn https_needs_only_the_authority_when_the_server_wants_no_client_certificate() {
    in_netns(async {
        let authority = Authority::new();
        let member = server(&authority.server("127.0.0.1"), None);
        let (class, text) = refusal(&store(&member, Some(authority.certificate()), None)).await;
        // It is the answer of a server that was reached, and that has no configuration yet.
        assert_eq!(class, ErrorClass::Retry);
        assert!(text.starts_with("flannel config not found"), "{text}");
    });
}

#[test]
fn a_certificate_that_is_not_trusted_or_names_another_host_is_named() {
    in_netns(async {
        let (authority, other) = (Authority::new(), Authority::new());
        let member = server(&authority.server("127.0.0.1"), None);
        let (class, text) = refusal(&store(&member, Some(other.certificate()), None)).await;
        assert_eq!(class, ErrorClass::Retry);
        assert!(
            text.contains("the certificate of etcd at https://127.0.0.1:2379 is not trusted"),
            "{text}"
        );
        assert!(
            text.contains("check the file of certificate authorities"),
            "{text}"
        );
        // Without a file of authorities, the system's count, and they do not know this one.
        let (_, text) = refusal(&store(&member, None, None)).await;
        assert!(
            text.contains("is not trusted") || text.contains("cannot read /etc/ssl/certs"),
            "{text}"
        );
        drop(member);
        let member = server(&authority.server("etcd.example.org"), None);
        let (_, text) = refusal(&store(&member, Some(authority.certificate()), None)).await;
        assert!(
            text.contains("is not trusted") && text.contains("not valid for name"),
            "{text}"
        );
    });
}

#[test]
fn a_client_certificate_is_shown_where_the_server_wants_one() {
    in_netns(async {
        let authority = Authority::new();
        let member = server(&authority.server("127.0.0.1"), Some(authority.certificate()));
        let client = authority.client();
        let (_, text) = refusal(&store(&member, Some(authority.certificate()), Some(&client))).await;
        assert!(text.starts_with("flannel config not found"), "{text}");
        let stranger = Authority::new().client();
        for wrong in [None, Some(&stranger)] {
            if wrong.is_some() {
                // The stranger's files are gone with its authority.
                let (class, text) = refusal(&store(&member, Some(authority.certificate()), wrong)).await;
                assert_eq!(class, ErrorClass::Fatal);
                assert!(text.contains(".crt") && text.contains("No such file"), "{text}");
                continue;
            }
            let (class, text) = refusal(&store(&member, Some(authority.certificate()), wrong)).await;
            assert_eq!(class, ErrorClass::Retry);
            assert!(
                text.contains("check the client certificate and its key"),
                "{text}"
            );
        }
        let others = Authority::new();
        let stranger = others.client();
        let (_, text) = refusal(&store(&member, Some(authority.certificate()), Some(&stranger))).await;
        assert!(
            text.contains("check the client certificate and its key"),
            "{text}"
        );
    });
}

#[test]
fn a_file_that_holds_no_certificate_is_named() {
    in_netns(async {
        let authority = Authority::new();
        let member = server(&authority.server("127.0.0.1"), None);
        let garbage = authority.certificate().with_file_name("garbage");
        fs::write(&garbage, "no certificate").unwrap();
        let (class, text) = refusal(&store(&member, Some(garbage.clone()), None)).await;
        assert_eq!(class, ErrorClass::Fatal);
        assert!(
            text.contains(garbage.to_str().unwrap()) && text.contains("no certificate or key in PEM form"),
            "{text}"
        );
        let swapped = Pair {
            certificate: authority.client().key,
            key: authority.client().certificate,
        };
        let (class, text) = refusal(&store(&member, Some(authority.certificate()), Some(&swapped))).await;
        assert_eq!(class, ErrorClass::Fatal);
        assert!(
            text.contains("cannot use the certificates or the key for TLS"),
            "{text}"
        );
    });
}

fn as_user(member: &Member, user: &str, password: &str) -> EtcdStore {
    let credentials = Some(Credentials {
        user: user.to_owned(),
        password: password.to_owned(),
    });
    let options = Options {
        credentials,
        ..options(&[&member.url()])
    };
    EtcdStore::new(options, PREFIX)
}

#[test]
fn a_user_with_rights_on_the_prefix_can_do_everything_and_the_token_is_renewed() {
    in_netns(async {
        let member = Member::start_with(&["--auth-token-ttl=1"], None);
        let lab = Lab::on(member, CONFIG).await;
        enable_auth(ADMIN);
        let store = as_user(&lab.member, "flannel", "offen");
        assert!(!format!("{store:?}").contains("offen"));
        let mine = store.acquire(&request(CONFIG, 1)).await.unwrap();
        let mut watch = store.watch().unwrap();
        assert_eq!(snapshot(&mut watch).await.len(), 1);
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(3)).await;
            store.renew(&mine).await.unwrap();
        }
        let mut other = mine.clone();
        other.attrs.backend_data = None;
        store.renew(&other).await.unwrap();
        drop(next(&mut watch).await);
    });
}

#[test]
fn wrong_or_missing_rights_say_what_to_do_and_never_the_password() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        // A cluster that does not ask who one is lets anybody in, as upstream's client has it.
        as_user(&lab.member, "flannel", "offen")
            .read_config()
            .await
            .unwrap();
        enable_auth(ADMIN);
        for (store, words) in [
            (
                as_user(&lab.member, "flannel", "falsch"),
                "check the user name and the password",
            ),
            (
                as_user(&lab.member, "nobody", "offen"),
                "check the user name and the password",
            ),
            (lab.store(), "give a user name and a password"),
        ] {
            let (class, text) = refusal(&store).await;
            assert_eq!(class, ErrorClass::Fatal, "{text}");
            assert!(text.contains(words), "{text}");
            assert!(!text.contains("falsch") && !text.contains("offen"), "{text}");
        }
        let options = Options {
            credentials: Some(Credentials {
                user: "flannel".to_owned(),
                password: "offen".to_owned(),
            }),
            ..options(&[&lab.member.url()])
        };
        let (class, text) = refusal(&EtcdStore::new(options, "/elsewhere")).await;
        assert_eq!(class, ErrorClass::Fatal);
        assert!(
            text.contains("grant the user read and write permission on all keys of the prefix"),
            "{text}"
        );
    });
}
