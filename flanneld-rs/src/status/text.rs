use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use net_types::counted;

use super::{CommandsStatus, KernelStatus, LeaseStatus, NodeStatus, PeerState, PeerStatus, PeerWay, Status};

/// Of peers without trouble, so many are listed unless all are asked for.
const MAX_LISTED: usize = 20;

/// The node and its peers for people, those in trouble first; `now` tells how long the lease lasts.
pub(super) fn render(status: &Status, mut peers: Vec<PeerStatus>, all: bool, now: SystemTime) -> String {
    let mut text = String::new();
    head(&mut text, status, now);
    peers.sort_by_key(|peer| peer.state);
    let in_trouble = peers
        .iter()
        .take_while(|peer| peer.state != PeerState::Programmed);
    let listed = if all {
        peers.len()
    } else {
        peers.len().min(in_trouble.count() + MAX_LISTED)
    };
    let shown = peers.get(..listed).unwrap_or_default();
    if peers.iter().any(|peer| peer.public_key.is_some()) {
        wireguard_table(&mut text, shown, now);
    } else {
        table(&mut text, shown);
    }
    let more = peers.len() - listed;
    if more > 0 {
        line(
            &mut text,
            &format!("and {more} more (--all lists them, --peer TEXT those that match)"),
        );
    }
    text
}

fn head(text: &mut String, status: &Status, now: SystemTime) {
    let node = &status.node;
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_secs));
    line(
        text,
        &format!("flanneld {}, process {}, up {uptime}", status.version, status.pid),
    );
    match &node.reason {
        None => line(text, "ready     yes"),
        Some(reason) => line(text, &format!("ready     no: {reason}")),
    }
    for notice in &status.notices {
        line(text, &format!("note      {}", printable(notice)));
    }
    lease(text, node.lease.as_ref(), now);
    store(text, status);
    data_plane(text, node);
    kernel(text, &node.kernel);
    commands(text, node.commands.as_ref());
    if let Some(rules) = &node.rules {
        let wanted = |is: bool| if is { "yes" } else { "no" };
        line(
            text,
            &format!(
                "rules     {} {}: masquerade {}, accept forwarded {}",
                rules.mode,
                rules.state.name(),
                wanted(rules.masquerade),
                wanted(rules.forward)
            ),
        );
        kernel(text, &rules.kernel);
    }
    let peers = &node.peers;
    line(
        text,
        &format!(
            "peers     {}: {} programmed, {} pending, {} failing, {} refused",
            peers.total(),
            peers.programmed,
            peers.pending,
            peers.failing,
            peers.refused
        ),
    );
}

/// What carries packets.
fn data_plane(text: &mut String, node: &NodeStatus) {
    if let Some(backend) = &node.backend {
        let mut backend_line = format!(
            "backend   {} over {}, MTU of pods {}",
            backend.name, backend.link, backend.pod_mtu_bytes
        );
        for (family, peers) in &backend.direct_peers {
            let _infallible = write!(backend_line, ", {} direct in {family}", counted(*peers, "peer"));
        }
        line(text, &backend_line);
    }
    for device in node.device.iter().chain(&node.second_device) {
        let vni = device.vni.map_or_else(String::new, |vni| format!("VNI {vni} "));
        let port = device
            .port
            .map_or_else(String::new, |port| format!("port {port} "));
        let mac = device.mac.iter().map(|mac| format!(", MAC {mac}"));
        let key = device.public_key.iter().map(|key| format!(", public key {key}"));
        let offload = device.tx_checksum.map(|on| {
            let word = if on { "on" } else { "off" };
            format!(", checksum offload {word}")
        });
        let more: String = mac.chain(key).chain(offload).collect();
        line(
            text,
            &format!(
                "device    {} {}: {vni}{port}on {} ({}), MTU {}{more}",
                device.name,
                device.state.name(),
                device.parent,
                device.local,
                device.mtu_bytes,
            ),
        );
    }
}

fn lease(text: &mut String, lease: Option<&LeaseStatus>, now: SystemTime) {
    let Some(lease) = lease else {
        return line(text, "lease     none yet");
    };
    let ends = lease
        .expires
        .map_or_else(|| "never ends".to_owned(), |at| ends(at, now));
    line(
        text,
        &format!("lease     {} at {}, {ends}", lease.subnet, shown(lease.public_ip)),
    );
    if let Some(device) = &lease.shared_with {
        line(
            text,
            &format!("          announced by another host, with {device}"),
        );
    }
}

fn store(text: &mut String, status: &Status) {
    let store = &status.node.store;
    let mut store_line = format!(
        "store     {}, {}",
        if store.connected {
            "in reach"
        } else {
            "out of reach"
        },
        counted(store.leases, "lease")
    );
    if store.held > 0 {
        let _infallible = write!(
            store_line,
            ", {} of them gone and held for the grace time",
            store.held
        );
    }
    if !store.removes && status.node.lease.is_some() {
        store_line.push_str(", nothing is removed for now");
    }
    if let Some(error) = &store.error {
        let _infallible = write!(store_line, ": {error}");
    }
    line(text, &store_line);
}

