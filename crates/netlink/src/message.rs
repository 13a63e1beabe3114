use netlink_packet_core::{NLA_ALIGNTO, NetlinkMessage, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;

/// Attribute of an error answer that holds the kernel's words (linux `include/uapi/linux/netlink.h`).
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Error answer holds only the header of the request (`NLM_F_CAPPED`).
const NLM_F_CAPPED: u16 = 0x100;

/// Error answer ends in attributes (`NLM_F_ACK_TLVS`).
const NLM_F_ACK_TLVS: u16 = 0x200;

/// Length of a netlink message header in bytes.
const HEADER_LEN: usize = 16;

/// Bytes that are no netlink message of the route family.
#[derive(Debug, thiserror::Error)]
#[error("cannot read a netlink message of the kernel: {0}")]
pub struct MalformedMessage(String);

/// Splits a datagram into its route netlink messages. A malformed message is reported and, when its length is
/// credible, skipped; otherwise it ends the iteration.
pub fn messages(
    datagram: &[u8],
) -> impl Iterator<Item = Result<NetlinkMessage<RouteNetlinkMessage>, MalformedMessage>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
            .map_err(|e| MalformedMessage(e.to_string()));
        rest = length(rest).and_then(|len| rest.get(len..)).unwrap_or(&[]);
        Some(message)
    })
}

/// The aligned length of the first message; `None` when it is shorter than a header.
fn length(bytes: &[u8]) -> Option<usize> {
    let field = bytes.first_chunk::<4>()?;
    let len = usize::try_from(u32::from_ne_bytes(*field)).ok()?;
    (len >= HEADER_LEN).then(|| len.next_multiple_of(NLA_ALIGNTO))
}

/// The kernel's words in an error answer: `payload` is what follows the error number, `flags` the header's.
pub(crate) fn words_of_error(flags: u16, payload: &[u8]) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request_len = if flags & NLM_F_CAPPED != 0 {
        HEADER_LEN
    } else {
        length(payload)?
    };
    words(payload.get(request_len..)?)
}

/// The kernel's words in a list of extended acknowledgement attributes.
pub(crate) fn words(attributes: &[u8]) -> Option<String> {
    let text = NlasIterator::new(attributes)
        .flatten()
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)?;
    let text = String::from_utf8_lossy(text.value());
    Some(text.trim_end_matches('\0').to_owned())
}
