use super::*;

#[test]
fn what_is_not_built_is_refused_when_asked_for_and_says_what_to_do() {
    let asking = [
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
    run(&[
        LEASES,
        "--kube-subnet-mgr=F",
        "--public-ipv6",
        "",
        "--vmodule=",
        "--log_backtrace_at=:0",
        "--set-node-network-unavailable=false",
    ]);
}
