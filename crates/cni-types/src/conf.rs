use serde_json::Value;

use crate::{Code, DecodeError, Dns, IdError, NetworkName, Object, Version, VersionError};

/// A network configuration as a plugin gets it on standard input: the keys that every plugin shares, and the whole
/// object for its own and for its delegates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConf {
    /// The version whose result form is wanted.
    pub version: Version,
    /// The network.
    pub name: NetworkName,
    /// The object as given.
    pub object: Object,
}

/// Why a configuration cannot be used by any plugin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfError {
    /// The text or one of the shared keys has a wrong form.
    #[error("{0}")]
    Decode(DecodeError),
    /// There is no network name.
    #[error("missing network name")]
    NameMissing,
    /// The network name breaks the rule.
    #[error("invalid network name: {0}")]
    Name(IdError),
    /// The version is not supported.
    #[error("{0}")]
    Version(VersionError),
}

impl ConfError {
    /// The code of the error object.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Decode(_) => Code::DECODING,
            Self::NameMissing | Self::Name(_) => Code::BAD_CONFIG,
            Self::Version(_) => Code::INCOMPATIBLE_VERSION,
        }
    }

    /// The details of the error object.
    #[must_use]
    pub fn details(&self) -> String {
        match self {
            Self::Version(error) => error.details(),
            Self::Decode(_) | Self::NameMissing | Self::Name(_) => String::new(),
        }
    }
}

impl NetConf {
    /// Reads a configuration; the first of decoding, name and version that is wrong is reported, in this order.
    ///
    /// # Errors
    /// The text is not one JSON object, or name or version cannot be used.
    pub fn parse(text: &[u8]) -> Result<Self, ConfError> {
        Self::from_object(Object::parse(text).map_err(ConfError::Decode)?)
    }

    /// Reads a configuration that is an object already, as a delegate in the same process gets it.
    ///
    /// # Errors
    /// Name or version cannot be used.
    pub fn from_object(object: Object) -> Result<Self, ConfError> {
        let name = object.string("name").map_err(ConfError::Decode)?;
        let version = object.string("cniVersion").map_err(ConfError::Decode)?;
        let name = match name.filter(|text| !text.is_empty()) {
            Some(text) => NetworkName::new(text).map_err(ConfError::Name)?,
            None => return Err(ConfError::NameMissing),
        };
        let version = Version::parse(version.unwrap_or_default()).map_err(ConfError::Version)?;
        Ok(Self {
            version,
            name,
            object,
        })
    }

    /// Name service settings; empty when there are none.
    ///
    /// # Errors
    /// `dns` has a wrong type.
    pub fn dns(&self) -> Result<Dns, DecodeError> {
        let dns = self.object.object("dns")?;
        dns.map_or(Ok(Dns::default()), |object| Dns::parse(&object))
    }

    /// Address management, if configured.
    ///
    /// # Errors
    /// `ipam` is not an object.
    pub fn ipam(&self) -> Result<Option<Object>, DecodeError> {
        self.object.object("ipam")
    }

    /// Capability arguments of the runtime; empty when there are none.
    ///
    /// # Errors
    /// `runtimeConfig` is not an object.
    pub fn runtime_config(&self) -> Result<Object, DecodeError> {
        let found = self.object.object("runtimeConfig")?;
        Ok(found.unwrap_or_default())
    }

    /// Arguments under `args.cni`; empty when there are none.
    ///
    /// # Errors
    /// `args` or its member is not an object.
    pub fn args_cni(&self) -> Result<Object, DecodeError> {
        let args = self.object.object("args")?.unwrap_or_default();
        Ok(args.object("cni")?.unwrap_or_default())
    }

    /// The result of the plugin before in the chain, as given.
    #[must_use]
    pub fn prev_result(&self) -> Option<&Value> {
        self.object.get("prevResult")
    }
}

/// The version that a document asks for, so far as it can be read: for error objects about a bad document.
#[must_use]
pub fn asked_version(text: &[u8]) -> Option<String> {
    let object = Object::parse(text).ok()?;
    object.string("cniVersion").ok()?.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> u32 {
        NetConf::parse(text.as_bytes()).unwrap_err().code().0
    }

    #[test]
    fn shared_keys_are_read_in_any_case_and_unknown_ones_kept() {
        let text = r#"{"cniVersion":"1.0.0","Name":"cbr0","type":"flannel","DNS":{"Nameservers":["1.1.1.1"]},
            "runtimeConfig":{"ips":["10.0.0.1"]},"args":{"cni":{"ips":[]}},"capabilities":{"x":true}}"#;
        let conf = NetConf::parse(text.as_bytes()).unwrap();
        assert_eq!(conf.name.as_str(), "cbr0");
        assert_eq!(conf.version, Version::V1_0_0);
        assert_eq!(conf.dns().unwrap().nameservers, ["1.1.1.1"]);
        assert_eq!(
            conf.runtime_config().unwrap().strings("ips").unwrap(),
            ["10.0.0.1"]
        );
        assert!(conf.object.get("capabilities").is_some());
        assert!(conf.prev_result().is_none());
    }

    #[test]
    fn absent_and_empty_versions_are_the_legacy_format() {
        for text in [
            r#"{"name":"a"}"#,
            r#"{"name":"a","cniVersion":""}"#,
            r#"{"name":"a","cniVersion":null}"#,
        ] {
            assert_eq!(NetConf::parse(text.as_bytes()).unwrap().version, Version::V0_1_0);
        }
    }

    #[test]
    fn the_first_failing_check_decides_the_code() {
        for text in ["", "[]", "{", "\u{feff}{}", "{} {}"] {
            assert_eq!(code(text), 6, "{text:?}");
        }
        assert_eq!(code(r#"{"name":5}"#), 6);
        assert_eq!(code(r#"{"name":"a","cniVersion":1}"#), 6);
        assert_eq!(code("null"), 7);
        assert_eq!(code("{}"), 7);
        assert_eq!(code(r#"{"name":"a b","cniVersion":"9"}"#), 7);
        assert_eq!(code(r#"{"name":"a","cniVersion":"9"}"#), 1);
    }

    #[test]
    fn a_bad_document_still_tells_its_version() {
        assert_eq!(asked_version(br#"{"cniVersion":"1.0.0"}"#), Some("1.0.0".into()));
        assert_eq!(asked_version(b"{"), None);
    }
}
