//! `flanneld check`: names in plain words what is wrong with this host, with or without a running daemon.
//!
//! [`Facts`] are read at the edges ([`read`]); every finding is a pure function of them. A fact that cannot be had, such
//! as the rules of a firewall that this user may not see, leads to no finding.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use flannel_types::{ALLOC_TYPE, HOST_GW_TYPE, IPIP_TYPE, SubnetEnv, VXLAN_TYPE, WIREGUARD_TYPE};
use net_types::IfName;
use net_types::registry::{
    IPIP_DEVICE, RTPROT_FLANNEL, VXLAN_DEVICE_PREFIX, VXLAN_PORT, VXLAN_V6_DEVICE_PREFIX, WIREGUARD_DEVICE,
    WIREGUARD_V6_DEVICE,
};
use netlink::WireguardReport;
use netlink::inventory::Inventory;
use netstate::{Ipip, Link, LinkKind, Route, State, Vxlan};
use serde::Serialize;

use crate::kernel_version::KernelVersion;
use crate::settings::{IPIP_OVERHEAD_BYTES, IPV6_OVERHEAD_BYTES, OVERHEAD_BYTES};
use crate::status::{DeviceStatus, PeerStatus, PeerWay, Status};

pub mod command;
mod daemon;
mod device;
mod host;
mod interface;
mod kernel;
mod leftovers;
mod path;
pub mod read;
#[cfg(test)]
mod tests;
mod wireguard;

/// The bridge of the plugins (flannel `meta/flannel`, default of `bridge`).
const BRIDGE: &str = "cni0";

/// What a packet of WireGuard adds over IPv4: IPv4 20, UDP 8, WireGuard 32.
const WIREGUARD_OVERHEAD_BYTES: u32 = 60;
/// The same over IPv6, whose header has 40.
const WIREGUARD_OVER_IPV6_BYTES: u32 = 80;

/// What is known of the host. Plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's release, as `uname -r`.
    pub kernel_release: String,
    /// Its version; none if the release is not one.
    pub kernel_version: Option<KernelVersion>,
    /// Parts of the kernel that are known to be absent, by the module's name.
    pub missing_modules: BTreeSet<&'static str>,
    /// Kernel parameters, by their path below `/proc/sys`.
    pub sysctls: BTreeMap<String, String>,
    /// Where the subnet file is expected.
    pub subnet_path: PathBuf,
    /// The subnet file: none, or what it says, or why it cannot be read.
    pub subnet_file: Option<Result<SubnetEnv, String>>,
    /// Links, addresses and default routes.
    pub inventory: Inventory,
    /// All links with their kinds, and the routes, neighbours and forwarding entries on them.
    pub state: State,
    /// What the WireGuard devices tell, whoever made them.
    pub wireguard: BTreeMap<IfName, WireguardReport>,
    /// UDP ports that anybody listens on or sends from.
    pub udp_ports: BTreeSet<u16>,
    /// Files with WireGuard's private key that others than their owner can use.
    pub loose_key_files: Vec<PathBuf>,
    /// When the facts were read, since 1970.
    pub now: Duration,
    /// Kernel driver of physical links.
    pub drivers: BTreeMap<IfName, String>,
    /// Packet filter rules as text, by the program that shows them.
    pub rules: BTreeMap<&'static str, String>,
    /// What else manages this host's network.
    pub managers: Managers,
    /// What the daemon tells, or why it does not.
    pub daemon: Result<(Status, Vec<PeerStatus>), String>,
    /// Whether some peers answer.
    pub probes: Vec<Probe>,
}

/// What else manages this host's network; `None` where it does not run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managers {
    /// systemd-networkd: whether it removes routes that it did not make.
    pub networkd_removes_routes: Option<bool>,
    /// NetworkManager: whether its configuration leaves flannel's device alone.
    pub network_manager_leaves_alone: Option<bool>,
    /// udev's policy for hardware addresses of flannel's device.
    pub mac_policy: Option<String>,
}

