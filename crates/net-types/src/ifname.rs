use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// Longest interface name in bytes: `IFNAMSIZ` less its terminating zero (linux `include/uapi/linux/if.h`).
const MAX_LEN_BYTES: usize = 15;

/// The name of a network interface, as the kernel has them.
///
/// 1 to 15 bytes, neither `.` nor `..`, without `/`, `:` or white space (linux `net/core/dev.c`, `dev_valid_name`). A `%`
/// asks the kernel for a number in its place, so that no interface has one (`dev_prep_valid_name`); `all` and `default`
/// stand for something else among the kernel's parameters (`sysctl_dev_name_is_allowed`).
///
/// Names sort as their texts do. They are kept in place: thousands of routes and neighbours name one link each.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName {
    /// Padded with zeros, which no name contains.
    bytes: [u8; MAX_LEN_BYTES],
    len: u8,
}

/// Why a text is not an interface name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IfNameError {
    /// The text is empty.
    #[error("interface name is empty")]
    Empty,
    /// The text is longer than 15 bytes.
    #[error("interface name {0:?} is longer than 15 bytes")]
    TooLong(String),
    /// The text has another meaning, or holds a character that the kernel refuses.
    #[error(
        "interface name {0:?} is one of \".\", \"..\", \"all\" and \"default\", or contains / : % or white space"
    )]
    Forbidden(String),
}

impl IfName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// Names the rule that the text breaks.
    pub fn new(name: &str) -> Result<Self, IfNameError> {
        if name.is_empty() {
            return Err(IfNameError::Empty);
        }
        if name.len() > MAX_LEN_BYTES {
            return Err(IfNameError::TooLong(name.to_owned()));
        }
        let forbidden = |c: char| matches!(c, '/' | ':' | '%' | '\0') || c.is_whitespace();
        if matches!(name, "." | ".." | "all" | "default") || name.contains(forbidden) {
            return Err(IfNameError::Forbidden(name.to_owned()));
        }
        let mut bytes = [0; MAX_LEN_BYTES];
        for (slot, byte) in bytes.iter_mut().zip(name.bytes()) {
            *slot = byte;
        }
        let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        Ok(Self { bytes, len })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self.bytes.get(..usize::from(self.len));
        // The bytes come from a text.
        text.and_then(|text| str::from_utf8(text).ok())
            .unwrap_or_default()
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IfName").field(&self.as_str()).finish()
    }
}

impl FromStr for IfName {
    type Err = IfNameError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

/// The kernel's number of an interface in one network namespace; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfIndex(NonZeroU32);

impl IfIndex {
    /// Wraps a number; `None` for zero, which the kernel uses for "no interface".
    #[must_use]
    pub fn new(index: u32) -> Option<Self> {
        NonZeroU32::new(index).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_accepts_are_accepted() {
        for name in [
            "eth0",
            "flannel.1",
            "flannel-v6.4096",
            "a",
            "123456789012345",
            "ü",
        ] {
            assert_eq!(IfName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_sort_as_their_texts_do() {
        let mut texts = ["ü", "eth10", "flannel.1", "eth1", "a", "eth", "123456789012345"];
        texts.sort_unstable();
        let names = texts.map(|text| IfName::new(text).unwrap());
        assert!(names.is_sorted());
    }

    #[test]
    fn names_the_kernel_refuses_are_refused() {
        assert_eq!(IfName::new(""), Err(IfNameError::Empty));
        assert!(matches!(
            IfName::new("1234567890123456"),
            Err(IfNameError::TooLong(_))
        ));
        for name in [
            ".", "..", "a/b", "a:b", "a b", "a\tb", "a\0b", "br%d", "all", "default",
        ] {
            assert!(
                matches!(IfName::new(name), Err(IfNameError::Forbidden(_))),
                "{name:?}"
            );
        }
    }
}
