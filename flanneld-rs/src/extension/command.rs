//! A command of the administrator's, with what it is told.

use std::fmt;
use std::time::Duration;

use net_types::SubnetKey;

use super::Facts;

/// How long a command at the start may take.
const START_MAX: Duration = Duration::from_secs(300);
/// How long a command for a peer may take, which the other peers' wait for.
const PEER_MAX: Duration = Duration::from_secs(60);

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// As the network configuration has it; where it is blank nothing is run.
    pub line: String,
    /// What it is for.
    pub job: Job,
}

/// What a command is for, with what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// What this node has to have before it gets a lease; what the command prints goes into the lease.
    PreStartup,
    /// What this node has to have once it knows its subnet.
    PostStartup(OwnFacts),
    /// The way to a peer.
    SubnetAdd {
        /// The peer's lease.
        lease: SubnetKey,
        /// What the command is told.
        facts: Facts,
    },
    /// The end of that way.
    SubnetRemove {
        /// The peer's lease, which is gone, or is otherwise.
        lease: SubnetKey,
        /// What the command is told: the same as the one that made the way.
        facts: Facts,
        /// Whether the lease is forgotten even if the command fails.
        is_last: bool,
    },
}

/// What a command said that did its work.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// On its standard output, without white space around it.
    pub output: String,
    /// The end of all that it printed, for the log.
    pub words: String,
}

/// What the command at the start is told, all in words; what the lease has not is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnFacts {
    /// IPv4's pod network.
    pub network: String,
    /// IPv4's subnet of this node.
    pub subnet: String,
    /// IPv6's subnet of this node.
    pub ipv6_subnet: String,
    /// This node's address in IPv4.
    pub public_ip: String,
    /// This node's address in IPv6.
    pub public_ipv6: String,
}

impl Command {
    /// Whether nothing is run.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.line.trim().is_empty()
    }
}

impl Job {
    /// The command's name in the network configuration.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PreStartup => "PreStartupCommand",
            Self::PostStartup(_) => "PostStartupCommand",
            Self::SubnetAdd { .. } => "SubnetAddCommand",
            Self::SubnetRemove { .. } => "SubnetRemoveCommand",
        }
    }

    /// The peer's lease that it is for, if it is for one.
    #[must_use]
    pub const fn lease(&self) -> Option<SubnetKey> {
        match self {
            Self::PreStartup | Self::PostStartup(_) => None,
            Self::SubnetAdd { lease, .. } | Self::SubnetRemove { lease, .. } => Some(*lease),
        }
    }

    /// The variables of its environment (flannel `pkg/backend/extension`). What upstream's documentation says of IPv6
    /// holds here for a peer's commands too, where upstream's daemon leaves it out.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::PreStartup => Vec::new(),
            Self::PostStartup(own) => vec![
                ("NETWORK", own.network.as_str()),
                ("SUBNET", own.subnet.as_str()),
                ("IPV6SUBNET", own.ipv6_subnet.as_str()),
                ("PUBLIC_IP", own.public_ip.as_str()),
                ("PUBLIC_IPV6", own.public_ipv6.as_str()),
            ],
            Self::SubnetAdd { facts, .. } | Self::SubnetRemove { facts, .. } => vec![
                ("SUBNET", facts.subnet.as_str()),
                ("IPV6SUBNET", facts.ipv6_subnet.as_str()),
                ("PUBLIC_IP", facts.public_ip.as_str()),
                ("PUBLIC_IPV6", facts.public_ipv6.as_str()),
            ],
        }
    }

    /// What is on its standard input: the peer's data, on a line.
    #[must_use]
    pub fn input(&self) -> String {
        let data = match self {
            Self::PreStartup | Self::PostStartup(_) => "",
            Self::SubnetAdd { facts, .. } | Self::SubnetRemove { facts, .. } => &facts.data,
        };
        format!("{data}\n")
    }

    /// How long it may take.
    #[must_use]
    pub const fn limit(&self) -> Duration {
        match self {
            Self::PreStartup | Self::PostStartup(_) => START_MAX,
            Self::SubnetAdd { .. } | Self::SubnetRemove { .. } => PEER_MAX,
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lease() {
            Some(lease) => write!(f, "{} for {lease}", self.name()),
            None => f.write_str(self.name()),
        }
    }
}
