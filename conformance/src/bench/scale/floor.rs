//! The kernel's own share: one program makes what the peers need, without a lease, a look or a check.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use conformance_floor::rtnl::{ACKNOWLEDGE, CREATE, RTM_NEWNEIGH, RTM_NEWROUTE, Socket, attribute, request};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};

use super::QUIET_BEFORE_CHANGE;
use super::peers::{Backend, PUBLIC_IPS, StorePeer};

/// Requests of one send, as many as the reference's floor had.
const PER_SEND: usize = 300;
const DEVICE: &str = "floor.1";

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
/// linux/neighbour.h: `NUD_PERMANENT`, `NTF_SELF`, attributes.
const PERMANENT: u16 = 0x80;
const SELF: u8 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// linux/rtnetlink.h: `RTNH_F_ONLINK`, attributes.
const ONLINK: u32 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

/// How long the kernel took.
pub(super) struct Floor {
    pub(super) all: Duration,
    /// For one more peer, after quiet.
    pub(super) one_more: Duration,
}

/// Makes the objects of some peers on a device in a namespace of its own, and then those of one more.
///
/// # Errors
/// Fails when the kernel refuses.
pub(super) fn program(backend: Backend, peers: &[StorePeer], one_more: StorePeer) -> Result<Floor> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| in_new_namespace(backend, peers, one_more));
        thread.join().map_err(|_| anyhow!("the floor panicked"))?
    })
}

fn in_new_namespace(backend: Backend, peers: &[StorePeer], one_more: StorePeer) -> Result<Floor> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
    ip(&format!(
        "link add {DEVICE} type vxlan id 1 dstport 8472 nolearning"
    ))?;
    ip(&format!("link set {DEVICE} up"))?;
    // Without any address the kernel takes no gateway for one of a single host.
    ip(&format!("address add 10.0.0.0/32 dev {DEVICE}"))?;
    let index = if_nametoindex(DEVICE).context("looking for the floor's device")?;
    let socket = Socket::open(0)?;
    let makers: &[Maker] = match backend {
        Backend::Vxlan => &[entry, neighbour, tunnel_route],
        Backend::HostGw => {
            ip(&format!("route add {PUBLIC_IPS} dev {DEVICE}"))?;
            &[plain_route]
        }
    };
    let all = make(&socket, index, makers, peers)?;
    thread::sleep(QUIET_BEFORE_CHANGE);
    let one_more = make(&socket, index, makers, &[one_more])?;
    Ok(Floor { all, one_more })
}

/// What makes the request for one object of a peer's on a device.
type Maker = fn(u32, StorePeer) -> Request;

/// Makes the objects of some peers, and returns how long the kernel took.
fn make(socket: &Socket, index: u32, makers: &[Maker], peers: &[StorePeer]) -> Result<Duration> {
    let requests: Vec<_> = makers
        .iter()
        .flat_map(|maker| peers.iter().map(|peer| maker(index, *peer)))
        .collect();
    let batches: Vec<Vec<u8>> = requests.chunks(PER_SEND).map(batch).collect();
    let begun = Instant::now();
    for batch in &batches {
        socket.apply_batch(batch)?;
    }
    Ok(begun.elapsed())
}

/// Requests of which only the last is acknowledged.
fn batch(requests: &[Request]) -> Vec<u8> {
    let last = requests.len().saturating_sub(1);
    let flags = |place: usize| {
        if place == last {
            CREATE
        } else {
            CREATE & !ACKNOWLEDGE
        }
    };
    let requests = requests.iter().enumerate();
    let bytes = requests.map(|(place, part)| request(part.kind, flags(place), &part.fixed, &part.attributes));
    bytes.collect::<Vec<_>>().concat()
}

struct Request {
    kind: u16,
    fixed: Vec<u8>,
    attributes: Vec<Vec<u8>>,
}

fn entry(index: u32, peer: StorePeer) -> Request {
    Request {
        kind: RTM_NEWNEIGH,
        fixed: neighbour_part(AF_BRIDGE, index, SELF),
        attributes: vec![
            attribute(NDA_LLADDR, &peer.vtep_mac()),
            attribute(NDA_DST, &peer.public_ip().octets()),
        ],
    }
}

fn neighbour(index: u32, peer: StorePeer) -> Request {
    Request {
        kind: RTM_NEWNEIGH,
        fixed: neighbour_part(AF_INET, index, 0),
        attributes: vec![
            attribute(NDA_DST, &peer.subnet().octets()),
            attribute(NDA_LLADDR, &peer.vtep_mac()),
        ],
    }
}

fn tunnel_route(index: u32, peer: StorePeer) -> Request {
    route(index, peer, Backend::Vxlan, ONLINK)
}

fn plain_route(index: u32, peer: StorePeer) -> Request {
    route(index, peer, Backend::HostGw, 0)
}

fn route(index: u32, peer: StorePeer, backend: Backend, flags: u32) -> Request {
    // struct rtmsg: family, lengths of destination and source, tos, table main, protocol boot, scope universe, unicast.
    let head: [u8; 8] = [AF_INET, 24, 0, 0, 254, 3, 0, 1];
    Request {
        kind: RTM_NEWROUTE,
        fixed: [&head[..], &flags.to_ne_bytes()].concat(),
        attributes: vec![
            attribute(RTA_DST, &peer.subnet().octets()),
            attribute(RTA_OIF, &index.to_ne_bytes()),
            attribute(RTA_GATEWAY, &backend.gateway(peer).octets()),
        ],
    }
}

/// struct ndmsg: family, padding, index, state, flags, type.
fn neighbour_part(family: u8, index: u32, flags: u8) -> Vec<u8> {
    let head = [family, 0, 0, 0];
    let tail = [flags, 0];
    [&head[..], &index.to_ne_bytes(), &PERMANENT.to_ne_bytes(), &tail].concat()
}

fn ip(line: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(line.split_whitespace())
        .output()
        .context("starting `ip`")?;
    if !output.status.success() {
        bail!(
            "`ip {line}` failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
