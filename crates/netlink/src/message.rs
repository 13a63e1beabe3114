use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;

use crate::frame::{MalformedMessage, frames};

/// Splits a datagram into its route netlink messages. A malformed message is reported and, when its length is
/// credible, skipped; otherwise it ends the iteration.
pub fn messages(
    datagram: &[u8],
) -> impl Iterator<Item = Result<NetlinkMessage<RouteNetlinkMessage>, MalformedMessage>> {
    frames(datagram).map(|frame| {
        NetlinkMessage::<RouteNetlinkMessage>::deserialize(frame?.bytes)
            .map_err(|e| MalformedMessage(e.to_string()))
    })
}
