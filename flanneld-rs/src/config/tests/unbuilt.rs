use super::*;

#[test]
fn what_is_not_built_is_refused_when_asked_for_and_says_what_to_do() {
    let asking = [("vmodule", "vxlan=4"), ("log_backtrace_at", "main.go:1")];
    for flag in FLAGS
        .iter()
        .filter(|flag| matches!(flag.support, Support::NotYet { .. }))
    {
        let (name, value) = asking.iter().find(|(name, _)| *name == flag.name).unwrap();
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
    run(&[LEASES, "--public-ipv6", "", "--vmodule=", "--log_backtrace_at=:0"]);
}
