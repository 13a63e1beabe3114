use std::num::NonZeroU16;

use proptest::prelude::*;

use super::*;

#[test]
fn unknown_members_white_space_and_order_do_not_matter() {
    let text = r#" { "BackendData" : { "VtepMAC" : "CA:d0:b5:40:a4:cc", "VNI" : 1, "More": " x " },
        "publicip":"192.168.77.1", "PublicIPv6":null, "Expiration":"2031-01-01T00:00:00Z", "BackendType":"vxlan"}"#;
    let attrs = LeaseAttrs::parse(text).unwrap();
    assert_eq!(attrs.addrs().to_string(), "192.168.77.1");
    assert_eq!(attrs.backend_type, "vxlan");
    let data = attrs.backend_data.unwrap();
    assert_eq!(data, r#"{"VtepMAC":"CA:d0:b5:40:a4:cc","VNI":1,"More":" x "}"#);
    assert_eq!(
        VxlanData::parse(&data).unwrap().to_json(),
        r#"{"VNI":1,"VtepMAC":"ca:d0:b5:40:a4:cc"}"#
    );
}

#[test]
fn a_bare_reservation_is_a_lease_value() {
    let attrs = LeaseAttrs::parse(r#"{"PublicIP":"10.0.0.1"}"#).unwrap();
    assert_eq!(attrs.to_json(), r#"{"PublicIP":"10.0.0.1","PublicIPv6":null}"#);
}

/// As the reference wrote it (its captured state with the backend ipip).
#[test]
fn ipip_has_a_type_and_no_data() {
    let text = r#"{"PublicIP":"192.168.77.12","PublicIPv6":null,"BackendType":"ipip"}"#;
    let attrs = LeaseAttrs::parse(text).unwrap();
    assert_eq!(
        (attrs.backend_type.as_str(), &attrs.backend_data),
        (crate::IPIP_TYPE, &None)
    );
    assert_eq!(attrs.to_json(), text);
}

#[test]
fn malformed_values_name_the_member() {
    let table = [
        ("{}", "the lease has no PublicIP"),
        (r#"{"PublicIP":"0.0.0.0"}"#, "the lease has no PublicIP"),
        (
            r#"{"PublicIP":"10.0.0"}"#,
            "PublicIP of the lease is \"10.0.0\", which is not an IPv4 address",
        ),
        (
            r#"{"PublicIP":"1.2.3.4","PublicIPv6":"x"}"#,
            "PublicIPv6 of the lease is \"x\", which is not an IPv6 address",
        ),
        (
            r#"{"PublicIP":"1.2.3.4","BackendType":4}"#,
            "BackendType of the lease must be a string, not such a number",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(LeaseAttrs::parse(text).unwrap_err().to_string(), expected);
    }
    let cut = r#"{"PublicIP":"192.168.77.1","PublicIPv6":nu"#;
    assert!(
        LeaseAttrs::parse(cut)
            .unwrap_err()
            .to_string()
            .starts_with("the lease is not a JSON object")
    );
    let table = [
        ("{}", "the lease has no VNI"),
        (r#"{"VNI":1}"#, "the lease has no VtepMAC"),
        (
            r#"{"VNI":16777216,"VtepMAC":"00:00:00:00:00:01"}"#,
            "VNI 16777216 is larger than 16777215",
        ),
        (
            r#"{"VNI":1,"VtepMAC":"zz"}"#,
            "VtepMAC of the lease is \"zz\", which is not a MAC address",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(VxlanData::parse(text).unwrap_err().to_string(), expected);
    }
}

/// As flannel v0.28 writes it, and older versions, which announce no port.
#[test]
fn wireguard_data_is_read_and_written_as_the_reference_does() {
    let text = r#"{"PublicKey":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","Port":51820}"#;
    let data = WireguardData::parse(text).unwrap();
    assert_eq!(data.port, Some(51820));
    assert_eq!(data.to_json(), text);
    let old = text.replace(",\"Port\":51820", "");
    assert_eq!(WireguardData::parse(&old).unwrap().port, None);
    let malformed = [
        ("{}", "the lease has no PublicKey"),
        (
            r#"{"PublicKey":"AAEC"}"#,
            "PublicKey of the lease is \"AAEC\", which is not a WireGuard public key",
        ),
    ];
    for (text, expected) in malformed {
        assert_eq!(WireguardData::parse(text).unwrap_err().to_string(), expected);
    }
    assert!(WireguardData::parse(&text.replace("51820", "65536")).is_err());
}

#[test]
fn moments_add_whole_seconds_and_saturate() {
    let moment = UnixTime::from_secs(10);
    assert_eq!(moment.plus(Duration::from_millis(2_900)).secs(), 12);
    assert_eq!(
        UnixTime::from_secs(u64::MAX).plus(Duration::from_secs(9)).secs(),
        u64::MAX
    );
    assert_eq!(UnixTime::from(UNIX_EPOCH - Duration::from_secs(1)).secs(), 0);
    assert_eq!(UnixTime::from(UNIX_EPOCH + Duration::from_secs(7)).secs(), 7);
}

#[test]
fn a_value_of_ipv6_alone_has_go_s_zero_address() {
    let text = r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::1"}"#;
    let attrs = LeaseAttrs::parse(text).unwrap();
    assert_eq!(attrs.addrs().first(), Some("fd00::1".parse().unwrap()));
    assert_eq!(attrs.public_ip, None);
    assert_eq!(attrs.to_json(), text);
}

#[test]
fn a_node_stays_the_same_while_a_family_is_switched() {
    let addrs = |v4: &str, v6: &str| PublicAddrs {
        v4: v4.parse().ok(),
        v6: v6.parse().ok(),
    };
    for (one, other, expected) in [
        (addrs("10.0.0.1", ""), addrs("10.0.0.1", "fd00::1"), true),
        (addrs("", "fd00::1"), addrs("10.0.0.1", "fd00::1"), true),
        (addrs("10.0.0.1", "fd00::1"), addrs("10.0.0.1", "fd00::2"), true),
        (addrs("10.0.0.1", "fd00::1"), addrs("10.0.0.2", "fd00::1"), false),
        (addrs("10.0.0.1", ""), addrs("", "fd00::1"), false),
        (addrs("", "fd00::1"), addrs("", "fd00::2"), false),
        (addrs("10.0.0.1", ""), addrs("10.0.0.2", ""), false),
    ] {
        assert_eq!(one.is_same_node(other), expected, "{one} / {other}");
        assert_eq!(other.is_same_node(one), expected, "{other} / {one}");
    }
}

/// Of one family at least; no address is unspecified.
fn addresses() -> impl Strategy<Value = (Option<Ipv4Addr>, Option<Ipv6Addr>)> {
    let v4 = || (1..=u32::MAX).prop_map(Ipv4Addr::from);
    let v6 = || any::<u128>().prop_map(Ipv6Addr::from);
    prop_oneof![
        (v4(), prop::option::of(v6())).prop_map(|(v4, v6)| (Some(v4), v6)),
        v6().prop_map(|v6| (None, Some(v6))),
    ]
}

proptest! {
    #[test]
    fn no_text_makes_the_readers_panic(text in any::<String>()) {
        drop(LeaseAttrs::parse(&text));
        drop(VxlanData::parse(&text));
        drop(WireguardData::parse(&text));
    }

    #[test]
    fn a_cut_value_is_never_read_as_another(cut in 0_usize..115) {
        let whole = r#"{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"ca:d0:b5:40:a4:cc"}}"#;
        prop_assert!(LeaseAttrs::parse(whole.get(..cut).unwrap()).is_err());
    }

    #[test]
    fn every_value_round_trips(
        (v4, v6) in addresses(), backend_type in any::<String>(),
        vni in 0_u32..1 << 24, port in any::<u16>(), mac in any::<[u8; 6]>(), with_data in any::<[bool; 2]>(),
    ) {
        let data = VxlanData { vni: vni.try_into().unwrap(), vtep_mac: MacAddr::new(mac) };
        prop_assert_eq!(VxlanData::parse(&data.to_json()), Ok(data));
        let end = WireguardData { public_key: WgPublicKey::new([mac[0]; 32]), port: NonZeroU16::new(port).map(NonZeroU16::get) };
        prop_assert_eq!(WireguardData::parse(&end.to_json()), Ok(end));
        let attrs = LeaseAttrs {
            public_ip: v4,
            public_ipv6: v6,
            backend_type,
            backend_data: with_data[0].then(|| data.to_json()),
            backend_v6_data: with_data[1].then(|| data.to_json()),
        };
        prop_assert_eq!(LeaseAttrs::parse(&attrs.to_json()), Ok(attrs));
    }
}

#[test]
fn the_data_of_the_extension_backend_is_a_json_string() {
    for (text, data) in [
        (None, Some("")),
        (Some("null"), Some("")),
        (Some("\"\""), Some("")),
        (Some(r#""02:00:00:00:00:01""#), Some("02:00:00:00:00:01")),
        (Some(r#""two\nlines \u003c \u00e9""#), Some("two\nlines < é")),
        (Some("7"), None),
        (Some(r#"{"VNI":1}"#), None),
        (Some("\"open"), None),
    ] {
        let read = ExtensionData::parse(text).ok();
        assert_eq!(read, data.map(|data| ExtensionData(data.to_owned())), "{text:?}");
        if let Some(read) = read {
            assert_eq!(ExtensionData::parse(Some(&read.to_json())), Ok(read), "{text:?}");
        }
    }
}
