use lease_store::{KubeOptions, NodeIdentity};

use super::*;

const KUBE: &str = "--kube-subnet-mgr";

fn kube(args: &[&str], env: &[(&str, &str)]) -> KubeOptions {
    let store = run_with(args, env).store;
    let StoreChoice::Kube(options) = store else {
        panic!("{store:?}");
    };
    *options
}

fn notices(args: &[&str], env: &[(&str, &str)]) -> String {
    run_with(args, env).notices.join("\n")
}

#[test]
fn the_defaults_are_upstreams() {
    let options = kube(&[KUBE], &[NODE]);
    assert_eq!(options.node, NodeIdentity::Named("n1".to_owned()));
    assert_eq!(options.prefix.as_str(), "flannel.alpha.coreos.com/");
    assert_eq!(options.net_config, Path::new("/etc/kube-flannel/net-conf.json"));
    assert_eq!(
        options.cache.as_deref(),
        Some(Path::new("/var/lib/flannel/kube-cache.json"))
    );
    assert_eq!((options.api.url, options.api.kubeconfig), (None, None));
    assert!(options.sets_condition);
}

#[test]
fn each_flag_for_kubernetes_has_its_effect() {
    let options = kube(
        &[
            KUBE,
            "--kube-api-url=https://192.0.2.1:6443",
            "-kubeconfig-file=/k",
            "--kube-annotation-prefix=example.org/net",
            "--net-config-path=/n",
            "--set-node-network-unavailable=false",
            "--kube-cache-file=/c",
        ],
        &[NODE],
    );
    assert_eq!(options.api.url.as_deref(), Some("https://192.0.2.1:6443"));
    assert_eq!(options.api.kubeconfig.as_deref(), Some(Path::new("/k")));
    assert_eq!(options.prefix.as_str(), "example.org/net-");
    assert_eq!(options.net_config, Path::new("/n"));
    assert_eq!(options.cache.as_deref(), Some(Path::new("/c")));
    assert!(!options.sets_condition);
    assert!(matches!(
        run_with(&[], &[NODE, ("FLANNELD_KUBE_SUBNET_MGR", "true")]).store,
        StoreChoice::Kube(_)
    ));
}

#[test]
fn the_node_is_named_or_that_of_the_pod() {
    let pod = [("POD_NAME", "p"), ("POD_NAMESPACE", "ns")];
    let of_pod = NodeIdentity::OfPod {
        namespace: "ns".to_owned(),
        name: "p".to_owned(),
    };
    assert_eq!(kube(&[KUBE], &pod).node, of_pod);
    let both = [pod[0], pod[1], NODE];
    assert_eq!(kube(&[KUBE], &both).node, NodeIdentity::Named("n1".to_owned()));
    for env in [&[][..], &pod[..1], &pod[1..], &[("NODE_NAME", "")]] {
        let error = parse_args(&[KUBE], env).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("env variables POD_NAME and POD_NAMESPACE must be set")
        );
        assert_eq!(error.exit_code(), 1);
    }
}

#[test]
fn upstreams_other_variables_are_accepted_and_a_bad_depth_is_not() {
    let manifest = [
        NODE,
        ("EVENT_QUEUE_DEPTH", "5000"),
        ("CONT_WHEN_CACHE_NOT_READY", "false"),
    ];
    kube(&[KUBE], &manifest);
    let error = parse_args(&[KUBE], &[NODE, ("EVENT_QUEUE_DEPTH", "many")]).unwrap_err();
    assert!(error.to_string().contains("EVENT_QUEUE_DEPTH"), "{error}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn a_prefix_that_is_none_and_a_second_store_are_refused() {
    let error = parse_args(&[KUBE, "--kube-annotation-prefix=flannel"], &[NODE]).unwrap_err();
    assert!(
        error.to_string().contains("is no prefix for annotations"),
        "{error}"
    );
    let error = parse_args(&[KUBE, LEASES], &[NODE]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("--lease-dir and --kube-subnet-mgr exclude each other")
    );
}

#[test]
fn what_has_no_effect_is_told() {
    assert!(notices(&["--kubeconfig-file=/k"], &[]).contains("have no effect without --kube-subnet-mgr"));
    assert!(notices(&[KUBE, "--etcd-prefix=/x"], &[NODE]).contains("for etcd have no effect"));
    assert!(!notices(&[KUBE], &[NODE]).contains("no effect"));
}

#[test]
fn nobody_who_enforces_network_policies_is_warned_of_loudly() {
    assert!(notices(&[KUBE], &[NODE]).contains("NETWORK POLICIES ARE NOT ENFORCED"));
    assert_eq!(
        notices(&[KUBE, "--network-policy-engine=kube-router"], &[NODE]),
        ""
    );
    assert_eq!(notices(&[], &[]), "");
}
