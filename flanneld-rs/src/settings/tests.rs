use super::*;
use crate::config::{self, Invocation};
use crate::desired::{FilterMode, Masquerade, Underlay, WireguardDevice};
use crate::iface_match::Ends;
use crate::testing::{mac, public_ip};

mod ipip;

#[test]
fn net_conf_decides_the_device() {
    for (backend, mtu_bytes, device) in [
        ("{\"Type\": \"vxlan\"}", 1500, "flannel.1 port 8472 mtu 1450"),
        (
            "{\"Type\": \"vxlan\", \"VNI\": 42, \"Port\": 4789}",
            9000,
            "flannel.42 port 4789 mtu 8950",
        ),
        (
            "{\"Type\": \"vxlan\", \"Port\": 0}",
            1450,
            "flannel.1 port 8472 mtu 1400",
        ),
        (
            "{\"Type\": \"vxlan\", \"MTU\": 1400}",
            1500,
            "flannel.1 port 8472 mtu 1350",
        ),
        (
            "{\"Type\": \"vxlan\", \"MTU\": 9000}",
            1500,
            "flannel.1 port 8472 mtu 1450",
        ),
        (
            "{\"Type\": \"vxlan\", \"Learning\": true, \"GBP\": true}",
            118,
            "flannel.1 port 8472 mtu 68 learning gbp",
        ),
    ] {
        let settings = settings_of(&with_backend(backend), mtu_bytes).unwrap();
        let [side] = settings.sides.as_slice() else {
            panic!("one family")
        };
        assert_eq!(shown(side), device, "{backend}");
        let vxlan = vxlan_of(side);
        assert_eq!(
            format!("flannel.{}", vxlan.vni),
            vxlan.device.as_str(),
            "{backend}"
        );
        assert_eq!(settings.pod_mtu_bytes, vxlan.mtu_bytes, "{backend}");
    }
}

#[test]
fn direct_routing_is_an_option_of_vxlan() {
    for (backend, expected) in [
        ("{\"Type\": \"vxlan\"}", false),
        ("{\"Type\": \"vxlan\", \"DirectRouting\": false}", false),
        ("{\"Type\": \"vxlan\", \"directrouting\": true}", true),
        ("{\"Type\": \"alloc\", \"DirectRouting\": true}", false),
    ] {
        let settings = settings_of(&with_backend(backend), 1500).unwrap();
        assert_eq!(settings.direct_routing, expected, "{backend}");
    }
}

#[test]
fn ipv6_has_a_device_of_its_own_and_pods_get_what_both_carry() {
    let both = "{\"Network\": \"10.244.0.0/16\", \"EnableIPv6\": true, \"IPv6Network\": \"fd00::/48\"}";
    let settings = settings_of(both, 1500).unwrap();
    let sides: Vec<_> = settings.sides.iter().map(shown).collect();
    assert_eq!(
        sides,
        ["flannel.1 port 8472 mtu 1450", "flannel-v6.1 port 8472 mtu 1430"]
    );
    assert_eq!(settings.pod_mtu_bytes, 1430);
    let addrs = settings.public_addrs();
    assert_eq!(
        (addrs.v4, addrs.v6),
        (Some(public_ip(2)), Some("fd00:77::2".parse().unwrap()))
    );
    let macs = settings.sides.iter().map(|side| vxlan_of(side).random_mac);
    assert_eq!(macs.collect::<Vec<_>>(), [mac(250), mac(251)]);

    let alone = "{\"EnableIPv4\": false, \"EnableIPv6\": true, \"IPv6Network\": \"fd00::/48\"}";
    let settings = settings_of(alone, 1350).unwrap();
    let sides: Vec<_> = settings.sides.iter().map(shown).collect();
    assert_eq!(
        (sides, settings.pod_mtu_bytes),
        (vec!["flannel-v6.1 port 8472 mtu 1280".to_owned()], 1280)
    );
    assert_eq!(settings.public_addrs().v4, None);

    let err = settings_of(both, 1349).unwrap_err();
    assert_eq!(
        err.to_string(),
        "the MTU 1349 is too small: VXLAN takes 70 bytes of it, and 1280 must be left; raise the MTU of eth0"
    );
    let without_v6 = External {
        v6: None,
        ..external(1500)
    };
    let err = super::settings(
        &flags(),
        &parsed(both),
        &without_v6,
        &IDENTITY,
        (RULES, Duration::ZERO),
    )
    .unwrap_err();
    assert_eq!(
        err.to_string(),
        "eth0 has no IPv6 address, which the network configuration needs"
    );
}

