//! Base 64, in which etcd's JSON gateway and a guest's channel carry bytes.

use anyhow::{Context, Result};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base 64 (RFC 4648 §4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut encoded = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = ALPHABET
                .get(bits >> (18 - 6 * place) & 63)
                .filter(|_| place <= chunk.len());
            encoded.push(letter.map_or('=', |letter| char::from(*letter)));
        }
    }
    encoded
}

/// The bytes that a text in base 64 stands for.
///
/// # Errors
/// Fails when it holds another character.
pub(crate) fn base64_bytes(encoded: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0_u32);
    for letter in encoded.bytes().filter(|letter| *letter != b'=') {
        let value = ALPHABET.iter().position(|known| *known == letter);
        let value = value.with_context(|| format!("{encoded:?} is no base 64"))?;
        bits = (bits << 6 | u32::try_from(value)?) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff)?);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_64_is_that_of_the_rfc() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
            ("{\"?>\"}", "eyI/PiJ9"),
        ] {
            assert_eq!(base64(text.as_bytes()), encoded);
            assert_eq!(base64_bytes(encoded).unwrap(), text.as_bytes());
        }
        assert!(base64_bytes("Z*==").is_err());
    }
}