/// Whether a peer answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Its outer address.
    pub public_ip: Ipv4Addr,
    /// Whether it answered there.
    pub underlay: bool,
    /// Its end of the tunnel, where there is one, also if packets go there without it.
    pub tunnel: Option<TunnelEnd>,
}

/// Whether a peer answers on the overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelEnd {
    /// Its address on the overlay.
    pub vtep_ip: Ipv4Addr,
    /// Whether it answered there.
    pub answers: bool,
    /// How packets go there.
    pub way: PeerWay,
}

/// How packets get to the peers, as far as it decides what is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    /// Through VXLAN tunnels.
    Vxlan,
    /// Through WireGuard.
    Wireguard,
    /// Through tunnels of IP in IP.
    Ipip,
    /// By routes to the peers' own addresses.
    HostGw,
    /// Not by flannel's doing.
    Alloc,
    /// In a way that has no checks of its own.
    Other,
}

/// A device that is an end of tunnels.
#[derive(Clone, Copy)]
struct Device<'a> {
    name: &'a IfName,
    link: &'a Link,
    /// Outer source address.
    local: Option<IpAddr>,
    /// The interface that carries the outer packets.
    parent: Option<&'a IfName>,
    /// What the outer headers take.
    overhead_bytes: u32,
    /// Whether it carries packets of IPv6 alone.
    is_v6: bool,
    kind: DeviceKind,
}

/// What a device makes of packets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DeviceKind {
    /// VXLAN, to this UDP port.
    Vxlan { port: u16 },
    /// WireGuard, at this UDP port, if it is known.
    Wireguard { port: Option<u16> },
    /// IP in IP.
    Ipip,
}

impl DeviceKind {
    /// The UDP port at which packets for it come in.
    const fn port(self) -> Option<u16> {
        match self {
            Self::Vxlan { port } => Some(port),
            Self::Wireguard { port } => port,
            Self::Ipip => None,
        }
    }

    const fn is_wireguard(self) -> bool {
        matches!(self, Self::Wireguard { .. })
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Traffic does not flow, or pods cannot start.
    Error,
    /// It will break, or breaks for some.
    Warning,
    /// Worth knowing; nothing is wrong.
    Note,
}

/// Something that is wrong, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name, for scripts and searches.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub sentence: String,
    /// What to do.
    pub way_out: String,
}

impl Finding {
    fn new(id: &'static str, severity: Severity, sentence: String, way_out: impl Into<String>) -> Self {
        Self {
            id,
            severity,
            sentence,
            way_out: way_out.into(),
        }
    }

    fn error(id: &'static str, sentence: String, way_out: impl Into<String>) -> Self {
        Self::new(id, Severity::Error, sentence, way_out)
    }

    fn warning(id: &'static str, sentence: String, way_out: impl Into<String>) -> Self {
        Self::new(id, Severity::Warning, sentence, way_out)
    }

    fn note(id: &'static str, sentence: String, way_out: impl Into<String>) -> Self {
        Self::new(id, Severity::Note, sentence, way_out)
    }
}

/// Names what is wrong, the worst first.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let checks = [
        daemon::findings,
        kernel::findings,
        device::findings,
        interface::findings,
        path::findings,
        wireguard::findings,
        leftovers::findings,
        host::findings,
    ];
    let mut findings: Vec<_> = checks.iter().flat_map(|check| check(facts)).collect();
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// What several checks ask.
impl Facts {
    fn status(&self) -> Option<&Status> {
        self.daemon.as_ref().ok().map(|(status, _)| status)
    }

    fn peers(&self) -> &[PeerStatus] {
        self.daemon.as_ref().map_or(&[], |(_, peers)| peers.as_slice())
    }

    fn subnet_env(&self) -> Option<&SubnetEnv> {
        self.subnet_file.as_ref()?.as_ref().ok()
    }

    fn link(&self, name: &str) -> Option<(&IfName, &Link)> {
        self.state.links.iter().find(|(link, _)| link.as_str() == name)
    }

    /// Whether there is no trace of flannel: neither a daemon that answers nor anything that one would leave.
    fn is_no_node(&self) -> bool {
        self.daemon.is_err() && self.subnet_file.is_none() && self.backend().is_none()
    }