fn kernel(text: &mut String, kernel: &KernelStatus) {
    let sum = |numbers: &std::collections::BTreeMap<String, u64>| numbers.values().sum::<u64>();
    line(
        text,
        &format!(
            "          {}, {}, {} refused, drift repaired {}",
            counted(kernel.counts.rounds.count, "round"),
            counted(sum(&kernel.counts.changes), "change"),
            sum(&kernel.counts.refusals),
            sum(&kernel.counts.repaired)
        ),
    );
    for trouble in &kernel.troubles {
        let error = trouble
            .error
            .as_ref()
            .map_or(String::new(), |error| format!(": {error}"));
        line(
            text,
            &format!(
                "          {} missing for {} s{error}",
                trouble.object, trouble.secs
            ),
        );
    }
}

/// What the administrator's commands did, and which of them fail.
fn commands(text: &mut String, commands: Option<&CommandsStatus>) {
    let Some(commands) = commands else { return };
    let running = commands.running.as_ref();
    line(
        text,
        &format!(
            "commands  {} add and {} remove did their work, {} failed; {} waiting{}",
            commands.added.ok,
            commands.removed.ok,
            commands.added.failed + commands.removed.failed,
            commands.waiting,
            running.map_or_else(String::new, |running| format!("; {running} runs")),
        ),
    );
    for trouble in &commands.troubles {
        line(
            text,
            &format!(
                "          {} for {} failed {} times in {} s, next try in {} s: {}",
                trouble.command,
                trouble.lease,
                trouble.attempts,
                trouble.secs,
                trouble.again_secs,
                trouble.error
            ),
        );
    }
}

fn table(text: &mut String, peers: &[PeerStatus]) {
    if peers.is_empty() {
        return;
    }
    text.push('\n');
    line(
        text,
        "SUBNET             PUBLIC IP       MAC OR KEY        WAY    STATE      ROUTE   NEIGH   FDB     LAST ERROR",
    );
    for peer in peers {
        let row = format!(
            "{:<18} {:<15} {:<17} {:<6} {:<10} {:<7} {:<7} {:<7} {}",
            peer.subnet,
            shown(peer.public_ip),
            device(peer),
            peer.way.map_or("-", PeerWay::name),
            peer.state.name(),
            peer.route.name(),
            peer.neigh.name(),
            peer.fdb.name(),
            peer.error.as_deref().unwrap_or_default()
        );
        line(text, row.trim_end());
    }
}

/// Peers of WireGuard have no entries but in the device, and are heard or not.
fn wireguard_table(text: &mut String, peers: &[PeerStatus], now: SystemTime) {
    text.push('\n');
    line(
        text,
        "SUBNET             PUBLIC IP       KEY               STATE      ENDPOINT              HANDSHAKE     LAST ERROR",
    );
    for peer in peers {
        let seen = peer.seen.as_ref();
        let endpoint = seen.and_then(|seen| seen.endpoint);
        let row = format!(
            "{:<18} {:<15} {:<17} {:<10} {:<21} {:<13} {}",
            peer.subnet,
            shown(peer.public_ip),
            device(peer),
            peer.state.name(),
            endpoint.map_or_else(|| "-".to_owned(), |at| at.to_string()),
            seen.map_or_else(|| "-".to_owned(), |seen| handshake(seen.last_handshake, now)),
            peer.error.as_deref().unwrap_or_default()
        );
        line(text, row.trim_end());
    }
}

fn handshake(at: Option<u64>, now: SystemTime) -> String {
    let Some(at) = at else { return "never".to_owned() };
    let since = now.duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(at));
    // The clock may have been set back.
    let secs = since.map_or(0, |since| since.as_secs());
    format!("{} ago", humantime::format_duration(Duration::from_secs(secs)))
}

/// What tells the peer's device; of a key no more than its column holds.
fn device(peer: &PeerStatus) -> String {
    const SHOWN: usize = 16;
    let key = peer.public_key.as_ref().map(|key| {
        let beginning: String = key.chars().take(SHOWN).collect();
        format!("{beginning}…")
    });
    peer.vtep_mac.clone().or(key).unwrap_or_else(|| "-".to_owned())
}

/// An address, or a dash.
pub(crate) fn shown(ip: Option<IpAddr>) -> String {
    ip.map_or_else(|| "-".to_owned(), |ip| ip.to_string())
}

fn ends(at: u64, now: SystemTime) -> String {
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
    match end.duration_since(now) {
        Ok(left) => {
            let left = Duration::from_secs(left.as_secs());
            format!("ends in {}", humantime::format_duration(left))
        }
        Err(_) => "has ended".to_owned(),
    }
}

fn line(text: &mut String, content: &str) {
    text.push_str(&printable(content));
    text.push('\n');
}

/// A text without control characters: what others wrote into a lease must neither steer the terminal nor begin a line.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).collect()
}

#[cfg(test)]
mod tests;
