//! What is wrong with WireGuard's devices: a port that others hold, peers that do not answer, a key that others can read.

use netlink::PeerReport;
use netstate::AdminState;

use super::{Device, DeviceKind, Facts, Finding};
use crate::status::shown;

/// Of silent peers, so many are named.
const MAX_NAMED: usize = 5;
/// A session is not used for longer after its handshake (WireGuard whitepaper §6.2, `Reject-After-Time`).
const SESSION_SECS: u64 = 180;
/// Two messages that begin a handshake (whitepaper §5.4.2): the first one was not answered within five seconds.
const UNANSWERED_BYTES: u64 = 2 * 148;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let devices = facts.devices();
    let mut findings: Vec<_> = devices
        .iter()
        .filter_map(|device| taken_port(facts, *device))
        .collect();
    let silent = devices.iter().flat_map(|device| silent_peers(facts, *device));
    findings.extend(silent.take(MAX_NAMED));
    if devices.iter().any(|device| device.kind.is_wireguard()) {
        findings.extend(readable_keys(facts));
    }
    findings
}

/// A device holds its port while it is up, and then nobody else can.
fn taken_port(facts: &Facts, device: Device<'_>) -> Option<Finding> {
    let DeviceKind::Wireguard { port } = device.kind else {
        return None;
    };
    let name = device.name;
    let told = facts.told_devices().find(|told| told.name == name.as_str());
    let wanted = told.and_then(|told| told.port).or(port)?;
    let holds = device.link.admin == AdminState::Up && port == Some(wanted);
    (!holds && facts.udp_ports.contains(&wanted)).then(|| {
        Finding::error(
            "wireguard.port-taken",
            format!("{name} cannot listen on UDP port {wanted}, which somebody else holds"),
            format!(
                "end what ss -ulnp or wg show names for port {wanted}, or give the backend another ListenPort in the network \
                 configuration"
            ),
        )
    })
}

fn silent_peers(facts: &Facts, device: Device<'_>) -> Vec<Finding> {
    let Some(report) = facts.wireguard.get(device.name) else {
        return Vec::new();
    };
    let finding = |(key, peer): (&net_types::WgPublicKey, &PeerReport)| {
        let silence = silence(facts, peer)?;
        let key = key.to_string();
        let mut leases = facts.peers().iter();
        let lease = leases.find(|lease| lease.public_key.as_ref() == Some(&key));
        let who = lease.map_or(key, |lease| {
            format!("{} of {}", lease.subnet, shown(lease.public_ip))
        });
        let place = peer.endpoint.map_or_else(String::new, |at| format!(" at {at}"));
        Some(Finding::warning(
            "wireguard.no-handshake",
            format!("the peer {who} {silence}{place}, where {} sends to", device.name),
            "look whether its flanneld runs, let the UDP ports of both nodes through on the way, and compare Backend.PSK, which \
             every node must have alike",
        ))
    };
    report.peers.iter().filter_map(finding).collect()
}

/// What is known of a peer that should have answered. One to which nothing is sent need not.
fn silence(facts: &Facts, peer: &PeerReport) -> Option<String> {
    let Some(last) = peer.last_handshake else {
        return (peer.sent_bytes >= UNANSWERED_BYTES).then(|| "has never answered".to_owned());
    };
    let secs = facts.now.saturating_sub(last).as_secs();
    let limit = SESSION_SECS + u64::from(peer.keepalive_secs);
    (peer.keepalive_secs > 0 && secs > limit).then(|| format!("has not answered for {secs} s"))
}

fn readable_keys(facts: &Facts) -> Vec<Finding> {
    let finding = |path: &std::path::PathBuf| {
        let path = path.display();
        Finding::warning(
            "wireguard.key-readable",
            format!(
                "others than its owner can use the private key of WireGuard in {path}: they can read and forge the \
                 traffic of this node's pods"
            ),
            format!(
                "run chmod 600 {path}, or remove all copies of the key and restart flanneld to get a new one"
            ),
        )
    };
    facts.loose_key_files.iter().map(finding).collect()
}
