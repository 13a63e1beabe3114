//! Kernel parameters that the kernel also tells, or takes, by netlink.
//!
//! Every file below `/proc/sys/net` is searched for among the directories of all network namespaces on the host (linux
//! `proc_sysctl.c`, `proc_sys_compare`): 40 µs with a few of them, 200 µs with 200 (measured, Linux 6.18).

use std::collections::BTreeSet;

use net_types::IfName;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, InetDevConf, LinkAttribute, LinkMessage,
};
use netstate::{KernelError, SysctlKey};

use crate::attr::find;
use crate::encode::{Request, change_family};
use crate::raw::Requests;
use crate::socket::Socket;
use crate::tlv::{self, Attributes};

const ARP_NOTIFY: &str = "arp_notify";

/// `RTM_GETNETCONF`, and its attributes (linux `include/uapi/linux/netconf.h`); the link "all" has a number of its own.
const RTM_GETNETCONF: u16 = 82;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const ALL: i32 = -1;
/// Length of `struct netconfmsg` with its padding.
const NETCONF_HEADER_LEN: usize = 4;

/// The parameters that the description of a link holds; none of a family that the link does not have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DevConf {
    arp_notify: Option<i32>,
    accept_dad: Option<i32>,
    accept_ra: Option<i32>,
}

impl DevConf {
    pub(crate) fn of(message: &LinkMessage) -> Self {
        let families: &[AfSpecUnspec] =
            find!(message.attributes, LinkAttribute::AfSpecUnspec).map_or(&[], Vec::as_slice);
        let v4 = find!(families, AfSpecUnspec::Inet).and_then(|conf| find!(conf, AfSpecInet::DevConf));
        let v6 = find!(families, AfSpecUnspec::Inet6).and_then(|conf| find!(conf, AfSpecInet6::DevConf));
        Self {
            arp_notify: v4.map(|conf| conf.arp_notify),
            accept_dad: v6.map(|conf| conf.accept_dad),
            accept_ra: v6.map(|conf| conf.accept_ra),
        }
    }

    /// Those of the wanted parameters that are the link's, with their values.
    pub(crate) fn told(self, link: &IfName, wanted: &BTreeSet<SysctlKey>) -> Vec<(SysctlKey, String)> {
        let of_link = wanted.iter().filter_map(|key| {
            let (family, of, parameter) = key.link_parts()?;
            let value = match (family, parameter) {
                ("ipv4", ARP_NOTIFY) => self.arp_notify,
                ("ipv6", "accept_dad") => self.accept_dad,
                ("ipv6", "accept_ra") => self.accept_ra,
                _ => None,
            };
            (of == link.as_str()).then_some((key.clone(), value?.to_string()))
        });
        of_link.collect()
    }
}

/// The value of a parameter of the whole namespace, if it is one that the kernel tells.
pub(crate) fn ask(socket: &mut Socket, key: &SysctlKey) -> Option<String> {
    let family = match key.as_str() {
        "net/ipv4/ip_forward" | "net/ipv4/conf/all/forwarding" => AddressFamily::Inet,
        "net/ipv6/conf/all/forwarding" => AddressFamily::Inet6,
        _ => return None,
    };
    // A kernel that does not answer has the file.
    forwarding(socket, family)
        .ok()
        .flatten()
        .map(|value| value.to_string())
}

fn forwarding(socket: &mut Socket, family: AddressFamily) -> Result<Option<i32>, KernelError> {
    let mut question = Attributes::after(&[u8::from(family), 0, 0, 0]);
    question.put(NETCONFA_IFINDEX, &ALL.to_ne_bytes());
    let Ok(payload) = question.finish() else {
        return Ok(None);
    };
    let mut requests = Requests::default();
    requests.push(RTM_GETNETCONF, 0, &payload);
    let answers = socket.ask_raw(&mut requests, |frame| {
        let attributes = frame.payload.get(NETCONF_HEADER_LEN..).unwrap_or(&[]);
        let value = tlv::attribute(attributes, NETCONFA_FORWARDING);
        Ok(value
            .and_then(|value| value.try_into().ok())
            .map(i32::from_ne_bytes))
    })?;
    answers.into_iter().next().unwrap_or(Ok(None))
}

/// The link whose `arp_notify` a change is to set, and the request for it; the library has none that sets zero.
pub(crate) fn set(key: &SysctlKey, value: &str) -> Option<(IfName, Request)> {
    let (family, link, parameter) = key.link_parts()?;
    let value: i32 = value.parse().ok().filter(|value| *value != 0)?;
    let name = IfName::new(link).ok()?;
    (family == "ipv4" && parameter == ARP_NOTIFY).then(|| {
        let mut conf = InetDevConf::default();
        conf.arp_notify = value;
        let conf = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(conf)]);
        let request = change_family(&name, conf);
        (name, request)
    })
}
