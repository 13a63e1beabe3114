//! What somebody does to a node behind the daemon's back.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::flanneld::TUNNEL;
use super::iproute::printed;
use super::node::Node;
use super::process::Process;
use super::underlay::{GATEWAY, NODE_LINK};

/// How long the underlay stays away.
const AWAY: Duration = Duration::from_millis(300);
/// Addresses that no node has: of the tunnel's link layer, of the tunnel, of the underlay.
const NOBODYS_MAC: &str = "02:00:00:00:00:01";
const NOBODYS_VTEP: &str = "10.244.254.0";
const NOBODYS_ADDRESS: &str = "192.168.77.254";

/// One thing that goes wrong on a node; where it concerns a peer, it is the one peer given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The peer's route is deleted.
    RouteDeleted,
    /// The peer's route has another gateway.
    RouteAltered,
    /// The peer's route is replaced by one over another device.
    RouteMoved,
    /// The peer's neighbour entry is deleted.
    NeighbourDeleted,
    /// The peer's neighbour entry has another MAC address.
    NeighbourAltered,
    /// The peer's forwarding entry is deleted.
    FdbDeleted,
    /// The peer's forwarding entry leads elsewhere.
    FdbAltered,
    /// The tunnel device's address is deleted.
    AddressDeleted,
    /// The tunnel device is set down.
    DeviceDown,
    /// The tunnel device is deleted.
    DeviceDeleted,
    /// The underlay link goes down and comes up again.
    UnderlayFlap,
    /// The underlay link is deleted, and made anew.
    UnderlayRemade,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 12] = [
        Self::RouteDeleted,
        Self::RouteAltered,
        Self::RouteMoved,
        Self::NeighbourDeleted,
        Self::NeighbourAltered,
        Self::FdbDeleted,
        Self::FdbAltered,
        Self::AddressDeleted,
        Self::DeviceDown,
        Self::DeviceDeleted,
        Self::UnderlayFlap,
        Self::UnderlayRemade,
    ];

    /// The fault in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RouteDeleted => "a peer's route deleted",
            Self::RouteAltered => "a peer's route altered",
            Self::RouteMoved => "a peer's route moved elsewhere",
            Self::NeighbourDeleted => "a peer's neighbour entry deleted",
            Self::NeighbourAltered => "a peer's neighbour entry altered",
            Self::FdbDeleted => "a peer's forwarding entry deleted",
            Self::FdbAltered => "a peer's forwarding entry altered",
            Self::AddressDeleted => "the device's address deleted",
            Self::DeviceDown => "the device set down",
            Self::DeviceDeleted => "the device deleted",
            Self::UnderlayFlap => "the underlay down and up",
            Self::UnderlayRemade => "the underlay deleted and made anew",
        }
    }

    /// How soon everything is to be as before, by the daemon's own aim.
    #[must_use]
    pub fn aim(self) -> Duration {
        match self {
            Self::RouteDeleted
            | Self::RouteAltered
            | Self::RouteMoved
            | Self::NeighbourDeleted
            | Self::NeighbourAltered
            | Self::FdbDeleted
            | Self::FdbAltered
            | Self::AddressDeleted => Duration::from_secs(1),
            Self::DeviceDown | Self::DeviceDeleted | Self::UnderlayFlap | Self::UnderlayRemade => {
                Duration::from_secs(3)
            }
        }
    }

    /// Lets it happen; when this returns, an underlay link is back.
    ///
    /// # Errors
    /// Fails when iproute2 does.
    pub fn inject(self, node: &Node, peer: &Node) -> Result<()> {
        let (subnet, length) = peer.subnet()?;
        let route = format!("{subnet}/{length}");
        match self {
            Self::RouteDeleted => ip(node, &format!("route delete {route} dev {TUNNEL}")),
            Self::RouteAltered => ip(
                node,
                &format!("route replace {route} via {NOBODYS_VTEP} dev {TUNNEL} onlink"),
            ),
            Self::RouteMoved => ip(
                node,
                &format!("route replace {route} via {GATEWAY} dev {NODE_LINK}"),
            ),
            Self::NeighbourDeleted => ip(node, &format!("neighbour delete {subnet} dev {TUNNEL}")),
            Self::NeighbourAltered => ip(
                node,
                &format!("neighbour replace {subnet} lladdr {NOBODYS_MAC} nud permanent dev {TUNNEL}"),
            ),
            Self::FdbDeleted => fdb(node, "delete", peer, &peer.address().to_string()),
            Self::FdbAltered => fdb(node, "replace", peer, NOBODYS_ADDRESS),
            Self::AddressDeleted => ip(node, &format!("address flush dev {TUNNEL} scope global")),
            Self::DeviceDown => ip(node, &format!("link set {TUNNEL} down")),
            Self::DeviceDeleted => ip(node, &format!("link delete {TUNNEL}")),
            Self::UnderlayFlap => {
                node.underlay_down()?;
                thread::sleep(AWAY);
                node.underlay_up()
            }
            Self::UnderlayRemade => {
                node.underlay_unplug()?;
                thread::sleep(AWAY);
                node.underlay_plug_in()
            }
        }
    }
}

fn ip(node: &Node, words: &str) -> Result<()> {
    node.ip(&words.split(' ').collect::<Vec<_>>()).map(drop)
}

fn fdb(node: &Node, verb: &str, peer: &Node, outer: &str) -> Result<()> {
    let mac = peer.vtep_mac()?;
    let argv = [
        "bridge",
        "fdb",
        verb,
        &mac,
        "dev",
        TUNNEL,
        "dst",
        outer,
        "self",
        "permanent",
    ];
    printed(&argv.join(" "), node.exec(&argv)?).map(drop)
}

/// Starts somebody who deletes a peer's route again and again, about fifty times a second, until the process is dropped.
///
/// # Errors
/// Fails when the shell cannot be started.
pub fn keep_deleting_route(node: &Node, peer: &Node) -> Result<Process> {
    let (subnet, length) = peer.subnet().context("asking for the peer's subnet")?;
    let script = format!("while :; do ip route delete {subnet}/{length} 2>/dev/null; sleep 0.02; done");
    node.spawn(&["sh", "-c", &script], "deleter")
}
