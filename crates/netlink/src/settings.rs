//! Settings of a link that exists, whatever its kind and whoever made it: what a plan does not make, but change.

use std::fmt;

use net_types::{IfName, MacAddr};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use netstate::{ErrorClass, KernelError};

use crate::attr::find;
use crate::errno::{no_link, other};
use crate::raw::Requests;
use crate::{RealKernel, decode, encode};

/// The settings of a link at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSettings {
    /// Hardware address, of a link that has one of 48 bits.
    pub mac: Option<MacAddr>,
    /// Largest payload in bytes.
    pub mtu_bytes: u32,
    /// Whether an administrator made it take in every frame (`IFF_PROMISC`); that a bridge or a capture also asks for
    /// this does not count.
    pub promiscuous: bool,
    /// Whether an administrator made it take in every multicast frame (`IFF_ALLMULTI`).
    pub all_multicast: bool,
    /// Length of the transmit queue in packets.
    pub tx_queue_len: u32,
}

/// One setting of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkSetting {
    /// Hardware address.
    Mac(MacAddr),
    /// Largest payload in bytes.
    MtuBytes(u32),
    /// Whether it takes in every frame.
    Promiscuous(bool),
    /// Whether it takes in every multicast frame.
    AllMulticast(bool),
    /// Length of the transmit queue in packets.
    TxQueueLen(u32),
}

impl fmt::Display for LinkSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = |on: bool| if on { "on" } else { "off" };
        match self {
            Self::Mac(mac) => write!(f, "hardware address {mac}"),
            Self::MtuBytes(mtu_bytes) => write!(f, "MTU {mtu_bytes}"),
            Self::Promiscuous(on) => write!(f, "promiscuous mode {}", state(*on)),
            Self::AllMulticast(on) => write!(f, "reception of every multicast frame {}", state(*on)),
            Self::TxQueueLen(packets) => write!(f, "transmit queue of {packets} packets"),
        }
    }
}

impl LinkSettings {
    /// Whether a setting is as here.
    #[must_use]
    pub fn has(&self, setting: LinkSetting) -> bool {
        match setting {
            LinkSetting::Mac(mac) => self.mac == Some(mac),
            LinkSetting::MtuBytes(mtu_bytes) => self.mtu_bytes == mtu_bytes,
            LinkSetting::Promiscuous(on) => self.promiscuous == on,
            LinkSetting::AllMulticast(on) => self.all_multicast == on,
            LinkSetting::TxQueueLen(len) => self.tx_queue_len == len,
        }
    }
}

impl RealKernel {
    /// Reads the settings of a link.
    ///
    /// # Errors
    /// There is no such link, or it cannot be read.
    pub fn link_settings(&mut self, link: &IfName) -> Result<LinkSettings, KernelError> {
        let answer = match self.socket.ask_one(encode::link_by_name(link)) {
            Ok(answer) => answer,
            Err(e) if e.class == ErrorClass::NoDevice => return Err(no_link(link)),
            Err(e) => return Err(e),
        };
        let RouteNetlinkMessage::NewLink(message) = answer else {
            return Err(other(
                "the kernel answered a question about a link with something else",
            ));
        };
        let raw =
            decode::link(&message).ok_or_else(|| other("the kernel described a link without a name"))?;
        let tx_queue_len = find!(message.attributes, LinkAttribute::TxQueueLen);
        Ok(LinkSettings {
            mac: raw.link.mac,
            mtu_bytes: raw.link.mtu_bytes.unwrap_or(0),
            promiscuous: message.header.flags.contains(LinkFlags::Promisc),
            all_multicast: message.header.flags.contains(LinkFlags::Allmulti),
            tx_queue_len: tx_queue_len.copied().unwrap_or(0),
        })
    }

    /// Changes settings of a link in order; the answer has one result for each. One failure does not stop the others.
    pub fn set_link(&mut self, link: &IfName, settings: &[LinkSetting]) -> Vec<Result<(), KernelError>> {
        let mut requests = Requests::default();
        for setting in settings {
            let request = match setting {
                LinkSetting::Mac(mac) => encode::set_mac(link, *mac),
                LinkSetting::MtuBytes(mtu_bytes) => encode::set_mtu(link, *mtu_bytes),
                LinkSetting::Promiscuous(on) => encode::set_flag(link, LinkFlags::Promisc, *on),
                LinkSetting::AllMulticast(on) => encode::set_flag(link, LinkFlags::Allmulti, *on),
                LinkSetting::TxQueueLen(len) => encode::set_tx_queue_len(link, *len),
            };
            requests.push_route(request.message, request.flags);
        }
        self.socket.change(&mut requests)
    }
}
