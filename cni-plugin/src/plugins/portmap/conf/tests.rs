use super::super::attachment::Protocol;
use super::*;

fn netconf(rest: &str) -> NetConf {
    let text = format!(r#"{{"cniVersion":"1.0.0","name":"net","type":"portmap"{rest}}}"#);
    NetConf::parse(text.as_bytes()).unwrap()
}

fn parse(rest: &str) -> Result<Conf, ConfError> {
    Conf::parse(&netconf(rest))
}

fn mapping(rest: &str) -> Result<Mapping, ConfError> {
    let conf = parse(&format!(r#","runtimeConfig":{{"portMappings":[{{{rest}}}]}}"#))?;
    Ok(conf.mappings[0])
}

#[test]
fn defaults_are_the_references_but_for_the_back_end() {
    let conf = parse("").unwrap();
    assert_eq!(conf.backend, None);
    assert!(conf.snat && !conf.masq_all);
    assert_eq!(conf.mark, MarkBy::Bit(0x2000));
    assert_eq!(conf.mappings, []);
}

#[test]
fn runtimes_may_capitalise_the_keys_of_mappings() {
    let containerd = mapping(r#""HostPort":8080,"ContainerPort":80,"Protocol":"TCP","HostIP":"""#);
    let podman = mapping(r#""hostPort":8080,"containerPort":80,"protocol":"tcp""#);
    let expected = Mapping {
        protocol: Protocol::Tcp,
        host_port: 8080,
        container_port: 80,
        host_ip: None,
    };
    assert_eq!(containerd.unwrap(), expected);
    assert_eq!(podman.unwrap(), expected);
    let sctp = mapping(r#""hostPort":1,"containerPort":65535,"protocol":"sctp","hostIP":"::ffff:10.0.0.1""#);
    let sctp = sctp.unwrap();
    assert_eq!(
        (sctp.protocol, sctp.host_ip),
        (Protocol::Sctp, Some("10.0.0.1".parse().unwrap()))
    );
}

#[test]
fn mappings_that_cannot_be_made_are_refused() {
    for (rest, code, part) in [
        (
            r#""hostPort":0,"containerPort":80,"protocol":"tcp""#,
            7,
            "hostPort",
        ),
        (
            r#""hostPort":65536,"containerPort":80,"protocol":"tcp""#,
            7,
            "65536",
        ),
        (r#""hostPort":-1,"containerPort":80,"protocol":"tcp""#, 7, "-1"),
        (r#""containerPort":80,"protocol":"tcp""#, 7, "hostPort"),
        (r#""hostPort":80,"protocol":"tcp""#, 7, "containerPort"),
        (r#""hostPort":80,"containerPort":80,"protocol":"icmp""#, 7, "icmp"),
        (r#""hostPort":80,"containerPort":80"#, 7, "protocol"),
        (
            r#""hostPort":80,"containerPort":80,"protocol":"tcp","hostIP":"1.2.3""#,
            7,
            "1.2.3",
        ),
        (
            r#""hostPort":"80","containerPort":80,"protocol":"tcp""#,
            6,
            "hostPort",
        ),
    ] {
        let error = mapping(rest).unwrap_err();
        assert_eq!(error.code().0, code, "{rest}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn keys_of_one_back_end_choose_it() {
    for (rest, backend) in [
        (r#","backend":"iptables""#, Some(Backend::Iptables)),
        (r#","backend":"nftables""#, Some(Backend::Nftables)),
        (
            r#","externalSetMarkChain":"KUBE-MARK-MASQ""#,
            Some(Backend::Iptables),
        ),
        (
            r#","conditionsV4":["!","-s","10.0.0.0/8"]"#,
            Some(Backend::Iptables),
        ),
        (
            r#","conditionsV6":["ip6 saddr fd00::/8"]"#,
            Some(Backend::Nftables),
        ),
        (r#","conditionsV4":[""],"conditionsV6":[]"#, None),
    ] {
        assert_eq!(parse(rest).unwrap().backend, backend, "{rest}");
    }
}

#[test]
fn keys_of_the_other_back_end_are_refused() {
    for rest in [
        r#","backend":"nftables","externalSetMarkChain":"X""#,
        r#","backend":"nftables","conditionsV4":["-s","10.0.0.0/8"]"#,
        r#","backend":"iptables","conditionsV6":["ip6 saddr fd00::/8"]"#,
        r#","conditionsV4":["-s","10.0.0.0/8"],"conditionsV6":["ip6 saddr fd00::/8"]"#,
        r#","backend":"ipfw""#,
        r#","markMasqBit":13,"externalSetMarkChain":"X""#,
        r#","markMasqBit":32"#,
        r#","markMasqBit":-1"#,
        r#","externalSetMarkChain":"a b""#,
        r#","externalSetMarkChain":"-j""#,
        r#","externalSetMarkChain":"more-than-twenty-eight-bytes-of-name""#,
        r#","conditionsV4":["-s","10.0.0.0/8\n-F"]"#,
    ] {
        assert_eq!(parse(rest).unwrap_err().code().0, 7, "{rest}");
    }
    assert_eq!(parse(r#","snat":"yes""#).unwrap_err().code().0, 6);
}

#[test]
fn the_mark_is_one_bit_or_a_chain() {
    assert_eq!(parse(r#","markMasqBit":0"#).unwrap().mark, MarkBy::Bit(1));
    assert_eq!(
        parse(r#","markMasqBit":31"#).unwrap().mark,
        MarkBy::Bit(0x8000_0000)
    );
    let chain = parse(r#","externalSetMarkChain":"KUBE-MARK-MASQ""#).unwrap().mark;
    assert_eq!(chain, MarkBy::Chain("KUBE-MARK-MASQ".to_owned()));
}
