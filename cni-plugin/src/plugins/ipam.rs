//! Address management for the plugins that make interfaces: host-local in this process, others as programs.

use std::net::IpAddr;

use cni_types::{AddResult, NetConf, Target};

use super::host_local::{self, Detached, Duplicate};
use super::prev_result;
use crate::context::{Attachments, Context};
use crate::delegate::{self, Verb};
use crate::error::Failure;

/// The address management that a configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ipam {
    /// None: the interface gets no address.
    None,
    HostLocal,
    Program(String),
}

/// Whether an earlier ADD may have left something of an attachment that isn't alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Earlier {
    Possible,
    /// Nothing tells of one, and this many other attachments are known: what is reserved beyond theirs may be of one
    /// whose state was lost.
    Unknown {
        others: usize,
    },
}

/// The addresses of an attachment that may be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    /// It has freed them.
    Nothing,
    These(Vec<IpAddr>),
    Unknown,
}

impl Ipam {
    /// Reads `ipam.type`.
    pub(crate) fn of(conf: &NetConf) -> Result<Self, Failure> {
        let ipam = conf.ipam()?.unwrap_or_default();
        Ok(match ipam.string("type")? {
            None | Some("") => Self::None,
            Some("host-local") => Self::HostLocal,
            Some(other) => Self::Program(other.to_owned()),
        })
    }

    /// Reserves addresses. The caller vouches that the attachment isn't alive.
    pub(crate) fn add(
        &self,
        context: &Context<'_>,
        conf: &NetConf,
        target: &Target,
        earlier: Earlier,
    ) -> Result<AddResult, Failure> {
        let duplicate = match earlier {
            Earlier::Possible => Duplicate::Reuse,
            Earlier::Unknown { others } => Duplicate::IfMoreThan(others),
        };
        match self {
            Self::None => Ok(AddResult::default()),
            Self::HostLocal => host_local::add(conf, &context.env.args, target, duplicate),
            Self::Program(name) => delegate::exec_add(context, name, conf),
        }
    }

    /// What is known of the addresses that an attachment still has. A reservation of host-local's is the last thing that a
    /// DEL frees.
    pub(crate) fn held(&self, conf: &NetConf, target: &Target) -> Result<Held, Failure> {
        Ok(match self {
            Self::HostLocal => match host_local::held(conf, target)? {
                ips if ips.is_empty() => Held::Nothing,
                ips => Held::These(ips),
            },
            Self::None | Self::Program(_) => match prev_result::required(conf) {
                Ok(result) => Held::These(result.addresses()),
                Err(_) => Held::Unknown,
            },
        })
    }

    /// Frees an attachment's addresses; `noted` are all of them, if somebody took note.
    pub(crate) fn del(
        &self,
        context: &Context<'_>,
        conf: &NetConf,
        target: &Target,
        noted: &[IpAddr],
    ) -> Result<(), Failure> {
        match self {
            Self::None => Ok(()),
            Self::HostLocal => host_local::del(conf, target, noted),
            Self::Program(name) => delegate::exec(context, name, Verb::Del, conf).map(drop),
        }
    }

    pub(crate) fn check(
        &self,
        context: &Context<'_>,
        conf: &NetConf,
        target: &Target,
    ) -> Result<(), Failure> {
        match self {
            Self::None => Ok(()),
            Self::HostLocal => host_local::check(conf, target),
            Self::Program(name) => delegate::exec(context, name, Verb::Check, conf).map(drop),
        }
    }

    pub(crate) fn status(&self, context: &Context<'_>, conf: &NetConf) -> Result<(), Failure> {
        match self {
            Self::None => Ok(()),
            Self::HostLocal => host_local::status(conf),
            Self::Program(name) => delegate::exec_status(context, name, conf),
        }
    }

    /// Frees the addresses of attachments that are not valid, where it is known which they are after `detach` has
    /// removed their interfaces.
    pub(crate) fn gc(
        &self,
        context: &Context<'_>,
        conf: &NetConf,
        valid: &Attachments,
        detach: impl FnMut(&Target) -> Result<Detached, Failure>,
    ) -> Result<(), Failure> {
        match self {
            Self::None => Ok(()),
            Self::HostLocal => host_local::gc_detaching(conf, valid, detach),
            // One that does not know GC frees its addresses with each container's DEL.
            Self::Program(name) => delegate::exec_if_known(context, name, Verb::Gc, conf).map(drop),
        }
    }
}
