//! The requests of one pod.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};

use crate::rtnl::{
    CHANGE, CREATE, RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, Socket, attribute, link_part,
    request, text_attribute,
};

/// The bridge of the node's pods, which is there before the first of them.
pub const BRIDGE: &str = "cni0";
/// The bridge's address, of a subnet of 24 bits: the pods' gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 7, 1);
/// The MTU of the bridge and of each pod's links, in bytes.
pub const MTU: u32 = 1450;
/// The pod network, which is routed through the gateway beside the default route.
const NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 244, 0, 0), 16);

/// Attributes of a link (linux/if_link.h).
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
/// Attributes of an address (linux/if_addr.h) and of a route (linux/rtnetlink.h).
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const AF_INET: u8 = 2;

/// Does what the environment says, as a plugin does: `CNI_COMMAND` (`ADD`, `DEL`, and `VERSION`, which does nothing),
/// `CNI_CONTAINERID` (any text, `-` and the pod's number, from which its address and its link's name follow),
/// `CNI_NETNS` and `CNI_IFNAME`.
///
/// # Errors
/// Fails when a variable is missing or wrong, or the kernel refuses.
pub fn run() -> Result<()> {
    let var = |name: &str| std::env::var(name).with_context(|| format!("{name} is missing"));
    let id = var("CNI_CONTAINERID")?;
    let number = id.rsplit('-').next().and_then(|text| text.parse().ok());
    let pod = Pod::of(
        number.context("a container id without a number")?,
        var("CNI_NETNS")?,
        var("CNI_IFNAME")?,
    );
    match var("CNI_COMMAND")?.as_str() {
        "ADD" => pod.add(),
        "DEL" => pod.del(),
        "VERSION" => Ok(()),
        other => bail!("the floor has no {other}"),
    }
}

/// One pod.
struct Pod {
    netns: String,
    link: String,
    host_link: String,
    address: Ipv4Addr,
}

impl Pod {
    fn of(number: u8, netns: String, link: String) -> Self {
        let [a, b, c, first] = GATEWAY.octets();
        let host = first.saturating_add(1).saturating_add(number);
        Self {
            netns,
            link,
            host_link: format!("veth{number}"),
            address: Ipv4Addr::new(a, b, c, host),
        }
    }

    /// Attaches a pod: the pair of links with its host end in the bridge, hairpin, the address and two routes.
    fn add(&self) -> Result<()> {
        let master = if_nametoindex(BRIDGE).context("looking for the bridge")?;
        let netns = open(&self.netns)?;
        let requests = [self.pair(master, netns.as_raw_fd()), self.hairpin()];
        Socket::open(0)?.apply(&requests)?;
        enter(&netns)?;
        self.configure()
    }

    /// Detaches a pod by deleting its end of the pair.
    fn del(&self) -> Result<()> {
        enter(&open(&self.netns)?)?;
        let index = if_nametoindex(self.link.as_str()).context("looking for the pod's link")?;
        Socket::open(0)?.apply(&[request(RTM_DELLINK, CHANGE, &link_part(index, false), &[])])
    }

    fn pair(&self, master: u32, netns: i32) -> Vec<u8> {
        let mtu = attribute(IFLA_MTU, &MTU.to_ne_bytes());
        let end = [
            link_part(0, false),
            text_attribute(IFLA_IFNAME, &self.link),
            mtu.clone(),
            attribute(IFLA_NET_NS_FD, &netns.to_ne_bytes()),
        ];
        let data = attribute(VETH_INFO_PEER, &end.concat());
        let info = [
            text_attribute(IFLA_INFO_KIND, "veth"),
            attribute(IFLA_INFO_DATA, &data),
        ];
        let attributes = [
            text_attribute(IFLA_IFNAME, &self.host_link),
            mtu,
            attribute(IFLA_MASTER, &master.to_ne_bytes()),
            attribute(IFLA_LINKINFO, &info.concat()),
        ];
        request(RTM_NEWLINK, CREATE, &link_part(0, true), &attributes)
    }

    /// The pod's side: its link up, its address, its routes.
    fn configure(&self) -> Result<()> {
        let index = if_nametoindex(self.link.as_str()).context("looking for the pod's link")?;
        let (network, length) = NETWORK;
        let routes = [(Ipv4Addr::UNSPECIFIED, 0), (network, length)];
        let mut batch = vec![
            request(RTM_NEWLINK, CHANGE, &link_part(index, true), &[]),
            address(index, self.address),
        ];
        batch.extend(routes.map(|(to, length)| route(index, to, length)));
        Socket::open(0)?.apply(&batch)
    }

    fn hairpin(&self) -> Vec<u8> {
        let info = [
            text_attribute(IFLA_INFO_SLAVE_KIND, "bridge"),
            attribute(IFLA_INFO_SLAVE_DATA, &attribute(IFLA_BRPORT_MODE, &[1])),
        ];
        let attributes = [
            text_attribute(IFLA_IFNAME, &self.host_link),
            attribute(IFLA_LINKINFO, &info.concat()),
        ];
        request(RTM_NEWLINK, CHANGE, &link_part(0, false), &attributes)
    }
}

fn address(index: u32, address: Ipv4Addr) -> Vec<u8> {
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let fixed = [&[AF_INET, 24, 0, 0], &index.to_ne_bytes()[..]].concat();
    let octets = address.octets();
    let attributes = [attribute(IFA_LOCAL, &octets), attribute(IFA_ADDRESS, &octets)];
    request(RTM_NEWADDR, CREATE, &fixed, &attributes)
}

fn route(index: u32, to: Ipv4Addr, length: u8) -> Vec<u8> {
    // struct rtmsg: family, lengths of destination and source, tos, table main, protocol boot, scope universe, unicast.
    let fixed = [AF_INET, length, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    let mut attributes = vec![
        attribute(RTA_GATEWAY, &GATEWAY.octets()),
        attribute(RTA_OIF, &index.to_ne_bytes()),
    ];
    if length > 0 {
        attributes.push(attribute(RTA_DST, &to.octets()));
    }
    request(RTM_NEWROUTE, CREATE, &fixed, &attributes)
}

fn open(netns: &str) -> Result<File> {
    File::open(netns).with_context(|| format!("opening {netns}"))
}

fn enter(netns: &File) -> Result<()> {
    setns(netns, CloneFlags::CLONE_NEWNET).context("entering the pod")
}
