use std::fmt::Write as _;

use hmac_sha512::Hash;

/// A name of `length` characters: `prefix`, then as much of the hexadecimal SHA-512 of `text` as there is room for.
///
/// The reference's plugins name per-container objects this way: chains by network name and container id one after
/// the other (containernetworking/plugins `pkg/utils/utils.go`, `MustFormatHashWithPrefix`). A name may be shorter
/// than asked for only if the prefix and the 128 digits are.
#[must_use]
pub fn hashed_name(prefix: &str, length: usize, text: &str) -> String {
    let mut name = prefix.to_owned();
    for byte in Hash::hash(text.as_bytes()) {
        // Writing to a string cannot fail.
        write!(name, "{byte:02x}").unwrap_or_default();
    }
    name.chars().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_references() {
        assert_eq!(hashed_name("CNI-", 28, "cbr0a3"), "CNI-d85dd46ffa8e748f3e1e5f02");
        assert_eq!(
            hashed_name("CNI-DN-", 28, "cbr0a2"),
            "CNI-DN-1802f8610169aa9dfd2d7"
        );
        assert_eq!(hashed_name("bwp", 15, "cbr0a2"), "bwp1802f8610169");
        // Vectors of the reference's own tests.
        assert_eq!(
            hashed_name("CNI-", 28, "test1234"),
            "CNI-2bbe0c48b91a7d1b8a6753a8"
        );
        assert_eq!(
            hashed_name("CNI-PREFIX-", 28, "testalongnamethatdoesnotmakesense1234"),
            "CNI-PREFIX-374f33fe84ab0ed84"
        );
    }

    #[test]
    fn the_length_is_what_was_asked_for() {
        assert_eq!(hashed_name("", 16, "net").len(), 16);
        assert_eq!(hashed_name("prefix", 3, "net"), "pre");
    }
}