#[test]
fn an_absent_backend_is_vxlan_with_its_defaults() {
    let settings = settings_of("{\"Network\": \"10.244.0.0/16\"}", 1500).unwrap();
    assert_eq!(shown(&settings.sides[0]), "flannel.1 port 8472 mtu 1450");
}

#[test]
fn host_gw_has_no_device_and_pods_get_what_the_interface_carries() {
    let own = |external: External| {
        let at = |ends: Ends| Ends {
            public_ip: ends.local,
            ..ends
        };
        External {
            v4: external.v4.map(at),
            v6: external.v6.map(at),
            ..external
        }
    };
    let conf = "{\"Network\": \"10.244.0.0/16\", \"EnableIPv6\": true, \"IPv6Network\": \"fd00::/48\", \"Backend\": \
                {\"Type\": \"host-gw\"}}";
    let settings = settings(
        &flags(),
        &parsed(conf),
        &own(external(9000)),
        &IDENTITY,
        (RULES, Duration::ZERO),
    )
    .unwrap();
    assert_eq!(settings.devices().count(), 0);
    assert_eq!(settings.pod_mtu_bytes, 9000);
    let families: Vec<_> = settings.sides.iter().map(SideSettings::is_ipv6).collect();
    assert_eq!(families, [false, true]);
    assert!(settings.sides.iter().all(|side| side.public_ip == side.local));
}

#[test]
fn wireguard_has_a_device_a_family_or_one_for_both() {
    let conf = |rest: &str| {
        format!(
            "{{\"Network\": \"10.244.0.0/16\", \"EnableIPv6\": true, \"IPv6Network\": \"fd00::/48\", \"Backend\": \
             {{\"Type\": \"wireguard\"{rest}}}}}"
        )
    };
    let (v4, v6) = (
        "flannel-wg port 51820 mtu 1420",
        "flannel-wg-v6 port 51821 mtu 1420",
    );
    let rows = [
        ("", [(v4, Underlay::Ipv4), (v6, Underlay::Ipv6)]),
        (", \"Mode\": \"ipv4\"", [(v4, Underlay::Ipv4); 2]),
        (", \"Mode\": \"ipv6\"", [(v4, Underlay::Ipv6); 2]),
        // Its own address of IPv6 is private.
        (", \"Mode\": \"auto\"", [(v4, Underlay::PreferIpv4); 2]),
        (
            ", \"ListenPort\": 1, \"ListenPortV6\": 2, \"MTU\": 1400",
            [
                ("flannel-wg port 1 mtu 1320", Underlay::Ipv4),
                ("flannel-wg-v6 port 2 mtu 1320", Underlay::Ipv6),
            ],
        ),
    ];
    for (rest, expected) in rows {
        let settings = settings_of(&conf(rest), 1500).unwrap();
        let devices = settings.sides.iter().map(wireguard_of);
        let shown = devices.map(|device| {
            let WireguardDevice {
                name,
                listen_port,
                mtu_bytes,
                ..
            } = device;
            (
                format!("{name} port {listen_port} mtu {mtu_bytes}"),
                device.underlay,
            )
        });
        let expected = expected.map(|(shown, underlay)| (shown.to_owned(), underlay));
        assert_eq!(shown.collect::<Vec<_>>(), expected, "{rest}");
    }
    let key = WgSecret::new([7; 32]).reveal_text();
    let conf = conf(&format!(
        ", \"PSK\": \"{key}\", \"PersistentKeepaliveInterval\": 25"
    ));
    let settings = settings_of(&conf, 1500).unwrap();
    let device = wireguard_of(&settings.sides[0]);
    assert_eq!(device.preshared_key, Some(WgSecret::new([7; 32])));
    assert_eq!(device.keepalive_secs, 25);
    assert!(!format!("{settings:?}").contains(&key));
}

#[test]
fn another_mtu_of_the_interface_leaves_what_a_start_with_it_does() {
    let rows = [
        ("vxlan", "", 9000, [Some(8950), Some(8930)]),
        ("vxlan", "", 1350, [Some(1300), Some(1280)]),
        ("vxlan", "", 1349, [Some(1299), None]),
        ("vxlan", ", \"MTU\": 1400", 9000, [Some(1350), Some(1330)]),
        ("vxlan", ", \"MTU\": 1400", 1380, [Some(1330), Some(1310)]),
        ("wireguard", "", 9000, [Some(8920), Some(8920)]),
        ("wireguard", ", \"Mode\": \"ipv4\"", 1359, [Some(1279), None]),
        ("alloc", "", 1280, [Some(1280), Some(1280)]),
        ("alloc", "", 1279, [Some(1279), None]),
    ];
    for (backend, rest, carried, expected) in rows {
        let conf = format!(
            "{{\"Network\": \"10.244.0.0/16\", \"EnableIPv6\": true, \"IPv6Network\": \"fd00::/48\", \"Backend\": \
             {{\"Type\": \"{backend}\"{rest}}}}}"
        );
        let began = settings_of(&conf, 1500).unwrap();
        let over = |side| mtu_over(side, &began.conf.backend, carried);
        assert_eq!(
            began.sides.iter().map(over).collect::<Vec<_>>(),
            expected,
            "{conf}"
        );
        if let [Some(v4), Some(v6)] = expected {
            let anew = settings_of(&conf, carried).unwrap();
            assert_eq!(anew.pod_mtu_bytes, v4.min(v6), "{conf}");
        }
    }
}

