use super::*;

const DATA: &str = r#"{"VNI":1,"VtepMAC":"92:d6:5e:e3:a2:ad"}"#;

fn node(cidrs: &[&str], annotations: &[(Annotation, &str)]) -> Node {
    Node {
        name: "n1".to_owned(),
        pod_cidrs: cidrs.iter().map(|cidr| (*cidr).to_owned()).collect(),
        annotations: annotations
            .iter()
            .map(|(annotation, value)| (*annotation, (*value).to_owned()))
            .collect(),
        ..Node::default()
    }
}

fn conf(text: &str) -> NetConf {
    NetConf::parse(text).unwrap()
}

/// Both families, complete.
fn dual() -> Vec<(Annotation, &'static str)> {
    vec![
        (Annotation::Managed, "true"),
        (Annotation::BackendType, "vxlan"),
        (Annotation::BackendData, DATA),
        (Annotation::BackendV6Data, DATA),
        (Annotation::PublicIp, "192.168.77.1"),
        (Annotation::PublicIpv6, "fd77::1"),
    ]
}

const DUAL_CIDRS: [&str; 2] = ["10.244.1.0/24", "fd00:10:244:1::/64"];

#[test]
fn the_own_subnet_follows_the_rules_of_upstream() {
    let v4 = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
    let both = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan"}}"#;
    let v6 = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan"}}"#;
    for (cidrs, conf_text, expected) in [
        (&["10.244.1.0/24"][..], v4, Ok("10.244.1.0-24")),
        (&["10.244.1.0/24", "10.244.2.0/24"], v4, Ok("10.244.2.0-24")),
        (&DUAL_CIDRS, v4, Ok("10.244.1.0-24")),
        (&DUAL_CIDRS, both, Ok("10.244.1.0-24&fd00:10:244:1::-64")),
        (
            &["fd00:10:244:1::/64", "10.244.1.0/24"],
            both,
            Ok("10.244.1.0-24&fd00:10:244:1::-64"),
        ),
        (&DUAL_CIDRS, v6, Ok("fd00:10:244:1::-64")),
        (&[], v4, Err("pod cidr not assigned")),
        (
            &["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"],
            v4,
            Err("IPv4/IPv6 only or dualstack"),
        ),
        (
            &["10.99.1.0/24"],
            v4,
            Err("doesn't contain \"10.99.1.0/24\" PodCIDR"),
        ),
        (&["10.0.0.0/8"], v4, Err("doesn't contain")),
        (&["10.244.1.0"], v4, Err("is no subnet")),
        (&["10.244.1.0/24"], both, Err("has no IPv6 pod CIDR")),
        (&["fd00:10:244:1::/64"], v4, Err("has no IPv4 pod CIDR")),
        (
            &["10.244.1.0/24", "fd99::/64"],
            both,
            Err("doesn't contain \"fd99::/64\""),
        ),
    ] {
        let key = own_key(&node(cidrs, &[]), &conf(conf_text));
        match expected {
            Ok(text) => assert_eq!(key.unwrap().to_string(), text, "{cidrs:?}"),
            Err(text) => {
                let message = key.unwrap_err().to_string();
                assert!(message.contains(text), "{cidrs:?}: {message}");
            }
        }
    }
}

#[test]
fn a_managed_node_with_all_its_annotations_is_a_lease() {
    let Reading { lease, problem } = read(&node(&DUAL_CIDRS, &dual()));
    let lease = lease.unwrap();
    assert_eq!(problem, None);
    assert_eq!(lease.key.to_string(), "10.244.1.0-24&fd00:10:244:1::-64");
    assert_eq!(
        lease.attrs.to_json(),
        format!(
            "{{\"PublicIP\":\"192.168.77.1\",\"PublicIPv6\":\"fd77::1\",\"BackendType\":\"vxlan\",\
             \"BackendData\":{DATA},\"BackendV6Data\":{DATA}}}"
        )
    );
    assert_eq!(lease.expires, None);
}

