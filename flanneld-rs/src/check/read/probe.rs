//! Asks peers for an echo (RFC 792), directly and through the tunnel.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use flannel_types::IPIP_TYPE;
use ipnetwork::Ipv4Network;
use socket2::{Domain, Protocol, Socket, Type};

use super::super::{Probe, TunnelEnd};
use crate::status::{PeerState, PeerStatus, PeerWay, Status};

const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// One lost packet is no silence.
const ATTEMPTS: u16 = 3;
const WAIT: Duration = Duration::from_millis(500);

/// Probes the first peers that are programmed; none where this user may not send echoes.
pub(super) fn all(status: &Status, peers: &[PeerStatus], limit: usize) -> Vec<Probe> {
    let backend = status.node.backend.as_ref().map(|backend| backend.name.as_str());
    let programmed = peers.iter().filter(|peer| peer.state == PeerState::Programmed);
    let probe = |peer: &PeerStatus| {
        let subnet: Ipv4Network = peer.subnet.parse().ok()?;
        let Some(IpAddr::V4(public_ip)) = peer.public_ip else {
            return None;
        };
        Some(Probe {
            public_ip,
            underlay: answers(public_ip).ok()?,
            tunnel: if has_device(backend, peer) {
                Some(TunnelEnd {
                    vtep_ip: subnet.network(),
                    way: peer.way.unwrap_or(PeerWay::Tunnel),
                    answers: answers(subnet.network()).ok()?,
                })
            } else {
                None
            },
        })
    };
    programmed.take(limit).filter_map(probe).collect()
}

/// Whether a programmed peer has a device with an address of its subnet, as the backend, its lease or the way to it tells.
/// A lease of IP in IP says nothing of the device, which every node has, also if packets go without it.
fn has_device(backend: Option<&str>, peer: &PeerStatus) -> bool {
    backend == Some(IPIP_TYPE)
        || peer.vtep_mac.is_some()
        || peer.public_key.is_some()
        || peer.way == Some(PeerWay::Tunnel)
}

/// Whether a host answers.
fn answers(ip: Ipv4Addr) -> io::Result<bool> {
    let (socket, has_ip_header) = match Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4)) {
        Ok(socket) => (socket, false),
        Err(_) => (
            Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?,
            true,
        ),
    };
    let addr = SocketAddr::V4(SocketAddrV4::new(ip, 0));
    if socket.connect(&addr.into()).is_err() {
        // No route leads there.
        return Ok(false);
    }
    let id = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
    for sequence in 0..ATTEMPTS {
        let sent = socket.send(&echo(id, sequence)).is_ok();
        if sent && hears(&socket, has_ip_header, id)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn hears(mut socket: &Socket, has_ip_header: bool, id: u16) -> io::Result<bool> {
    let end = Instant::now() + WAIT;
    let mut buffer = [0; 256];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        // A refusal from the way is an error of the socket; so is the end of the time.
        let Ok(length) = socket.read(&mut buffer) else {
            continue;
        };
        let packet = buffer.get(..length).unwrap_or_default();
        if is_reply(packet, has_ip_header, id) {
            return Ok(true);
        }
    }
}

/// The kernel puts a number of its own in place of `id`, and brings only what belongs to it, where it hides the header.
fn is_reply(packet: &[u8], has_ip_header: bool, id: u16) -> bool {
    if !has_ip_header {
        return packet.first() == Some(&ECHO_REPLY);
    }
    let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    let icmp = packet.get(header..).unwrap_or_default();
    icmp.first() == Some(&ECHO_REPLY) && icmp.get(4..6) == Some(id.to_be_bytes().as_slice())
}

fn echo(id: u16, sequence: u16) -> [u8; 8] {
    let [id_high, id_low] = id.to_be_bytes();
    let [sequence_high, sequence_low] = sequence.to_be_bytes();
    // The one's complement of the sum of all 16-bit words (RFC 1071).
    let sum = (u32::from(ECHO) << 8) + u32::from(id) + u32::from(sequence);
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or_default();
    let [checksum_high, checksum_low] = checksum.to_be_bytes();
    [
        ECHO,
        0,
        checksum_high,
        checksum_low,
        id_high,
        id_low,
        sequence_high,
        sequence_low,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Part;

    #[test]
    fn an_echo_has_the_checksum_of_the_standard() {
        // 8 << 8 + 0x1234 + 1 = 0x1a35, and its complement.
        assert_eq!(echo(0x1234, 1), [8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1]);
        assert_eq!(echo(0xffff, 0xffff), [8, 0, 0xf7, 0xff, 0xff, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn a_peer_of_a_backend_with_devices_has_one_whatever_way_leads_to_it() {
        let bare = |way| PeerStatus {
            subnet: "10.244.2.0/24".to_owned(),
            public_ip: None,
            vtep_mac: None,
            public_key: None,
            way,
            state: PeerState::Programmed,
            route: Part::Ok,
            neigh: Part::None,
            fdb: Part::None,
            wireguard: Part::None,
            seen: None,
            error: None,
            attempts: 0,
        };
        let with_mac = PeerStatus {
            vtep_mac: Some("02:00:00:00:00:02".to_owned()),
            ..bare(Some(PeerWay::Direct))
        };
        let (direct, tunnel) = (Some(PeerWay::Direct), Some(PeerWay::Tunnel));
        for (backend, peer, expected) in [
            (Some("ipip"), bare(direct), true),
            (Some("ipip"), bare(tunnel), true),
            (Some("vxlan"), with_mac, true),
            (Some("host-gw"), bare(direct), false),
            (Some("alloc"), bare(None), false),
            (None, bare(None), false),
        ] {
            assert_eq!(has_device(backend, &peer), expected, "{backend:?} {peer:?}");
        }
    }

    #[test]
    fn only_the_answer_to_this_question_counts() {
        let mut raw = vec![0x45; 20];
        raw.extend([0, 0, 0, 0, 0x12, 0x34, 0, 1]);
        assert!(is_reply(&raw, true, 0x1234));
        assert!(!is_reply(&raw, true, 0x1235));
        assert!(!is_reply(&raw[..22], true, 0x1234));
        assert!(!is_reply(&[], true, 0) && !is_reply(&[], false, 0));
        assert!(is_reply(&[0, 0], false, 7) && !is_reply(&[3, 1], false, 7));
    }
}
