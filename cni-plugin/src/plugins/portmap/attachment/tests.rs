use super::*;

/// An attachment of a container to the network `cbr0`, by a configuration's keys.
pub(crate) fn attachment(id: &str, addresses: &[&str], rest: &str) -> Attachment {
    let text = format!(r#"{{"cniVersion":"1.0.0","name":"cbr0","type":"portmap"{rest}}}"#);
    let netconf = NetConf::parse(text.as_bytes()).unwrap();
    let conf = Conf::parse(&netconf).unwrap();
    let backend = conf.backend.unwrap_or(Backend::Nftables);
    Attachment {
        network: netconf.name,
        target: Target {
            container_id: ContainerId::new(id).unwrap(),
            ifname: IfName::new("eth0").unwrap(),
        },
        backend,
        conf: Conf {
            backend: Some(backend),
            ..conf
        },
        addresses: addresses.iter().map(|text| parse_cidr(text).unwrap()).collect(),
    }
}

/// The mappings of the reference's own tests.
pub(crate) const REFERENCES_MAPPINGS: &str = r#","runtimeConfig":{"portMappings":[
    { "hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    { "hostPort": 8081, "containerPort": 80, "protocol": "tcp"},
    { "hostPort": 8080, "containerPort": 81, "protocol": "udp"},
    { "hostPort": 8082, "containerPort": 82, "protocol": "udp"},
    { "hostPort": 8083, "containerPort": 83, "protocol": "tcp", "hostIP": "192.168.0.2"},
    { "hostPort": 8084, "containerPort": 84, "protocol": "tcp", "hostIP": "0.0.0.0"},
    { "hostPort": 8085, "containerPort": 85, "protocol": "tcp", "hostIP": "2001:db8:a::1"},
    { "hostPort": 8086, "containerPort": 86, "protocol": "tcp", "hostIP": "::"}
]}"#;

#[test]
fn what_is_stored_reads_back() {
    for rest in [
        REFERENCES_MAPPINGS.to_owned(),
        r#","snat":false,"masqAll":true,"markMasqBit":31,"conditionsV4":["ip saddr 10.0.0.0/8"]"#.to_owned(),
        r#","externalSetMarkChain":"X","conditionsV6":["-s","fd00::/8"]"#.to_owned(),
    ] {
        let attachment = attachment("a2", &["10.244.7.2/24", "fd00::2/64"], &rest);
        let text = attachment.to_text();
        assert_eq!(Attachment::parse(text.as_bytes()).unwrap(), attachment);
    }
}

#[test]
fn a_damaged_file_tells_no_attachment() {
    let whole = attachment("a2", &["10.244.7.2/24"], REFERENCES_MAPPINGS).to_text();
    for (part, other) in [
        ("\"backend\":\"nftables\",", ""),
        ("10.244.7.2/24", "10.244.7.2"),
        ("\"a2\"", "\"../a\""),
        ("\"eth0\"", "\"\""),
        ("8080", "0"),
        ("\"cbr0\"", "\"\""),
    ] {
        let damaged = whole.replacen(part, other, 1);
        assert_ne!(damaged, whole);
        assert!(Attachment::parse(damaged.as_bytes()).is_err(), "{damaged}");
    }
    assert!(Attachment::parse(b"").is_err());
}

#[test]
fn addresses_are_those_of_the_containers_interface() {
    let addresses = |text: &str| {
        let result = AddResult::parse(&serde_json::from_str(text).unwrap()).unwrap();
        let addresses = addresses_of(&result, &IfName::new("eth0").unwrap());
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let interfaces =
        r#""interfaces":[{"name":"cni0"},{"name":"eth0","sandbox":"/run/netns/a"},{"name":"eth0"}]"#;
    let with = |ips: &str| addresses(&format!(r#"{{"cniVersion":"1.0.0",{interfaces},"ips":[{ips}]}}"#));
    let host_first = r#"{"address":"10.0.0.1/24","interface":0},{"address":"fd00::2/64","interface":1},
        {"address":"10.0.0.2/24","interface":1},{"address":"10.0.0.3/24","interface":1}"#;
    assert_eq!(with(host_first), ["10.0.0.2/24", "fd00::2/64"]);
    assert_eq!(with(r#"{"address":"10.0.0.2/24","interface":2}"#), [""; 0]);
    // An interface that is missing, negative or out of range is not known to be another.
    for interface in ["", r#","interface":-1"#, r#","interface":7"#] {
        assert_eq!(
            with(&format!(r#"{{"address":"10.0.0.2/24"{interface}}}"#)),
            ["10.0.0.2/24"]
        );
    }
    assert_eq!(
        addresses(r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/24"}}"#),
        ["10.0.0.2/24"]
    );
}