#[test]
fn a_missing_or_broken_half_never_takes_the_other_one_with_it() {
    for (annotation, broken) in [
        (Annotation::BackendV6Data, "{"),
        (Annotation::PublicIpv6, "192.168.77.1"),
        (Annotation::BackendData, "nonsense"),
        (Annotation::PublicIp, "fd77::1"),
    ] {
        let is_v6 = matches!(annotation, Annotation::BackendV6Data | Annotation::PublicIpv6);
        let mut without = dual();
        without.retain(|(name, _)| *name != annotation);
        let mut spoilt = without.clone();
        spoilt.push((annotation, broken));
        for annotations in [without, spoilt] {
            let lease = read(&node(&DUAL_CIDRS, &annotations)).lease.unwrap();
            let (v4, v6) = (
                lease.attrs.public_ip.is_some() && lease.attrs.backend_data.is_some(),
                lease.attrs.public_ipv6.is_some() && lease.attrs.backend_v6_data.is_some(),
            );
            assert_eq!((v4, v6), (is_v6, !is_v6), "{annotation:?}");
            assert_eq!(lease.key.to_string(), "10.244.1.0-24&fd00:10:244:1::-64");
        }
        assert!(read(&node(&DUAL_CIDRS, &dual())).problem.is_none());
    }
}

#[test]
fn nodes_that_are_not_managed_or_not_complete_are_no_peers() {
    let all = dual();
    let with_managed = |value| {
        let mut annotations = all.clone();
        annotations.retain(|(name, _)| *name != Annotation::Managed);
        annotations.push((Annotation::Managed, value));
        annotations
    };
    for value in ["false", "TRUE", ""] {
        assert_eq!(
            read(&node(&DUAL_CIDRS, &with_managed(value))),
            Reading::default(),
            "{value}"
        );
    }
    let no_cidr = read(&node(&[], &all));
    assert!(no_cidr.lease.is_none() && no_cidr.problem.unwrap().contains("not assigned"));
    let three = read(&node(&["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"], &all));
    assert!(three.lease.is_none() && three.problem.unwrap().contains("dualstack"));
    let no_address = read(&node(&DUAL_CIDRS, &[(Annotation::Managed, "true")]));
    assert!(no_address.lease.is_none() && no_address.problem.unwrap().contains("no address"));
    let first = read(&node(&["10.244.1.0/24", "10.244.2.0/24"], &all));
    assert_eq!(first.lease.unwrap().key.to_string(), "10.244.1.0-24");
}

#[test]
fn only_what_changed_is_written() {
    let prefix = "flannel.alpha.coreos.com".parse().unwrap();
    let attrs = attrs_of(&node(&[], &dual()), &mut |problem| panic!("{problem}"));
    let wanted = annotations_of(&attrs);
    assert_eq!(annotations_patch(&prefix, &node(&[], &dual()), &wanted), None);
    let mut old = dual();
    old.retain(|(name, _)| *name != Annotation::PublicIp);
    old.push((Annotation::PublicIp, "192.168.77.9"));
    assert_eq!(
        annotations_patch(&prefix, &node(&[], &old), &wanted),
        Some(json!({"metadata":{"annotations":{"flannel.alpha.coreos.com/public-ip":"192.168.77.1"}}}))
    );
}

#[test]
fn annotations_are_those_of_upstream_for_each_backend() {
    let attrs = |backend: &str, data: Option<&str>, v6: bool| LeaseAttrs {
        public_ip: Some([192, 168, 77, 1].into()),
        public_ipv6: v6.then(|| "fd77::1".parse().unwrap()),
        backend_type: backend.to_owned(),
        backend_data: data.map(str::to_owned),
        backend_v6_data: data.filter(|_| v6).map(str::to_owned),
    };
    let names = |attrs: &LeaseAttrs| told(&annotations_of(attrs));
    let vxlan =
        format!("backend-data={DATA} backend-type=vxlan kube-subnet-manager=true public-ip=192.168.77.1");
    assert_eq!(names(&attrs("vxlan", Some(DATA), false)), vxlan);
    assert_eq!(
        names(&attrs("vxlan", Some(DATA), true)),
        format!(
            "backend-data={DATA} backend-type=vxlan backend-v6-data={DATA} kube-subnet-manager=true \
             public-ip=192.168.77.1 public-ipv6=fd77::1"
        )
    );
    assert_eq!(
        names(&attrs("host-gw", None, false)),
        "backend-data=null backend-type=host-gw kube-subnet-manager=true public-ip=192.168.77.1"
    );
    assert_eq!(
        names(&attrs("vxlan", None, false)),
        "backend-type=vxlan kube-subnet-manager=true"
    );
}

