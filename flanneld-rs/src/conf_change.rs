//! What it takes to bring a changed network configuration into force.

use flannel_types::{Backend, NetConf, Vxlan, Wireguard, WireguardMode};

/// How a change comes into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfChange {
    /// At once: pods that run lose no packet, whether or not other nodes have it yet.
    Live,
    /// With a restart that an administrator chooses: what changed cuts pods off, or nodes from those that do not have it
    /// yet.
    AtRestart(&'static str),
}

/// Compares the configuration in force with another one; `None` if they are the same.
#[must_use]
pub fn change(running: &NetConf, new: &NetConf) -> Option<ConfChange> {
    if running == new {
        return None;
    }
    Some(at_restart(running, new).map_or(ConfChange::Live, ConfChange::AtRestart))
}

/// The first key whose change must wait.
fn at_restart(running: &NetConf, new: &NetConf) -> Option<&'static str> {
    // Its commands may make everything anew when a node begins.
    if matches!(running.backend, Backend::Extension(_)) {
        return Some("a network of the backend extension");
    }
    if running.enable_ipv4 != new.enable_ipv4 {
        return Some("EnableIPv4");
    }
    // Switched on, IPv6 only adds to what there is, unless both families share a device.
    let is_shared =
        matches!(&running.backend, Backend::Wireguard(own) if own.mode != WireguardMode::Separate);
    if running.enable_ipv6 != new.enable_ipv6 && (running.enable_ipv6 || is_shared) {
        return Some("EnableIPv6");
    }
    let v4 = |conf: &NetConf| (conf.network, conf.subnet_len, conf.subnet_min, conf.subnet_max);
    let v6 = |conf: &NetConf| {
        (
            conf.ipv6_network,
            conf.ipv6_subnet_len,
            conf.ipv6_subnet_min,
            conf.ipv6_subnet_max,
        )
    };
    if running.enable_ipv4 && v4(running) != v4(new) {
        return Some("Network, or the subnets in it");
    }
    if running.enable_ipv6 && v6(running) != v6(new) {
        return Some("IPv6Network, or the subnets in it");
    }
    (settled(&running.backend) != settled(&new.backend)).then_some("Backend")
}

/// A backend without what a device, or the routes beside it, can be given while packets flow.
fn settled(backend: &Backend) -> Backend {
    let mut settled = backend.clone();
    match &mut settled {
        Backend::Vxlan(Vxlan {
            mtu,
            learning,
            direct_routing,
            vni: _,
            port: _,
            gbp: _,
        }) => {
            *mtu = None;
            *learning = false;
            *direct_routing = false;
        }
        Backend::Wireguard(Wireguard {
            mtu,
            persistent_keepalive,
            listen_port: _,
            listen_port_v6: _,
            psk: _,
            mode: _,
        }) => {
            *mtu = None;
            *persistent_keepalive = None;
        }
        Backend::Ipip { direct_routing } => *direct_routing = false,
        Backend::HostGw | Backend::Udp { .. } | Backend::Alloc | Backend::Extension(_) => {}
    }
    settled
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: &str = r#""Network":"10.244.0.0/16""#;

    fn conf(rest: &str) -> NetConf {
        NetConf::parse(&format!("{{{NETWORK}{rest}}}")).unwrap()
    }

    fn with(backend: &str) -> NetConf {
        conf(&format!(r#","Backend":{{{backend}}}"#))
    }

    #[test]
    fn what_pods_do_not_notice_is_live() {
        let dual = r#","EnableIPv6":true,"IPv6Network":"fd00::/48""#;
        for (running, new) in [
            (conf(""), conf(r#","EnableNFTables":true"#)),
            (conf(r#","EnableNFTables":true"#), conf("")),
            (conf(""), conf(dual)),
            (conf(""), with(r#""Type":"vxlan""#)),
            (with(r#""Type":"vxlan""#), with(r#""Type":"vxlan","MTU":1400"#)),
            (
                with(r#""Type":"vxlan","Learning":true"#),
                with(r#""Type":"vxlan","DirectRouting":true"#),
            ),
            (
                with(r#""Type":"ipip""#),
                with(r#""Type":"ipip","DirectRouting":true"#),
            ),
            (
                with(r#""Type":"wireguard""#),
                with(r#""Type":"wireguard","PersistentKeepaliveInterval":5"#),
            ),
        ] {
            assert_eq!(
                change(&running, &new),
                Some(ConfChange::Live),
                "{running:?} {new:?}"
            );
        }
        assert_eq!(change(&conf(dual), &conf(dual)), None);
    }

    #[test]
    fn what_cuts_pods_or_nodes_off_waits_for_a_restart() {
        let dual = r#","EnableIPv6":true,"IPv6Network":"fd00::/48""#;
        let moved = NetConf::parse(r#"{"Network":"10.99.0.0/16"}"#).unwrap();
        for (running, new, what) in [
            (conf(""), moved, "Network, or the subnets in it"),
            (
                conf(""),
                conf(r#","SubnetLen":25"#),
                "Network, or the subnets in it",
            ),
            (conf(dual), conf(""), "EnableIPv6"),
            (
                conf(dual),
                conf(r#","EnableIPv6":true,"IPv6Network":"fd01::/48""#),
                "IPv6Network, or the subnets in it",
            ),
            (
                conf(dual),
                conf(&format!(r#"{dual},"EnableIPv4":false"#)),
                "EnableIPv4",
            ),
            (
                with(r#""Type":"wireguard","Mode":"auto""#),
                conf(&format!(
                    r#"{dual},"Backend":{{"Type":"wireguard","Mode":"auto"}}"#
                )),
                "EnableIPv6",
            ),
            (
                with(r#""Type":"extension""#),
                conf(r#","EnableNFTables":true,"Backend":{"Type":"extension"}"#),
                "a network of the backend extension",
            ),
            (conf(""), with(r#""Type":"host-gw""#), "Backend"),
            (conf(""), with(r#""Type":"vxlan","VNI":7"#), "Backend"),
            (conf(""), with(r#""Type":"vxlan","Port":4789"#), "Backend"),
            (conf(""), with(r#""Type":"vxlan","GBP":true"#), "Backend"),
            (
                with(r#""Type":"wireguard""#),
                with(r#""Type":"wireguard","PSK":"x""#),
                "Backend",
            ),
        ] {
            let expected = Some(ConfChange::AtRestart(what));
            assert_eq!(change(&running, &new), expected, "{running:?} {new:?}");
        }
    }
}