    /// What the daemon says of its backend, which it does once it holds its lease.
    fn told_backend(&self) -> Option<Backend> {
        let told = self.status()?.node.backend.as_ref()?;
        Some(match told.name.as_str() {
            VXLAN_TYPE => Backend::Vxlan,
            WIREGUARD_TYPE => Backend::Wireguard,
            IPIP_TYPE => Backend::Ipip,
            HOST_GW_TYPE => Backend::HostGw,
            ALLOC_TYPE => Backend::Alloc,
            _ => Backend::Other,
        })
    }

    /// The backend: as the daemon says, else as its devices and marked routes show; `None` where there is no trace of it.
    fn backend(&self) -> Option<Backend> {
        let is_marked = |route: &Route| route.protocol == RTPROT_FLANNEL && route.kind.link().is_some();
        let shown = || {
            if self.told_devices().next().is_some() || self.vxlans().next().is_some() {
                return Some(Backend::Vxlan);
            }
            if self.wireguards().next().is_some() {
                return Some(Backend::Wireguard);
            }
            if self.ipip().is_some() {
                return Some(Backend::Ipip);
            }
            let mut routes = self.state.routes.values();
            routes.any(is_marked).then_some(Backend::HostGw)
        };
        self.told_backend().or_else(shown)
    }

    /// The UDP ports of the tunnels, where there are or may be some.
    fn tunnel_ports(&self) -> BTreeSet<u16> {
        let may_be_vxlan = matches!(self.backend(), Some(Backend::Vxlan) | None);
        let devices = self.devices().into_iter();
        let of_devices = devices.filter_map(|device| device.kind.port());
        let told = self.told_devices().filter_map(|device| device.port);
        let mut ports: BTreeSet<_> = of_devices.chain(told).collect();
        if may_be_vxlan && ports.is_empty() {
            ports.insert(VXLAN_PORT);
        }
        ports
    }

    /// The VXLAN devices with flannel's names.
    fn vxlans(&self) -> impl Iterator<Item = (&IfName, &Link, &Vxlan)> {
        self.state
            .links
            .iter()
            .filter_map(|(name, link)| match &link.kind {
                LinkKind::Vxlan(vxlan) if is_flannels(name) => Some((name, link, vxlan)),
                LinkKind::Vxlan(_)
                | LinkKind::Wireguard
                | LinkKind::Ipip(_)
                | LinkKind::Bridge
                | LinkKind::Veth(_)
                | LinkKind::Other(_) => None,
            })
    }

    /// The WireGuard devices with flannel's names.
    fn wireguards(&self) -> impl Iterator<Item = (&IfName, &Link)> {
        let named = [WIREGUARD_DEVICE, WIREGUARD_V6_DEVICE].into_iter();
        let links = named.filter_map(|name| self.link(name));
        links.filter(|(_, link)| link.kind == LinkKind::Wireguard)
    }

    /// The device of IP in IP with flannel's name.
    fn ipip(&self) -> Option<(&IfName, &Link, &Ipip)> {
        let (name, link) = self.link(IPIP_DEVICE)?;
        match &link.kind {
            LinkKind::Ipip(ipip) => Some((name, link, ipip)),
            LinkKind::Vxlan(_)
            | LinkKind::Wireguard
            | LinkKind::Bridge
            | LinkKind::Veth(_)
            | LinkKind::Other(_) => None,
        }
    }

    /// The daemon's own devices, as it tells them.
    fn told_devices(&self) -> impl Iterator<Item = &DeviceStatus> {
        let node = self.status().map(|status| &status.node);
        node.into_iter()
            .flat_map(|node| node.device.iter().chain(&node.second_device))
    }