#[test]
fn the_annotations_of_every_backend_are_read_back_as_they_were_written() {
    const WIREGUARD: &str = r#"{"PublicKey":"kzFZPvZ+ZR7Gu1CAaVLdLEYLEjKaLMyOGTPwVlHRYmM=","Port":51820}"#;
    const EXTENSION: &str = r#""92:d6:5e:e3:a2:ad""#;
    let v4 = "kube-subnet-manager=true public-ip=192.168.77.1";
    let both = format!("{v4} public-ipv6=fd77::1");
    for (backend, data, v6_data, is_dual, expected) in [
        (
            "wireguard",
            Some(WIREGUARD),
            None,
            false,
            format!("backend-data={WIREGUARD} backend-type=wireguard {v4}"),
        ),
        (
            "wireguard",
            Some(WIREGUARD),
            Some(WIREGUARD),
            true,
            format!("backend-data={WIREGUARD} backend-type=wireguard backend-v6-data={WIREGUARD} {both}"),
        ),
        (
            "ipip",
            None,
            None,
            false,
            format!("backend-data=null backend-type=ipip {v4}"),
        ),
        (
            "extension",
            Some(EXTENSION),
            None,
            false,
            format!("backend-data={EXTENSION} backend-type=extension {v4}"),
        ),
        (
            "extension",
            None,
            None,
            true,
            format!("backend-data=null backend-type=extension backend-v6-data=null {both}"),
        ),
        (
            "host-gw",
            None,
            None,
            true,
            format!("backend-data=null backend-type=host-gw backend-v6-data=null {both}"),
        ),
    ] {
        let attrs = LeaseAttrs {
            public_ip: Some([192, 168, 77, 1].into()),
            public_ipv6: is_dual.then(|| "fd77::1".parse().unwrap()),
            backend_type: backend.to_owned(),
            backend_data: data.map(str::to_owned),
            backend_v6_data: v6_data.map(str::to_owned),
        };
        let written = annotations_of(&attrs);
        assert_eq!(told(&written), expected);
        let annotated = Node {
            annotations: written,
            ..node(&DUAL_CIDRS, &[])
        };
        let Reading { lease, problem } = read(&annotated);
        assert_eq!((lease.map(|lease| lease.attrs), problem), (Some(attrs), None));
    }
}

/// Annotations, by their names without the prefix.
fn told(annotations: &Annotations) -> String {
    let texts = annotations
        .iter()
        .map(|(annotation, value)| format!("{}={value}", annotation.suffix()));
    texts.collect::<Vec<_>>().join(" ")
}

#[test]
fn an_administrators_address_takes_the_place_of_the_published_one() {
    let attrs = attrs_of(&node(&[], &dual()), &mut |problem| panic!("{problem}"));
    let overwritten = node(&[], &[(Annotation::PublicIpOverwrite, "203.0.113.7")]);
    let told = published(&attrs, &overwritten, &mut |problem| panic!("{problem}"));
    assert_eq!(told.public_ip, Some([203, 0, 113, 7].into()));
    assert_eq!(told.public_ipv6, attrs.public_ipv6);
    let mut problems = Vec::new();
    let nonsense = node(&[], &[(Annotation::PublicIpOverwrite, "soon")]);
    assert_eq!(
        published(&attrs, &nonsense, &mut |problem| problems.push(problem)),
        attrs
    );
    assert_eq!(problems.len(), 1);
}

#[test]
fn the_condition_is_upstreams() {
    assert_eq!(
        condition_patch("2026-11-28T16:00:00Z"),
        json!({"status":{"conditions":[{"type":"NetworkUnavailable","status":"False","reason":"FlannelIsUp",
            "message":"Flannel is running on this node","lastHeartbeatTime":"2026-11-28T16:00:00Z",
            "lastTransitionTime":"2026-11-28T16:00:00Z"}]}})
    );
}
