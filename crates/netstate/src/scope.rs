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
    /// The protocol whose blackhole routes of the main table are, of both families.
    pub blackholes_of: Option<u8>,
    /// Kernel parameters that are read; they are never removed.
    pub sysctls: BTreeSet<SysctlKey>,
    /// Tables of nf_tables in scope, whole.
    pub nft: BTreeSet<TableKey>,
    /// Chains in scope of iptables' tables, whole, with the rules of other chains that lead into them.
    pub iptables: BTreeMap<IptablesKey, BTreeSet<String>>,
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
    /// Whether the routes of the main table through it are.
    pub routes: bool,
    /// Further tables whose routes through it are.
    pub other_tables: BTreeSet<u32>,
}
