use std::path::Path;

use cni_types::Code;
use regex_lite::Regex;

use crate::error::CniError;

/// Where the node's administrator says which parameters may be set (containernetworking/plugins
/// `plugins/meta/tuning/tuning.go`).
const PATH: &str = "/etc/cni/tuning/allowlist.conf";

/// The parameters that a configuration may set: those whose name a pattern matches somewhere.
#[derive(Debug)]
pub(crate) struct Allowlist(Vec<Regex>);

/// The list cannot be used, so nothing is known to be allowed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AllowlistError {
    #[error("the list of allowed sysctls")]
    Read(#[source] statefile::Error),
    #[error(
        "the list of allowed sysctls, {PATH}, has the line {line:?}, which is no regular expression: {reason}"
    )]
    Pattern { line: String, reason: String },
}

impl CniError for AllowlistError {
    fn code(&self) -> Code {
        match self {
            Self::Read(_) => Code::IO,
            Self::Pattern { .. } => Code::BAD_CONFIG,
        }
    }
}

impl Allowlist {
    /// Reads the node's list; `None` if there is none, which allows everything.
    pub(crate) fn of_node() -> Result<Option<Self>, AllowlistError> {
        let text = statefile::read_text(Path::new(PATH)).map_err(AllowlistError::Read)?;
        text.map(|text| Self::parse(&text)).transpose()
    }

    /// One pattern a line; empty lines say nothing.
    fn parse(text: &str) -> Result<Self, AllowlistError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let patterns = lines.map(|line| {
            Regex::new(line).map_err(|e| AllowlistError::Pattern {
                line: line.to_owned(),
                reason: e.to_string(),
            })
        });
        patterns.collect::<Result<_, _>>().map(Self)
    }

    /// Whether a parameter, named as in the configuration, may be set.
    pub(crate) fn permits(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.is_match(name))
    }

    /// The patterns, for an error.
    pub(crate) fn patterns(&self) -> Vec<&str> {
        self.0.iter().map(Regex::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_permitted_that_any_pattern_matches_anywhere() {
        let list =
            Allowlist::parse("  net.core.somaxconn \n\n^net\\.ipv4\\.conf\\.[a-zA-Z0-9]+\\.rp_filter$\n")
                .unwrap();
        for name in [
            "net.core.somaxconn",
            "net.core.somaxconn_too",
            "net.ipv4.conf.IFNAME.rp_filter",
        ] {
            assert!(list.permits(name), "{name}");
        }
        for name in ["net.ipv4.conf.IFNAME.rp_filter2", "net.ipv4.tcp_syncookies", ""] {
            assert!(!list.permits(name), "{name}");
        }
        assert_eq!(list.patterns().len(), 2);
    }

    #[test]
    fn an_empty_list_permits_nothing() {
        assert!(!Allowlist::parse("\n \n").unwrap().permits("net.core.somaxconn"));
    }

    #[test]
    fn a_line_that_is_no_pattern_is_named() {
        let error = Allowlist::parse("net.core\n(net").unwrap_err();
        assert!(error.to_string().contains("\"(net\""), "{error}");
    }
}