#[test]
fn a_mode_of_wireguard_that_needs_an_absent_family_is_refused() {
    let without_v6 = External {
        v6: None,
        ..external(1500)
    };
    let conf = with_backend("{\"Type\": \"wireguard\", \"Mode\": \"ipv6\"}");
    let rules = (RULES, Duration::ZERO);
    let err = settings(&flags(), &parsed(&conf), &without_v6, &IDENTITY, rules).unwrap_err();
    assert_eq!(
        err.to_string(),
        "Backend.Mode \"ipv6\" in the network configuration needs an address of IPv6 on eth0, and EnableIPv6: choose the mode \
         separate"
    );
}

#[test]
fn alloc_has_no_device_and_any_public_address() {
    let settings = settings_of(&with_backend("{\"Type\": \"alloc\"}"), 1500).unwrap();
    assert_eq!((settings.devices().count(), settings.pod_mtu_bytes), (0, 1500));
    assert_eq!(settings.sides[0].public_ip, public_ip(2));
}

#[test]
fn the_commands_of_the_extension_backend_are_taken_over_with_the_interface_s_mtu() {
    let backend = "{\"Type\": \"extension\", \"PreStartupCommand\": \"pre\", \"PostStartupCommand\": \" \", \
                   \"SubnetAddCommand\": \"ip route add $SUBNET via $PUBLIC_IP\", \"ShutdownCommand\": \"off\"}";
    let settings = settings_of(&with_backend(backend), 1500).unwrap();
    assert_eq!((settings.devices().count(), settings.pod_mtu_bytes), (0, 1500));
    let extension = settings.extension.unwrap();
    assert_eq!(
        (extension.pre_startup.as_deref(), extension.post_startup),
        (Some("pre"), None)
    );
    assert_eq!(
        (extension.subnet_add.as_str(), extension.subnet_remove.as_str()),
        ("ip route add $SUBNET via $PUBLIC_IP", "")
    );
}

#[test]
fn the_interface_and_the_flags_are_taken_over() {
    let conf = with_backend("{\"Type\": \"vxlan\"}");
    let settings = settings_of(&conf, 1500).unwrap();
    assert_eq!(settings.parent.as_str(), "eth0");
    let side = &settings.sides[0];
    assert_eq!(
        (side.local, side.public_ip),
        (public_ip(1).into(), public_ip(2).into())
    );
    assert_eq!(side.network, "10.244.0.0/16".parse().unwrap());
    assert_eq!(settings.conf, NetConf::parse(&conf).unwrap());
    assert_eq!(settings.renew_margin, Duration::from_mins(5));
    assert_eq!(settings.mass_loss_grace, Duration::from_secs(7));
}

#[test]
fn what_cannot_be_used_is_refused_with_the_way_out() {
    for (conf, mtu_bytes, text) in [
        (
            with_backend("{\"Type\": \"host-gw\"}"),
            1500,
            "the public IP 192.168.77.2 differs from the address 192.168.77.1 of eth0, which is not supported by the \
             host-gw backend: leave out --public-ip, name the interface that has it with --iface, or use vxlan",
        ),
        (
            with_backend("{\"Type\": \"UDP\"}"),
            1500,
            "Backend.Type \"udp\" in the network configuration is not built: its tunnel in user space was for kernels \
             without VXLAN, and needs a privileged process; use vxlan, or host-gw where all nodes share one link",
        ),
        (
            with_backend("{\"Type\": \"wireguard\", \"PSK\": \"c2VjcmV0\"}"),
            1500,
            "Backend.PSK in the network configuration cannot be used",
        ),
        (
            with_backend("{\"Type\": \"wireguard\"}"),
            147,
            "the MTU 147 is too small: WireGuard takes 80 bytes of it, and 68 must be left; raise the MTU of eth0",
        ),
        (
            "{\"Network\": \"10.244.0.0/16\"}".to_owned(),
            117,
            "the MTU 117 is too small: VXLAN takes 50 bytes of it, and 68 must be left; raise the MTU of eth0",
        ),
        (
            with_backend("{\"Type\": \"vxlan\", \"MTU\": 40}"),
            1500,
            "the MTU 40 is too small: VXLAN takes 50 bytes of it, and 68 must be left; raise the MTU of eth0 or in the network \
             configuration",
        ),
        (
            "{}".to_owned(),
            1500,
            "please define a correct Network parameter in the flannel config",
        ),
        ("{\"EnableIPv4\": false}".to_owned(), 1500, "none defined stack"),
    ] {
        let err = settings_of(&conf, mtu_bytes).unwrap_err();
        assert_eq!(err.to_string(), text, "{conf}");
    }
}

