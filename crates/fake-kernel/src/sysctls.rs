use net_types::IfName;
use netstate::SysctlKey;

use crate::namespace::Namespace;
use crate::refusal::{Answer, invalid, not_found};

/// Parameters of the namespace with their values at its start.
const OF_NAMESPACE: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv4/conf/all/forwarding", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv6/conf/all/forwarding", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "0"),
];

/// Parameters that every link has, with their values at its creation.
const OF_LINK: &[(&str, &str, &str)] = &[
    ("ipv4", "arp_notify", "0"),
    ("ipv4", "forwarding", "0"),
    ("ipv4", "proxy_arp", "0"),
    ("ipv4", "route_localnet", "0"),
    ("ipv4", "rp_filter", "0"),
    ("ipv6", "accept_dad", "1"),
    ("ipv6", "accept_ra", "1"),
    ("ipv6", "addr_gen_mode", "0"),
    ("ipv6", DISABLE_IPV6, "0"),
    ("ipv6", "forwarding", "0"),
    ("ipv6", "proxy_ndp", "0"),
];

const DISABLE_IPV6: &str = "disable_ipv6";

impl Namespace {
    pub(crate) fn add_namespace_sysctls(&mut self) {
        for (path, value) in OF_NAMESPACE {
            if let Some(key) = SysctlKey::new(path) {
                self.sysctls.insert(key, (*value).to_owned());
            }
        }
    }

    pub(crate) fn add_link_sysctls(&mut self, link: &IfName) {
        for (family, name, value) in OF_LINK {
            self.sysctls
                .insert(SysctlKey::of_link(family, link, name), (*value).to_owned());
        }
    }

    pub(crate) fn set_sysctl(&mut self, key: &SysctlKey, value: &str) -> Answer {
        let Some(held) = self.sysctls.get_mut(key) else {
            return Err(not_found("ENOENT: no such parameter"));
        };
        let Ok(number) = value.trim().parse::<i32>() else {
            return Err(invalid("the parameter is a number"));
        };
        *held = number.to_string();
        let links: Vec<IfName> = self.links.keys().cloned().collect();
        for link in links {
            if number != 0 && *key == SysctlKey::of_link("ipv6", &link, DISABLE_IPV6) {
                self.switch_ipv6_off(&link);
            }
        }
        Ok(())
    }

    pub(crate) fn ipv6_is_off(&self, link: &IfName) -> bool {
        let value = self.sysctls.get(&SysctlKey::of_link("ipv6", link, DISABLE_IPV6));
        value.is_some_and(|value| value != "0")
    }

    fn switch_ipv6_off(&mut self, link: &IfName) {
        if let Some(device) = self.links.get_mut(link) {
            device.neighs.retain(|ip, _| ip.is_ipv4());
        }
        self.flush_ipv6_addrs(link);
        self.flush_routes_through(link, |key| key.dst.is_ipv6());
    }
}
