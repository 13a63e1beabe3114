//! The decoder meets bytes that no kernel would send; it must report them, never panic.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use netlink::messages;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use proptest::collection::vec;
use proptest::prelude::*;

/// `RTM_NEWLINK` to `RTM_DELNEIGH` in steps, and the control messages.
const TYPES: [u16; 11] = [1, 2, 3, 4, 16, 17, 20, 24, 25, 28, 29];

/// An attribute with a credible length, perhaps nested.
fn attribute() -> impl Strategy<Value = Vec<u8>> {
    let leaf = (0..70_u16, vec(any::<u8>(), 0..24)).prop_map(|(kind, value)| encode(kind, &value));
    leaf.prop_recursive(3, 24, 4, |inner| {
        (0..70_u16, vec(inner, 0..4)).prop_map(|(kind, parts)| encode(kind, &parts.concat()))
    })
}

fn encode(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len() + 4).unwrap();
    let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A message with a right length, a family that the decoder knows, and attributes.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(TYPES.to_vec());
    let family = prop::sample::select(vec![0_u8, 2, 7, 10]);
    let fixed = prop::sample::select(vec![0_usize, 7, 11, 15]);
    (
        kind,
        family,
        fixed,
        any::<u16>(),
        vec(any::<u8>(), 16),
        vec(attribute(), 0..6),
    )
        .prop_map(|(kind, family, fixed, flags, random, attributes)| {
            let mut body = vec![family];
            body.extend(random.iter().take(fixed));
            body.extend(attributes.concat());
            let len = u32::try_from(body.len() + 16).unwrap();
            let mut bytes = len.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(flags.to_ne_bytes());
            bytes.extend([0; 8]);
            bytes.extend(body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn arbitrary_bytes_are_reported_and_the_reading_ends(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(messages(&bytes).count() <= bytes.len() / 16 + 1);
    }

    #[test]
    fn well_framed_messages_with_arbitrary_content_are_each_read_once(parts in vec(message(), 0..4)) {
        prop_assert_eq!(messages(&parts.concat()).count(), parts.len());
    }

    #[test]
    fn a_message_cut_short_or_damaged_is_reported(bytes in message(), cut in any::<prop::sample::Index>(), flip in any::<u8>()) {
        let mut bytes = bytes;
        let index = cut.index(bytes.len());
        if let Some(byte) = bytes.get_mut(index) {
            *byte ^= flip;
        }
        messages(&bytes).for_each(drop);
        messages(bytes.get(..index).unwrap()).for_each(drop);
    }
}

#[test]
fn a_message_of_the_right_form_is_read() {
    let mut link = netlink_packet_route::link::LinkMessage::default();
    link.header.index = 7;
    let inner = RouteNetlinkMessage::NewLink(link);
    let mut message = netlink_packet_core::NetlinkMessage::from(inner.clone());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let twice = [bytes.clone(), bytes].concat();
    let read: Vec<_> = messages(&twice).map(Result::unwrap).collect();

    assert_eq!(read.len(), 2);
    assert_eq!(
        read.first().unwrap().payload,
        NetlinkPayload::InnerMessage(inner.clone())
    );
    assert_eq!(read.first().unwrap().header.message_type, inner.message_type());
}
