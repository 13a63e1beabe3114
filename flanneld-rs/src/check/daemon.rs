use super::{Backend, Facts, Finding};
use crate::status::{PeerState, shown};

/// Of peers in trouble, so many are named.
const MAX_NAMED: usize = 5;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let (status, peers) = match &facts.daemon {
        Ok(told) => told,
        Err(reason) => return vec![silent(facts, reason)],
    };
    let mut findings = Vec::new();
    if let Some(reason) = &status.node.reason {
        findings.push(Finding::error(
            "daemon.not-ready",
            format!("flanneld is not ready: {reason}"),
            "see flanneld status and its log",
        ));
    }
    if !status.node.store.connected {
        let error = status
            .node
            .store
            .error
            .as_deref()
            .unwrap_or("it has not answered yet");
        findings.push(Finding::warning(
            "daemon.store",
            format!("the lease store is out of reach: {error}"),
            "mend the store or the way to it; until then the data plane stays as it is and peers' changes are missed",
        ));
    }
    let failing = peers.iter().filter(|peer| peer.state == PeerState::Failing);
    findings.extend(failing.take(MAX_NAMED).map(|peer| {
        let error = peer.error.as_deref().unwrap_or("a change had no effect");
        Finding::error(
            "daemon.peer-failing",
            format!(
                "the peer {} at {} is not reachable: {error}",
                peer.subnet,
                shown(peer.public_ip)
            ),
            "remove what stands in the way; flanneld tries again by itself",
        )
    }));
    let way_out = match facts.backend() {
        Some(Backend::HostGw) => {
            "correct the node that holds it, bring all nodes onto one link or use the backend vxlan, or remove the lease \
             from the store if no node holds it"
        }
        Some(Backend::Vxlan | Backend::Wireguard | Backend::Ipip | Backend::Alloc | Backend::Other)
        | None => "correct the node that holds it, or remove the lease from the store",
    };
    let refused = peers.iter().filter(|peer| peer.state == PeerState::Refused);
    findings.extend(refused.take(MAX_NAMED).map(|peer| {
        let error = peer.error.as_deref().unwrap_or("it cannot be used");
        Finding::warning(
            "daemon.peer-refused",
            format!(
                "the lease {} of {} is not programmed: {error}",
                peer.subnet,
                shown(peer.public_ip)
            ),
            way_out,
        )
    }));
    findings
}

/// A daemon that does not answer, or none at all.
fn silent(facts: &Facts, reason: &str) -> Finding {
    if facts.is_no_node() {
        return Finding::error(
            "host.no-node",
            format!(
                "this host is no node of flannel's: there are neither a subnet file nor a device or routes of its, and {reason}"
            ),
            "start flanneld; if it runs, name its files with --subnet-file and --status-socket",
        );
    }
    Finding::warning(
        "daemon.silent",
        reason.to_owned(),
        "start flanneld, or name its files with --subnet-file or --status-socket; what only it knows is not checked",
    )
}
