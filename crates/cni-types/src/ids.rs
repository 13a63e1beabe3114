use std::fmt;

/// The runtime's name of a container: not empty, begins with a letter or digit, then letters, digits, `_`, `.`, `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(String);

/// The name of a network; the same characters as a container id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetworkName(String);

/// A text with characters that neither a container id nor a network name may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} must begin with a letter or digit, followed by letters, digits, '_', '.' or '-'")]
pub struct IdError(pub String);

/// The rule of CNI SPEC 1.1.0 §Parameters and §Network configuration.
fn checked(text: &str) -> Result<String, IdError> {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest {
        Ok(text.to_owned())
    } else {
        Err(IdError(text.to_owned()))
    }
}

impl ContainerId {
    /// Checks and wraps an id.
    ///
    /// # Errors
    /// The text breaks the rule of the specification.
    pub fn new(text: &str) -> Result<Self, IdError> {
        checked(text).map(Self)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NetworkName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// The text breaks the rule of the specification.
    pub fn new(text: &str) -> Result<Self, IdError> {
        checked(text).map(Self)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_real_runtimes_are_accepted() {
        let long = "a".repeat(300);
        for id in ["cnitool-0cea03627191eaa6cdf9", "0", "A.b_c-d", &long] {
            assert_eq!(ContainerId::new(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn ids_that_could_leave_a_directory_or_confuse_a_reader_are_refused() {
        for id in ["", "-a", ".a", "_a", "..", "a/b", "a:b", "a b", "a\n", "é", "a\0"] {
            assert!(ContainerId::new(id).is_err(), "{id:?}");
            assert!(NetworkName::new(id).is_err(), "{id:?}");
        }
    }
}
