//! Tracked connections that must be forgotten, because rules of address translation for them have changed: the kernel
//! asks the rules only for the first packet of a connection, and a UDP "connection" lives as long as somebody sends.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netstate::{ErrorClass, KernelError};

use crate::errno::other;
use crate::netfilter::{Socket, Subsystem, header};
use crate::raw::Requests;
use crate::tlv::{Attributes, attribute};

/// Messages (linux `nfnetlink_conntrack.h`, `IPCTNL_MSG_CT_*`).
const GET: u8 = 1;
const DELETE: u8 = 2;

/// Attributes of a connection (`CTA_*`), of a tuple (`CTA_TUPLE_*`), of its addresses (`CTA_IP_*`) and its protocol
/// (`CTA_PROTO_*`).
const TUPLE_ORIG: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_DST: u16 = 2;
const IP_V6_DST: u16 = 4;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;

/// The transport protocol UDP (IANA).
const UDP: u8 = 17;

/// Most deletions in one send; the answers must fit into the receive queue.
const DELETIONS_PER_SEND: usize = 200;

/// Version of the Internet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Where the first packet of a connection was sent, before any translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OriginalDestination {
    /// The version of the Internet protocol.
    pub version: IpVersion,
    /// The address; `None` for any.
    pub addr: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// The tracked connections of one namespace.
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Opens the connections of the calling thread's namespace.
    ///
    /// # Errors
    /// There is no socket to be had, or the kernel has no netfilter.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self {
            socket: Socket::open(Subsystem::Conntrack)?,
        })
    }

    /// Forgets the UDP connections that went to any of the destinations, and returns how many there were. The next
    /// packet of each begins a new connection. The connections are listed once for each IP version, so name all
    /// destinations in one call.
    ///
    /// # Errors
    /// The connections cannot be listed, or one cannot be forgotten; others may have been.
    pub fn forget_udp(&mut self, destinations: &BTreeSet<OriginalDestination>) -> Result<usize, KernelError> {
        let mut forgotten = 0;
        for version in [IpVersion::V4, IpVersion::V6] {
            if destinations.iter().any(|wanted| wanted.version == version) {
                forgotten += self.forget(version, destinations)?;
            }
        }
        Ok(forgotten)
    }

    fn forget(
        &mut self,
        version: IpVersion,
        destinations: &BTreeSet<OriginalDestination>,
    ) -> Result<usize, KernelError> {
        let number = version.number();
        let deletions = self.socket.dump(GET, &header(number, 0), |family, bytes| {
            let wanted =
                family == number && udp(bytes, version).is_some_and(|found| is_wanted(&found, destinations));
            if wanted {
                deletion(version, bytes)
            } else {
                Ok(None)
            }
        })?;
        let mut forgotten = 0;
        for deletions in deletions.chunks(DELETIONS_PER_SEND) {
            let mut requests = Requests::default();
            for deletion in deletions {
                self.socket.push(&mut requests, DELETE, 0, deletion);
            }
            for result in self.socket.change(&mut requests) {
                match result {
                    Ok(()) => forgotten += 1,
                    // It ended by itself.
                    Err(e) if e.class == ErrorClass::NotFound => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(forgotten)
    }
}

impl IpVersion {
    /// The number of the address family (`AF_INET`, `AF_INET6`).
    const fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// Where a UDP connection went; `None` for others.
fn udp(bytes: &[u8], version: IpVersion) -> Option<(IpAddr, u16)> {
    let tuple = attribute(bytes, TUPLE_ORIG)?;
    let protocol = attribute(tuple, TUPLE_PROTO)?;
    (attribute(protocol, PROTO_NUM)? == [UDP]).then_some(())?;
    let port = attribute(protocol, PROTO_DST_PORT)?.try_into().ok()?;
    let ip = attribute(tuple, TUPLE_IP)?;
    let addr = match version {
        IpVersion::V4 => Ipv4Addr::from_octets(attribute(ip, IP_V4_DST)?.try_into().ok()?).into(),
        IpVersion::V6 => Ipv6Addr::from_octets(attribute(ip, IP_V6_DST)?.try_into().ok()?).into(),
    };
    Some((addr, u16::from_be_bytes(port)))
}

fn is_wanted((addr, port): &(IpAddr, u16), destinations: &BTreeSet<OriginalDestination>) -> bool {
    let version = match addr {
        IpAddr::V4(_) => IpVersion::V4,
        IpAddr::V6(_) => IpVersion::V6,
    };
    let wanted = |addr| {
        destinations.contains(&OriginalDestination {
            version,
            addr,
            port: *port,
        })
    };
    wanted(None) || wanted(Some(*addr))
}

/// The request to forget a connection that was listed: this one, none that took its place. Without the tuple the kernel
/// would forget all.
fn deletion(version: IpVersion, bytes: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
    let Some(tuple) = attribute(bytes, TUPLE_ORIG).filter(|tuple| !tuple.is_empty()) else {
        return Ok(None);
    };
    let mut request = Attributes::after(&header(version.number(), 0));
    request.put_nested(TUPLE_ORIG, tuple);
    for kind in [ID, ZONE] {
        if let Some(value) = attribute(bytes, kind) {
            request.put(kind, value);
        }
    }
    request.finish().map(Some).map_err(|e| other(e.to_string()))
}
