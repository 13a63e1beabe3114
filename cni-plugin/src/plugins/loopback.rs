//! The plugin `loopback`: the container's loopback interface, up. Runtimes call it for every container, beside the
//! network's own plugins.
//!
//! It works on `lo` whatever `CNI_IFNAME` says, as the reference does. All that it makes is in the container's
//! namespace and goes with that, so nothing is left to collect, and a DEL does nothing:
//! the namespace may be another container's by then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_types::{AddResult, Code, Interface, IpConfig, NetConf};
use ipnetwork::IpNetwork;
use net_types::IfName;
use netlink::{NetnsError, RealKernel};
use netstate::{AdminState, ErrorClass, Kernel, KernelError, LinkChange, LinkScope, Op, Scope};

use crate::error::{CniError, Failure};
use crate::sandbox::Sandbox;

/// The interface's name in every namespace (linux `loopback.c`).
const NAME: &str = "lo";

/// The hardware address that the kernel reports for it.
const MAC: &str = "00:00:00:00:00:00";

#[derive(Debug, thiserror::Error)]
enum LoopbackError {
    #[error("cannot enter network namespace {path:?}")]
    Enter {
        path: String,
        #[source]
        source: NetnsError,
    },
    #[error("cannot {what} the loopback interface of {path:?}")]
    Kernel {
        what: &'static str,
        path: String,
        #[source]
        source: KernelError,
    },
    #[error("network namespace {0:?} has no loopback interface")]
    Absent(String),
    #[error("the loopback interface has address {0}, which is not a loopback address; remove it")]
    Address(IpNetwork),
    #[error("the loopback interface of {0:?} is down")]
    Down(String),
    #[error("the loopback interface does not have address {0}")]
    AddressGone(IpNetwork),
}

impl CniError for LoopbackError {
    fn code(&self) -> Code {
        match self {
            Self::Enter { .. } => Code::BAD_NETNS,
            Self::Kernel { .. } | Self::Absent(_) => Code::KERNEL,
            Self::Address(_) => Code::CONFLICT,
            Self::Down(_) | Self::AddressGone(_) => Code::CHECK_FAILED,
        }
    }
}

/// Sets the interface up. The result is the previous plugin's, or lists the interface with its addresses.
pub(crate) fn add(conf: &NetConf, sandbox: &Sandbox) -> Result<AddResult, Failure> {
    let given = conf.prev_result().map(AddResult::parse).transpose()?;
    let mut lo = Loopback::open(sandbox)?;
    let before = lo.look()?;
    let mut foreign = before.addrs.iter().filter(|addr| !addr.ip().is_loopback());
    if let Some(address) = foreign.next() {
        return Err(LoopbackError::Address(*address).into());
    }
    let after = match before.admin {
        AdminState::Up => before,
        AdminState::Down => {
            lo.set(AdminState::Up)?;
            lo.look()?
        }
    };
    Ok(given.unwrap_or_else(|| result_of(&after, &sandbox.path)))
}

/// Fails if the interface is down, or lacks an address that the result names.
pub(crate) fn check(conf: &NetConf, sandbox: &Sandbox) -> Result<(), Failure> {
    let given = conf.prev_result().map(AddResult::parse).transpose()?;
    let observed = Loopback::open(sandbox)?.look()?;
    if observed.admin == AdminState::Down {
        return Err(LoopbackError::Down(sandbox.path.clone()).into());
    }
    let result = given.unwrap_or_default();
    let Some((position, _)) = result.container_interface(NAME) else {
        return Ok(());
    };
    let position = i64::try_from(position).ok();
    let mut expected = result.ips.iter().filter(|ip| ip.interface == position);
    match expected.find(|ip| !observed.addrs.contains(&ip.address)) {
        Some(gone) => Err(LoopbackError::AddressGone(gone.address).into()),
        None => Ok(()),
    }
}

/// The container's loopback interface.
struct Loopback<'a> {
    kernel: RealKernel,
    name: IfName,
    sandbox: &'a Sandbox,
}

struct Observed {
    admin: AdminState,
    addrs: Vec<IpNetwork>,
}

impl<'a> Loopback<'a> {
    fn open(sandbox: &'a Sandbox) -> Result<Self, LoopbackError> {
        let netns = sandbox.netns.try_clone().map_err(|source| LoopbackError::Enter {
            path: sandbox.path.clone(),
            source,
        })?;
        let kernel = RealKernel::open_in(netns).map_err(failed("open", sandbox))?;
        let name = IfName::new(NAME).map_err(|_| LoopbackError::Absent(sandbox.path.clone()))?;
        Ok(Self {
            kernel,
            name,
            sandbox,
        })
    }

    fn look(&mut self) -> Result<Observed, LoopbackError> {
        let content = LinkScope {
            addrs_inside: every_address(),
            ..LinkScope::default()
        };
        let scope = Scope {
            links: [(self.name.clone(), content)].into(),
            ..Scope::default()
        };
        let state = self
            .kernel
            .observe(&scope)
            .map_err(failed("look at", self.sandbox))?;
        let link = state.links.get(&self.name);
        let link = link.ok_or_else(|| LoopbackError::Absent(self.sandbox.path.clone()))?;
        Ok(Observed {
            admin: link.admin,
            addrs: state.addrs.keys().map(|key| key.addr).collect(),
        })
    }

    fn set(&mut self, admin: AdminState) -> Result<(), LoopbackError> {
        let op = Op::SetLink(self.name.clone(), LinkChange::Admin(admin));
        match self.kernel.apply(&[op]).pop() {
            Some(Err(source)) if source.class != ErrorClass::NoDevice => {
                Err(failed("set the state of", self.sandbox)(source))
            }
            Some(Ok(()) | Err(_)) | None => Ok(()),
        }
    }
}

fn failed<'a>(what: &'static str, sandbox: &'a Sandbox) -> impl FnOnce(KernelError) -> LoopbackError + 'a {
    move |source| LoopbackError::Kernel {
        what,
        path: sandbox.path.clone(),
        source,
    }
}

/// The interface with the first address of each family.
fn result_of(observed: &Observed, path: &str) -> AddResult {
    let of_family = |v4: bool| observed.addrs.iter().find(move |addr| addr.is_ipv4() == v4);
    let ips = [of_family(true), of_family(false)].into_iter().flatten();
    AddResult {
        interfaces: vec![Interface {
            name: NAME.to_owned(),
            mac: Some(MAC.to_owned()),
            sandbox: Some(path.to_owned()),
            ..Interface::default()
        }],
        ips: ips
            .map(|address| IpConfig {
                interface: Some(0),
                ..IpConfig::new(*address, None)
            })
            .collect(),
        ..AddResult::default()
    }
}

fn every_address() -> Vec<IpNetwork> {
    let any = [
        IpNetwork::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        IpNetwork::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    ];
    any.into_iter().flatten().collect()
}
