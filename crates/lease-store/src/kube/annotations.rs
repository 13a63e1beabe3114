//! The names of Flannel's annotations on a Node.

use std::collections::BTreeMap;
use std::str::FromStr;

/// What every annotation's name of a cluster begins with, as `flannel.alpha.coreos.com/` or `example.org/net-`.
///
/// Read from text by Flannel's rule (flannel `pkg/subnet/kube/annotations.go`): a domain in lower case with a dot, then
/// a slash, which may be left out when nothing follows, then a prefix, whose last dash may be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationPrefix(String);

/// A text that cannot be the prefix of annotations.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no prefix for annotations: a domain with a dot, in lower case, is expected, which a slash and a word \
     may follow, as in flannel.alpha.coreos.com or example.org/net"
)]
pub struct AnnotationPrefixError(String);

/// The part of an annotation's name after the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Annotation {
    BackendData,
    BackendType,
    BackendV6Data,
    Managed,
    NodePublicIp,
    NodePublicIpv6,
    PublicIp,
    PublicIpOverwrite,
    PublicIpv6,
    PublicIpv6Overwrite,
}

/// The annotations of a Node that are Flannel's.
pub(super) type Annotations = BTreeMap<Annotation, String>;

impl Annotation {
    const ALL: [Self; 10] = [
        Self::BackendData,
        Self::BackendType,
        Self::BackendV6Data,
        Self::Managed,
        Self::NodePublicIp,
        Self::NodePublicIpv6,
        Self::PublicIp,
        Self::PublicIpOverwrite,
        Self::PublicIpv6,
        Self::PublicIpv6Overwrite,
    ];

    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::BackendData => "backend-data",
            Self::BackendType => "backend-type",
            Self::BackendV6Data => "backend-v6-data",
            Self::Managed => "kube-subnet-manager",
            Self::NodePublicIp => "node-public-ip",
            Self::NodePublicIpv6 => "node-public-ipv6",
            Self::PublicIp => "public-ip",
            Self::PublicIpOverwrite => "public-ip-overwrite",
            Self::PublicIpv6 => "public-ipv6",
            Self::PublicIpv6Overwrite => "public-ipv6-overwrite",
        }
    }

    pub(super) fn from_suffix(suffix: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|annotation| annotation.suffix() == suffix)
    }
}

impl AnnotationPrefix {
    /// The full name of an annotation.
    pub(super) fn name(&self, annotation: Annotation) -> String {
        format!("{}{}", self.0, annotation.suffix())
    }

    /// The annotation of this full name, if it is Flannel's.
    pub(super) fn annotation(&self, name: &str) -> Option<Annotation> {
        name.strip_prefix(&self.0).and_then(Annotation::from_suffix)
    }

    /// The prefix as it stands before each annotation's own name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AnnotationPrefix {
    type Err = AnnotationPrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (domain, word) = text.split_once('/').unwrap_or((text, ""));
        let is_word = |text: &str| {
            text.bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
        };
        let mut labels = domain.split('.');
        let is_domain =
            labels.clone().count() >= 2 && labels.all(|label| !label.is_empty() && is_word(label));
        if !is_domain || !is_word(word) {
            return Err(AnnotationPrefixError(text.to_owned()));
        }
        let dash = if word.is_empty() || word.ends_with('-') {
            ""
        } else {
            "-"
        };
        Ok(Self(format!("{domain}/{word}{dash}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_completed_by_flannels_rule() {
        for (text, name) in [
            (
                "flannel.alpha.coreos.com",
                "flannel.alpha.coreos.com/backend-type",
            ),
            ("x.com/", "x.com/backend-type"),
            ("x.com/p", "x.com/p-backend-type"),
            ("x.com/p-", "x.com/p-backend-type"),
            ("a_b.c-d.e/f_g", "a_b.c-d.e/f_g-backend-type"),
        ] {
            let prefix: AnnotationPrefix = text.parse().unwrap();
            assert_eq!(prefix.name(Annotation::BackendType), name, "{text}");
            assert_eq!(prefix.annotation(name), Some(Annotation::BackendType), "{text}");
            assert_eq!(prefix.annotation("other.org/backend-type"), None, "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_prefixes() {
        for text in [
            "",
            "/",
            "com",
            "com/p",
            "X.com",
            "x..com",
            ".com",
            "x.com/a/b",
            "x.com/A",
            "x com.org",
        ] {
            assert!(text.parse::<AnnotationPrefix>().is_err(), "{text:?}");
        }
    }
}
