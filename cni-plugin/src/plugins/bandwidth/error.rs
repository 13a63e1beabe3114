use cni_types::Code;
use netstate::KernelError;

use crate::error::CniError;

/// Why a container's bandwidth cannot be limited, or isn't as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BandwidthError {
    #[error("cannot open the kernel's traffic control")]
    Open(#[source] KernelError),
    #[error("cannot list the host's devices")]
    List(#[source] KernelError),
    #[error("cannot look at {link:?} in {place}")]
    Look {
        link: String,
        place: String,
        #[source]
        source: KernelError,
    },
    #[error("cannot {what} {link:?}")]
    Change {
        what: &'static str,
        link: String,
        #[source]
        source: KernelError,
    },
    #[error("container interface {ifname:?} is missing in {netns:?}")]
    NoInterface { ifname: String, netns: String },
    #[error("container interface {0:?} has no veth peer; bandwidth can limit pairs of interfaces only")]
    NoPeer(String),
    #[error("the veth peer of container interface {0:?} is not among the host interfaces of prevResult")]
    PeerElsewhere(String),
    #[error("{link:?} already has {what}; remove it")]
    Taken { link: String, what: String },
    #[error("devices {0} belong to others; remove one of them")]
    NamesTaken(String),
    #[error("{link:?} has {what}, expected {expected}")]
    Different {
        link: String,
        what: String,
        expected: String,
    },
}

impl CniError for BandwidthError {
    fn code(&self) -> Code {
        match self {
            Self::NoPeer(_) => Code::BAD_CONFIG,
            Self::Open(_) | Self::List(_) | Self::Look { .. } | Self::Change { .. } => Code::KERNEL,
            Self::NoInterface { .. } | Self::PeerElsewhere(_) | Self::Taken { .. } | Self::NamesTaken(_) => {
                Code::CONFLICT
            }
            Self::Different { .. } => Code::CHECK_FAILED,
        }
    }
}
