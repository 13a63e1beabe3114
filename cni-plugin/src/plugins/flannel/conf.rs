use std::io;
use std::path::PathBuf;

use cni_types::{Code, DecodeError, NetConf, Object, network_of};
use flannel_types::{SubnetEnv, SubnetEnvError};
use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use crate::error::CniError;
use crate::plugins::data_dir::{self, DataDirError};

const DEFAULT_SUBNET_FILE: &str = "/run/flannel/subnet.env";
const DEFAULT_DATA_DIR: &str = "/var/lib/cni/flannel";

/// The keys of flannel's own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conf {
    subnet_file: PathBuf,
    delegate: Map<String, Value>,
    ipam: Map<String, Value>,
}

/// Why there is no configuration for the delegate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfError {
    #[error("{0}")]
    Decode(DecodeError),
    #[error("'delegate' dictionary must not have '{0}' field, it'll be set by flannel")]
    ReservedKey(&'static str),
    #[error("'delegate' dictionary, if present, must have (string) 'type' field")]
    DelegateType,
    #[error("failed to load flannel 'subnet.env' file: open {}: no such file or directory. Check the flannel pod log for this node.", .0.display())]
    NoSubnetFile(PathBuf),
    #[error(
        "failed to load flannel 'subnet.env' file: {0}{reason}. Check the flannel pod log for this node.",
        reason = reason(.0)
    )]
    UnreadableSubnetFile(statefile::Error),
    #[error("failed to load flannel 'subnet.env' file: {0}. Check the flannel pod log for this node.")]
    BadSubnetFile(SubnetEnvError),
}

fn reason(error: &statefile::Error) -> String {
    let source = error.io().map(io::Error::to_string);
    source.map_or(String::new(), |text| format!(": {text}"))
}

impl CniError for ConfError {
    fn code(&self) -> Code {
        match self {
            Self::Decode(_) => Code::DECODING,
            Self::ReservedKey(_) | Self::DelegateType | Self::BadSubnetFile(_) => Code::BAD_CONFIG,
            // flanneld has not written it yet.
            Self::NoSubnetFile(_) => Code::TRY_LATER,
            Self::UnreadableSubnetFile(_) => Code::IO,
        }
    }
}

/// The directory with the state files.
pub(crate) fn data_dir(conf: &NetConf) -> Result<PathBuf, DataDirError> {
    data_dir::data_dir(&conf.object, DEFAULT_DATA_DIR)
}

fn subnet_file(conf: &NetConf) -> Result<PathBuf, ConfError> {
    let text = conf.object.string("subnetFile").map_err(ConfError::Decode)?;
    let text = text
        .filter(|text| !text.is_empty())
        .unwrap_or(DEFAULT_SUBNET_FILE);
    Ok(PathBuf::from(text))
}

impl Conf {
    pub(crate) fn parse(conf: &NetConf) -> Result<Self, ConfError> {
        let object = |key| conf.object.object(key).map_err(ConfError::Decode);
        let delegate = object("delegate")?.unwrap_or_default().into_map();
        for key in ["name", "ipam"] {
            if delegate.contains_key(key) {
                return Err(ConfError::ReservedKey(key));
            }
        }
        if delegate.get("type").is_some_and(|value| !value.is_string()) {
            return Err(ConfError::DelegateType);
        }
        Ok(Self {
            subnet_file: subnet_file(conf)?,
            delegate,
            ipam: object("ipam")?.unwrap_or_default().into_map(),
        })
    }

    /// Reads the subnet file that flanneld writes.
    pub(crate) fn subnet_env(&self) -> Result<SubnetEnv, ConfError> {
        let path = &self.subnet_file;
        let text = statefile::read_text(path).map_err(ConfError::UnreadableSubnetFile)?;
        let text = text.ok_or_else(|| ConfError::NoSubnetFile(path.clone()))?;
        SubnetEnv::parse(&text, path).map_err(ConfError::BadSubnetFile)
    }

    /// The configuration for the delegate, as flannel's cni-plugin makes it (`flannel_linux.go`). Without the subnet
    /// file it lacks what only that tells.
    pub(crate) fn delegate_conf(&self, conf: &NetConf, env: Option<&SubnetEnv>) -> Object {
        let mut map = self.delegate.clone();
        map.insert("name".to_owned(), json!(conf.name.as_str()));
        for key in ["cniVersion", "runtimeConfig"] {
            let given = conf.object.get(key).filter(|value| value.as_str() != Some(""));
            if let Some(value) = given {
                map.insert(key.to_owned(), value.clone());
            }
        }
        let kind = map.entry("type").or_insert_with(|| json!("bridge"));
        let is_bridge = kind.as_str() == Some("bridge");
        if let Some(env) = env {
            // Where flanneld does no masquerading, the delegate does.
            map.entry("ipMasq").or_insert_with(|| json!(!env.ip_masq));
            map.entry("mtu").or_insert_with(|| json!(env.mtu));
        }
        if is_bridge {
            map.entry("isGateway").or_insert_with(|| json!(true));
        }
        map.insert("ipam".to_owned(), Value::Object(self.ipam_conf(env)));
        Object::from(map)
    }

