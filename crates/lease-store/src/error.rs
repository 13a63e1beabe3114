use std::net::IpAddr;

use flannel_types::NetConfError;
use net_types::SubnetKey;

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no network configuration.
    #[error("flannel config not found in {place}: write the network configuration there")]
    ConfigMissing {
        /// Where it should be.
        place: String,
    },
    /// There is no directory of leases.
    #[error(
        "there is no directory {place}: make it, and write the network configuration to the file config in it"
    )]
    DirectoryMissing {
        /// Where it should be.
        place: String,
    },
    /// The network configuration cannot be used.
    #[error("cannot use the network configuration in {place}")]
    BadConfig {
        /// Where it is.
        place: String,
        /// The rule that it breaks.
        #[source]
        source: NetConfError,
    },
    /// The store does not answer.
    #[error("cannot reach {place}")]
    Unreachable {
        /// The part of the store that was asked.
        place: String,
        /// The answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store refuses to be used by this process.
    #[error("cannot use {place}: this process must be able to read and write it")]
    Denied {
        /// The part of the store that was asked.
        place: String,
        /// The answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is there is no text of a sensible size.
    #[error("cannot use {place}: put a file of the right form there")]
    Unusable {
        /// The part of the store that was asked.
        place: String,
        /// What it is.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store has not been given yet what this node needs of it.
    #[error("waiting for {place}")]
    NotYet {
        /// What is to come.
        place: String,
        /// What there is instead.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What the store holds for this node does not fit its configuration.
    #[error("cannot use {place}")]
    Unfit {
        /// What it holds.
        place: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An entry is not what it should be.
    #[error("{place} is malformed: {why}; restore it, or remove it to free its subnet")]
    Malformed {
        /// The entry.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// Every subnet is taken; the text is Flannel's.
    #[error("out of subnets")]
    OutOfSubnets,
    /// Another node was faster.
    #[error("the subnet {0} was taken by another node in the same moment")]
    Conflict(SubnetKey),
    /// The node's lease is gone.
    #[error("the lease of {key} {}", .holder.map_or_else(|| "is gone".to_owned(), |ip| format!("belongs to {ip}")))]
    Lost {
        /// The subnet.
        key: SubnetKey,
        /// Whose lease it is instead; `None` if nobody's.
        holder: Option<IpAddr>,
    },
}

/// What can be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// Trying again later may succeed by itself.
    Retry,
    /// Nothing changes until a person acts.
    Fatal,
    /// The lease must be acquired anew.
    Lost,
}

impl StoreError {
    /// What can be done about the error.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::ConfigMissing { .. }
            | Self::DirectoryMissing { .. }
            | Self::Unreachable { .. }
            | Self::NotYet { .. }
            | Self::Conflict(_) => ErrorClass::Retry,
            Self::BadConfig { .. }
            | Self::Denied { .. }
            | Self::Unusable { .. }
            | Self::Unfit { .. }
            | Self::Malformed { .. }
            | Self::OutOfSubnets => ErrorClass::Fatal,
            Self::Lost { .. } => ErrorClass::Lost,
        }
    }
}
