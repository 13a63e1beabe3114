use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Result, bail};
use conformance_floor::rtnl::{
    Message, NEIGHBOURS_AND_ROUTES, RTM_DELNEIGH, RTM_DELROUTE, RTM_NEWNEIGH, RTM_NEWROUTE, Socket,
};

use super::start::LIMIT;
use crate::lab::Node;

/// Families and the state of an entry that never ages (linux/socket.h, linux/neighbour.h).
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const NUD_PERMANENT: u16 = 0x80;
/// Attributes (linux/neighbour.h, linux/rtnetlink.h) and the sizes of what stands before them.
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const RTA_DST: u16 = 1;
const NEIGHBOUR_PART: usize = 12;
const ROUTE_PART: usize = 12;

/// Hears when the kernel of a node has what a peer needs: its route, neighbour and forwarding entry.
pub(super) struct PeerWatch {
    socket: Socket,
}

/// A peer of the node, by what names it in the kernel's tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerKeys {
    /// The first address of its subnet: destination of the route, and the neighbour.
    pub(super) subnet: Ipv4Addr,
    /// Its end of the tunnel, in the forwarding database.
    pub(super) vtep_mac: [u8; 6],
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Made,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    Route,
    Neighbour,
    Forwarding,
}

impl PeerWatch {
    /// Begins to listen in a node's network namespace.
    ///
    /// # Errors
    /// Fails when the kernel gives no socket.
    pub(super) fn new(node: &Node) -> Result<Self> {
        let socket = node
            .namespaces()
            .net_only()?
            .run(|| Socket::open(NEIGHBOURS_AND_ROUTES))?;
        Ok(Self { socket })
    }

    /// Forgets what was heard so far.
    ///
    /// # Errors
    /// Fails when notices were lost.
    pub(super) fn drain(&self) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        while self.socket.wait(Instant::now())? {
            self.socket.receive(&mut buffer)?;
        }
        Ok(())
    }

    /// Waits until all three objects of the peer were made, or are gone; returns when the last notice came.
    ///
    /// # Errors
    /// Fails when one does not come within the limit, or notices were lost.
    pub(super) fn all(&self, keys: &PeerKeys, change: Change) -> Result<Instant> {
        let mut left = vec![Object::Route, Object::Neighbour, Object::Forwarding];
        let mut buffer = vec![0; 1 << 16];
        let end = Instant::now() + LIMIT;
        while self.socket.wait(end)? {
            let messages = self.socket.receive(&mut buffer)?;
            let now = Instant::now();
            for message in messages {
                let seen = object(&message, keys, change);
                left.retain(|wanted| Some(*wanted) != seen);
            }
            if left.is_empty() {
                return Ok(now);
            }
        }
        bail!(
            "waited {} s in vain for {left:?} to be {change:?}",
            LIMIT.as_secs()
        )
    }
}

/// The object of the peer that a notice tells to be made or gone.
fn object(message: &Message<'_>, keys: &PeerKeys, change: Change) -> Option<Object> {
    let (route, neighbour) = match change {
        Change::Made => (RTM_NEWROUTE, RTM_NEWNEIGH),
        Change::Gone => (RTM_DELROUTE, RTM_DELNEIGH),
    };
    let subnet = keys.subnet.octets();
    if message.kind == route {
        return (message.attribute(ROUTE_PART, RTA_DST)? == subnet).then_some(Object::Route);
    }
    if message.kind != neighbour {
        return None;
    }
    let state = u16::from_ne_bytes(*message.body.get(8..)?.first_chunk()?);
    if change == Change::Made && state & NUD_PERMANENT == 0 {
        return None;
    }
    match *message.body.first()? {
        AF_INET => (message.attribute(NEIGHBOUR_PART, NDA_DST)? == subnet).then_some(Object::Neighbour),
        AF_BRIDGE => {
            (message.attribute(NEIGHBOUR_PART, NDA_LLADDR)? == keys.vtep_mac).then_some(Object::Forwarding)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn run(line: &str) {
        let mut words = line.split_whitespace();
        let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
        assert!(status.success(), "{line}");
    }

    fn socket_in_a_new_namespace() -> PeerWatch {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("ip link add t0 type vxlan id 9 dstport 8472 nolearning");
        run("ip link set t0 up");
        run("ip address add 10.9.0.0/32 dev t0");
        PeerWatch {
            socket: Socket::open(NEIGHBOURS_AND_ROUTES).unwrap(),
        }
    }

    #[test]
    fn a_peers_objects_are_heard_when_they_are_made_and_when_they_go() {
        let peer = |number: u8| PeerKeys {
            subnet: Ipv4Addr::new(10, 9, number, 0),
            vtep_mac: [2, 0, 0, 0, 0, number],
        };
        let change = |route: &str, fdb: &str, number: u8| {
            let (subnet, mac) = (format!("10.9.{number}.0"), format!("02:00:00:00:00:{number:02x}"));
            run(&format!(
                "ip route {route} {subnet}/24 via {subnet} dev t0 onlink"
            ));
            run(&format!(
                "bridge fdb {fdb} {mac} dev t0 dst 192.0.2.1 self permanent"
            ));
            run(&format!(
                "ip neighbour {fdb} {subnet} lladdr {mac} dev t0 nud permanent"
            ));
        };
        thread::spawn(move || {
            let watch = socket_in_a_new_namespace();
            change("add", "add", 1);
            let begun = Instant::now();
            change("add", "add", 2);
            assert!(watch.all(&peer(2), Change::Made).unwrap() > begun);
            watch.drain().unwrap();
            change("delete", "delete", 2);
            watch.all(&peer(2), Change::Gone).unwrap();
        })
        .join()
        .unwrap();
    }
}
