use std::fmt;

use serde_json::{Value, json};

/// A version of the specification that a configuration may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.1.0; also a configuration that names no version.
    V0_1_0,
    /// 0.2.0.
    V0_2_0,
    /// 0.3.0, the first with a list of interfaces and with chaining.
    V0_3_0,
    /// 0.3.1.
    V0_3_1,
    /// 0.4.0, the first with CHECK.
    V0_4_0,
    /// 1.0.0.
    V1_0_0,
    /// 1.1.0, the first with STATUS and GC.
    V1_1_0,
}

/// A version that no configuration may ask for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("incompatible CNI versions")]
pub struct VersionError {
    /// The version asked for.
    pub asked: String,
    /// The oldest version supported.
    pub oldest: Version,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The newest version.
    pub const NEWEST: Self = Self::V1_1_0;

    /// Reads a version; only the exact texts of the specification count. Empty means the legacy format 0.1.0, as the
    /// reference library answers it.
    ///
    /// # Errors
    /// The text is no version of the specification.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        if text.is_empty() {
            return Ok(Self::V0_1_0);
        }
        let found = Self::ALL.into_iter().find(|v| v.as_str() == text);
        found.ok_or_else(|| VersionError {
            asked: text.to_owned(),
            oldest: Self::V0_1_0,
        })
    }

    /// This version and every newer one, oldest first.
    #[must_use]
    pub fn onwards(self) -> &'static [Self] {
        const ALL: &[Version] = &Version::ALL;
        let older = ALL.iter().take_while(|version| **version < self).count();
        ALL.get(older..).unwrap_or_default()
    }

    /// The version as the specification writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

impl VersionError {
    /// The version asked for and the versions supported, in the words of the reference library.
    #[must_use]
    pub fn details(&self) -> String {
        let supported: Vec<_> = self.oldest.onwards().iter().map(|v| v.as_str()).collect();
        format!("config is \"{}\", plugin supports {supported:?}", self.asked)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to VERSION: the caller's own version (CNI SPEC 1.1.0 §VERSION) and every version supported, from the
/// oldest on.
#[must_use]
pub fn version_answer(asked: Option<&str>, oldest: Version) -> Value {
    let supported: Vec<_> = oldest.onwards().iter().map(|v| v.as_str()).collect();
    let own = asked
        .filter(|v| !v.is_empty())
        .unwrap_or(Version::NEWEST.as_str());
    json!({ "cniVersion": own, "supportedVersions": supported })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_reads_back_what_it_writes() {
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()), Ok(version));
        }
        assert_eq!(Version::parse(""), Ok(Version::V0_1_0));
    }

    #[test]
    fn only_exact_texts_are_versions() {
        for text in ["1.0", "v1.0.0", "0.5.0", "1.2.0", " 1.0.0", "1.0.0 ", "1"] {
            let error = Version::parse(text).unwrap_err();
            assert_eq!(error.to_string(), "incompatible CNI versions");
            assert!(error.details().contains(&format!("config is \"{text}\"")));
            assert!(error.details().contains("\"1.1.0\"]"));
        }
    }

    #[test]
    fn version_answer_repeats_the_version_asked() {
        let answer = version_answer(Some("0.4.0"), Version::V0_1_0);
        assert_eq!(answer["cniVersion"], "0.4.0");
        assert_eq!(
            answer["supportedVersions"],
            json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        );
        let answer = version_answer(None, Version::V1_0_0);
        assert_eq!(answer["cniVersion"], "1.1.0");
        assert_eq!(answer["supportedVersions"], json!(["1.0.0", "1.1.0"]));
    }
}
