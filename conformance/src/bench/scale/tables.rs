use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use conformance_floor::rtnl::{
    DUMP, Message, REQUEST, RTM_GETNEIGH, RTM_GETROUTE, RTM_NEWROUTE, Socket, attribute, request,
};
use nix::net::if_::if_nametoindex;

use super::peers::{Backend, StorePeer};
use crate::lab::Node;

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const PERMANENT: u16 = 0x80;
/// linux/rtnetlink.h: `RTM_F_FIB_MATCH`, `RT_TABLE_MAIN`, attributes.
const FIB_MATCH: u32 = 0x2000;
const MAIN: u8 = 254;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
/// linux/neighbour.h.
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// The size of `struct rtmsg` and of `struct ndmsg`.
const FIXED: usize = 12;
/// Of very many peers so many are asked for before the tables are listed.
const SAMPLES: usize = 16;
/// The pause between two looks: what a figure may be too high by, with the time that a list takes.
const PAUSE: Duration = Duration::from_millis(1);

/// What a node's kernel holds for its peers.
pub(super) struct Tables {
    socket: Socket,
    backend: Backend,
    index: u32,
}

impl Tables {
    /// Looks for the device of a node through which its peers are reached.
    ///
    /// # Errors
    /// Fails when it has none.
    pub(super) fn open(node: &Node, backend: Backend) -> Result<Self> {
        node.namespaces().net_only()?.run(|| {
            Ok(Self {
                socket: Socket::open(0)?,
                backend,
                index: if_nametoindex(backend.device()).context("looking for the peers' device")?,
            })
        })
    }

    /// Waits until the kernel's lists show all that the peers need; returns when they did.
    ///
    /// # Errors
    /// Fails when they do not within the limit.
    pub(super) fn await_all(&self, peers: &[StorePeer], limit: Duration) -> Result<Instant> {
        let end = Instant::now() + limit;
        loop {
            // Listing thousands again and again would slow down what is measured.
            let missing = if self.has_samples(peers)? {
                self.missing(peers)?
            } else {
                peers.len()
            };
            let now = Instant::now();
            if missing == 0 {
                return Ok(now);
            }
            if now >= end {
                bail!(
                    "waited {} s in vain for {missing} of {} peers",
                    limit.as_secs(),
                    peers.len()
                );
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn has_samples(&self, peers: &[StorePeer]) -> Result<bool> {
        let step = (peers.len() / SAMPLES).max(1);
        for peer in peers.last().into_iter().chain(peers.iter().step_by(step)) {
            if !self.has_route(*peer)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the best match of a peer's subnet is its own route, and no shorter one.
    fn has_route(&self, peer: StorePeer) -> Result<bool> {
        let head: [u8; 8] = [AF_INET, 32, 0, 0, 0, 0, 0, 0];
        let fixed = [&head[..], &FIB_MATCH.to_ne_bytes()].concat();
        let subnet = attribute(RTA_DST, &peer.subnet().octets());
        let question = request(RTM_GETROUTE, REQUEST, &fixed, &[subnet]);
        let mut found = false;
        self.socket.ask(&question, |message| {
            found = message.kind == RTM_NEWROUTE && message.body.get(1) == Some(&24);
        })?;
        Ok(found)
    }

    /// How many peers lack something.
    fn missing(&self, peers: &[StorePeer]) -> Result<usize> {
        let (mut routes, mut neighbours, mut entries) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        self.list(RTM_GETROUTE, AF_INET, |message| {
            routes.extend(self.route(message));
        })?;
        let has_route = |peer: &&StorePeer| routes.contains(&(peer.subnet(), self.backend.gateway(**peer)));
        if self.backend == Backend::HostGw {
            return Ok(peers.len() - peers.iter().filter(has_route).count());
        }
        self.list(RTM_GETNEIGH, AF_INET, |message| {
            neighbours.extend(self.neighbour(message));
        })?;
        self.list(RTM_GETNEIGH, AF_BRIDGE, |message| {
            entries.extend(self.neighbour(message));
        })?;
        let is_there = |peer: &&StorePeer| {
            let (subnet, mac) = (peer.subnet(), peer.vtep_mac());
            has_route(peer)
                && neighbours.contains(&(subnet, mac))
                && entries.contains(&(peer.public_ip(), mac))
        };
        Ok(peers.len() - peers.iter().filter(is_there).count())
    }

    fn list(&self, kind: u16, family: u8, each: impl FnMut(&Message<'_>)) -> Result<()> {
        let mut fixed = vec![0; FIXED];
        if let Some(first) = fixed.first_mut() {
            *first = family;
        }
        self.socket
            .list(&request(kind, REQUEST | DUMP, &fixed, &[]), each)
    }

    /// The destination of a /24 through the device, and its gateway.
    fn route(&self, message: &Message<'_>) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let (length, table) = (message.body.get(1)?, message.body.get(4)?);
        let link = message.attribute(FIXED, RTA_OIF)?;
        let destination = message.attribute(FIXED, RTA_DST)?;
        let gateway = message.attribute(FIXED, RTA_GATEWAY)?;
        let fits = *length == 24 && *table == MAIN && link == self.index.to_ne_bytes();
        fits.then(|| address(destination).zip(address(gateway))).flatten()
    }

    /// The address and the hardware address of a permanent entry of the tunnel's.
    fn neighbour(&self, message: &Message<'_>) -> Option<(Ipv4Addr, [u8; 6])> {
        let index = message.body.get(4..8)?;
        let state = u16::from_ne_bytes(*message.body.get(8..)?.first_chunk()?);
        let address = address(message.attribute(FIXED, NDA_DST)?)?;
        let mac = *message.attribute(FIXED, NDA_LLADDR)?.first_chunk()?;
        (index == self.index.to_ne_bytes() && state & PERMANENT != 0).then_some((address, mac))
    }
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}
