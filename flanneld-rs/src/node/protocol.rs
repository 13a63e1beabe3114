//! What goes into a node and what comes out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use flannel_types::{Lease, LeaseAttrs, NetConf, PublicAddrs, SubnetEnv, UnixTime};
use ipnetwork::IpNetwork;
use lease_store::{ErrorClass, LeaseEvent, StoreError};
use net_types::{IfName, MacAddr, Vni, sentence};
use netstate::{KernelError, Spot, State};

use crate::desired::{IpipDevice, RuleSettings, WireguardDevice};
use crate::extension::{Command, ExtensionSettings, Said};
use crate::iface_match::External;
use crate::reconciler::Work;

/// The addresses that a host has, each with the links that others reach it on.
pub type HostAddrs = BTreeMap<IpAddr, BTreeSet<IfName>>;

/// This host's links, as far as a node minds them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostLinks {
    /// Its addresses.
    pub addrs: HostAddrs,
    /// The MTU of each link in bytes.
    pub mtus: BTreeMap<IfName, u32>,
}

/// What is fixed for the life of the daemon, but for the interface's name, and the MTUs that follow from its own.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What each enabled family needs, IPv4 before IPv6; one at least.
    pub sides: Vec<SideSettings>,
    /// The interface that carries the outer packets: the one with this node's addresses, which is followed.
    pub parent: IfName,
    /// MTU for pods in bytes: what every family's tunnel carries.
    pub pod_mtu_bytes: u32,
    /// The configuration that the above was taken from.
    pub conf: NetConf,
    /// How long before its end the lease is renewed.
    pub renew_margin: Duration,
    /// How long leases are held that vanish in a mass.
    pub mass_loss_grace: Duration,
    /// Which packet filter rules the node wants.
    pub rules: RuleSettings,
    /// How often the rules are looked at without a notice.
    pub rules_audit: Duration,
    /// Whether packets to addresses of the own subnet that no pod has are dropped.
    pub blackhole: bool,
    /// Whether VXLAN devices may leave checksums to the hardware; `None` leaves them as they are.
    pub tx_checksum: Option<bool>,
    /// Links with names of devices of flannel's, which an earlier life of this node may have left.
    pub former_devices: Vec<IfName>,
    /// Pod networks that an earlier life of this node had in families that are off.
    pub former_networks: Vec<IpNetwork>,
    /// Whether peers whose addresses are on a link of this host have plain routes instead of tunnels.
    pub direct_routing: bool,
    /// The administrator's commands, where they are what carries packets to the peers.
    pub extension: Option<ExtensionSettings>,
    /// Whether another configuration counts again if this one does not come into force.
    pub is_on_trial: bool,
    /// A configuration that this process could not go on by.
    pub refused: Option<RefusedConf>,
}

/// A network configuration with which a node began, and could not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedConf {
    /// What it says.
    pub conf: NetConf,
    /// How often it was tried in a row.
    pub attempts: u32,
}

/// What is fixed for the life of the daemon in one family.
#[derive(Debug, Clone)]
pub struct SideSettings {
    /// The pod network.
    pub network: IpNetwork,
    /// Outer source address.
    pub local: IpAddr,
    /// The address at which peers reach this node.
    pub public_ip: IpAddr,
    /// The backend's own.
    pub carrier: CarrierSettings,
}

/// What a backend needs in one family.
#[derive(Debug, Clone)]
pub enum CarrierSettings {
    /// Of the VXLAN backend.
    Vxlan(VxlanSettings),
    /// Of the host-gw backend: nothing beside the interface.
    HostGw,
    /// Of the WireGuard backend: its device.
    Wireguard(WireguardDevice),
    /// Of the ipip backend: its device.
    Ipip(IpipDevice),
    /// Of the alloc backend: nothing.
    Alloc,
    /// Of the extension backend: nothing that is not in [`Settings::extension`].
    Extension,
}