    /// The daemon's own devices; without a daemon the only one of each family with such a name.
    fn devices(&self) -> Vec<Device<'_>> {
        match self.backend() {
            Some(Backend::Vxlan) => {
                let devices = self.own_vxlans().into_iter();
                devices
                    .map(|(name, link, vxlan)| Device::of_vxlan(name, link, vxlan))
                    .collect()
            }
            Some(Backend::Wireguard) => {
                let is_told = |name: &IfName| self.told_devices().any(|told| told.name == name.as_str());
                let tells_none = self.told_devices().next().is_none();
                let own = self.wireguards().filter(|(name, _)| tells_none || is_told(name));
                own.map(|(name, link)| self.wireguard_device(name, link))
                    .collect()
            }
            Some(Backend::Ipip) => {
                let device = self.ipip().map(|(name, link, ipip)| Device {
                    name,
                    link,
                    local: ipip.local.map(IpAddr::V4),
                    parent: self.told_parent(name),
                    overhead_bytes: IPIP_OVERHEAD_BYTES,
                    is_v6: false,
                    kind: DeviceKind::Ipip,
                });
                device.into_iter().collect()
            }
            Some(Backend::HostGw | Backend::Alloc | Backend::Other) | None => Vec::new(),
        }
    }

    /// It sends from what the kernel chooses, over the family of its peers' endpoints.
    fn wireguard_device<'a>(&'a self, name: &'a IfName, link: &'a Link) -> Device<'a> {
        let report = self.wireguard.get(name);
        let told = self.told_devices().find(|told| told.name == name.as_str());
        let mut peers = report.into_iter().flat_map(|report| report.peers.values());
        let is_over_ipv6 = peers.any(|peer| peer.endpoint.is_some_and(|at| at.is_ipv6()));
        let port = report.map(|report| report.listen_port);
        Device {
            name,
            link,
            local: None,
            parent: self.told_parent(name),
            overhead_bytes: if is_over_ipv6 {
                WIREGUARD_OVER_IPV6_BYTES
            } else {
                WIREGUARD_OVERHEAD_BYTES
            },
            is_v6: name.as_str() == WIREGUARD_V6_DEVICE,
            kind: DeviceKind::Wireguard {
                port: port.or_else(|| told?.port),
            },
        }
    }

    fn own_vxlans(&self) -> Vec<(&IfName, &Link, &Vxlan)> {
        if self.told_devices().next().is_some() {
            let is_told = |name: &IfName| self.told_devices().any(|device| name.as_str() == device.name);
            return self.vxlans().filter(|(name, ..)| is_told(name)).collect();
        }
        let only = |of_v6: bool| {
            let is_v6 = |name: &IfName| name.as_str().starts_with(VXLAN_V6_DEVICE_PREFIX);
            let mut vxlans = self.vxlans().filter(move |(name, ..)| is_v6(name) == of_v6);
            let only = vxlans.next()?;
            vxlans.next().is_none().then_some(only)
        };
        [only(false), only(true)].into_iter().flatten().collect()
    }

    /// The interface below a device, as the daemon tells it.
    fn told_parent(&self, device: &IfName) -> Option<&IfName> {
        let told = self.told_devices().find(|told| told.name == device.as_str())?;
        self.link(&told.parent).map(|(name, _)| name)
    }

    /// The first of the daemon's own devices, IPv4's where there are two.
    fn device(&self) -> Option<Device<'_>> {
        self.devices().first().copied()
    }

    fn sysctl(&self, path: &str) -> Option<&str> {
        self.sysctls.get(path).map(String::as_str)
    }
}

impl<'a> Device<'a> {
    fn of_vxlan(name: &'a IfName, link: &'a Link, vxlan: &'a Vxlan) -> Self {
        let is_v6 = vxlan.local.is_some_and(|ip| ip.is_ipv6());
        Self {
            name,
            link,
            local: vxlan.local,
            parent: vxlan.parent.as_ref(),
            overhead_bytes: if is_v6 {
                IPV6_OVERHEAD_BYTES
            } else {
                OVERHEAD_BYTES
            },
            is_v6,
            kind: DeviceKind::Vxlan { port: vxlan.port },
        }
    }
}

fn is_flannels(name: &IfName) -> bool {
    let name = name.as_str();
    let vni = name
        .strip_prefix(VXLAN_V6_DEVICE_PREFIX)
        .or_else(|| name.strip_prefix(VXLAN_DEVICE_PREFIX));
    vni.is_some_and(|vni| vni.parse::<u32>().is_ok())
}
