use std::collections::BTreeMap;
use std::path::PathBuf;

use cni_types::{Code, DecodeError, NetConf, Object};
use netlink::LinkSetting;
use netstate::SysctlKey;
use serde_json::Value;

use crate::error::CniError;
use crate::plugins::data_dir::{self, DataDirError};
use crate::requested_mac::{RequestedMacError, requested_mac};

/// Where the reference keeps what it must put back.
const DEFAULT_DATA_DIR: &str = "/run/cni/tuning";

/// Stands for the container's interface in the name of a parameter.
const IFNAME: &str = "IFNAME";

/// The keys of tuning's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conf {
    /// Parameters with their values.
    pub(crate) sysctls: BTreeMap<SysctlKey, String>,
    /// The parameters' names as they were given.
    pub(crate) names: Vec<String>,
    /// What the interface shall be set to, in the order in which it is set.
    pub(crate) settings: Vec<LinkSetting>,
}

/// Why tuning cannot work with a configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfError {
    #[error("{0}")]
    Decode(DecodeError),
    #[error(
        "sysctl {0:?} is no parameter of a network namespace; only those below \"net\" can be set, \
         such as \"net.ipv4.conf.IFNAME.arp_filter\""
    )]
    Foreign(String),
    #[error("sysctl {0:?} is given twice, in two spellings; remove one")]
    Twice(String),
    #[error(
        "sysctl {0:?} has a value of several lines, of which the kernel would take the first; give it one"
    )]
    Lines(String),
    #[error("{key} {value} is out of range")]
    Range { key: &'static str, value: i64 },
    #[error("{0}")]
    Mac(RequestedMacError),
}

impl CniError for ConfError {
    fn code(&self) -> Code {
        match self {
            Self::Decode(_) => Code::DECODING,
            Self::Foreign(_) | Self::Twice(_) | Self::Lines(_) | Self::Range { .. } => Code::BAD_CONFIG,
            Self::Mac(error) => error.code(),
        }
    }
}

/// The directory with what must be put back.
pub(crate) fn data_dir(conf: &NetConf) -> Result<PathBuf, DataDirError> {
    data_dir::data_dir(&conf.object, DEFAULT_DATA_DIR)
}

impl Conf {
    /// Reads it for no container in particular.
    pub(crate) fn of_any(conf: &NetConf, args: &str) -> Result<Self, ConfError> {
        Self::parse(conf, args, IFNAME)
    }

    /// Reads everything that an ADD needs; `args` is `CNI_ARGS`. What stands under `args.cni` wins over the keys of
    /// the configuration.
    pub(crate) fn parse(conf: &NetConf, args: &str, ifname: &str) -> Result<Self, ConfError> {
        let args_cni = conf.args_cni().map_err(ConfError::Decode)?;
        let both = [&conf.object, &args_cni];
        let (sysctls, names) = sysctls(both, ifname)?;
        let own_mac = conf.object.string("mac").map_err(ConfError::Decode)?;
        let mac = requested_mac(conf, args, own_mac).map_err(ConfError::Mac)?;
        let promisc = last(both, |object| object.bool("promisc"))?;
        let mtu = last(both, |object| object.int("mtu"))?.filter(|mtu| *mtu != 0);
        let allmulti = last(both, |object| object.bool("allmulti"))?;
        let queue = last(both, |object| object.int("txQLen"))?;
        let settings = [
            mac.map(LinkSetting::Mac),
            // As with the reference, `false` says nothing.
            promisc.filter(|on| *on).map(LinkSetting::Promiscuous),
            number("mtu", mtu)?.map(LinkSetting::MtuBytes),
            allmulti.map(LinkSetting::AllMulticast),
            number("txQLen", queue)?.map(LinkSetting::TxQueueLen),
        ];
        Ok(Self {
            sysctls,
            names,
            settings: settings.into_iter().flatten().collect(),
        })
    }
}

fn last<T>(
    objects: [&Object; 2],
    read: impl Fn(&Object) -> Result<Option<T>, DecodeError>,
) -> Result<Option<T>, ConfError> {
    let mut found = None;
    for object in objects {
        found = read(object).map_err(ConfError::Decode)?.or(found);
    }
    Ok(found)
}

fn number(key: &'static str, value: Option<i64>) -> Result<Option<u32>, ConfError> {
    let in_range = |value| u32::try_from(value).map_err(|_| ConfError::Range { key, value });
    value.map(in_range).transpose()
}

fn sysctls(
    objects: [&Object; 2],
    ifname: &str,
) -> Result<(BTreeMap<SysctlKey, String>, Vec<String>), ConfError> {
    let mut given = BTreeMap::new();
    for object in objects {
        let listed = object.object("sysctl").map_err(ConfError::Decode)?;
        for (name, value) in listed.unwrap_or_default().into_map() {
            match value {
                Value::Null => {}
                Value::String(text) if text.trim_end_matches('\n').contains(['\n', '\0']) => {
                    return Err(ConfError::Lines(name));
                }
                Value::String(text) => {
                    given.insert(name, text);
                }
                Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    return Err(ConfError::Decode(DecodeError::Type {
                        key: format!("sysctl.{name}"),
                        expected: "a string",
                        found: value.to_string(),
                    }));
                }
            }
        }
    }
    let mut sysctls = BTreeMap::new();
    for (name, value) in &given {
        let key = sysctl_key(name, ifname).ok_or_else(|| ConfError::Foreign(name.clone()))?;
        if sysctls.insert(key, value.clone()).is_some() {
            return Err(ConfError::Twice(name.clone()));
        }
    }
    Ok((sysctls, given.into_keys().collect()))
}

