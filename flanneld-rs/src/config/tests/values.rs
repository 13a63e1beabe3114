use super::*;
use crate::cni_conf::EndSignal;

#[test]
fn verbosity_becomes_a_level() {
    let levels = ["-1", "0", "1", "4", "5", "10"].map(|v| run(&[LEASES, "-v", v]).log_level);
    use LogLevel::{Debug, Info, Trace};
    assert_eq!(levels, [Info, Info, Debug, Debug, Trace, Trace]);
}

#[test]
fn the_renewal_margin_has_upstreams_range_and_text() {
    for (text, minutes) in [("1", 1), ("1439", 1439)] {
        let config = run(&[LEASES, "--subnet-lease-renew-margin", text]);
        assert_eq!(config.lease_renew_margin, Duration::from_mins(minutes));
    }
    for text in ["0", "-5", "1440", "9223372036854775807"] {
        let error = parse_args(&[LEASES, "--subnet-lease-renew-margin", text], &[]).unwrap_err();
        assert!(
            error.to_string().starts_with(
                "Invalid subnet-lease-renew-margin option, out of acceptable range: --subnet-lease-renew-margin is"
            ),
            "{error}"
        );
        assert_eq!(error.exit_code(), 1);
    }
}

#[test]
fn the_grace_time_reaches_from_none_to_a_day() {
    for (text, seconds) in [("0", 0), ("86400", 86400)] {
        assert_eq!(
            run(&[LEASES, "--mass-loss-grace", text]).mass_loss_grace,
            Duration::from_secs(seconds)
        );
    }
    for text in ["-1", "86401"] {
        let error = parse_args(&[LEASES], &[("FLANNELD_MASS_LOSS_GRACE", text)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("FLANNELD_MASS_LOSS_GRACE is {text} seconds and must be from 0 to 86400")
        );
        assert_eq!(error.exit_code(), 1);
    }
}

#[test]
fn values_of_the_wrong_form_are_refused_wherever_they_come_from() {
    let wrong = [
        (
            "subnet-lease-renew-margin",
            "an hour",
            "a whole number is expected",
        ),
        ("mass-loss-grace", "60s", "a whole number is expected"),
        ("v", "debug", "a whole number is expected"),
        ("healthz-port", "http", "a port from 0 to 65535 is expected"),
        ("healthz-port", "65536", "a port from 0 to 65535 is expected"),
        ("healthz-port", "-1", "a port from 0 to 65535 is expected"),
        ("healthz-ip", "localhost", "an IP address is expected"),
        ("log-format", "xml", "text or json is expected"),
        ("iptables-resync", "5s", "a whole number is expected"),
        (
            "public-ip",
            "192.0.2.300",
            "the IPv4 address of one host is expected",
        ),
        (
            "public-ip",
            "2001:db8::1",
            "the IPv4 address of one host is expected",
        ),
        ("public-ip", "0.0.0.0", "the IPv4 address of one host is expected"),
        (
            "public-ipv6",
            "fe80::1",
            "the IPv6 address of one host, not a link-local one, is expected",
        ),
        (
            "public-ipv6",
            "10.0.0.1",
            "the IPv6 address of one host, not a link-local one, is expected",
        ),
        (
            "public-ip",
            "255.255.255.255",
            "the IPv4 address of one host is expected",
        ),
        (
            "public-ip",
            "224.0.0.1",
            "the IPv4 address of one host is expected",
        ),
        ("iface-can-reach", "example.org", "an IP address is expected"),
        ("iface", "an-interface-name-too-long", "longer than 15 bytes"),
        ("iface", "eth0:1", "contains / : % or white space"),
        ("iface-regex", "eth[0", "unclosed character class"),
        ("iface-regex", "(?<=a)b", "look-around"),
    ];
    for (name, value, reason) in wrong {
        let variable = Flag::find(name).unwrap().variable();
        for (origin, outcome) in [
            (
                format!("--{name}"),
                parse_args(&[LEASES, &format!("--{name}={value}")], &[]),
            ),
            (variable.clone(), parse_args(&[LEASES], &[(&variable, value)])),
        ] {
            let error = outcome.unwrap_err();
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("invalid value {value:?} for {origin}: ")),
                "{text}"
            );
            assert!(text.contains(reason), "{text}");
            assert_eq!((error.exit_code(), text.lines().count()), (2, 1), "{text}");
        }
    }
}

