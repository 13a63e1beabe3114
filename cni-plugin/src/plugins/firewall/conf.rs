use std::path::PathBuf;

use cni_types::{AddResult, Code, DecodeError, NetConf};
use ipnetwork::IpNetwork;
use net_types::IfName;

use crate::error::CniError;
use crate::plugins::data_dir::{self, DataDirError};
use crate::plugins::netfilter::Backend;

/// The chain that an administrator may fill, which is asked before the containers' rules.
const DEFAULT_ADMIN_CHAIN: &str = "CNI-ADMIN";

/// Where it is noted which addresses have rules in iptables. It goes with a reboot, as the rules do.
const DEFAULT_DATA_DIR: &str = "/run/cni/flannel-firewall";

/// Longest name of a chain in iptables (linux `xt_target`, less what iptables keeps for itself).
const CHAIN_MAX_BYTES: usize = 28;

/// The keys of firewall's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conf {
    /// `None` leaves it to the node.
    pub(crate) backend: Option<Backend>,
    pub(crate) admin_chain: String,
    pub(crate) ingress: IngressPolicy,
}

/// From where a container's bridge is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum IngressPolicy {
    /// From everywhere.
    Open,
    /// Not from other bridges with such a policy.
    SameBridge,
    /// Nor from the same bridge.
    Isolated,
}

/// What the plugin works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// Every address of the result, as a network of one.
    pub(crate) hosts: Vec<IpNetwork>,
    /// The bridge whose ingress is restricted, and how; `None` for an open one.
    pub(crate) restricted: Option<(IfName, IngressPolicy)>,
}

/// Why firewall cannot work with a configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfError {
    #[error("{0}")]
    Decode(DecodeError),
    #[error(
        "key \"backend\" with value {0:?} is not supported by this plugin; use \"nftables\" or \"iptables\", \
         and with firewalld add the containers' network to a zone that trusts it"
    )]
    Backend(String),
    #[error("unknown ingress policy: {0:?}; it is \"open\", \"same-bridge\" or \"isolated\"")]
    IngressPolicy(String),
    #[error(
        "iptablesAdminChainName {0:?} is no name of a chain: at most 28 letters, digits, '_', '.' and '-'"
    )]
    AdminChain(String),
    #[error(
        "ingressPolicy needs the bridge in prevResult, and finds none there with a name that packet filters can \
         have; chain \"firewall\" after \"bridge\""
    )]
    NoBridge,
}

impl CniError for ConfError {
    fn code(&self) -> Code {
        match self {
            Self::Decode(_) => Code::DECODING,
            Self::Backend(_) => Code::UNSUPPORTED_FIELD,
            Self::IngressPolicy(_) | Self::AdminChain(_) | Self::NoBridge => Code::BAD_CONFIG,
        }
    }
}

impl IngressPolicy {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::SameBridge => "same-bridge",
            Self::Isolated => "isolated",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let all = [Self::Open, Self::SameBridge, Self::Isolated];
        all.into_iter().find(|policy| policy.as_str() == text)
    }
}

/// The directory with the notes.
pub(crate) fn data_dir(conf: &NetConf) -> Result<PathBuf, DataDirError> {
    data_dir::data_dir(&conf.object, DEFAULT_DATA_DIR)
}

impl Conf {
    /// Reads everything that an ADD needs.
    pub(crate) fn parse(conf: &NetConf) -> Result<Self, ConfError> {
        let text = |key| {
            let found = conf.object.string(key).map_err(ConfError::Decode)?;
            Ok(found.filter(|text| !text.is_empty()))
        };
        let backend = match text("backend")? {
            None => None,
            Some(name) => Some(Backend::parse(name).ok_or_else(|| ConfError::Backend(name.to_owned()))?),
        };
        let admin_chain = text("iptablesAdminChainName")?.unwrap_or(DEFAULT_ADMIN_CHAIN);
        if admin_chain.len() > CHAIN_MAX_BYTES || !is_plain(admin_chain) {
            return Err(ConfError::AdminChain(admin_chain.to_owned()));
        }
        let policy = text("ingressPolicy")?.unwrap_or(IngressPolicy::Open.as_str());
        let ingress = IngressPolicy::parse(policy);
        let unknown = || ConfError::IngressPolicy(policy.to_owned());
        Ok(Self {
            backend,
            admin_chain: admin_chain.to_owned(),
            ingress: ingress.ok_or_else(unknown)?,
        })
    }

