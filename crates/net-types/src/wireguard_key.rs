use std::fmt::{self, Debug, Display, Formatter};
use std::str::FromStr;

/// Length of every WireGuard key in bytes (Curve25519, RFC 7748 §5).
const LEN: usize = 32;

/// The digits of base 64 (RFC 4648 §4), in which keys are written.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A WireGuard public key: the name of a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WgPublicKey([u8; LEN]);

/// A WireGuard private or preshared key. It is never shown: neither as text nor by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct WgSecret([u8; LEN]);

/// A text is not the 44 characters of base 64 that stand for 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not a WireGuard key: 44 characters of base 64, such as `wg genkey` prints")]
pub struct WgKeyError;

impl WgPublicKey {
    /// The key with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

impl WgSecret {
    /// The key with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for the kernel, a key file and nobody else.
    #[must_use]
    pub const fn reveal(&self) -> &[u8; LEN] {
        &self.0
    }

    /// Its text, for a key file.
    #[must_use]
    pub fn reveal_text(&self) -> String {
        encode(&self.0)
    }
}

impl Debug for WgSecret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("WgSecret(…)")
    }
}

impl Debug for WgPublicKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "WgPublicKey({self})")
    }
}

impl Display for WgPublicKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0))
    }
}

impl FromStr for WgPublicKey {
    type Err = WgKeyError;

    fn from_str(s: &str) -> Result<Self, WgKeyError> {
        decode(s).map(Self).ok_or(WgKeyError)
    }
}

impl FromStr for WgSecret {
    type Err = WgKeyError;

    fn from_str(s: &str) -> Result<Self, WgKeyError> {
        decode(s).map(Self).ok_or(WgKeyError)
    }
}

fn encode(bytes: &[u8; LEN]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS.get(bits >> (18 - 6 * place) & 63);
            let digit = digit.filter(|_| place <= chunk.len());
            text.push(digit.map_or('=', |digit| char::from(*digit)));
        }
    }
    text
}

/// Only the one text that [`encode`] writes is read: two texts for one key would make two peers of it.
fn decode(text: &str) -> Option<[u8; LEN]> {
    let digits = text.strip_suffix('=').filter(|digits| digits.len() == 43)?;
    let mut bytes = [0; LEN];
    let mut free = bytes.iter_mut();
    let (mut bits, mut count) = (0_u32, 0_u32);
    for digit in digits.bytes() {
        let value = DIGITS.iter().position(|known| *known == digit)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            *free.next()? = u8::try_from(bits >> count).ok()?;
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_it_prints() {
        let counting = std::array::from_fn(|n| u8::try_from(n).unwrap());
        for bytes in [[0; LEN], [0xff; LEN], counting] {
            let key = WgPublicKey::new(bytes);
            assert_eq!(key.to_string().len(), 44);
            assert_eq!(key.to_string().parse(), Ok(key));
            assert_eq!(WgSecret::new(bytes).reveal_text(), key.to_string());
        }
        let text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        assert_eq!(WgPublicKey::new(counting).to_string(), text);
    }

    #[test]
    fn other_texts_are_refused() {
        let good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let trailing_bits = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=";
        for bad in [
            "",
            "AAAA",
            good.trim_start_matches('A'),
            good.trim_end_matches('='),
            trailing_bits,
            &format!("{good}="),
        ] {
            assert_eq!(bad.parse::<WgPublicKey>(), Err(WgKeyError), "{bad}");
        }
        assert!(good.replace('A', "é").parse::<WgSecret>().is_err());
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret: WgSecret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "WgSecret(…)");
    }
}