#[test]
fn paths_cannot_be_empty_but_need_not_be_utf8() {
    for name in ["lease-dir", "subnet-file"] {
        assert_usage(
            &[LEASES, &format!("--{name}=")],
            "a path, which cannot be empty, is expected",
        );
    }
    let odd = OsString::from_vec(b"--lease-dir=/l\xff".to_vec());
    let Ok(Invocation::Run(config)) = parse([odd], &|_| None) else {
        panic!("refused")
    };
    assert_eq!(directory(&config).as_os_str().as_encoded_bytes(), b"/l\xff");
    let odd = OsString::from_vec(b"--iface=\xff".to_vec());
    let error = parse([LEASES.into(), odd], &|_| None).unwrap_err();
    assert!(error.to_string().ends_with("UTF-8 is expected"), "{error}");
}

#[test]
fn patterns_mean_what_they_mean_in_go() {
    let config = run(&[
        LEASES,
        r"--iface-regex=^(?i)ETH\d$",
        "--iface-regex=10\\.0\\.[[:digit:]]+",
    ]);
    let [name, ip] = config.iface.regexes.as_slice() else {
        panic!("{:?}", config.iface.regexes)
    };
    assert!(name.is_match(b"eth7") && !name.is_match("eth\u{663}".as_bytes()));
    assert!(ip.is_match(b"10.0.42.1"));
}

#[test]
fn the_rules_that_are_wanted_are_upstreams_by_default() {
    let rules = run(&[LEASES]).rules;
    assert!(!rules.masquerade && rules.fully_random && rules.forward);
    assert_eq!(rules.audit_interval, Duration::from_secs(5));
    let rules = run(&[
        LEASES,
        "--ip-masq",
        "--ip-masq-fully-random-disable",
        "--iptables-forward-rules=false",
        "--iptables-resync=60",
    ])
    .rules;
    assert!(rules.masquerade && !rules.fully_random && !rules.forward);
    assert_eq!(rules.audit_interval, Duration::from_secs(60));
    for seconds in ["0", "-5", "x"] {
        let error = parse_args(&[LEASES, &format!("--iptables-resync={seconds}")], &[]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn the_runtimes_configuration_is_written_only_where_its_source_is_named() {
    assert_eq!(run(&[]).cni_conf, None);
    let conf = run(&["--cni-conf-src=/a"]).cni_conf.unwrap();
    assert_eq!(
        (conf.source.as_path(), conf.dir.as_path(), conf.remove_on),
        (Path::new("/a"), Path::new("/etc/cni/net.d"), None)
    );
    for (signal, expected) in [
        ("none", None),
        ("SIGTERM", Some(EndSignal::Terminate)),
        ("SIGINT", Some(EndSignal::Interrupt)),
    ] {
        let remove_on = format!("--cni-conf-remove-on={signal}");
        let conf = run(&["--cni-conf-src=/a", "--cni-conf-dir=/b", &remove_on])
            .cni_conf
            .unwrap();
        assert_eq!((conf.dir.as_path(), conf.remove_on), (Path::new("/b"), expected));
    }
    for (flags, named) in [
        (
            &["--cni-conf-dir=/b"][..],
            "--cni-conf-dir has a meaning with --cni-conf-src only",
        ),
        (
            &["--cni-conf-remove-on=SIGTERM"],
            "--cni-conf-remove-on has a meaning",
        ),
        (
            &["--cni-conf-src=/a", "--cni-conf-remove-on=KILL"],
            "none, SIGINT or SIGTERM",
        ),
    ] {
        let said = parse_args(flags, &[]).unwrap_err().to_string();
        assert!(said.contains(named), "{said}");
    }
}
