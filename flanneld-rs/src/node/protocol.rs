//! What goes into a node and what comes out of it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use flannel_types::{Lease, LeaseAttrs, NetConf, PublicAddrs, SubnetEnv, UnixTime};
use ipnetwork::Ipv4Network;
use lease_store::{ErrorClass, LeaseEvent, StoreError};
use net_types::{IfName, MacAddr, Vni, sentence};
use netstate::{KernelError, Spot, State};

use crate::desired::RuleSettings;
use crate::reconciler::Work;

/// What is fixed for the life of the daemon.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the VXLAN device.
    pub device: IfName,
    /// Network identifier.
    pub vni: Vni,
    /// UDP destination port.
    pub port: u16,
    /// Whether the device learns forwarding entries.
    pub learning: bool,
    /// Whether the device has the group-based policy extension.
    pub gbp: bool,
    /// MTU of the device and of the pods, in bytes.
    pub mtu_bytes: u32,
    /// The interface that carries the outer packets.
    pub parent: IfName,
    /// Outer source address.
    pub local: Ipv4Addr,
    /// The address at which peers reach this node.
    pub public_ip: Ipv4Addr,
    /// The pod network.
    pub network: Ipv4Network,
    /// The configuration that the above was taken from.
    pub conf: NetConf,
    /// The MAC address of the device, unless the device or the stored lease has one.
    pub random_mac: MacAddr,
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
}

impl Settings {
    /// The addresses by which the store knows this node.
    #[must_use]
    pub const fn public_addrs(&self) -> PublicAddrs {
        PublicAddrs {
            v4: Some(self.public_ip),
            v6: None,
        }
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
    /// End the daemon and leave the kernel as it is.
    Stop(StopReason),
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
}

/// Time as the node needs it.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since any fixed moment; never goes back.
    pub monotonic: Duration,
    /// The wall clock, for the expiry of leases.
    pub wall: UnixTime,
}
