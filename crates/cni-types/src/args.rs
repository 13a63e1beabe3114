use std::collections::BTreeMap;

/// The extra arguments of `CNI_ARGS`, such as `IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.1.2.3`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CniArgs(BTreeMap<String, String>);

/// Why `CNI_ARGS` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArgsError {
    /// A piece between semicolons is not one key, one `=`, one value.
    #[error("CNI_ARGS: invalid pair {0:?}")]
    Pair(String),
    /// `IgnoreUnknown` is neither true nor false.
    #[error("CNI_ARGS: IgnoreUnknown must be 1, 0, true or false, not {0:?}")]
    IgnoreUnknown(String),
    /// Keys that nobody knows, and `IgnoreUnknown` is not set.
    #[error("CNI_ARGS: unknown args {0:?}; set IgnoreUnknown=1 to pass them over")]
    Unknown(Vec<String>),
}

const IGNORE_UNKNOWN: &str = "IgnoreUnknown";

impl CniArgs {
    /// Reads the variable. Keys that are not in `known` are an error unless `IgnoreUnknown` is set, wherever it
    /// stands; of duplicate keys the last wins; keys are case-sensitive.
    ///
    /// # Errors
    /// A pair is malformed, a key unknown, or the value of `IgnoreUnknown` neither true nor false.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, ArgsError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut pairs = BTreeMap::new();
        for pair in text.split(';') {
            let (key, value) = split(pair).ok_or_else(|| ArgsError::Pair(pair.to_owned()))?;
            pairs.insert(key.to_owned(), value.to_owned());
        }
        let ignore_unknown = match pairs.get(IGNORE_UNKNOWN) {
            None => false,
            Some(value) => truth(value).ok_or_else(|| ArgsError::IgnoreUnknown(value.clone()))?,
        };
        let is_known = |key: &String| key == IGNORE_UNKNOWN || known.contains(&key.as_str());
        let unknown: Vec<_> = pairs.keys().filter(|k| !is_known(k)).cloned().collect();
        if unknown.is_empty() || ignore_unknown {
            Ok(Self(pairs))
        } else {
            Err(ArgsError::Unknown(unknown))
        }
    }

    /// The value of a key; an empty value counts as none.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key).map(String::as_str);
        value.filter(|text| !text.is_empty())
    }
}

fn split(pair: &str) -> Option<(&str, &str)> {
    let (key, value) = pair.split_once('=')?;
    (!value.contains('=')).then_some((key, value))
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["IP", "MAC"];

    #[test]
    fn known_pairs_are_read_and_the_last_duplicate_wins() {
        let args = CniArgs::parse("IP=10.0.0.1;MAC=;IP=10.0.0.2", KNOWN).unwrap();
        assert_eq!(args.get("IP"), Some("10.0.0.2"));
        assert_eq!(args.get("MAC"), None);
        assert_eq!(args.get("ip"), None);
        assert_eq!(CniArgs::parse("", KNOWN), Ok(CniArgs::default()));
    }

    #[test]
    fn unknown_keys_pass_only_with_ignore_unknown_wherever_it_stands() {
        assert_eq!(
            CniArgs::parse("FOO=1;IP=10.0.0.1;ip=2", KNOWN),
            Err(ArgsError::Unknown(vec!["FOO".into(), "ip".into()]))
        );
        for text in [
            "IgnoreUnknown=1;FOO=1",
            "FOO=1;IgnoreUnknown=TRUE;BAR=2",
            "FOO=;IgnoreUnknown=true",
        ] {
            assert!(CniArgs::parse(text, KNOWN).is_ok(), "{text}");
        }
        assert!(CniArgs::parse("IgnoreUnknown=0;FOO=1", KNOWN).is_err());
        assert!(matches!(
            CniArgs::parse("IgnoreUnknown=yes", KNOWN),
            Err(ArgsError::IgnoreUnknown(_))
        ));
    }

    #[test]
    fn malformed_pairs_are_refused() {
        for text in ["IP=1;", "FOO", "IP=a=b", ";", "IP=1;;IP=2"] {
            assert!(
                matches!(CniArgs::parse(text, KNOWN), Err(ArgsError::Pair(_))),
                "{text}"
            );
        }
    }
}
