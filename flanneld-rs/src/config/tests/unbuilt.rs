use super::*;

#[test]
fn what_is_not_built_is_refused_when_asked_for_and_says_what_to_do() {
    let asking = [
        ("ip-masq", "true"),
        ("ip-masq-fully-random-disable", "true"),
        ("iptables-forward-rules", "true"),
        ("iptables-resync", "10"),
        ("ip-blackhole-route", "true"),
        ("public-ipv6", "2001:db8::1"),
        ("healthz-ip", "127.0.0.1"),
        ("healthz-port", "10248"),
        ("kube-subnet-mgr", "true"),
        ("kube-api-url", "http://127.0.0.1:8080"),
        ("kubeconfig-file", "/k"),
        ("kube-annotation-prefix", "example.org"),
        ("net-config-path", "/n"),
        ("vmodule", "vxlan=4"),
        ("log_backtrace_at", "main.go:1"),
    ];
    for flag in FLAGS
        .iter()
        .filter(|flag| matches!(flag.support, Support::NotYet { .. }))
    {
        let Some((name, value)) = asking.iter().find(|(name, _)| *name == flag.name) else {
            assert_eq!(flag.name, "set-node-network-unavailable");
            continue;
        };
        let variable = flag.variable();
        for (origin, outcome) in [
            (
                format!("--{name}"),
                parse_args(&[LEASES, &format!("--{name}={value}")], &[]),
            ),
            (variable.clone(), parse_args(&[LEASES], &[(&variable, value)])),
        ] {
            let error = outcome.unwrap_err();
            let text = error.to_string();
            let way_out = text
                .strip_prefix(&format!("{origin} is not supported yet: "))
                .unwrap();
            assert!(
                way_out.starts_with("leave it out") || way_out.starts_with("set it to false"),
                "{text}"
            );
            assert_eq!(error.exit_code(), 1, "{text}");
        }
    }
}

#[test]
fn values_that_ask_for_nothing_are_accepted() {
    let config = run(&[
        LEASES,
        "--ip-masq=false",
        "--kube-subnet-mgr=F",
        "--iptables-forward-rules=0",
        "--ip-blackhole-route=false",
        "--healthz-port=0x0",
        "--healthz-ip=0.0.0.0",
        "--iptables-resync=5",
        "--public-ipv6",
        "",
        "--vmodule=",
        "--log_backtrace_at=:0",
        "--set-node-network-unavailable=false",
    ]);
    assert!(config.unbuilt_defaults.is_empty());
}

#[test]
fn a_default_that_is_not_built_does_not_stop_the_start() {
    let notices = run(&[LEASES]).unbuilt_defaults;
    let starts = ["nothing masquerades", "no rule accepts forwarded pod traffic"];
    assert_eq!(notices.len(), starts.len(), "{notices:?}");
    for (notice, start) in notices.iter().zip(starts) {
        assert!(notice.starts_with(start), "{notice}");
    }
}
