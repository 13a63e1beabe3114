use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use net_types::IfName;

use crate::SysctlKey;
use crate::iptables::IptablesKey;
use crate::nft::TableKey;

/// What is ours in a namespace, and therefore what is observed and may be removed. Everything else is invisible.
///
/// A link named here is observed with its attributes, whatever its kind. Never in scope, even on such a link, is what
/// the kernel makes itself: routes of protocol `kernel`, IPv6 link-local addresses, and
/// neighbours or forwarding entries that are not permanent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// The links in scope, with what of their content is.
    pub links: BTreeMap<IfName, LinkScope>,
    /// The routes of the main table that are, by who made them.
    pub marked: Option<MarkedRoutes>,
    /// Kernel parameters that are read; they are never removed.
    pub sysctls: BTreeSet<SysctlKey>,
    /// Tables of nf_tables in scope, whole.
    pub nft: BTreeSet<TableKey>,
    /// Chains in scope of iptables' tables, whole, with the rules of other chains that lead into them.
    pub iptables: BTreeMap<IptablesKey, BTreeSet<String>>,
}

/// Routes that their protocol tells, whatever link they lead through, if any; only unicast and blackhole routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedRoutes {
    /// Who made them (`RTPROT_*`).
    pub protocol: u8,
    /// Their destinations are inside one of these networks.
    pub inside: Vec<IpNetwork>,
}

impl MarkedRoutes {
    /// Whether a destination is inside one of the networks.
    #[must_use]
    pub fn covers(&self, dst: IpNetwork) -> bool {
        let holds = |network: &IpNetwork| network.contains(dst.network()) && network.prefix() <= dst.prefix();
        self.inside.iter().any(holds)
    }
}

/// Which content of a link is in scope.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkScope {
    /// Addresses inside one of these networks are.
    pub addrs_inside: Vec<IpNetwork>,
    /// Whether the permanent neighbours are.
    pub neighs: bool,
    /// Whether the permanent forwarding entries are (VXLAN devices).
    pub fdb: bool,
    /// Whether the device's own settings and its peers are (WireGuard devices).
    pub wireguard: bool,
    /// Whether it is told if checksums may be left to the hardware (VXLAN devices).
    pub tx_checksum: bool,
    /// Whether the routes of the main table through it are.
    pub routes: bool,
    /// Further tables whose routes through it are.
    pub other_tables: BTreeSet<u32>,
}
