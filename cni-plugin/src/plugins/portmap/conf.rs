use std::net::IpAddr;
use std::path::PathBuf;

use cni_types::{Code, DecodeError, NetConf, Object};
use net_types::registry::PORTMAP_MARK_BIT;

use super::attachment::{IpFamily, Mapping, MappingError, MarkBy};
use crate::error::CniError;
use crate::plugins::data_dir::{self, DataDirError};

/// Where attachments are kept; the reference keeps nothing. It is emptied by a reboot, as the rules are: what was
/// mapped before would lead to addresses that other containers have since.
const DEFAULT_DATA_DIR: &str = "/run/cni/flannel-portmap";

/// Longest name of an iptables chain (linux `x_tables.h`, `XT_EXTENSION_MAXNAMELEN` less the end).
const CHAIN_NAME_MAX_BYTES: usize = 28;

/// What makes the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Nftables,
    Iptables,
}

impl Backend {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// The keys of portmap's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conf {
    /// `None` leaves the choice to the kernel: nftables, or iptables where it has none.
    ///
    /// The reference prefers iptables where it is installed. A rule of either translates beside rules of the other
    /// (since linux 4.18), so nobody on the node needs ours to be in iptables, but for one who hands them over to
    /// iptables in this very configuration: by its name, a chain of iptables or conditions in its syntax. They decide.
    pub(crate) backend: Option<Backend>,
    /// Whether connections whose answers would miss the host are masqueraded.
    pub(crate) snat: bool,
    /// Whether all connections to mapped ports are.
    pub(crate) masq_all: bool,
    pub(crate) mark: MarkBy,
    /// Further conditions for IPv4 in the back end's syntax.
    pub(crate) conditions_v4: Vec<String>,
    pub(crate) conditions_v6: Vec<String>,
    pub(crate) mappings: Vec<Mapping>,
}

