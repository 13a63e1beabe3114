use net_types::SubnetKey;

/// The names of a network's keys (flannel `pkg/subnet/etcd/registry.go`).
#[derive(Debug)]
pub(super) struct Keys {
    config: String,
    /// What all leases' keys begin with.
    subnets: String,
}

/// The keys from a first one to before a last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyRange {
    pub(super) first: Vec<u8>,
    pub(super) end: Vec<u8>,
}

impl Keys {
    /// Upstream cleans the path: slashes count once, and none at the end.
    pub(super) fn new(prefix: &str) -> Self {
        let parts: Vec<_> = prefix.split('/').filter(|part| !part.is_empty()).collect();
        let root = if prefix.starts_with('/') { "/" } else { "" };
        let prefix = format!("{root}{}", parts.join("/"));
        let prefix = prefix.trim_end_matches('/');
        Self {
            config: format!("{prefix}/config"),
            subnets: format!("{prefix}/subnets/"),
        }
    }

    pub(super) fn config(&self) -> String {
        self.config.clone()
    }

    pub(super) fn lease(&self, key: SubnetKey) -> String {
        format!("{}{key}", self.subnets)
    }

    /// What all leases' keys begin with.
    pub(super) fn subnets(&self) -> &str {
        &self.subnets
    }

    /// All keys of leases.
    pub(super) fn leases(&self) -> KeyRange {
        KeyRange::of_prefix(&self.subnets)
    }

    /// The keys of all leases of a lease's IPv4 subnet, whatever their IPv6 subnet is; without one, the key alone.
    pub(super) fn rivals(&self, key: SubnetKey) -> KeyRange {
        let of_v4 = key.v4().map_or(key, |v4| SubnetKey::new(v4, None));
        KeyRange::of_prefix(&self.lease(of_v4))
    }

    /// The lease that a key names; only one spelling of each counts.
    pub(super) fn parse(&self, key: &[u8]) -> Option<SubnetKey> {
        let name = std::str::from_utf8(key).ok()?.strip_prefix(&self.subnets)?;
        let key: SubnetKey = name.parse().ok()?;
        (key.to_string() == name).then_some(key)
    }
}

impl KeyRange {
    fn of_prefix(prefix: &str) -> Self {
        let mut end = prefix.as_bytes().to_vec();
        // ASCII ends the prefix, so the last byte has a successor.
        if let Some(last) = end.last_mut() {
            *last = last.saturating_add(1);
        }
        Self {
            first: prefix.as_bytes().to_vec(),
            end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_flannel_s() {
        for prefix in [
            "/coreos.com/network",
            "/coreos.com/network/",
            "//coreos.com//network",
        ] {
            let keys = Keys::new(prefix);
            assert_eq!(keys.config(), "/coreos.com/network/config");
            let key: SubnetKey = "10.5.35.0-24&fd00:10:5:46::-64".parse().unwrap();
            let text = "/coreos.com/network/subnets/10.5.35.0-24&fd00:10:5:46::-64";
            assert_eq!(keys.lease(key), text);
            assert_eq!(keys.parse(text.as_bytes()), Some(key));
        }
        assert_eq!(Keys::new("flannel").config(), "flannel/config");
        assert_eq!(Keys::new("/").config(), "/config");
    }

    #[test]
    fn other_keys_are_no_leases() {
        let keys = Keys::new("/coreos.com/network");
        for text in [
            "/coreos.com/network/config",
            "/coreos.com/network/subnets/",
            "/coreos.com/network/subnets/10.5.35.9-24",
            "/coreos.com/network/subnets/x10.5.35.0-24",
            "/other/subnets/10.5.35.0-24",
        ] {
            assert_eq!(keys.parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(keys.parse(b"/coreos.com/network/subnets/\xff"), None);
    }

    #[test]
    fn the_range_of_an_ipv4_subnet_holds_its_dual_stack_leases_too() {
        let keys = Keys::new("/n");
        let range = keys.rivals("10.5.35.0-24&fd00::-64".parse().unwrap());
        for (text, inside) in [
            ("/n/subnets/10.5.35.0-24", true),
            ("/n/subnets/10.5.35.0-24&fd00:1::-64", true),
            ("/n/subnets/10.5.35.0-25", false),
            ("/n/subnets/10.5.36.0-24", false),
        ] {
            let key = text.as_bytes().to_vec();
            assert_eq!(range.first <= key && key < range.end, inside, "{text}");
        }
        let range = keys.rivals("fd00::-64".parse().unwrap());
        let key = b"/n/subnets/fd00::-64".to_vec();
        assert!(range.first <= key && key < range.end);
    }
}
