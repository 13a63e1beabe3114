//! The kernel's own share of an attachment: the same objects as the plugins make, without a process, a configuration,
//! a file or a look at anything.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{UsageWho, getrusage};

use super::rtnl::{
    CHANGE, CREATE, RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, Socket, attribute, link_part,
    request, text_attribute,
};
use super::sample::{Sample, cpu_time};
use crate::lab::POD_LINK;

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

/// What every pod of the node has in common.
#[derive(Debug)]
pub(super) struct Floor {
    /// The node's network namespace.
    pub(super) node: File,
    /// The bridge, which is there already, and its address.
    pub(super) bridge: &'static str,
    pub(super) gateway: Ipv4Addr,
    /// The pod network, which is routed through the gateway beside the default route.
    pub(super) network: (Ipv4Addr, u8),
    pub(super) mtu: u32,
}

/// One pod.
#[derive(Debug, Clone)]
pub(super) struct FloorPod {
    pub(super) netns: String,
    pub(super) host_link: String,
    pub(super) address: Ipv4Addr,
}

impl Floor {
    /// Attaches a pod: the pair of links with its host end in the bridge, hairpin, the address and two routes. To be
    /// called on a thread in the node's namespaces.
    pub(super) fn add(&self, pod: &FloorPod) -> Result<Sample> {
        let master = if_nametoindex(self.bridge).context("looking for the bridge")?;
        timed(|| {
            let netns = open(&pod.netns)?;
            let requests = [self.pair(pod, master, netns.as_raw_fd()), hairpin(pod)];
            Socket::open(0)?.apply(&requests)?;
            self.within(&netns, || self.configure(pod))
        })
    }

    /// Detaches a pod by deleting its end of the pair.
    pub(super) fn del(&self, pod: &FloorPod) -> Result<Sample> {
        timed(|| {
            let netns = open(&pod.netns)?;
            self.within(&netns, || {
                let index = if_nametoindex(POD_LINK).context("looking for the pod's link")?;
                Socket::open(0)?.apply(&[request(RTM_DELLINK, CHANGE, &link_part(index, false), &[])])
            })
        })
    }

    fn pair(&self, pod: &FloorPod, master: u32, netns: i32) -> Vec<u8> {
        let mtu = attribute(IFLA_MTU, &self.mtu.to_ne_bytes());
        let end = [
            link_part(0, false),
            text_attribute(IFLA_IFNAME, POD_LINK),
            mtu.clone(),
            attribute(IFLA_NET_NS_FD, &netns.to_ne_bytes()),
        ];
        let data = attribute(VETH_INFO_PEER, &end.concat());
        let info = [
            text_attribute(IFLA_INFO_KIND, "veth"),
            attribute(IFLA_INFO_DATA, &data),
        ];
        let attributes = [
            text_attribute(IFLA_IFNAME, &pod.host_link),
            mtu,
            attribute(IFLA_MASTER, &master.to_ne_bytes()),
            attribute(IFLA_LINKINFO, &info.concat()),
        ];
        request(RTM_NEWLINK, CREATE, &link_part(0, true), &attributes)
    }

    /// The pod's side: its link up, its address, its routes.
    fn configure(&self, pod: &FloorPod) -> Result<()> {
        let index = if_nametoindex(POD_LINK).context("looking for the pod's link")?;
        let (network, length) = self.network;
        let routes = [(Ipv4Addr::UNSPECIFIED, 0), (network, length)];
        let mut batch = vec![
            request(RTM_NEWLINK, CHANGE, &link_part(index, true), &[]),
            address(index, pod.address),
        ];
        batch.extend(routes.map(|(to, length)| route(index, to, length, self.gateway)));
        Socket::open(0)?.apply(&batch)
    }

    fn within(&self, pod: &File, work: impl FnOnce() -> Result<()>) -> Result<()> {
        setns(pod, CloneFlags::CLONE_NEWNET).context("entering the pod")?;
        let done = work();
        setns(&self.node, CloneFlags::CLONE_NEWNET).context("returning to the node")?;
        done
    }
}

fn hairpin(pod: &FloorPod) -> Vec<u8> {
    let info = [
        text_attribute(IFLA_INFO_SLAVE_KIND, "bridge"),
        attribute(IFLA_INFO_SLAVE_DATA, &attribute(IFLA_BRPORT_MODE, &[1])),
    ];
    let attributes = [
        text_attribute(IFLA_IFNAME, &pod.host_link),
        attribute(IFLA_LINKINFO, &info.concat()),
    ];
    request(RTM_NEWLINK, CHANGE, &link_part(0, false), &attributes)
}

fn address(index: u32, address: Ipv4Addr) -> Vec<u8> {
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let fixed = [&[AF_INET, 24, 0, 0], &index.to_ne_bytes()[..]].concat();
    let octets = address.octets();
    let attributes = [attribute(IFA_LOCAL, &octets), attribute(IFA_ADDRESS, &octets)];
    request(RTM_NEWADDR, CREATE, &fixed, &attributes)
}

fn route(index: u32, to: Ipv4Addr, length: u8, gateway: Ipv4Addr) -> Vec<u8> {
    // struct rtmsg: family, lengths of destination and source, tos, table main, protocol boot, scope universe, unicast.
    let fixed = [AF_INET, length, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    let mut attributes = vec![
        attribute(RTA_GATEWAY, &gateway.octets()),
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

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Sample> {
    let usage = || getrusage(UsageWho::RUSAGE_THREAD).context("reading the thread's processor time");
    let before = cpu_time(&usage()?);
    let start = Instant::now();
    work()?;
    let wall = start.elapsed();
    let cpu = cpu_time(&usage()?).saturating_sub(before);
    Ok(Sample { wall, cpu })
}