/// Why portmap cannot work with a configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfError {
    #[error("{0}")]
    Decode(DecodeError),
    #[error("unrecognized backend {0:?}; choose nftables or iptables")]
    Backend(String),
    #[error(
        "{asked} backend was requested but configuration contains {other}-specific options {}",
        keys.join(", ")
    )]
    OptionsOfOther {
        asked: &'static str,
        other: &'static str,
        keys: Vec<&'static str>,
    },
    #[error("configuration contains options of both back ends: {}; remove those of one", .0.join(", "))]
    OptionsOfBoth(Vec<&'static str>),
    #[error("cannot specify externalSetMarkChain and markMasqBit; remove one of them")]
    MarkTwice,
    #[error("markMasqBit {0} must be between 0 and 31")]
    MarkBit(i64),
    #[error("externalSetMarkChain {0:?} is no name of an iptables chain")]
    Chain(String),
    #[error("{key} {text:?} is not one line of text")]
    Condition { key: &'static str, text: String },
    #[error("{0}")]
    Mapping(MappingError),
}

impl CniError for ConfError {
    fn code(&self) -> Code {
        match self {
            Self::Decode(_) | Self::Mapping(MappingError::Decode(_)) => Code::DECODING,
            Self::Backend(_)
            | Self::OptionsOfOther { .. }
            | Self::OptionsOfBoth(_)
            | Self::MarkTwice
            | Self::MarkBit(_)
            | Self::Chain(_)
            | Self::Condition { .. }
            | Self::Mapping(_) => Code::BAD_CONFIG,
        }
    }
}

impl Conf {
    /// Reads everything that an ADD needs.
    pub(crate) fn parse(conf: &NetConf) -> Result<Self, ConfError> {
        let object = &conf.object;
        let flag = |key| object.bool(key).map_err(ConfError::Decode);
        let conditions_v4 = conditions(object, "conditionsV4")?;
        let conditions_v6 = conditions(object, "conditionsV6")?;
        let mappings = mappings(conf)?;
        Ok(Self {
            backend: backend(object, &conditions_v4, &conditions_v6)?,
            snat: flag("snat")?.unwrap_or(true),
            masq_all: flag("masqAll")?.unwrap_or(false),
            mark: mark(object)?,
            conditions_v4,
            conditions_v6,
            mappings,
        })
    }

    pub(crate) fn conditions(&self, family: IpFamily) -> &[String] {
        match family {
            IpFamily::V4 => &self.conditions_v4,
            IpFamily::V6 => &self.conditions_v6,
        }
    }
}

/// The mappings that the runtime asks for.
pub(crate) fn mappings(conf: &NetConf) -> Result<Vec<Mapping>, ConfError> {
    let runtime = conf.runtime_config().map_err(ConfError::Decode)?;
    let entries = runtime.objects("portMappings").map_err(ConfError::Decode)?;
    let mappings = entries.iter().map(Mapping::parse);
    mappings.collect::<Result<_, _>>().map_err(ConfError::Mapping)
}

/// The directory of the state.
pub(crate) fn data_dir(conf: &NetConf) -> Result<PathBuf, DataDirError> {
    data_dir::data_dir(&conf.object, DEFAULT_DATA_DIR)
}

/// The directory of the state where no configuration names another.
pub(crate) fn default_data_dir() -> PathBuf {
    PathBuf::from(DEFAULT_DATA_DIR)
}

fn conditions(object: &Object, key: &'static str) -> Result<Vec<String>, ConfError> {
    let mut texts = object.strings(key).map_err(ConfError::Decode)?;
    texts.retain(|text| !text.is_empty());
    // A line end would begin another command of iptables-restore.
    match texts.iter().find(|text| text.chars().any(char::is_control)) {
        None => Ok(texts),
        Some(bad) => Err(ConfError::Condition {
            key,
            text: bad.clone(),
        }),
    }
}

/// What the configuration says of the back end, by name or by keys that only one understands.
fn backend(object: &Object, v4: &[String], v6: &[String]) -> Result<Option<Backend>, ConfError> {
    let asked = match object.string("backend").map_err(ConfError::Decode)? {
        None => None,
        Some("nftables") => Some(Backend::Nftables),
        Some("iptables") => Some(Backend::Iptables),
        Some(other) => return Err(ConfError::Backend(other.to_owned())),
    };
    let chain = object.string("externalSetMarkChain").map_err(ConfError::Decode)?;
    let options = [
        ("externalSetMarkChain", chain.map(|_| Backend::Iptables)),
        ("conditionsV4", syntax_of(v4)),
        ("conditionsV6", syntax_of(v6)),
    ];
    let keys_of = |backend| {
        let keys = options.iter().filter(|(_, of)| *of == Some(backend));
        keys.map(|(key, _)| *key).collect::<Vec<_>>()
    };
    let (nftables, iptables) = (keys_of(Backend::Nftables), keys_of(Backend::Iptables));
    let other_options = |asked: Backend, other: Backend, keys| {
        Err(ConfError::OptionsOfOther {
            asked: asked.as_str(),
            other: other.as_str(),
            keys,
        })
    };
    match (asked, nftables.is_empty(), iptables.is_empty()) {
        (Some(asked @ Backend::Nftables), _, false) => other_options(asked, Backend::Iptables, iptables),
        (Some(asked @ Backend::Iptables), false, _) => other_options(asked, Backend::Nftables, nftables),
        (None, false, false) => Err(ConfError::OptionsOfBoth([nftables, iptables].concat())),
        (None, false, true) => Ok(Some(Backend::Nftables)),
        (None, true, false) => Ok(Some(Backend::Iptables)),
        (asked, _, _) => Ok(asked),
    }
}

/// Conditions of iptables begin with a dash or an exclamation mark, those of nftables never do.
fn syntax_of(conditions: &[String]) -> Option<Backend> {
    let first = conditions.first()?;
    Some(if first.starts_with(['-', '!']) {
        Backend::Iptables
    } else {
        Backend::Nftables
    })
}

fn mark(object: &Object) -> Result<MarkBy, ConfError> {
    let chain = object.string("externalSetMarkChain").map_err(ConfError::Decode)?;
    let bit = object.int("markMasqBit").map_err(ConfError::Decode)?;
    match (chain, bit) {
        (Some(_), Some(_)) => Err(ConfError::MarkTwice),
        (Some(chain), None) => {
            let is_name = !chain.is_empty()
                && chain.len() <= CHAIN_NAME_MAX_BYTES
                && !chain.starts_with(['-', '!'])
                && chain
                    .bytes()
                    .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
            if is_name {
                Ok(MarkBy::Chain(chain.to_owned()))
            } else {
                Err(ConfError::Chain(chain.to_owned()))
            }
        }
        (None, bit) => {
            let bit = bit.unwrap_or(PORTMAP_MARK_BIT.into());
            let shift = u32::try_from(bit).map_err(|_| ConfError::MarkBit(bit))?;
            let mask = 1_u32.checked_shl(shift).ok_or(ConfError::MarkBit(bit))?;
            Ok(MarkBy::Bit(mask))
        }
    }
}

/// Where host ports are mapped from, as a runtime writes it; empty is every address.
pub(crate) fn host_ip(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests;