    fn ipam_conf(&self, env: Option<&SubnetEnv>) -> Map<String, Value> {
        let mut map = self.ipam.clone();
        map.entry("type").or_insert_with(|| json!("host-local"));
        let Some(env) = env else {
            return map;
        };
        let subnets = env.subnet.map(IpNetwork::V4).into_iter();
        let subnets = subnets.chain(env.ipv6_subnet.map(IpNetwork::V6));
        // The subnet file holds the gateway's address, host-local wants the network's.
        let ranges = subnets.map(|net| json!([{ "subnet": network_of(net).to_string() }]));
        map.insert("ranges".to_owned(), Value::Array(ranges.collect()));
        let mut routes = match map.remove("routes") {
            Some(Value::Array(given)) => given,
            Some(_) | None => Vec::new(),
        };
        let networks = env.networks.iter().map(|net| IpNetwork::V4(*net));
        let networks = networks.chain(env.ipv6_networks.iter().map(|net| IpNetwork::V6(*net)));
        routes.extend(networks.map(|net| json!({ "dst": net.to_string() })));
        map.insert("routes".to_owned(), Value::Array(routes));
        map
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What the reference stored for the captured pods.
    const GOLDEN_V4: &str = include_str!("../../../tests/data/delegate-v4.json");
    const GOLDEN_DUAL: &str = include_str!("../../../tests/data/delegate-dualstack.json");

    const SHIPPED: &str = r#""type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}"#;

    fn netconf(rest: &str) -> NetConf {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"cbr0",{rest}}}"#);
        NetConf::parse(text.as_bytes()).unwrap()
    }

    fn env(text: &str) -> SubnetEnv {
        SubnetEnv::parse(text, Path::new("subnet.env")).unwrap()
    }

    const ENV_V4: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

    fn delegate(rest: &str, env_text: &str) -> String {
        let conf = netconf(rest);
        let own = Conf::parse(&conf).unwrap();
        Value::Object(own.delegate_conf(&conf, Some(&env(env_text))).into_map()).to_string()
    }

    #[test]
    fn the_delegates_configuration_is_the_references_byte_for_byte() {
        assert_eq!(delegate(SHIPPED, ENV_V4), GOLDEN_V4.trim_end());
        let dual = format!(
            "{ENV_V4}FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:7::1/64\n"
        );
        assert_eq!(delegate(SHIPPED, &dual), GOLDEN_DUAL.trim_end());
    }

    #[test]
    fn given_keys_win_over_flannels_defaults_except_ranges() {
        let text = delegate(
            r#""delegate":{"type":"macvlan","mtu":1300,"ipMasq":true},"runtimeConfig":{"mac":"x"},
               "ipam":{"type":"other","ranges":[],"routes":[{"dst":"1.2.3.0/24"}],"dataDir":"/d"}"#,
            ENV_V4,
        );
        assert_eq!(
            text,
            concat!(
                r#"{"cniVersion":"1.0.0","ipMasq":true,"ipam":{"dataDir":"/d","#,
                r#""ranges":[[{"subnet":"10.244.7.0/24"}]],"routes":[{"dst":"1.2.3.0/24"},{"dst":"10.244.0.0/16"}],"#,
                r#""type":"other"},"mtu":1300,"name":"cbr0","runtimeConfig":{"mac":"x"},"type":"macvlan"}"#
            )
        );
    }

    #[test]
    fn masquerading_that_flanneld_leaves_to_the_delegate_is_asked_of_it() {
        let env = ENV_V4.replace("IPMASQ=true", "IPMASQ=false");
        let ip_masq = |rest: &str, env: &str| {
            let delegate: Value = serde_json::from_str(&delegate(rest, env)).unwrap();
            delegate["ipMasq"].clone()
        };
        assert_eq!(ip_masq(SHIPPED, &env), true);
        assert_eq!(ip_masq(SHIPPED, ENV_V4), false);
        assert_eq!(ip_masq(r#""delegate":{"type":"bridge"}"#, &env), true);
        assert_eq!(ip_masq(r#""delegate":{"ipMasq":false}"#, &env), false);
        assert_eq!(ip_masq(r#""delegate":{"type":"ptp"}"#, &env), true);
        assert_eq!(ip_masq(r#""delegate":{"type":"ptp"}"#, ENV_V4), false);
    }

    #[test]
    fn keys_that_flannel_sets_are_refused_in_the_delegate() {
        for (rest, words) in [
            (r#""delegate":{"name":"x"}"#, "must not have 'name' field"),
            (r#""delegate":{"ipam":{}}"#, "must not have 'ipam' field"),
            (r#""delegate":{"type":5}"#, "must have (string) 'type' field"),
        ] {
            let error = Conf::parse(&netconf(rest)).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.code().0, 7);
        }
        assert_eq!(Conf::parse(&netconf(r#""delegate":[]"#)).unwrap_err().code().0, 6);
    }

    #[test]
    fn a_missing_subnet_file_is_a_transient_condition_and_a_broken_one_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("subnet.env");
        let conf = Conf::parse(&netconf(&format!(r#""subnetFile":{path:?}"#))).unwrap();
        let missing = conf.subnet_env().unwrap_err();
        assert_eq!(
            missing.to_string(),
            format!(
                "failed to load flannel 'subnet.env' file: open {}: no such file or directory. \
                 Check the flannel pod log for this node.",
                path.display()
            )
        );
        assert_eq!(missing.code().0, 11);
        std::fs::write(
            &path,
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\n",
        )
        .unwrap();
        let broken = conf.subnet_env().unwrap_err();
        assert!(
            broken
                .to_string()
                .contains("subnet.env is missing FLANNEL_MTU, FLANNEL_IPMASQ. Check"),
            "{broken}"
        );
        assert_eq!(broken.code().0, 7);
    }
}
