mod sha512;

use sha512::sha512;

/// A name of at most `len` bytes that others derive alike: the prefix, filled up with the hexadecimal SHA-512 digest
/// of a text (containernetworking/plugins `pkg/utils/utils.go`).
///
/// The reference names what belongs to one attachment this way: its iptables chains by 28 bytes over network name and
/// container id, its bandwidth devices by 15.
#[must_use]
pub fn hashed_name(len: usize, prefix: &str, text: &str) -> String {
    let digest = sha512(text.as_bytes());
    let digits = digest
        .iter()
        .map(|word| format!("{word:016x}"))
        .collect::<String>();
    prefix.chars().chain(digits.chars()).take(len).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_references() {
        // Vectors of the reference's tests and of what its plugins made.
        assert_eq!(
            hashed_name(28, "CNI-", "test1234"),
            "CNI-2bbe0c48b91a7d1b8a6753a8"
        );
        assert_eq!(
            hashed_name(28, "CNI-PREFIX-", "testalongnamethatdoesnotmakesense1234"),
            "CNI-PREFIX-374f33fe84ab0ed84"
        );
        assert_eq!(hashed_name(28, "CNI-", "cbr0a3"), "CNI-d85dd46ffa8e748f3e1e5f02");
        assert_eq!(
            hashed_name(28, "CNI-DN-", "cbr0a2"),
            "CNI-DN-1802f8610169aa9dfd2d7"
        );
        assert_eq!(hashed_name(15, "bwp", "cbr0a2"), "bwp1802f8610169");
    }

    #[test]
    fn texts_of_every_padding_have_the_standards_digest() {
        // Beginning of the digests of as many letters `a`, by another implementation.
        for (letters, digits) in [
            (0, "cf83e1357eefb8bdf1542850d66d8007"),
            (3, "d6f644b19812e97b5d871658d6d3400e"),
            (111, "fa9121c7b32b9e01733d034cfc78cbf6"),
            (112, "c01d080efd492776a1c43bd23dd99d0a"),
            (127, "828613968b501dc00a97e08c73b118aa"),
            (128, "b73d1929aa615934e61a871596b3f3b3"),
            (300, "a6a77010dd9696c23831e6549de51724"),
        ] {
            assert_eq!(hashed_name(32, "", &"a".repeat(letters)), digits, "{letters}");
        }
    }

    #[test]
    fn the_digest_has_no_more_digits_than_the_standards() {
        assert_eq!(hashed_name(1000, "", "").len(), 128);
    }
}
