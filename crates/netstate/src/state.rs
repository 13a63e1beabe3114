use std::collections::{BTreeMap, BTreeSet};

use net_types::IfName;

use crate::iptables::{IptablesKey, OwnRules};
use crate::nft;
use crate::{
    Addr, AddrKey, FdbKey, Link, Neigh, NeighKey, Route, RouteKey, SysctlKey, WgPeer, WgPeerKey, Wireguard,
};

/// What one network namespace holds, or should hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Interfaces by name.
    pub links: BTreeMap<IfName, Link>,
    /// Addresses.
    pub addrs: BTreeMap<AddrKey, Addr>,
    /// Routes.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Permanent neighbours.
    pub neighs: BTreeMap<NeighKey, Neigh>,
    /// Permanent forwarding entries of VXLAN devices.
    pub fdb: BTreeSet<FdbKey>,
    /// What WireGuard devices are beside links.
    pub wireguard: BTreeMap<IfName, Wireguard>,
    /// Peers of WireGuard devices.
    pub wg_peers: BTreeMap<WgPeerKey, WgPeer>,
    /// Kernel parameters; absent when the kernel has no such parameter.
    pub sysctls: BTreeMap<SysctlKey, String>,
    /// Tables of nf_tables, whole.
    pub nft: BTreeMap<nft::TableKey, nft::Table>,
    /// What is ours of iptables' tables; a table without any is absent.
    pub iptables: BTreeMap<IptablesKey, OwnRules>,
}