/// A VXLAN device that is to be.
#[derive(Debug, Clone)]
pub struct VxlanSettings {
    /// Its name.
    pub device: IfName,
    /// Network identifier.
    pub vni: Vni,
    /// UDP destination port.
    pub port: u16,
    /// Whether it learns forwarding entries.
    pub learning: bool,
    /// Whether it has the group-based policy extension.
    pub gbp: bool,
    /// Its own MTU in bytes.
    pub mtu_bytes: u32,
    /// Its MAC address, unless the device or the stored lease has one.
    pub random_mac: MacAddr,
}

impl SideSettings {
    /// Whether this is IPv6's side.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.network.is_ipv6()
    }

    /// The device of ours that carries this family's packets, if there is one.
    #[must_use]
    pub const fn device(&self) -> Option<&IfName> {
        match &self.carrier {
            CarrierSettings::Vxlan(vxlan) => Some(&vxlan.device),
            CarrierSettings::Wireguard(device) => Some(&device.name),
            CarrierSettings::Ipip(device) => Some(&device.name),
            CarrierSettings::HostGw | CarrierSettings::Alloc | CarrierSettings::Extension => None,
        }
    }
}

impl Settings {
    /// Whether a device of VXLAN carries packets.
    #[must_use]
    pub fn has_vxlan(&self) -> bool {
        let is_vxlan = |side: &SideSettings| matches!(side.carrier, CarrierSettings::Vxlan(_));
        self.sides.iter().any(is_vxlan)
    }

    /// The addresses by which the store knows this node.
    #[must_use]
    pub fn public_addrs(&self) -> PublicAddrs {
        let mut addrs = PublicAddrs { v4: None, v6: None };
        for side in &self.sides {
            match side.public_ip {
                IpAddr::V4(ip) => addrs.v4 = Some(ip),
                IpAddr::V6(ip) => addrs.v6 = Some(ip),
            }
        }
        addrs
    }

    /// The devices of ours that carry packets.
    pub fn devices(&self) -> impl Iterator<Item = &IfName> {
        self.sides.iter().filter_map(SideSettings::device)
    }

    /// The pod networks.
    #[must_use]
    pub fn networks(&self) -> Vec<IpNetwork> {
        self.sides.iter().map(|side| side.network).collect()
    }

    /// The same with those of an earlier life.
    #[must_use]
    pub fn all_networks(&self) -> Vec<IpNetwork> {
        let mut networks = self.networks();
        networks.extend(&self.former_networks);
        networks
    }
}

/// What happened. An event that answers an [`Action`] comes exactly once for it.
#[derive(Debug)]
pub enum Event {
    /// The run begins.
    Start,
    /// Answer to [`Work::Observe`] and [`Work::ObserveAt`].
    Observed(Result<State, KernelError>),
    /// Answer to [`Work::Apply`].
    Applied(Vec<Result<(), KernelError>>),
    /// Something that may concern this node changed in the kernel.
    KernelChanged,
    /// What stands at these spots may have changed in the kernel.
    KernelChangedAt(BTreeSet<Spot>),
    /// Answer to [`Work::Observe`] of the rules.
    RulesObserved(Result<State, KernelError>),
    /// Answer to [`Work::Apply`] of the rules.
    RulesApplied(Vec<Result<(), KernelError>>),
    /// Packet filter rules changed that may be this node's.
    RulesChanged,
    /// Answer to [`Action::FindLease`].
    LeaseFound(Result<Option<Lease>, StoreFailure>),
    /// Answer to [`Action::AcquireLease`].
    LeaseAcquired(Result<Lease, StoreFailure>),
    /// Answer to [`Action::RenewLease`].
    LeaseRenewed(Result<Lease, StoreFailure>),
    /// News from the store's watch, from [`Action::WatchLeases`] on.
    Lease(LeaseEvent),
    /// Answer to [`Action::WriteSubnetFile`].
    SubnetFileWritten(Result<(), String>),
    /// The subnet file that was written is gone, or says something else.
    SubnetFileLost,
    /// The addresses that this host has, after they may have changed.
    HostLinks(HostLinks),
    /// The interface that carries the outer packets has this name now.
    ParentRenamed(IfName),
    /// Routes of this host changed that lead to no pods.
    HostRoutesChanged,
    /// Answer to [`Action::LookUpRoutes`]: the addresses that are on a link, with the link; or why there is none.
    RoutesFound(Result<BTreeMap<IpAddr, IfName>, String>),
    /// Answer to [`Action::RunCommand`]: what the command said, or why it did not do its work.
    CommandDone(Result<Said, String>),
    /// Answer to [`Action::TryConf`]: why this node cannot use it.
    ConfTried(Result<(), String>),
    /// Answer to [`Action::LookForInterface`]: the interface that a start would choose now, or why there is none.
    InterfaceFound(Result<External, String>),
    /// Time has passed.
    Tick,
}