fn with_backend(backend: &str) -> String {
    format!("{{\"Network\": \"10.244.3.4/16\", \"Backend\": {backend}}}")
}

fn settings_of(conf: &str, mtu_bytes: u32) -> Result<Settings, SettingsError> {
    settings(
        &flags(),
        &parsed(conf),
        &external(mtu_bytes),
        &IDENTITY,
        (RULES, Duration::from_secs(60)),
    )
}

fn vxlan_of(side: &SideSettings) -> &VxlanSettings {
    match &side.carrier {
        CarrierSettings::Vxlan(vxlan) => vxlan,
        CarrierSettings::HostGw
        | CarrierSettings::Wireguard(_)
        | CarrierSettings::Ipip(_)
        | CarrierSettings::Alloc
        | CarrierSettings::Extension => {
            panic!("no VXLAN")
        }
    }
}

fn wireguard_of(side: &SideSettings) -> &WireguardDevice {
    match &side.carrier {
        CarrierSettings::Wireguard(device) => device,
        CarrierSettings::Vxlan(_)
        | CarrierSettings::HostGw
        | CarrierSettings::Ipip(_)
        | CarrierSettings::Alloc
        | CarrierSettings::Extension => {
            panic!("no WireGuard")
        }
    }
}

#[test]
fn a_family_that_is_off_is_known_by_what_was_written_of_it() {
    let dual = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48"}"#;
    let v4 = r#"{"Network":"10.244.0.0/16"}"#;
    let off = r#"{"Network":"10.244.0.0/16","IPv6Network":"fd00:9::/48"}"#;
    let v6 = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:10:244::/48"}"#;
    let file = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
                FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\n";
    let refused = parsed(dual);
    for (conf, file, refused, expected) in [
        (dual, file, None, vec![]),
        (v4, file, None, vec!["fd00:10:244::/48"]),
        (v4, "", None, vec![]),
        (v4, "", Some(&refused), vec!["fd00:10:244::/48"]),
        (off, file, None, vec!["fd00:9::/48", "fd00:10:244::/48"]),
        (v6, file, None, vec!["10.244.0.0/16"]),
    ] {
        let found = former_networks(&parsed(conf), &PreviousSubnets::parse(file), refused);
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{conf} {file}");
    }
}

fn shown(side: &SideSettings) -> String {
    let vxlan = vxlan_of(side);
    let learning = if vxlan.learning { " learning" } else { "" };
    let gbp = if vxlan.gbp { " gbp" } else { "" };
    let VxlanSettings {
        device,
        port,
        mtu_bytes,
        ..
    } = vxlan;
    format!("{device} port {port} mtu {mtu_bytes}{learning}{gbp}")
}

const MACS: [MacAddr; 2] = [
    MacAddr::new([2, 0, 0, 0, 0, 250]),
    MacAddr::new([2, 0, 0, 0, 0, 251]),
];

const IDENTITY: Identity<'_> = Identity {
    random_macs: MACS,
    wireguard_key: &|| Ok(WgSecret::new([8; 32])),
};

const RULES: RuleSettings = RuleSettings {
    mode: FilterMode::Nftables,
    masquerade: Masquerade::Off,
    forward: true,
};

fn parsed(conf: &str) -> NetConf {
    NetConf::parse(conf).unwrap()
}

fn flags() -> Config {
    let flags = [
        "--lease-dir=/leases",
        "--subnet-lease-renew-margin=5",
        "--mass-loss-grace=7",
    ];
    match config::parse(flags.map(Into::into), &|_| None) {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("{other:?}"),
    }
}

fn external(mtu_bytes: u32) -> External {
    External {
        link: "eth0".parse().unwrap(),
        mtu_bytes,
        alternatives: Vec::new(),
        v4: Some(Ends {
            local: public_ip(1).into(),
            public_ip: public_ip(2).into(),
        }),
        v6: Some(Ends {
            local: "fd00:77::1".parse().unwrap(),
            public_ip: "fd00:77::2".parse().unwrap(),
        }),
    }
}