/// Reads a name with dots or slashes. The interface's own name may have dots, so it is put in at last.
fn sysctl_key(name: &str, ifname: &str) -> Option<SysctlKey> {
    let path = name.replace('.', "/");
    path.strip_prefix("net/")?;
    SysctlKey::new(&path.replacen(IFNAME, ifname, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netconf(rest: &str) -> NetConf {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"net","type":"tuning"{rest}}}"#);
        NetConf::parse(text.as_bytes()).unwrap()
    }

    fn parse(rest: &str, args: &str) -> Result<Conf, ConfError> {
        Conf::parse(&netconf(rest), args, "eth0.5")
    }

    fn keys(rest: &str) -> Vec<String> {
        let conf = parse(rest, "").unwrap();
        conf.sysctls.keys().map(|key| key.as_str().to_owned()).collect()
    }

    #[test]
    fn parameters_are_named_with_dots_or_slashes_and_the_interface_by_its_placeholder() {
        let rest = r#","sysctl":{"net.core.somaxconn":"500","net/ipv4/conf/IFNAME/arp_filter":"1"}"#;
        assert_eq!(
            keys(rest),
            ["net/core/somaxconn", "net/ipv4/conf/eth0.5/arp_filter"]
        );
    }

    #[test]
    fn only_parameters_of_the_network_namespace_can_be_named() {
        for name in [
            "kernel.hostname",
            "net",
            "net.",
            "",
            "/net/core/somaxconn",
            "net/core//somaxconn",
            "net.core..somaxconn",
            "net/../kernel/hostname",
            "network.core",
        ] {
            let error = parse(&format!(r#","sysctl":{{"{name}":"1"}}"#), "").unwrap_err();
            assert!(matches!(error, ConfError::Foreign(_)), "{name}: {error}");
        }
    }

    #[test]
    fn one_parameter_in_two_spellings_is_refused() {
        let rest = r#","sysctl":{"net.core.somaxconn":"500","net/core/somaxconn":"600"}"#;
        assert!(matches!(parse(rest, ""), Err(ConfError::Twice(_))));
    }

    #[test]
    fn a_value_of_several_lines_is_refused() {
        let of = |value: &str| parse(&format!(r#","sysctl":{{"net.core.somaxconn":"{value}"}}"#), "");
        assert!(matches!(of(r"1\n2"), Err(ConfError::Lines(_))));
        assert!(of(r"1\n").is_ok());
    }

    #[test]
    fn values_that_are_not_texts_are_refused_with_their_key() {
        let error = parse(r#","sysctl":{"net.core.somaxconn":500}"#, "").unwrap_err();
        assert_eq!(error.code().0, 6);
        assert!(error.to_string().contains("sysctl.net.core.somaxconn"), "{error}");
        assert_eq!(keys(r#","sysctl":{"net.core.somaxconn":null}"#).len(), 0);
    }

    #[test]
    fn the_runtimes_arguments_win_over_the_configuration() {
        let rest = r#","mac":"0a:00:00:00:00:01","mtu":1400,"promisc":true,"allmulti":true,"txQLen":0,
            "sysctl":{"net.core.a":"1","net.core.b":"1"},
            "args":{"cni":{"mtu":1300,"promisc":false,"allmulti":false,"sysctl":{"net.core.b":"2"}}}"#;
        let conf = parse(rest, "MAC=0a:00:00:00:00:02").unwrap();
        assert_eq!(
            conf.settings,
            [
                LinkSetting::Mac("0a:00:00:00:00:02".parse().unwrap()),
                LinkSetting::MtuBytes(1300),
                LinkSetting::AllMulticast(false),
                LinkSetting::TxQueueLen(0),
            ]
        );
        let values: Vec<_> = conf.sysctls.into_values().collect();
        assert_eq!(values, ["1", "2"]);
    }

    #[test]
    fn nothing_is_asked_for_by_defaults() {
        let conf = parse(r#","mtu":0,"promisc":false,"mac":"","sysctl":null"#, "").unwrap();
        assert_eq!((conf.settings.len(), conf.sysctls.len()), (0, 0));
    }

    #[test]
    fn impossible_numbers_are_refused() {
        for rest in [r#","mtu":-1"#, r#","txQLen":-1"#, r#","mtu":4294967296"#] {
            assert_eq!(parse(rest, "").unwrap_err().code().0, 7, "{rest}");
        }
        assert_eq!(parse(r#","mac":"x""#, "").unwrap_err().code().0, 7);
        assert_eq!(parse("", "MAC").unwrap_err().code().0, 4);
    }
}