/// Why the store did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFailure {
    /// One sentence for a person.
    pub message: String,
    /// Whether asking again can help.
    pub outlook: Outlook,
}

impl From<StoreError> for StoreFailure {
    fn from(err: StoreError) -> Self {
        let outlook = match err.class() {
            ErrorClass::Retry => Outlook::Retry,
            ErrorClass::Fatal => Outlook::GiveUp,
            ErrorClass::Lost => Outlook::Lost,
        };
        let message = sentence(&err);
        Self { message, outlook }
    }
}

/// Whether asking again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// It can: the store may come back.
    Retry,
    /// It cannot: a person must act.
    GiveUp,
    /// The lease belongs to another node.
    Lost,
}

/// What the driver must do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Observe or change the kernel.
    Kernel(Work),
    /// Observe or change packet filter rules, which may take long: others lock them.
    Rules(Work),
    /// Look for the stored lease of the node with these public addresses.
    FindLease(PublicAddrs),
    /// Acquire a lease with these attributes.
    AcquireLease(LeaseAttrs),
    /// Begin to watch the store, and bring its news as [`Event::Lease`].
    WatchLeases,
    /// Renew this lease.
    RenewLease(Lease),
    /// Write the subnet file.
    WriteSubnetFile(SubnetEnv),
    /// Look up which of these addresses are on a link of this host.
    LookUpRoutes(BTreeSet<IpAddr>),
    /// Run a command of the administrator's, and keep what it is about to do and what came of it.
    RunCommand(Command),
    /// Look whether this node could begin anew with this network configuration.
    TryConf(Box<NetConf>),
    /// Begin anew with this network configuration, which was tried out.
    ApplyConf(Box<NetConf>),
    /// Look, after a while in which an address may come back, which interface a start would choose.
    LookForInterface,
    /// Begin anew with this interface, and take the own lease along.
    Move(Box<Move>),
    /// End the daemon and leave the kernel as it is.
    Stop(StopReason),
}

/// This node has other addresses than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The interface that has them.
    pub to: External,
    /// The own lease, which announces the ones before.
    pub lease: Lease,
}

/// Why the daemon ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// The own lease was removed from the store, or given to another node.
    #[error("Lease has been revoked. Shutting down daemon.")]
    LeaseRevoked,
    /// The store refused for good.
    #[error("failed to acquire lease: {0}")]
    NoLease(String),
    /// The kernel refuses a device of a configuration that was on trial.
    #[error("the network configuration does not come into force: {0}")]
    NotUp(String),
    /// A command that the start needs failed.
    #[error("the {command} in the network configuration failed: {reason}")]
    Command {
        /// Its name there.
        command: &'static str,
        /// Why.
        reason: String,
    },
}

/// Time as the node needs it.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since any fixed moment; never goes back.
    pub monotonic: Duration,
    /// The wall clock, for the expiry of leases.
    pub wall: UnixTime,
}
