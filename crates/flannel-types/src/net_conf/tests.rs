use proptest::prelude::*;

use super::*;

fn error(text: &str) -> String {
    match NetConf::parse(text).and_then(|conf| conf.validated()) {
        Ok(conf) => panic!("{text} is accepted: {conf:?}"),
        Err(err) => err.to_string(),
    }
}

fn valid(text: &str) -> ValidNetConf {
    NetConf::parse(text).unwrap().validated().unwrap()
}

fn pool_v4(text: &str) -> (String, String) {
    let conf = valid(text);
    let pool = conf.ipv4().unwrap();
    (pool.first().to_string(), pool.last().to_string())
}

fn pool_v6(rest: &str) -> (String, String) {
    let conf = valid(&format!(r#"{{"EnableIPv4":false,"EnableIPv6":true,{rest}}}"#));
    assert_eq!(conf.ipv4(), None);
    let pool = conf.ipv6().unwrap();
    (pool.first().to_string(), pool.last().to_string())
}

fn pair(first: &str, last: &str) -> (String, String) {
    (first.to_owned(), last.to_owned())
}

#[test]
fn upstreams_own_test_vectors_hold() {
    assert_eq!(
        pool_v4(r#"{"network":"10.3.0.0/16"}"#),
        pair("10.3.1.0/24", "10.3.255.0/24")
    );
    assert_eq!(
        pool_v6(r#""IPv6Network":"fc00::/48""#),
        pair("fc00:0:0:1::/64", "fc00:0:0:ffff::/64")
    );
}

#[test]
fn subnet_length_defaults_follow_the_network() {
    assert_eq!(
        pool_v4(r#"{"Network":"10.0.0.0/22"}"#),
        pair("10.0.1.0/24", "10.0.3.0/24")
    );
    assert_eq!(
        pool_v4(r#"{"Network":"10.0.0.0/23"}"#),
        pair("10.0.0.128/25", "10.0.1.128/25")
    );
    assert_eq!(
        pool_v4(r#"{"Network":"10.0.0.0/28"}"#),
        pair("10.0.0.4/30", "10.0.0.12/30")
    );
    assert_eq!(
        pool_v4(r#"{"Network":"128.0.0.0/1"}"#),
        pair("128.0.1.0/24", "255.255.255.0/24")
    );
    assert_eq!(
        pool_v6(r#""IPv6Network":"fc00::/62""#),
        pair("fc00:0:0:1::/64", "fc00:0:0:3::/64")
    );
    assert_eq!(
        pool_v6(r#""IPv6Network":"fc00::/124""#),
        pair("fc00::4/126", "fc00::c/126")
    );
    assert_eq!(
        pool_v6(r#""IPv6Network":"8000::/1","IPv6SubnetLen":3"#),
        pair("a000::/3", "e000::/3")
    );
}

#[test]
fn given_bounds_are_inclusive_and_zero_is_unset() {
    let text = r#"{"Network":"10.3.0.0/16","SubnetLen":28,"SubnetMin":"10.3.0.0","SubnetMax":"10.3.0.32"}"#;
    assert_eq!(pool_v4(text), pair("10.3.0.0/28", "10.3.0.32/28"));
    let text = r#"{"Network":"10.3.0.0/16","SubnetLen":0,"SubnetMin":"0.0.0.0","SubnetMax":"0.0.0.0"}"#;
    assert_eq!(pool_v4(text), pair("10.3.1.0/24", "10.3.255.0/24"));
    let text = r#""IPv6Network":"fc00::/48","IPv6SubnetMin":"fc00:0:0:5::","IPv6SubnetMax":"::""#;
    assert_eq!(pool_v6(text), pair("fc00:0:0:5::/64", "fc00:0:0:ffff::/64"));
    let conf = valid(r#"{"Network":"10.3.0.0/16","SubnetMin":"10.3.2.0","SubnetMax":"10.3.4.0"}"#);
    let pool = conf.ipv4().unwrap();
    for (subnet, held) in [
        ("10.3.1.0/24", false),
        ("10.3.2.9/24", true),
        ("10.3.4.0/24", true),
        ("10.3.5.0/24", false),
        ("10.3.3.0/25", false),
    ] {
        assert_eq!(pool.holds(subnet.parse().unwrap()), held, "{subnet}");
    }
}

#[test]
fn broken_rules_are_reported_in_flannels_words() {
    let table = [
        (
            r#"{}"#,
            "please define a correct Network parameter in the flannel config",
        ),
        (
            "null",
            "please define a correct Network parameter in the flannel config",
        ),
        (
            r#"{"Network":"0.0.0.0/0"}"#,
            "please define a correct Network parameter in the flannel config",
        ),
        (
            r#"{"Network":"10.3.0.0/16","SubnetLen":31}"#,
            "SubnetLen must be less than /31",
        ),
        (
            r#"{"Network":"10.3.0.0/16","SubnetLen":280}"#,
            "SubnetLen must be less than /31",
        ),
        (
            r#"{"Network":"10.3.0.0/16","SubnetLen":17}"#,
            "network must be able to accommodate at least four subnets",
        ),
        (
            r#"{"Network":"10.3.0.0/29"}"#,
            "network is too small. Minimum useful network prefix is /28",
        ),
        (
            r#"{"Network":"10.3.0.0/16","SubnetMin":"10.4.0.0"}"#,
            "SubnetMin is not in the range of the Network",
        ),
        (
            r#"{"Network":"10.3.0.0/16","SubnetMax":"10.2.0.0"}"#,
            "SubnetMax is not in the range of the Network",
        ),
        (
            r#"{"Network":"10.3.0.0/16","SubnetMin":"10.3.1.7"}"#,
            "SubnetMin is not on a SubnetLen boundary: 10.3.1.7",
        ),
        (
            r#"{"Network":"10.3.0.0/16","SubnetMax":"10.3.1.7"}"#,
            "SubnetMax is not on a SubnetLen boundary: 10.3.1.7",
        ),
        (
            r#"{"Network":"10.3.0.0/16","SubnetMin":"10.3.9.0","SubnetMax":"10.3.4.0"}"#,
            "SubnetMin 10.3.9.0 is above SubnetMax 10.3.4.0, which leaves no subnet",
        ),
        (r#"{"EnableIPv4":false}"#, "none defined stack"),
    ];
    for (text, expected) in table {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn broken_ipv6_rules_are_reported_in_flannels_words() {
    let table = [
        (
            "",
            "please define a correct IPv6Network parameter in the flannel config",
        ),
        (
            r#","IPv6Network":"::/0""#,
            "please define a correct IPv6Network parameter in the flannel config",
        ),
        (
            r#","IPv6Network":"fc00::/48","IPv6SubnetLen":127"#,
            "SubnetLen must be less than /127",
        ),
        (
            r#","IPv6Network":"fc00::/48","IPv6SubnetLen":49"#,
            "network must be able to accommodate at least four subnets",
        ),
        (
            r#","IPv6Network":"fc00::/125""#,
            "IPv6Network is too small. Minimum useful network prefix is /124",
        ),
        (
            r#","IPv6Network":"fc00::/48","IPv6SubnetMin":"fd00::""#,
            "IPv6SubnetMin is not in the range of the IPv6Network",
        ),
        (
            r#","IPv6Network":"fc00::/48","IPv6SubnetMax":"fd00::""#,
            "IPv6SubnetMax is not in the range of the IPv6Network",
        ),
        (
            r#","IPv6Network":"fc00::/48","IPv6SubnetMin":"fc00::5""#,
            "IPv6SubnetMin is not on a SubnetLen boundary: fc00::5",
        ),
        (
            r#","IPv6Network":"fc00::/48","IPv6SubnetMax":"fc00::5""#,
            "IPv6SubnetMax is not on a SubnetLen boundary: fc00::5",
        ),
    ];
    for (rest, expected) in table {
        let text = format!(r#"{{"Network":"10.3.0.0/16","EnableIPv6":true{rest}}}"#);
        assert_eq!(error(&text), expected, "{text}");
    }
}

#[test]
fn values_of_the_wrong_form_name_their_key() {
    let table = [
        (
            r#"{"Network":5}"#,
            "Network of net-conf must be a string, not such a number",
        ),
        (
            r#"{"Network":"fc00::/48"}"#,
            "invalid IPv4 CIDR format: Network of net-conf is \"fc00::/48\"",
        ),
        (
            r#"{"Network":"10.3.0.0"}"#,
            "invalid IPv4 CIDR format: Network of net-conf is \"10.3.0.0\"",
        ),
        (
            r#"{"IPv6Network":"10.3.0.0/16"}"#,
            "invalid IPv6 CIDR format: IPv6Network of net-conf is \"10.3.0.0/16\"",
        ),
        (
            r#"{"SubnetMin":"x"}"#,
            "SubnetMin of net-conf is \"x\", which is not an IPv4 address",
        ),
        (
            r#"{"IPv6SubnetMax":"1.2.3.4"}"#,
            "IPv6SubnetMax of net-conf is \"1.2.3.4\", which is not an IPv6 address",
        ),
        (
            r#"{"EnableIPv4":"yes"}"#,
            "EnableIPv4 of net-conf must be true or false, not a string",
        ),
        (
            r#"{"SubnetLen":"24"}"#,
            "SubnetLen of net-conf must be a whole number of at least 0, not a string",
        ),
        (
            r#"{"Backend":"vxlan"}"#,
            "Backend is not a JSON object: invalid type: string \"vxlan\", expected an object at line 1 column 7",
        ),
        (
            r#"{"Backend":{"Type":1}}"#,
            "Type of Backend must be a string, not such a number",
        ),
        (
            r#"{"Backend":{"Type":"vxlan","VNI":16777216}}"#,
            "VNI 16777216 is larger than 16777215",
        ),
        (
            r#"{"Backend":{"Type":"vxlan","Port":65536}}"#,
            "Port of Backend is 65536, which is more than 65535",
        ),
        (
            r#"{"Backend":{"Type":"wireguard","Mode":"both"}}"#,
            "no valid Mode configured",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(error(text), expected, "{text}");
    }
    assert!(error("{\"Network\":").starts_with("net-conf is not a JSON object: EOF while parsing"));
}

#[test]
fn an_unknown_backend_is_refused_with_those_that_can_be_chosen() {
    let choice = "choose one of vxlan, host-gw, wireguard, ipip, alloc, extension";
    assert_eq!(
        error(r#"{"Backend":{}}"#),
        format!("unknown backend type: ; {choice}")
    );
    for name in ["Quantum", "tencent-vpc", "ipsec"] {
        let conf = format!(r#"{{"Backend":{{"Type":"{name}"}}}}"#);
        assert_eq!(error(&conf), format!("unknown backend type: {name}; {choice}"));
    }
}

#[test]
fn keys_and_backend_types_match_in_any_case() {
    let conf = NetConf::parse(
        r#"{"network":"10.3.7.9/16","enableipv6":true,"ENABLENFTABLES":true,"ipv6network":"fd00::9/48",
            "backend":{"type":"VXLAN","vni":7,"directrouting":true},"unknown":[1,{}]}"#,
    )
    .unwrap();
    assert_eq!(conf.network.unwrap().to_string(), "10.3.0.0/16");
    assert_eq!(conf.ipv6_network.unwrap().to_string(), "fd00::/48");
    assert!(conf.enable_ipv4 && conf.enable_ipv6 && conf.enable_nftables);
    let expected = Vxlan {
        vni: 7.try_into().unwrap(),
        direct_routing: true,
        ..Vxlan::default()
    };
    assert_eq!(conf.backend, Backend::Vxlan(expected));
}

#[test]
fn an_absent_backend_is_vxlan_and_says_so() {
    for text in [
        r#"{"Network":"10.3.0.0/16"}"#,
        r#"{"Network":"10.3.0.0/16","Backend":null}"#,
    ] {
        let conf = NetConf::parse(text).unwrap();
        assert!(conf.backend_defaulted);
        assert_eq!(conf.backend, Backend::Vxlan(Vxlan::default()));
    }
}

#[test]
fn every_backend_has_flannels_defaults() {
    let backend = |text: &str| {
        NetConf::parse(&format!(r#"{{"Backend":{text}}}"#))
            .unwrap()
            .backend
    };
    assert_eq!(backend(r#"{"Type":"host-gw"}"#), Backend::HostGw);
    assert_eq!(backend(r#"{"Type":"udp"}"#), Backend::Udp { port: 8285 });
    assert_eq!(
        backend(r#"{"Type":"ipip","DirectRouting":true}"#),
        Backend::Ipip { direct_routing: true }
    );
    assert_eq!(backend(r#"{"Type":"alloc"}"#), Backend::Alloc);
    let Backend::Wireguard(wireguard) = backend(r#"{"Type":"wireguard","PSK":"c2VjcmV0"}"#) else {
        panic!("not WireGuard")
    };
    assert_eq!((wireguard.listen_port, wireguard.listen_port_v6), (51820, 51821));
    assert_eq!(
        (wireguard.mode, wireguard.persistent_keepalive),
        (WireguardMode::Separate, None)
    );
    assert_eq!(wireguard.psk.as_ref().map(Secret::reveal), Some("c2VjcmV0"));
    assert!(!format!("{wireguard:?}").contains("c2VjcmV0"));
    let Backend::Extension(extension) = backend(r#"{"Type":"extension","SubnetAddCommand":"ip route add"}"#)
    else {
        panic!("not extension")
    };
    assert_eq!(extension.subnet_add, "ip route add");
    assert_eq!(extension.pre_startup, "");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        drop(NetConf::parse(&text).map(|conf| conf.validated()));
    }

    #[test]
    fn no_combination_of_values_makes_validation_panic_or_lie(
        v4 in any::<(u32, u8)>(), v6 in any::<(u128, u8)>(),
        lens in any::<(Option<u64>, Option<u8>)>(),
        bounds in any::<(Option<u32>, Option<u32>, Option<u128>, Option<u128>)>(),
    ) {
        let conf = NetConf {
            enable_ipv6: true,
            network: Ipv4Network::containing(v4.0.into(), v4.1 % 33),
            ipv6_network: Ipv6Network::containing(v6.0, v6.1 % 129),
            subnet_len: lens.0,
            ipv6_subnet_len: lens.1.map(u64::from),
            subnet_min: bounds.0.map(Into::into),
            subnet_max: bounds.1.map(Into::into),
            ipv6_subnet_min: bounds.2.map(Into::into),
            ipv6_subnet_max: bounds.3.map(Into::into),
            ..NetConf::parse("{}").unwrap()
        };
        if let Ok(valid) = conf.validated() {
            check(valid.ipv4().unwrap());
            check(valid.ipv6().unwrap());
        }
    }

    #[test]
    fn default_pools_skip_the_first_subnet_and_reach_the_end(bits in any::<u32>(), prefix in 1_u8..=28) {
        let network = Ipv4Network::containing(bits.into(), prefix).unwrap();
        let conf = valid(&format!(r#"{{"Network":"{network}"}}"#));
        let pool = conf.ipv4().unwrap();
        check(pool);
        let size = pool.first().last_bits() - pool.first().first_bits() + 1;
        prop_assert_eq!(pool.first().first_bits(), network.first_bits() + size);
        prop_assert_eq!(pool.last().last_bits(), network.last_bits());
    }
}

fn check<N: IpNet>(pool: &SubnetPool<N>) {
    assert!(pool.network().first_bits() <= pool.first().first_bits());
    assert!(pool.first() <= pool.last());
    assert!(pool.last().last_bits() <= pool.network().last_bits());
    assert!(pool.holds(pool.first()) && pool.holds(pool.last()));
    assert_eq!(pool.first().prefix_len(), pool.last().prefix_len());
}
