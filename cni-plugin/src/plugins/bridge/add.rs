use cni_types::{AddResult, Dns, Interface, NetConf, Target};
use net_types::MacAddr;

use super::conf::Conf;
use super::del;
use super::desired::{self, Attachment};
use super::guards::{Guarded, Guards};
use super::host::{Attached, Host, Made, Request};
use super::kernel::LinkError;
use super::names::{HostVeth, mac, mac_of_holder};
use super::pod::Pod;
use crate::context::Context;
use crate::error::Failure;
use crate::plugins::ipam::{Earlier, Ipam};
use crate::sandbox::Sandbox;

/// Fails if an ADD would, by its configuration alone.
pub(crate) fn validate(context: &Context<'_>, conf: &NetConf) -> Result<(), Failure> {
    Conf::parse(conf, &context.env.args)?;
    Guards::parse(conf)?;
    Ipam::of(conf)?;
    Ok(())
}

/// Attaches a container to the bridge. A failure leaves nothing behind.
pub(crate) fn add(
    context: &Context<'_>,
    conf: &NetConf,
    target: &Target,
    sandbox: &Sandbox,
    earlier: Earlier,
) -> Result<AddResult, Failure> {
    let mut work = Add {
        own: Conf::parse(conf, &context.env.args)?,
        guards: Guards::parse(conf)?,
        dns: conf.dns()?,
        context,
        conf,
        target,
        sandbox,
        veth: HostVeth::of(&conf.name, target),
        host: Host::open()?,
    };
    let ipam = Ipam::of(conf)?;
    if ipam == Ipam::None {
        desired::check_form(conf, &AddResult::default(), false)?;
    }
    let mut pod = Pod::without(sandbox, &target.ifname)?;
    work.host.refuse_attached(&work.veth, target)?;
    let given = ipam.add(context, conf, target, earlier)?;
    work.attach(&mut pod, &ipam, &given).map_err(|mut failure| {
        if let Err(e) = ipam.del(context, conf, target, &given.addresses()) {
            failure.append_details(&e.msg);
        }
        failure
    })
}

/// One ADD under way.
struct Add<'a> {
    context: &'a Context<'a>,
    conf: &'a NetConf,
    own: Conf,
    guards: Guards,
    dns: Dns,
    target: &'a Target,
    sandbox: &'a Sandbox,
    veth: HostVeth,
    host: Host,
}

impl Add<'_> {
    /// Makes the interfaces, or nothing.
    fn attach(&mut self, pod: &mut Pod<'_>, ipam: &Ipam, given: &AddResult) -> Result<AddResult, Failure> {
        desired::check_form(self.conf, given, *ipam != Ipam::None)?;
        let ifname = &self.target.ifname;
        let attachment = Attachment::new(&self.own, ifname, given, self.veth.container_mac)?;
        let mut made = Made::default();
        let attached = self.make(&attachment, pod, &mut made).map_err(Failure::from);
        let guarded = attached.and_then(|(attached, attachment)| {
            self.guard(&attachment, &attached)?;
            Ok((attached, attachment))
        });
        let (attached, attachment) = guarded.map_err(|mut failure| {
            if let Err(e) = self.host.undo(&self.veth, &made) {
                failure.add_details(&e);
            }
            failure
        })?;
        Ok(self.result(&attachment, &attached, given))
    }

    fn make(
        &mut self,
        attachment: &Attachment,
        pod: &mut Pod<'_>,
        made: &mut Made,
    ) -> Result<(Attached, Attachment), LinkError> {
        let netns = self.sandbox.netns.try_clone().map_err(LinkError::Enter)?;
        let gateway = attachment.gateways.first();
        let request = Request {
            own: &self.own,
            attachment,
            veth: &self.veth,
            bridge_mac: gateway.map_or_else(|| mac(self.context.random), |ip| mac_of_holder(*ip)),
        };
        let attached = self.host.attach(&request, netns, made)?;
        let skipped = pod.configure(&attachment.pod())?;
        self.host.wait_until_up(&attached.veth, attachment)?;
        pod.wait_until_up(attachment)?;
        Ok((attached, attachment.without_routes(&skipped)))
    }

    /// Makes the packet filter's rules, or none.
    fn guard(&self, attachment: &Attachment, attached: &Attached) -> Result<(), Failure> {
        let addresses: Vec<_> = attachment.ips.iter().map(|ip| ip.address).collect();
        let made = self.guards.setup(&Guarded {
            network: &self.conf.name,
            target: self.target,
            addresses: &addresses,
            interface: &attached.veth,
            mac: attachment.mac,
        });
        made.map_err(|mut failure| {
            if let Err(e) = del::remove_rules(self.conf, self.target) {
                failure.append_details(&e.msg);
            }
            failure
        })
    }

    /// The result in the reference's order: bridge, host interface, container interface, the gateway's in a VLAN.
    fn result(&self, attachment: &Attachment, attached: &Attached, given: &AddResult) -> AddResult {
        let interface = |name: &str, mac: Option<MacAddr>| Interface {
            name: name.to_owned(),
            mac: mac.map(|mac| mac.to_string()),
            ..Interface::default()
        };
        let mtu_bytes = attachment.mtu_bytes.map(i64::from);
        let mut interfaces = vec![
            interface(attachment.bridge.as_str(), attached.bridge_mac),
            Interface {
                mtu_bytes,
                ..interface(attached.veth.as_str(), Some(self.veth.mac))
            },
            Interface {
                mtu_bytes,
                sandbox: Some(self.sandbox.path.clone()),
                ..interface(attachment.ifname.as_str(), Some(attachment.mac))
            },
        ];
        let container = i64::try_from(interfaces.len()).ok().map(|count| count - 1);
        if attachment.gateway_link != attachment.bridge {
            interfaces.push(interface(
                attachment.gateway_link.as_str(),
                attached.vlan_gateway_mac,
            ));
        }
        let mut ips = attachment.ips.clone();
        for ip in &mut ips {
            ip.interface = container;
        }
        let dns = if self.dns.is_empty() {
            &given.dns
        } else {
            &self.dns
        };
        AddResult {
            interfaces,
            ips,
            routes: attachment.routes.clone(),
            dns: dns.clone(),
            ..AddResult::default()
        }
    }
}
