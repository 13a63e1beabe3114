//! What both ends of a connection agree on: the first byte of a connection or a datagram says what is wanted.

/// The server tells the address that it sees, and hangs up.
pub(super) const WHO: u8 = b'w';
/// The server sends back what it gets; a datagram with [`ECHOED`] first, so that two servers cannot answer each other.
pub(super) const ECHO: u8 = b'e';
/// What an echo of a datagram begins with.
pub(super) const ECHOED: u8 = b'E';
/// The server takes all until the end, and tells how much it was and its checksum.
pub(super) const SINK: u8 = b's';

/// The same without the checksum, which takes longer than the way does.
pub(super) const DRAIN: u8 = b'd';

/// The checksum of FNV-1a (64 bits; draft-eastlake-fnv §6), over bytes that come in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checksum(u64);

impl Checksum {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut sum = Self::new();
        sum.take(bytes);
        sum
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }
}

/// Bytes that do not repeat soon: a generator by Marsaglia ("Xorshift RNGs", 2003), so that what is lost, repeated or out
/// of place changes the checksum.
#[derive(Debug)]
pub(super) struct Pattern(u64);

impl Pattern {
    pub(super) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let word = self.0.to_le_bytes();
            chunk.iter_mut().zip(word).for_each(|(byte, new)| *byte = new);
        }
    }

    /// A datagram of this size that wants something; it has at least that byte.
    pub(super) fn datagram(wants: u8, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size.max(1)];
        Self::new().fill(&mut bytes);
        bytes.iter_mut().take(1).for_each(|first| *first = wants);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_published_one_in_whatever_pieces_the_bytes_come() {
        assert_eq!(Checksum::of(b"").value(), 0xcbf2_9ce4_8422_2325);
        assert_eq!(Checksum::of(b"foobar").value(), 0x8594_4171_f739_67e8);
        let mut pieces = Checksum::new();
        for piece in [&b"fo"[..], b"", b"obar"] {
            pieces.take(piece);
        }
        assert_eq!(pieces, Checksum::of(b"foobar"));
    }

    #[test]
    fn no_block_of_the_pattern_comes_again_soon() {
        let mut bytes = vec![0; 1 << 16];
        Pattern::new().fill(&mut bytes);
        let blocks: std::collections::BTreeSet<_> = bytes.chunks(8).collect();
        assert_eq!(blocks.len(), bytes.len() / 8);
        assert_eq!(Pattern::datagram(WHO, 0), [WHO]);
        assert_eq!(Pattern::datagram(ECHO, 9).len(), 9);
    }
}
