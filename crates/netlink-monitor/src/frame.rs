//! Netlink messages as bytes. The crate `netlink` has them too; it is synchronous and opens what this crate never needs,
//! so that the twenty lines stand here again.

/// Length of a message's header (linux `struct nlmsghdr`).
pub(crate) const HEADER_LEN: usize = 16;

/// Messages and attributes are padded to this (linux `NLMSG_ALIGNTO`).
pub(crate) const ALIGNMENT: usize = 4;

/// A message of a datagram, undecoded.
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) payload: &'a [u8],
}

/// Splits the first message off; `None` if its length is wrong.
pub(crate) fn split(bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let [a, b, c, d, e, f, g, h] = *bytes.first_chunk::<8>()?;
    let len = usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok()?;
    let frame = Frame {
        kind: u16::from_ne_bytes([e, f]),
        flags: u16::from_ne_bytes([g, h]),
        payload: bytes.get(HEADER_LEN..len)?,
    };
    let rest = bytes.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
    Some((frame, rest))
}
