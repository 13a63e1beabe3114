use super::*;

fn conf(keys: &str) -> NetConf {
    let text = format!(r#"{{"cniVersion":"1.0.0","name":"cbr0",{keys}}}"#);
    NetConf::parse(text.as_bytes()).unwrap()
}

fn parse(keys: &str) -> Result<Conf, ConfError> {
    Conf::parse(&conf(keys))
}

fn code(keys: &str) -> u32 {
    parse(keys).unwrap_err().code().0
}

const fn limit(rate_bytes_per_sec: u64, burst_bytes: u32) -> Limit {
    Limit {
        rate_bytes_per_sec,
        burst_bytes,
    }
}

#[test]
fn containerds_spelling_and_burst_are_read() {
    let conf = parse(
        r#""runtimeConfig":{"bandWidth":{"IngressRate":10000000,"IngressBurst":4294967295,"EgressRate":0,"EgressBurst":0}}"#,
    );
    let wanted = Conf {
        ingress: Some(limit(1_250_000, 536_870_911)),
        egress: None,
    };
    assert_eq!(conf.unwrap(), wanted);
}

#[test]
fn no_limits_are_found_where_none_are_set() {
    for keys in [
        r#""runtimeConfig":null"#,
        r#""runtimeConfig":{}"#,
        r#""runtimeConfig":{"bandwidth":null}"#,
        r#""runtimeConfig":{"bandwidth":{}}"#,
        r#""runtimeConfig":{"bandwidth":{"shapedSubnets":["10.0.0.0/8"]}}"#,
        r#""egressRate":0,"egressBurst":0"#,
    ] {
        assert!(parse(keys).unwrap().is_unlimited(), "{keys}");
    }
}

#[test]
fn the_configurations_own_limits_count_before_the_runtimes() {
    let runtime = r#""runtimeConfig":{"bandwidth":{"ingressRate":800,"ingressBurst":800}}"#;
    let own = parse(&format!(r#""EgressRate":8000,"egressBurst":16000,{runtime}"#));
    let wanted = Conf {
        ingress: None,
        egress: Some(limit(1000, 2000)),
    };
    assert_eq!(own.unwrap(), wanted);
    assert!(
        parse(&format!(r#""ingressRate":0,{runtime}"#))
            .unwrap()
            .is_unlimited()
    );
}

#[test]
fn what_the_reference_refuses_is_refused() {
    assert_eq!(code(r#""ingressRate":800"#), 7);
    assert_eq!(code(r#""egressBurst":800"#), 7);
    assert_eq!(code(r#""ingressRate":800,"ingressBurst":34359738360"#), 7);
    assert_eq!(code(r#""ingressRate":7,"ingressBurst":800"#), 7);
    assert_eq!(code(r#""ingressRate":800,"ingressBurst":7"#), 7);
    assert_eq!(code(r#""ingressRate":-8,"ingressBurst":8"#), 6);
    assert_eq!(code(r#""ingressRate":"8","ingressBurst":8"#), 6);
    assert_eq!(code(r#""ingressRate":1.5,"ingressBurst":8"#), 6);
    assert_eq!(code(r#""runtimeConfig":{"bandwidth":[]}"#), 6);
    parse(r#""ingressRate":18446744073709551615,"ingressBurst":34359738359"#).unwrap();
}

#[test]
fn subnets_are_refused_with_key_and_value() {
    for key in ["shapedSubnets", "unshapedSubnets"] {
        let error = parse(&format!(
            r#""ingressRate":800,"ingressBurst":800,"{key}":["10.0.0.0/8"]"#
        ))
        .unwrap_err();
        assert_eq!(error.code(), Code::UNSUPPORTED_FIELD);
        assert!(
            error.to_string().starts_with(&format!("{key} 10.0.0.0/8")),
            "{error}"
        );
        parse(&format!(r#""ingressRate":800,"ingressBurst":800,"{key}":[]"#)).unwrap();
    }
}

#[test]
fn values_are_the_references() {
    // As Debian's 1.1.1 set them: `tc` shows the burst as rate × ticks × 64 ns.
    for (limit, ticks, bytes) in [
        (limit(1_000_000, 200_000), 3_125_000, 225_000),
        (limit(125, 1), 125_000, 4),
        (limit(12_500_000_000, 536_870_911), 671_078, 849_370_911),
    ] {
        let bucket = limit.bucket();
        assert_eq!(
            (bucket.burst_ticks, bucket.limit_bytes),
            (ticks, bytes),
            "{limit:?}"
        );
        assert!(limit.is_made_by(&bucket));
    }
}

#[test]
fn a_burst_that_does_not_fit_is_as_large_as_can_be() {
    // containerd's burst at 10 Mbit/s takes 429 s to fill. The reference's wraps to 154.6 s.
    let long = limit(1_250_000, 536_870_911);
    assert_eq!(long.bucket().burst_ticks, u32::MAX);
    let reference = TokenBucket {
        burst_ticks: 2_415_919_079,
        ..long.bucket()
    };
    assert!(long.is_made_by(&reference));
    let other = TokenBucket {
        burst_ticks: 2_415_919_078,
        ..reference
    };
    assert!(!long.is_made_by(&other));
    // At 15,624,992 bits a second the reference's bucket holds 273 bytes, less than a packet.
    let unlucky = limit(1_953_124, 536_870_911);
    assert_eq!(unlucky.wrapped_ticks(), 2188);
    assert_eq!(unlucky.bucket().burst_ticks, u32::MAX);
}

#[test]
fn a_burst_below_a_microsecond_is_not_nothing() {
    assert_eq!(limit(12_500_000_000, 1_500).bucket().burst_ticks, 1);
    assert_eq!(
        limit(1_250_000_000_000, 1_250_000_000).bucket().burst_ticks,
        15_625
    );
}

#[test]
fn extreme_values_do_not_overflow() {
    let bucket = limit(u64::MAX / 8, u32::MAX - 1).bucket();
    assert_eq!((bucket.burst_ticks, bucket.limit_bytes), (1, u32::MAX));
    assert_eq!(limit(1, u32::MAX - 1).bucket().burst_ticks, u32::MAX);
}
