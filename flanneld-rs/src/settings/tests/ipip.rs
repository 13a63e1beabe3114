use super::*;

const DUAL: &str = "\"EnableIPv6\": true, \"IPv6Network\": \"fd00::/48\"";

#[test]
fn one_device_with_the_interface_s_mtu_less_a_header() {
    for (backend, direct_routing) in [
        ("{\"Type\": \"ipip\"}", false),
        ("{\"Type\": \"IPIP\", \"DirectRouting\": true}", true),
    ] {
        let settings = settings_of(&with_backend(backend), 1500).unwrap();
        let [side] = settings.sides.as_slice() else {
            panic!("one family")
        };
        let CarrierSettings::Ipip(device) = &side.carrier else {
            panic!("no tunnel of IP in IP")
        };
        assert_eq!((device.name.as_str(), device.mtu_bytes), ("flannel.ipip", 1480));
        assert_eq!(settings.pod_mtu_bytes, 1480);
        assert_eq!(settings.direct_routing, direct_routing);
        // As by VXLAN, peers may know this node by another address than the tunnel's packets leave from.
        assert_eq!(
            (side.local, side.public_ip),
            (public_ip(1).into(), public_ip(2).into())
        );
        let over = |carried| mtu_over(side, &settings.conf.backend, carried);
        assert_eq!([over(9000), over(88), over(87)], [Some(8980), Some(68), None]);
    }
}

#[test]
fn an_mtu_that_is_too_small_is_the_interface_s() {
    let err = settings_of(&with_backend("{\"Type\": \"ipip\"}"), 87).unwrap_err();
    assert_eq!(
        err.to_string(),
        "the MTU 87 is too small: IP in IP takes 20 bytes of it, and 68 must be left; raise the MTU of eth0"
    );
}

#[test]
fn ipv6_is_refused_in_words() {
    for families in [
        format!("\"Network\": \"10.244.0.0/16\", {DUAL}"),
        format!("\"EnableIPv4\": false, {DUAL}"),
    ] {
        let conf = format!("{{{families}, \"Backend\": {{\"Type\": \"ipip\"}}}}");
        // Before an interface with such an address is looked for, and in any case.
        for err in [
            check(&parsed(&conf)).unwrap_err(),
            settings_of(&conf, 1500).unwrap_err(),
        ] {
            assert_eq!(
                err.to_string(),
                "Backend.Type \"ipip\" in the network configuration is for IPv4 alone, as upstream's is: switch EnableIPv6 off, \
                 or use vxlan, wireguard or host-gw"
            );
        }
    }
}
