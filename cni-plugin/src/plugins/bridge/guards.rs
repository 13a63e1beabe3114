//! What packet filters do for an attachment: the keys `ipMasq`, `ipMasqBackend` and `macspoofchk`.

use cni_types::{Code, DecodeError, NetConf, NetworkName, Target};
use ipnetwork::IpNetwork;
use net_types::{IfName, MacAddr};

use super::{masq, spoof};
use crate::context::Attachments;
use crate::error::{CniError, Failure, Failures};
use crate::plugins::netfilter::Backend;

/// Which rules an attachment has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Guards {
    masquerade: Masquerade,
    spoof_check: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Masquerade {
    #[default]
    No,
    /// With this back end; `None` leaves it to the node.
    Yes(Option<Backend>),
}

/// An attachment as its rules know it.
pub(super) struct Guarded<'a> {
    pub(super) network: &'a NetworkName,
    pub(super) target: &'a Target,
    /// The container's addresses, each with its network.
    pub(super) addresses: &'a [IpNetwork],
    /// The host's interface.
    pub(super) interface: &'a IfName,
    /// The container's hardware address.
    pub(super) mac: MacAddr,
}

/// Whether the container has further interfaces in the network: in iptables they share a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OtherInterfaces {
    None,
    Some,
}

/// Why rules cannot be as a configuration says.
#[derive(Debug, thiserror::Error)]
pub(super) enum GuardsError {
    #[error("{0}")]
    Decode(DecodeError),
    #[error("unknown ipmasq backend {0:?}; it is \"nftables\" or \"iptables\"")]
    Backend(String),
}

impl CniError for GuardsError {
    fn code(&self) -> Code {
        match self {
            Self::Decode(_) => Code::DECODING,
            Self::Backend(_) => Code::BAD_CONFIG,
        }
    }
}

impl Guards {
    pub(super) fn parse(conf: &NetConf) -> Result<Self, GuardsError> {
        let flag = |key| {
            let found = conf.object.bool(key).map_err(GuardsError::Decode)?;
            Ok(found.unwrap_or_default())
        };
        let backend = match conf.object.string("ipMasqBackend").map_err(GuardsError::Decode)? {
            None | Some("") => None,
            Some(name) => Some(Backend::parse(name).ok_or_else(|| GuardsError::Backend(name.to_owned()))?),
        };
        Ok(Self {
            masquerade: if flag("ipMasq")? {
                Masquerade::Yes(backend)
            } else {
                Masquerade::No
            },
            spoof_check: flag("macspoofchk")?,
        })
    }

    /// What an ADD may have made by a configuration that it would refuse now: nothing of what cannot be read.
    pub(super) fn of_del(conf: &NetConf) -> Self {
        let flag = |key| conf.object.bool(key).ok().flatten().unwrap_or_default();
        Self {
            masquerade: if flag("ipMasq") {
                Masquerade::Yes(None)
            } else {
                Masquerade::No
            },
            spoof_check: flag("macspoofchk"),
        }
    }

    /// Makes the rules. A failure may leave some.
    pub(super) fn setup(self, guarded: &Guarded<'_>) -> Result<(), Failure> {
        let Guarded {
            network,
            target,
            addresses,
            interface,
            mac,
        } = guarded;
        if self.spoof_check {
            spoof::setup(target, interface, *mac)?;
        }
        match self.masquerade {
            Masquerade::No => Ok(()),
            Masquerade::Yes(backend) => Ok(masq::setup(backend, network, target, addresses)?),
        }
    }

    /// Removes the rules, whichever back end has them. `others` tells of the container's other interfaces in this
    /// network.
    pub(super) fn teardown(
        self,
        network: &NetworkName,
        target: &Target,
        others: OtherInterfaces,
    ) -> Result<(), Failure> {
        let mut failures = Failures::default();
        if self.masquerade != Masquerade::No {
            failures.note(masq::teardown(network, target, others));
        }
        if self.spoof_check {
            failures.note(spoof::teardown(target));
        }
        failures.into_result()
    }

    /// Fails unless the rules are there.
    pub(super) fn check(self, guarded: &Guarded<'_>) -> Result<(), Failure> {
        if self.spoof_check {
            spoof::check(guarded.target, guarded.interface, guarded.mac)?;
        }
        match self.masquerade {
            Masquerade::No => Ok(()),
            Masquerade::Yes(_) => Ok(masq::check(guarded.network, guarded.target, guarded.addresses)?),
        }
    }
}

/// Removes the rules of a network's attachments that are not valid, whatever its configuration says now.
pub(super) fn gc(network: &NetworkName, valid: &Attachments) -> Result<(), Failure> {
    let mut failures = Failures::default();
    failures.note(masq::gc(network, valid));
    failures.note(spoof::gc(network, valid));
    failures.into_result()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netconf(rest: &str) -> NetConf {
        NetConf::parse(format!(r#"{{"cniVersion":"1.0.0","name":"net"{rest}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn nothing_is_the_default() {
        for rest in [
            "",
            r#","ipMasq":false,"macspoofchk":null,"ipMasqBackend":"nftables""#,
        ] {
            assert_eq!(Guards::parse(&netconf(rest)).unwrap(), Guards::default());
        }
    }

    #[test]
    fn the_back_end_may_be_chosen() {
        for (rest, backend) in [
            ("", None),
            (r#","ipMasqBackend":"""#, None),
            (r#","ipMasqBackend":"nftables""#, Some(Backend::Nftables)),
            (r#","ipMasqBackend":"iptables""#, Some(Backend::Iptables)),
        ] {
            let guards = Guards::parse(&netconf(&format!(r#","ipMasq":true{rest}"#))).unwrap();
            assert_eq!(guards.masquerade, Masquerade::Yes(backend));
        }
        let unknown = Guards::parse(&netconf(r#","ipMasq":true,"ipMasqBackend":"ipfw""#)).unwrap_err();
        assert_eq!(unknown.code().0, 7);
        assert!(unknown.to_string().contains("ipfw"));
    }

    #[test]
    fn del_reads_what_it_can() {
        let conf = netconf(r#","ipMasq":true,"ipMasqBackend":5,"macspoofchk":"x""#);
        assert!(Guards::parse(&conf).is_err());
        let guards = Guards::of_del(&conf);
        assert_eq!(
            (guards.masquerade, guards.spoof_check),
            (Masquerade::Yes(None), false)
        );
    }
}