    /// What of a result the rules are for.
    pub(crate) fn attachment(&self, result: &AddResult) -> Result<Attachment, ConfError> {
        let mut hosts: Vec<_> = result
            .ips
            .iter()
            .map(|ip| IpNetwork::from(ip.address.ip()))
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        let restricted = match self.ingress {
            IngressPolicy::Open => None,
            IngressPolicy::SameBridge | IngressPolicy::Isolated => {
                let bridge = bridge_of(result).ok_or(ConfError::NoBridge)?;
                Some((bridge, self.ingress))
            }
        };
        Ok(Attachment { hosts, restricted })
    }
}

/// The bridge, which its plugin names first. A `+` would mean all interfaces that begin so.
fn bridge_of(result: &AddResult) -> Option<IfName> {
    let first = result
        .interfaces
        .first()
        .filter(|interface| !interface.is_in_sandbox())?;
    IfName::new(&first.name)
        .ok()
        .filter(|name| is_plain(name.as_str()))
}

/// Whether a text is one plain word for iptables-restore.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    !text.starts_with('-') && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn netconf(rest: &str) -> NetConf {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"net","type":"firewall"{rest}}}"#);
        NetConf::parse(text.as_bytes()).unwrap()
    }

    fn result(value: &Value) -> AddResult {
        AddResult::parse(value).unwrap()
    }

    #[test]
    fn defaults_are_the_references_but_for_the_back_end() {
        let conf = Conf::parse(&netconf("")).unwrap();
        assert_eq!(conf.backend, None);
        assert_eq!(conf.admin_chain, "CNI-ADMIN");
        assert_eq!(conf.ingress, IngressPolicy::Open);
        assert_eq!(
            Conf::parse(&netconf(r#","backend":"","ingressPolicy":null"#)).unwrap(),
            conf
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_key_and_value() {
        for (rest, code, word) in [
            (
                r#","backend":"firewalld""#,
                2,
                "\"backend\" with value \"firewalld\"",
            ),
            (r#","backend":5"#, 6, "backend"),
            (r#","ingressPolicy":"closed""#, 7, "closed"),
            (r#","iptablesAdminChainName":"-X""#, 7, "-X"),
            (r#","iptablesAdminChainName":"A\nB""#, 7, "A\\nB"),
            (r#","iptablesAdminChainName":"A B""#, 7, "A B"),
            (
                r#","iptablesAdminChainName":"AAAAAAAAAABBBBBBBBBBCCCCCCCCC""#,
                7,
                "AAAA",
            ),
        ] {
            let error = Conf::parse(&netconf(rest)).unwrap_err();
            assert_eq!(error.code().0, code, "{rest}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn rules_are_for_each_address_once_whichever_interface_has_it() {
        let conf = Conf::parse(&netconf("")).unwrap();
        let attachment = conf.attachment(&result(&json!({
            "ips": [{"address": "10.1.0.2/24"}, {"address": "fd00::2/64", "interface": 7}, {"address": "10.1.0.2/16"}],
        })));
        let attachment = attachment.unwrap();
        let hosts: Vec<_> = attachment.hosts.iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["10.1.0.2/32", "fd00::2/128"]);
        assert_eq!(attachment.restricted, None);
    }

    #[test]
    fn a_policy_needs_a_bridge_that_rules_can_name() {
        let conf = Conf::parse(&netconf(r#","ingressPolicy":"same-bridge""#)).unwrap();
        let of = |interfaces: Value| conf.attachment(&result(&json!({ "interfaces": interfaces })));
        let attachment = of(json!([{"name": "cni0"}, {"name": "veth1"}])).unwrap();
        let (bridge, policy) = attachment.restricted.unwrap();
        assert_eq!((bridge.as_str(), policy), ("cni0", IngressPolicy::SameBridge));
        for interfaces in [
            json!([]),
            json!([{"name": ""}]),
            json!([{"name": "eth0", "sandbox": "/run/netns/a"}]),
            json!([{"name": "br+"}]),
            json!([{"name": "br\"0"}]),
        ] {
            assert!(
                matches!(of(interfaces.clone()), Err(ConfError::NoBridge)),
                "{interfaces}"
            );
        }
    }
}
