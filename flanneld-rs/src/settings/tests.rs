use super::*;
use crate::config::{self, Invocation};
use crate::desired::{FilterMode, Masquerade};
use crate::testing::{mac, public_ip};

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
        let learning = if settings.learning { " learning" } else { "" };
        let gbp = if settings.gbp { " gbp" } else { "" };
        let name = format!(
            "{} port {} mtu {}{learning}{gbp}",
            settings.device, settings.port, settings.mtu_bytes
        );
        assert_eq!(name, device, "{backend}");
        assert_eq!(
            format!("flannel.{}", settings.vni),
            settings.device.as_str(),
            "{backend}"
        );
    }
}

#[test]
fn an_absent_backend_is_vxlan_with_its_defaults() {
    let settings = settings_of("{\"Network\": \"10.244.0.0/16\"}", 1500).unwrap();
    assert_eq!(settings.device.as_str(), "flannel.1");
    assert_eq!((settings.port, settings.mtu_bytes), (8472, 1450));
    assert!(!settings.learning && !settings.gbp);
}

#[test]
fn the_interface_and_the_flags_are_taken_over() {
    let conf = with_backend("{\"Type\": \"vxlan\"}");
    let settings = settings_of(&conf, 1500).unwrap();
    assert_eq!(settings.parent.as_str(), "eth0");
    assert_eq!((settings.local, settings.public_ip), (public_ip(1), public_ip(2)));
    assert_eq!(settings.network, "10.244.0.0/16".parse().unwrap());
    assert_eq!(settings.conf, NetConf::parse(&conf).unwrap());
    assert_eq!(settings.random_mac, mac(250));
    assert_eq!(settings.renew_margin, Duration::from_mins(5));
    assert_eq!(settings.mass_loss_grace, Duration::from_secs(7));
}

#[test]
fn what_cannot_be_used_is_refused_with_the_way_out() {
    for (conf, mtu_bytes, text) in [
        (
            with_backend("{\"Type\": \"host-gw\"}"),
            1500,
            "Backend.Type \"host-gw\" in the network configuration is not supported yet: use vxlan",
        ),
        (
            with_backend("{\"Type\": \"vxlan\", \"DirectRouting\": true}"),
            1500,
            "Backend.DirectRouting in the network configuration is not supported yet: set it to false: all peers are \
             tunnelled",
        ),
        (
            "{\"Network\": \"10.244.0.0/16\", \"EnableIPv6\": true, \"IPv6Network\": \"fd00::/48\"}"
                .to_owned(),
            1500,
            "EnableIPv6 in the network configuration is not supported yet: set it to false",
        ),
        (
            "{\"Network\": \"10.244.0.0/16\"}".to_owned(),
            117,
            "the MTU 117 is too small: VXLAN takes 50 bytes of it; raise the MTU of eth0 or in the network \
             configuration",
        ),
        (
            with_backend("{\"Type\": \"vxlan\", \"MTU\": 40}"),
            1500,
            "the MTU 40 is too small: VXLAN takes 50 bytes of it; raise the MTU of eth0 or in the network \
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
        mac(250),
        (RULES, Duration::from_secs(60)),
    )
}

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
        local: public_ip(1),
        public_ip: public_ip(2),
    }
}
