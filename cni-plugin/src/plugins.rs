//! The plugins of the binary, each in a folder of its own. What names plugins elsewhere, the texts for people and the
//! programs that are installed, follows from [`Builtin::ALL`].

mod attachment_file;
mod bandwidth;
mod bridge;
mod data_dir;
mod firewall;
mod flannel;
mod host_local;
mod ipam;
mod loopback;
mod netfilter;
mod portmap;
mod prev_result;
mod tuning;

pub use portmap::{RestoreError, restore_all};

use cni_types::{AddResult, NetConf, Target, Version};

use crate::context::{Attachments, Context};
use crate::error::Failure;

/// A plugin that this binary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builtin {
    Flannel,
    Bridge,
    HostLocal,
    Loopback,
    Bandwidth,
    Portmap,
    Tuning,
    Firewall,
}

impl Builtin {
    /// Every plugin, in the order in which people read them.
    pub(crate) const ALL: &[Self] = &[
        Self::Flannel,
        Self::Bridge,
        Self::HostLocal,
        Self::Loopback,
        Self::Bandwidth,
        Self::Portmap,
        Self::Tuning,
        Self::Firewall,
    ];

    /// The plugin of this name.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|plugin| plugin.name() == name)
    }

    /// The names of all, for a sentence.
    pub(crate) fn names() -> String {
        let names: Vec<_> = Self::ALL.iter().map(|plugin| plugin.name()).collect();
        match names.as_slice() {
            [] => String::new(),
            [one] => (*one).to_owned(),
            [others @ .., last] => format!("{} and {last}", others.join(", ")),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Flannel => "flannel",
            Self::Bridge => "bridge",
            Self::HostLocal => "host-local",
            Self::Loopback => "loopback",
            Self::Bandwidth => "bandwidth",
            Self::Portmap => "portmap",
            Self::Tuning => "tuning",
            Self::Firewall => "firewall",
        }
    }

    /// The oldest version of the specification that the plugin works in.
    pub(crate) const fn oldest_version(self) -> Version {
        match self {
            Self::Flannel
            | Self::Bridge
            | Self::HostLocal
            | Self::Loopback
            | Self::Portmap
            | Self::Tuning => Version::V0_1_0,
            // Older results list no interfaces.
            Self::Bandwidth => Version::V0_3_0,
            // As the reference has it: before, DEL gets no result.
            Self::Firewall => Version::V0_4_0,
        }
    }

    pub(crate) fn add(
        self,
        context: &Context<'_>,
        conf: &NetConf,
        target: &Target,
        netns: &str,
    ) -> Result<AddResult, Failure> {
        match self {
            Self::Flannel => flannel::add(context, conf, target, &context.sandbox(netns)?),
            Self::Bridge => {
                let sandbox = context.sandbox(netns)?;
                bridge::add(context, conf, target, &sandbox, ipam::Earlier::Possible)
            }
            Self::HostLocal => {
                host_local::add(conf, &context.env.args, target, host_local::Duplicate::Refuse)
            }
            Self::Loopback => loopback::add(conf, &context.sandbox(netns)?),
            Self::Bandwidth => bandwidth::add(conf, target, &context.sandbox(netns)?),
            Self::Portmap => portmap::add(conf, target),
            Self::Tuning => tuning::add(context, conf, target, &context.sandbox(netns)?),
            Self::Firewall => firewall::add(conf, target),
        }
    }

    pub(crate) fn check(
        self,
        context: &Context<'_>,
        conf: &NetConf,
        target: &Target,
        netns: &str,
    ) -> Result<(), Failure> {
        match self {
            Self::Flannel => flannel::check(context, conf, target, &context.sandbox(netns)?),
            Self::Bridge => bridge::check(context, conf, target, &context.sandbox(netns)?),
            Self::HostLocal => host_local::check(conf, target),
            Self::Loopback => loopback::check(conf, &context.sandbox(netns)?),
            Self::Bandwidth => bandwidth::check(conf, target, &context.sandbox(netns)?),
            Self::Portmap => portmap::check(conf, target),
            Self::Tuning => tuning::check(context, conf, target, &context.sandbox(netns)?),
            Self::Firewall => firewall::check(conf, target),
        }
    }

    pub(crate) fn del(
        self,
        context: &Context<'_>,
        conf: &NetConf,
        target: &Target,
        netns: Option<&str>,
    ) -> Result<(), Failure> {
        let sandbox = || match netns {
            Some(path) => context.remaining_sandbox(path),
            None => Ok(None),
        };
        match self {
            Self::Flannel => flannel::del(context, conf, target, sandbox()?.as_ref()),
            Self::Bridge => bridge::del(context, conf, target, sandbox()?.as_ref(), &[]),
            Self::HostLocal => host_local::del(conf, target, &[]),
            Self::Loopback => Ok(()),
            Self::Bandwidth => bandwidth::del(conf, target),
            Self::Portmap => portmap::del(conf, target),
            Self::Tuning => tuning::del(conf, target, sandbox()?.as_ref()),
            Self::Firewall => firewall::del(conf, target),
        }
    }

    pub(crate) fn status(self, context: &Context<'_>, conf: &NetConf) -> Result<(), Failure> {
        match self {
            Self::Flannel => flannel::status(context, conf),
            Self::Bridge => bridge::status(context, conf),
            Self::HostLocal => host_local::status(conf),
            Self::Loopback => Ok(()),
            Self::Bandwidth => bandwidth::status(conf),
            Self::Portmap => portmap::status(conf),
            Self::Tuning => tuning::status(context, conf),
            Self::Firewall => firewall::status(conf),
        }
    }

    pub(crate) fn gc(
        self,
        context: &Context<'_>,
        conf: &NetConf,
        valid: &Attachments,
    ) -> Result<(), Failure> {
        match self {
            Self::Flannel => flannel::gc(context, conf, valid),
            Self::Bridge => bridge::gc(context, conf, valid),
            Self::HostLocal => host_local::gc(conf, valid),
            Self::Loopback => Ok(()),
            Self::Bandwidth => bandwidth::gc(conf, valid),
            Self::Portmap => portmap::gc(conf, valid),
            Self::Tuning => tuning::gc(conf, valid),
            Self::Firewall => firewall::gc(conf, valid),
        }
    }
}
