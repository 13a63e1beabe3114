use super::*;

fn etcd(config: &Config) -> &EtcdChoice {
    let StoreChoice::Etcd(choice) = &config.store else {
        panic!("{:?}", config.store);
    };
    choice
}

fn endpoints(args: &[&str]) -> Vec<String> {
    let config = run(args);
    etcd(&config)
        .options
        .endpoints
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn without_a_lease_directory_the_leases_are_in_etcd_as_upstream_has_it() {
    let config = run(&["--etcd-username=", "--etcd-cafile", ""]);
    let choice = etcd(&config);
    assert_eq!(choice.prefix, "/coreos.com/network");
    assert!(choice.options.credentials.is_none() && choice.options.tls.ca.is_none());
    assert_eq!(endpoints(&[]), ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]);
}

#[test]
fn an_endpoint_without_a_scheme_is_encrypted_where_there_are_files_for_it() {
    let plain = "--etcd-endpoints=etcd-1:2379, http://etcd-2:2379";
    assert_eq!(endpoints(&[plain]), ["http://etcd-1:2379", "http://etcd-2:2379"]);
    assert_eq!(
        endpoints(&[plain, "--etcd-cafile=/ca"]),
        ["https://etcd-1:2379", "http://etcd-2:2379"]
    );
}

#[test]
fn endpoints_that_are_none_are_refused_with_the_form_that_is_expected() {
    for value in [
        "etcd-1",
        "http://",
        "unix:///run/etcd",
        "http://a:1,,http://b:1",
        "http://u:geheim@a:1",
    ] {
        let error = parse_args(&[&format!("--etcd-endpoints={value}")], &[]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error
                .to_string()
                .contains("http://HOST:PORT or https://HOST:PORT"),
            "{error}"
        );
    }
}

#[test]
fn of_flags_that_belong_together_none_may_be_missing() {
    for (given, missing) in [
        ("etcd-keyfile", "etcd-certfile"),
        ("etcd-certfile", "etcd-keyfile"),
        ("etcd-username", "etcd-password"),
        ("etcd-password", "etcd-username"),
    ] {
        let error = parse_args(&[&format!("--{given}=geheim")], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("--{given} has a meaning with --{missing} only: give both or none")
        );
        assert_eq!(error.exit_code(), 1);
    }
}

#[test]
fn a_directory_and_etcd_exclude_each_other() {
    for (args, env, option) in [
        (&[LEASES, "--etcd-prefix=/x"][..], &[][..], "--etcd-prefix"),
        (
            &[LEASES],
            &[("FLANNELD_ETCD_ENDPOINTS", "http://a:1")],
            "FLANNELD_ETCD_ENDPOINTS",
        ),
    ] {
        let error = parse_args(args, env).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("--lease-dir and {option} exclude each other")),
            "{error}"
        );
        assert_eq!(error.exit_code(), 1);
    }
}

#[test]
fn files_for_tls_that_have_no_effect_are_reported() {
    let told = |args: &[&str]| {
        let notices = run(args).notices;
        notices
            .iter()
            .any(|notice| notice.starts_with("the files for TLS with etcd have no effect"))
    };
    assert!(told(&[
        "--etcd-cafile=/ca",
        "--etcd-endpoints=http://a:1,http://b:1"
    ]));
    assert!(!told(&[
        "--etcd-cafile=/ca",
        "--etcd-endpoints=http://a:1,https://b:1"
    ]));
    assert!(!told(&["--etcd-endpoints=http://a:1"]));
}

#[test]
fn the_password_is_never_shown() {
    let config = run(&["--etcd-username=flannel", "--etcd-password=geheim"]);
    assert_eq!(
        etcd(&config).options.credentials.as_ref().unwrap().password,
        "geheim"
    );
    assert!(!format!("{config:?}").contains("geheim"));
    let odd = OsString::from_vec(b"--etcd-password=geheim\xff".to_vec());
    let error = parse(["--etcd-username=u".into(), odd], &|_| None).unwrap_err();
    assert_eq!(error.to_string(), "the value for --etcd-password is not UTF-8");
}
