use std::net::Ipv4Addr;

use net_types::IfName;
use netstate::{Ipip, LinkKind};

use crate::namespace::Namespace;
use crate::refusal::{Answer, exists, unsupported};

impl Namespace {
    /// Two end points without a remote or a link of their own, as all are here, must differ by their local address (linux
    /// `ip_tunnel.c`, `ip_tunnel_find`).
    pub(crate) fn check_new_ipip(&self, ipip: &Ipip) -> Answer {
        let wanted = LinkKind::Ipip(ipip.clone());
        let is_taken = self.links.values().any(|device| device.link.kind == wanted);
        if is_taken {
            return Err(exists("a tunnel of IP in IP has this local address"));
        }
        Ok(())
    }

    pub(crate) fn set_ipip_local(&mut self, name: &IfName, local: Ipv4Addr) -> Answer {
        let wanted = Ipip { local: Some(local) };
        let held = self.device(name)?.link.kind.clone();
        match held {
            LinkKind::Ipip(held) if held == wanted => return Ok(()),
            LinkKind::Ipip(_) => self.check_new_ipip(&wanted)?,
            LinkKind::Vxlan(_)
            | LinkKind::Wireguard
            | LinkKind::Bridge
            | LinkKind::Veth(_)
            | LinkKind::Other(_) => return Err(unsupported("the link is no tunnel of IP in IP")),
        }
        self.device_mut(name)?.link.kind = LinkKind::Ipip(wanted);
        Ok(())
    }
}
