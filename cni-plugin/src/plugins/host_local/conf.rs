use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni_types::{
    ArgsError, CniArgs, Code, DecodeError, Dns, NetConf, Object, ResultError, ResultRoute, Version,
};

use super::range::{Range, RangeError, RangeSet};
use super::resolv;
use crate::error::CniError;
use crate::known_args::KNOWN_ARGS;
use crate::plugins::data_dir::{DataDirError, data_dir};

/// Where the reference keeps its reservations.
const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// What host-local needs to give out addresses.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conf {
    /// One address is given out of each set.
    pub(crate) sets: Vec<RangeSet>,
    /// Addresses that are asked for.
    pub(crate) requested: Vec<IpAddr>,
    /// Routes that the result shall have.
    pub(crate) routes: Vec<ResultRoute>,
    /// Name service settings of the file `resolvConf`.
    pub(crate) dns: Dns,
}

/// Why host-local cannot work with a configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfError {
    #[error("ipam: {0}")]
    Decode(DecodeError),
    #[error("IPAM config missing 'ipam' key")]
    NoIpam,
    #[error("ipam: {0}")]
    Range(RangeError),
    #[error("ipam: no IP ranges specified")]
    NoRanges,
    #[error("ipam: CNI version {0} does not support more than 1 address per family")]
    LegacyFamilies(Version),
    #[error("ipam: {0}")]
    Route(ResultError),
    #[error("{0}")]
    Args(ArgsError),
    #[error("requested address {0:?} is not an IP address")]
    Requested(String),
    #[error("ipam: cannot read resolvConf")]
    ResolvConf(#[source] statefile::Error),
}

impl CniError for ConfError {
    fn code(&self) -> Code {
        match self {
            Self::Decode(_) => Code::DECODING,
            Self::Args(_) => Code::BAD_ENVIRONMENT,
            Self::ResolvConf(_) => Code::IO,
            Self::NoIpam
            | Self::Range(_)
            | Self::NoRanges
            | Self::LegacyFamilies(_)
            | Self::Route(_)
            | Self::Requested(_) => Code::BAD_CONFIG,
        }
    }
}

impl Conf {
    /// Reads everything that an ADD needs; `args` is `CNI_ARGS`.
    pub(crate) fn parse(conf: &NetConf, args: &str) -> Result<Self, ConfError> {
        let ipam = ipam(conf)?;
        let args = CniArgs::parse(args, KNOWN_ARGS).map_err(ConfError::Args)?;
        let routes = ipam.objects("routes").map_err(ConfError::Decode)?;
        let routes = routes
            .iter()
            .map(|route| ResultRoute::parse(route).map_err(ConfError::Route));
        Ok(Self {
            sets: range_sets(conf, &ipam)?,
            requested: requested(conf, &args)?,
            routes: routes.collect::<Result<_, _>>()?,
            dns: match ipam.string("resolvConf").map_err(ConfError::Decode)? {
                None | Some("") => Dns::default(),
                Some(path) => resolv::read(Path::new(path)).map_err(ConfError::ResolvConf)?,
            },
        })
    }
}

/// The directory with the network's reservations. It depends on nothing that an ADD could refuse, so that a DEL works
/// with ranges that are invalid or gone.
pub(crate) fn store_dir(conf: &NetConf) -> Result<PathBuf, DataDirError> {
    let ipam = conf.ipam().map_err(DataDirError::Decode)?.unwrap_or_default();
    Ok(data_dir(&ipam, DEFAULT_DATA_DIR)?.join(conf.name.as_str()))
}

/// The range sets of a configuration: those of the runtime come first, then the legacy single range, then `ranges`.
pub(crate) fn range_sets(conf: &NetConf, ipam: &Object) -> Result<Vec<RangeSet>, ConfError> {
    let runtime = conf.runtime_config().map_err(ConfError::Decode)?;
    let mut lists: Vec<Vec<Object>> = Vec::new();
    for set in runtime.array("ipRanges").map_err(ConfError::Decode)? {
        lists.push(objects_of(set)?);
    }
    let legacy = ipam.string("subnet").map_err(ConfError::Decode)?;
    if legacy.is_some_and(|text| !text.is_empty()) {
        lists.push(vec![ipam.clone()]);
    }
    for set in ipam.array("ranges").map_err(ConfError::Decode)? {
        lists.push(objects_of(set)?);
    }
    if lists.is_empty() {
        return Err(ConfError::NoRanges);
    }
    let mut sets = Vec::with_capacity(lists.len());
    for (position, list) in lists.iter().enumerate() {
        let ranges: Result<Vec<_>, _> = list.iter().map(Range::parse).collect();
        let ranges = ranges.map_err(ConfError::Range)?;
        sets.push(RangeSet::new(ranges, position).map_err(ConfError::Range)?);
    }
    RangeSet::check_overlaps(&sets).map_err(ConfError::Range)?;
    let of_v4 = sets.iter().filter(|set| set.is_ipv4()).count();
    if conf.version < Version::V0_3_0 && (of_v4 > 1 || sets.len() - of_v4 > 1) {
        return Err(ConfError::LegacyFamilies(conf.version));
    }
    Ok(sets)
}

