//! Netlink attributes as bytes: type, length, value, padded to four bytes (linux `include/uapi/linux/netlink.h`,
//! `struct nlattr`).

/// Attributes and messages are padded to this (`NLA_ALIGNTO`).
const ALIGNMENT: usize = 4;

/// Length of an attribute's header in bytes.
const HEADER_LEN: usize = 4;

/// The attribute holds attributes (`NLA_F_NESTED`).
const NESTED: u16 = 1 << 15;

/// The bits of a type that are its number (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

/// A value is longer than the 64 KiB that an attribute can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a netlink attribute is longer than 64 KiB")]
pub struct AttributeTooLong;

/// Attributes under construction, behind a fixed header.
#[derive(Debug, Default)]
pub struct Attributes {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Attributes {
    /// Begins behind the fixed part of a message, whose length must be a multiple of four.
    #[must_use]
    pub fn after(header: &[u8]) -> Self {
        debug_assert!(header.len().is_multiple_of(ALIGNMENT), "attributes are aligned");
        Self {
            bytes: header.to_vec(),
            too_long: false,
        }
    }

    /// Adds an attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        self.wrap(kind, |attributes| attributes.bytes.extend_from_slice(value));
    }

    /// Adds a text with its terminating zero.
    pub fn put_text(&mut self, kind: u16, text: &str) {
        self.wrap(kind, |attributes| {
            attributes.bytes.extend_from_slice(text.as_bytes());
            attributes.bytes.push(0);
        });
    }

    /// Adds a number in network byte order, as netfilter wants it.
    pub fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Adds an attribute that holds attributes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.wrap(kind | NESTED, fill);
    }

    /// Adds an attribute that holds these attributes, already in bytes.
    pub fn put_nested(&mut self, kind: u16, attributes: &[u8]) {
        self.put(kind | NESTED, attributes);
    }

    /// The finished bytes.
    ///
    /// # Errors
    /// One of the attributes became too long.
    pub fn finish(self) -> Result<Vec<u8>, AttributeTooLong> {
        if self.too_long {
            return Err(AttributeTooLong);
        }
        Ok(self.bytes)
    }

    fn wrap(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER_LEN]);
        fill(self);
        let end = self.bytes.len();
        match (
            u16::try_from(end - start),
            self.bytes.get_mut(start..start + HEADER_LEN),
        ) {
            (Ok(len), Some([a, b, c, d])) => {
                [*a, *b] = len.to_ne_bytes();
                [*c, *d] = kind.to_ne_bytes();
            }
            _ => self.too_long = true,
        }
        self.bytes.resize(end.next_multiple_of(ALIGNMENT), 0);
    }
}

/// The attributes in a message's bytes, by type without flags; what follows a malformed one is left out.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let [a, b, c, d] = *rest.first_chunk::<HEADER_LEN>()?;
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(HEADER_LEN..len)?;
        rest = rest.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes([c, d]) & TYPE_MASK, value))
    })
}

/// The value of the first attribute of a type.
#[must_use]
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

/// A value as text, up to its terminating zero; bytes that are no UTF-8 are replaced.
#[must_use]
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or(value)).into_owned()
}

/// A value as number in network byte order; `None` when it has another length.
#[must_use]
pub fn be32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_back_as_they_were_put() {
        let mut built = Attributes::after(&[9, 9, 9, 9]);
        built.put_text(1, "abc d");
        built.nest(2, |inner| inner.put_be32(3, 7));
        let bytes = built.finish().unwrap();
        let found: Vec<_> = attributes(&bytes[4..]).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(text(found[0].1), "abc d");
        assert_eq!(attribute(found[1].1, 3).and_then(be32), Some(7));
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn a_value_of_more_than_64_kib_is_refused() {
        let mut built = Attributes::default();
        built.put(1, &vec![0; 65_531]);
        assert!(built.finish().is_ok());
        let mut built = Attributes::default();
        built.put(1, &vec![0; 65_532]);
        assert_eq!(built.finish(), Err(AttributeTooLong));
    }

    #[test]
    fn malformed_lengths_end_the_list() {
        for bytes in [
            &[3, 0, 1, 0][..],
            &[5, 0, 1, 0],
            &[1, 2],
            &[0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }
}
