use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netstate::AdminState;

use super::{BRIDGE, Backend, Device, Facts, Finding, Severity};

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<_> = subnet_file(facts).into_iter().collect();
    findings.extend(devices(facts));
    findings.extend(bridge(facts));
    findings
}

fn subnet_file(facts: &Facts) -> Option<Finding> {
    let path = facts.subnet_path.display();
    match &facts.subnet_file {
        Some(Ok(_)) => None,
        None if facts.is_no_node() => None,
        Some(Err(reason)) => Some(Finding::error(
            "subnet-file.unreadable",
            format!("no pod can start: {reason}"),
            format!(
                "name flanneld's subnet file with --subnet-file if {path} is not meant to be it; else remove it and \
                 restart flanneld, which writes it anew"
            ),
        )),
        None => Some(Finding::error(
            "subnet-file.missing",
            format!("no pod can start: there is no {path}"),
            "start flanneld; if it runs, its log says what it waits for",
        )),
    }
}

fn devices(facts: &Facts) -> Vec<Finding> {
    if let Some(missing) = missing(facts) {
        return vec![missing];
    }
    let devices = facts.devices().into_iter();
    devices.flat_map(|found| device(facts, found)).collect()
}

/// A subnet file lets pods start, which then need what carries their packets.
fn missing(facts: &Facts) -> Option<Finding> {
    facts.subnet_env()?;
    let way_out = "start flanneld; if it runs, its log says why the kernel refuses the device";
    let finding = |severity, sentence: &str| {
        Some(Finding::new(
            "device.missing",
            severity,
            sentence.to_owned(),
            way_out,
        ))
    };
    match facts.backend() {
        Some(Backend::Vxlan) if facts.vxlans().next().is_none() => finding(
            Severity::Error,
            "there is a subnet file, but no VXLAN device of flannel's",
        ),
        Some(Backend::Wireguard) if facts.wireguards().next().is_none() => finding(
            Severity::Error,
            "there is a subnet file, but no WireGuard device of flannel's",
        ),
        Some(Backend::Ipip) if facts.ipip().is_none() => finding(
            Severity::Error,
            "there is a subnet file, but no device of IP in IP of flannel's",
        ),
        None if facts.daemon.is_err() => finding(
            Severity::Warning,
            "there is a subnet file, but neither a tunnel's device nor a route of flannel's: pods reach no other node, \
             unless somebody else brings their packets there (backend alloc)",
        ),
        Some(_) | None => None,
    }
}

fn device(facts: &Facts, device: Device<'_>) -> Vec<Finding> {
    let Device { name, link, .. } = device;
    let mut findings = Vec::new();
    if link.admin == AdminState::Down {
        findings.push(Finding::error(
            "device.down",
            format!("{name} is down: no other node is reachable"),
            "start flanneld, or look what sets it down",
        ));
    }
    let mtu = link.mtu_bytes.unwrap_or(0);
    if let Some(env) = facts.subnet_env()
        && env.mtu > mtu
    {
        findings.push(Finding::error(
            "mtu.device",
            format!(
                "pods are given an MTU of {} by the subnet file, but {name} carries {mtu}: large packets vanish",
                env.mtu
            ),
            "restart flanneld, and the pods after it",
        ));
    }
    let parent = device.parent.and_then(|parent| facts.link(parent.as_str()));
    let overhead = device.overhead_bytes;
    if let Some((parent, underlay)) = parent {
        let carried = underlay.mtu_bytes.unwrap_or(u32::MAX);
        if mtu.saturating_add(overhead) > carried {
            findings.push(Finding::error(
                "mtu.underlay",
                format!("{name} has an MTU of {mtu}, but {parent} below it carries {carried} with {overhead} for the tunnel: large packets vanish"),
                format!("raise the MTU of {parent}, or restart flanneld to adapt to it"),
            ));
        }
    }
    findings.extend(source(facts, device));
    let mut told = facts.told_devices();
    if let Some(told) = told.find(|told| told.name == name.as_str())
        && let Some(mac) = link.mac
        && let Some(announced) = &told.mac
        && mac.to_string() != *announced
    {
        findings.push(Finding::error(
            "device.mac",
            format!("{name} has the MAC {mac}, but the lease tells peers {announced}"),
            "see udev's MACAddressPolicy: something changes it against flanneld",
        ));
    }
    findings
}

/// What this node itself sends to pods of others leaves under an address of the device, whatever interfaces there are:
/// the first one, as the route's gateway is in the subnet of none (linux `inet_select_addr`).
fn source(facts: &Facts, device: Device<'_>) -> Option<Finding> {
    let name = device.name;
    let own = IpAddr::V4(facts.subnet_env()?.subnet?.network());
    let links = &facts.inventory.links;
    let link = links.iter().find(|link| link.name == *name)?;
    let mut held = link
        .addrs
        .iter()
        .map(|held| held.addr.ip())
        .filter(IpAddr::is_ipv4);
    if device.is_v6 {
        return None;
    }
    match held.next() {
        Some(first) if first == own => None,
        Some(first) if held.any(|ip| ip == own) => Some(Finding::warning(
            "device.source",
            format!("what this node itself sends to other nodes' pods leaves under {first}, not under {own}"),
            format!("run ip addr del {first} dev {name}, if nobody needs it there"),
        )),
        Some(_) | None => Some(Finding::error(
            "device.address",
            format!(
                "{name} lacks its address {own}: what this node itself sends to other nodes' pods gets no answer"
            ),
            "start flanneld; if it runs, its log says why the kernel refuses the address",
        )),
    }
}

fn bridge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (Some(env), Some((name, link))) = (facts.subnet_env(), facts.link(BRIDGE)) else {
        return findings;
    };
    if let Some(mtu) = link.mtu_bytes
        && mtu != env.mtu
    {
        findings.push(Finding::warning(
            "mtu.bridge",
            format!("{name} has an MTU of {mtu}, but the subnet file says {}", env.mtu),
            "pods made before keep their MTU: restart them, or drain the node and delete the bridge",
        ));
    }
    let addrs = facts.state.addrs.keys().filter(|key| key.link == *name);
    let v4: Vec<_> = addrs
        .filter_map(|key| match key.addr {
            IpNetwork::V4(addr) => Some(addr.ip()),
            IpNetwork::V6(_) => None,
        })
        .collect();
    if let Some(subnet) = env.subnet
        && !v4.is_empty()
        && !v4.iter().any(|ip| subnet.contains(*ip))
    {
        let held: Vec<_> = v4.iter().map(|ip| IpAddr::V4(*ip).to_string()).collect();
        findings.push(Finding::error(
            "bridge.subnet",
            format!(
                "{name} has {}, which is not in this node's subnet {subnet}",
                held.join(", ")
            ),
            format!("drain the node, and delete {name}: the next pod makes it anew"),
        ));
    }
    findings
}
