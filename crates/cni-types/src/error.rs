use serde_json::{Value, json};

use crate::Version;

/// The code of an error object (CNI SPEC 1.1.0 §Error).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code(pub u32);

impl Code {
    /// The version of the configuration is not supported.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// A key of the configuration is not supported; the message has key and value.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// The container is unknown; the runtime need not clean up.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// An environment variable is missing or invalid; the message has its name.
    pub const BAD_ENVIRONMENT: Self = Self(4);
    /// Reading standard input or writing a file failed.
    pub const IO: Self = Self(5);
    /// A document cannot be decoded.
    pub const DECODING: Self = Self(6);
    /// The configuration is invalid.
    pub const BAD_CONFIG: Self = Self(7);
    /// The network namespace cannot be used (the reference library's own code).
    pub const BAD_NETNS: Self = Self(8);
    /// A transient condition; the runtime should try again.
    pub const TRY_LATER: Self = Self(11);
    /// The plugin cannot serve ADD now.
    pub const NOT_AVAILABLE: Self = Self(50);
    /// The plugin cannot serve ADD now, and existing containers may have limited connectivity.
    pub const LIMITED_CONNECTIVITY: Self = Self(51);
    /// The kernel refused a change (first code that the specification leaves to plugins).
    pub const KERNEL: Self = Self(100);
    /// What is there stands in the way: an interface, an address, a reservation.
    pub const CONFLICT: Self = Self(101);
    /// A delegated plugin could not be run, or did not answer as the specification says.
    pub const DELEGATE: Self = Self(102);
    /// CHECK found a difference.
    pub const CHECK_FAILED: Self = Self(103);
}

/// What a plugin prints when it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorObject {
    /// The version of the configuration, so far as it is known.
    pub version: Version,
    /// What kind of failure it is.
    pub code: Code,
    /// One sentence that says what failed.
    pub msg: String,
    /// More, for whoever looks into it; may be empty.
    pub details: String,
}

impl ErrorObject {
    /// The JSON form; empty details are left out.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "cniVersion": self.version.as_str(),
            "code": self.code.0,
            "msg": self.msg,
        });
        if !self.details.is_empty()
            && let Some(map) = value.as_object_mut()
        {
            map.insert("details".to_owned(), Value::from(self.details.as_str()));
        }
        value
    }

    /// Reads what a delegated plugin printed; `None` when it is no error object.
    #[must_use]
    pub fn parse(text: &[u8], version: Version) -> Option<Self> {
        let value: Value = serde_json::from_slice(text).ok()?;
        let code = value.get("code")?.as_u64()?;
        let text_of = |key| value.get(key).and_then(Value::as_str).unwrap_or_default();
        Some(Self {
            version,
            code: Code(u32::try_from(code).ok()?),
            msg: text_of("msg").to_owned(),
            details: text_of("details").to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_object_reads_back_what_it_writes() {
        for details in ["", "more"] {
            let error = ErrorObject {
                version: Version::V1_0_0,
                code: Code::TRY_LATER,
                msg: "not yet".into(),
                details: details.into(),
            };
            let text = error.to_value().to_string();
            assert_eq!(ErrorObject::parse(text.as_bytes(), Version::V1_0_0), Some(error));
        }
        assert_eq!(ErrorObject::parse(b"{}", Version::V1_0_0), None);
        assert_eq!(ErrorObject::parse(b"", Version::V1_0_0), None);
    }
}
