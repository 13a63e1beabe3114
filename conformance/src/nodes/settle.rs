use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::bed::{Bed, End, Family, Pod};
use super::protocol::{Request, Seen, Transport};

/// How long all pairs of nodes may take until their pods answered for the first time, on nodes that are not slow.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// Of a datagram's payload.
const BYTES: usize = 64;

/// Lets a pod of each node ask one of each other node before anything is judged, one pair after the other, until it is
/// answered or the time is over. Cases ask from all nodes at once: where two nodes begin a handshake of WireGuard's with each
/// other at the same moment, each drops the other's answer, and only tries again after five seconds (linux
/// `drivers/net/wireguard/messages.h`, `REKEY_TIMEOUT`).
pub(super) fn settle(bed: &Bed, slowdown: u32) {
    let deadline = Instant::now() + LIMIT * slowdown;
    let firsts: Vec<_> = (0..bed.nodes.len())
        .filter_map(|node| bed.pods.iter().find(|pod| pod.node == node))
        .collect();
    for family in bed.families() {
        for (index, from) in firsts.iter().enumerate() {
            for to in firsts.iter().skip(index + 1) {
                // Who cannot be asked at all is for the cases to tell.
                while Instant::now() < deadline
                    && answers(bed, from, to, family).is_ok_and(|answered| !answered)
                {
                    thread::sleep(PAUSE);
                }
            }
        }
    }
}

/// Whether a pod answers another one over UDP, within a few tries.
///
/// # Errors
/// Fails when it cannot be asked.
pub(super) fn answers(bed: &Bed, from: &Pod, to: &Pod, family: Family) -> Result<bool> {
    let from = End::Pod(from);
    let target: SocketAddr = bed.server(End::Pod(to), family)?;
    let seen: Vec<Result<Seen, String>> = bed.agent(from)?.ask(Request::Ask {
        place: from.place(),
        transport: Transport::Udp,
        targets: vec![target],
        size: BYTES,
    })?;
    Ok(seen.iter().all(Result::is_ok))
}