/// The `ipam` object; it must be there.
pub(crate) fn ipam(conf: &NetConf) -> Result<Object, ConfError> {
    conf.ipam().map_err(ConfError::Decode)?.ok_or(ConfError::NoIpam)
}

fn objects_of(set: &serde_json::Value) -> Result<Vec<Object>, ConfError> {
    let mut holder = Object::default();
    holder.set("ranges", set.clone());
    holder.objects("ranges").map_err(ConfError::Decode)
}

/// The addresses asked for by the nearest of three ways: `runtimeConfig.ips`, `args.cni.ips`, `IP` of `CNI_ARGS`
/// (CNI conventions: when the same comes in several ways, `CNI_ARGS` is to be ignored).
fn requested(conf: &NetConf, args: &CniArgs) -> Result<Vec<IpAddr>, ConfError> {
    let runtime = conf.runtime_config().map_err(ConfError::Decode)?;
    let mut texts = runtime.strings("ips").map_err(ConfError::Decode)?;
    if texts.is_empty() {
        let args_cni = conf.args_cni().map_err(ConfError::Decode)?;
        texts = args_cni.strings("ips").map_err(ConfError::Decode)?;
    }
    if texts.is_empty() {
        texts.extend(args.get("IP").map(str::to_owned));
    }
    let parsed = texts.iter().map(|text| {
        let address = text.split_once('/').map_or(text.as_str(), |(address, _)| address);
        address.parse().map_err(|_| ConfError::Requested(text.clone()))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netconf(version: &str, rest: &str) -> NetConf {
        let text = format!(r#"{{"cniVersion":"{version}","name":"net",{rest}}}"#);
        NetConf::parse(text.as_bytes()).unwrap()
    }

    fn parse(version: &str, rest: &str, args: &str) -> Result<Conf, ConfError> {
        Conf::parse(&netconf(version, rest), args)
    }

    const RANGE: &str = r#""ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24"}]]}"#;

    #[test]
    fn ranges_of_runtime_legacy_keys_and_list_are_joined_in_this_order() {
        let conf = parse(
            "1.0.0",
            r#""runtimeConfig":{"ipRanges":[[{"subnet":"10.3.0.0/24"}]]},
               "ipam":{"Subnet":"10.2.0.0/24","rangeStart":"10.2.0.9","ranges":[[{"subnet":"10.1.0.0/24"}]]}"#,
            "",
        );
        let texts: Vec<_> = conf.unwrap().sets.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "10.3.0.1-10.3.0.254",
                "10.2.0.9-10.2.0.254",
                "10.1.0.1-10.1.0.254"
            ]
        );
    }

    #[test]
    fn the_nearest_way_to_ask_for_an_address_wins() {
        let args = "IP=10.1.0.7";
        let ips = |rest: &str| parse("1.0.0", &format!("{RANGE}{rest}"), args).unwrap().requested;
        assert_eq!(ips("")[0].to_string(), "10.1.0.7");
        assert_eq!(
            ips(r#","args":{"cni":{"ips":["10.1.0.8/24"]}}"#)[0].to_string(),
            "10.1.0.8"
        );
        let both = r#","args":{"cni":{"ips":["10.1.0.8"]}},"runtimeConfig":{"ips":["10.1.0.9"]}"#;
        assert_eq!(ips(both)[0].to_string(), "10.1.0.9");
        assert_eq!(ips(both).len(), 1);
    }

    #[test]
    fn unusable_configurations_have_a_code_and_a_reason() {
        let code = |rest: &str, args: &str| parse("1.0.0", rest, args).unwrap_err().code().0;
        assert_eq!(code(r#""x":1"#, ""), 7);
        assert_eq!(code(r#""ipam":{}"#, ""), 7);
        assert_eq!(code(r#""ipam":{"ranges":[[]]}"#, ""), 7);
        assert_eq!(code(r#""ipam":{"ranges":[5]}"#, ""), 6);
        assert_eq!(code(RANGE, "FOO=1"), 4);
        assert_eq!(code(RANGE, "IP=x"), 7);
        assert_eq!(
            code(r#""ipam":{"subnet":"10.1.0.0/24","routes":[{"dst":"x"}]}"#, ""),
            7
        );
        assert_eq!(
            code(
                r#""ipam":{"subnet":"10.1.0.0/24","resolvConf":"/nonexistent"}"#,
                ""
            ),
            5
        );
    }

    #[test]
    fn legacy_versions_have_one_address_a_family() {
        let two = r#""ipam":{"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"10.2.0.0/24"}]]}"#;
        assert!(matches!(
            parse("0.2.0", two, ""),
            Err(ConfError::LegacyFamilies(_))
        ));
        assert!(parse("0.3.0", two, "").is_ok());
    }

    #[test]
    fn the_store_is_found_without_valid_ranges() {
        let conf = NetConf::parse(br#"{"name":"net","ipam":{"dataDir":"/d","ranges":5}}"#).unwrap();
        assert_eq!(store_dir(&conf).unwrap(), Path::new("/d/net"));
        let conf = NetConf::parse(br#"{"name":"net"}"#).unwrap();
        assert_eq!(store_dir(&conf).unwrap(), Path::new("/var/lib/cni/networks/net"));
    }
}
