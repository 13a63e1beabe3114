use cni_types::Code;
use netstate::nft::{Family, Policy, TableKey};
use nftables::Nftables;
use nftables::iptables::has_legacy_table;

use super::iptables;
use crate::error::CniError;
use crate::plugins::netfilter::{self, Backend, FAMILIES, NetfilterError};

/// The table by which firewalld shows that it runs.
const FIREWALLD: &str = "firewalld";

/// The node's packet filters leave no back end that does what is asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackendError {
    #[error(
        "firewalld runs on this node, and what it drops no rule of this plugin can accept; add the containers' network \
         to a zone that trusts it, and set \"backend\" to \"nftables\" or \"iptables\""
    )]
    Firewalld,
    #[error("cannot find out how this node filters packets")]
    Netfilter(#[source] NetfilterError),
}

impl CniError for BackendError {
    fn code(&self) -> Code {
        match self {
            Self::Firewalld => Code::BAD_CONFIG,
            Self::Netfilter(error) => error.code(),
        }
    }
}

/// The back end for an ADD.
///
/// A packet passes only if no chain of any table drops it: accepting it in nf_tables' table of our own does not help
/// against a drop in iptables' `FORWARD`, as a node has it whose administrator, or Docker, closed it. There the rules
/// that accept must stand in that chain, before what drops, so iptables is chosen where its `FORWARD` has a rule or
/// drops by policy in either family. Elsewhere it is nf_tables, which needs no program; and iptables on a kernel
/// without. The reference takes firewalld if that runs, else iptables.
pub(super) fn choose(
    asked: Option<Backend>,
    nftables: Option<&mut Nftables>,
) -> Result<Backend, BackendError> {
    if let Some(backend) = asked {
        return Ok(backend);
    }
    let Some(nftables) = nftables else {
        return Ok(Backend::Iptables);
    };
    let tables = nftables.tables(Family::Inet);
    let tables = tables.map_err(|e| BackendError::Netfilter(NetfilterError::Use(e)))?;
    if tables.iter().any(|table| table == FIREWALLD) {
        return Err(BackendError::Firewalld);
    }
    for (family, of_iptables) in [Family::Ip, Family::Ip6].into_iter().zip(FAMILIES) {
        let key = TableKey {
            family,
            name: iptables::TABLE.to_owned(),
        };
        let filter = netfilter::read(nftables, &key)
            .map_err(BackendError::Netfilter)?
            .unwrap_or_default();
        let forward = filter.table.chains.get(iptables::FORWARD);
        let decides = forward.is_some_and(|chain| {
            !chain.rules.is_empty() || chain.base.is_some_and(|base| base.policy != Policy::Accept)
        });
        if decides || has_legacy_table(of_iptables, iptables::TABLE) {
            return Ok(Backend::Iptables);
        }
    }
    Ok(Backend::Nftables)
}
