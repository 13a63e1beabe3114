use netstate::{Link, LinkKind};

use super::{BRIDGE, Backend, Device, Facts, Finding};
use crate::kernel_version::KernelVersion;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = missing_modules(facts);
    findings.extend(bridged_traffic(facts));
    findings.extend(forwarding(facts));
    findings.extend(ipv6(facts));
    findings.extend(reverse_path(facts));
    findings.extend(checksum_offload(facts));
    findings.extend(neighbour_limit(facts));
    findings
}

fn missing_modules(facts: &Facts) -> Vec<Finding> {
    let is_needed = |module: &&&str| match **module {
        "vxlan" => matches!(facts.backend(), Some(Backend::Vxlan) | None),
        "wireguard" => facts.backend() == Some(Backend::Wireguard),
        "ipip" => facts.backend() == Some(Backend::Ipip),
        _ => true,
    };
    let missing = facts.missing_modules.iter().filter(is_needed);
    let finding = |module: &&'static str| {
        match *module {
        "br_netfilter" => Finding::warning(
            "kernel.br-netfilter",
            "br_netfilter is not loaded: Services whose backend is on the same node do not work through iptables"
                .to_owned(),
            "run modprobe br_netfilter, and name it in /etc/modules-load.d; not needed where kube-proxy does not use \
             iptables",
        ),
        module => Finding::error(
            "kernel.feature-missing",
            format!("this kernel ({}) has no {module}", facts.kernel_release),
            format!("install the kernel's modules, or build it with {module}"),
        ),
    }
    };
    missing.map(finding).collect()
}

/// br_netfilter is there, but somebody switched it off, as some lists of kernel parameters do.
fn bridged_traffic(facts: &Facts) -> Option<Finding> {
    const KEY: &str = "net/bridge/bridge-nf-call-iptables";
    (facts.sysctl(KEY) == Some("0")).then(|| {
        Finding::warning(
            "kernel.bridge-nf-call",
            "iptables does not see bridged packets: Services whose backend is on the same node do not work through it"
                .to_owned(),
            "set net.bridge.bridge-nf-call-iptables=1 in /etc/sysctl.d, and look what sets it to 0; not needed where \
             kube-proxy does not use iptables",
        )
    })
}

fn forwarding(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.sysctl("net/ipv4/ip_forward") == Some("0") {
        findings.push(Finding::error(
            "kernel.ip-forward",
            "the kernel does not forward IPv4 packets: pods reach only their own node".to_owned(),
            "set net.ipv4.ip_forward=1 in /etc/sysctl.d, and look what sets it to 0",
        ));
    } else {
        findings.extend(link_forwarding(facts));
    }
    if wants_ipv6(facts) && facts.sysctl("net/ipv6/conf/all/forwarding") == Some("0") {
        findings.push(Finding::error(
            "kernel.ipv6-forward",
            "the kernel does not forward IPv6 packets: pods reach only their own node".to_owned(),
            "set net.ipv6.conf.all.forwarding=1 in /etc/sysctl.d, and look what sets it to 0",
        ));
    }
    findings
}

/// Packets of pods that come in by a link are forwarded if the link's own parameter says so, whatever the host's says.
fn link_forwarding(facts: &Facts) -> Option<Finding> {
    let is_off = |link: &&str| facts.sysctl(&format!("net/ipv4/conf/{link}/forwarding")) == Some("0");
    let ways = ways(facts);
    let off: Vec<_> = ways.into_iter().filter(is_off).collect();
    let first = off.first()?;
    Some(Finding::error(
        "kernel.link-forward",
        format!(
            "the kernel does not forward IPv4 packets that come in by {}: pods get no answer from other nodes",
            off.join(" and ")
        ),
        format!(
            "set net/ipv4/conf/{first}/forwarding to 1, and look what sets it to 0: systemd-networkd does with \
             IPv4Forwarding=no or IPForward=no in the file that matches the interface"
        ),
    ))
}

/// The links by which packets of pods come in.
fn ways(facts: &Facts) -> Vec<&str> {
    let shared = match facts.told_backend() {
        Some(Backend::HostGw) => facts.status().and_then(|status| status.node.backend.as_ref()),
        Some(Backend::Vxlan | Backend::Wireguard | Backend::Ipip | Backend::Alloc | Backend::Other)
        | None => None,
    };
    let devices = facts.devices();
    let names = devices.into_iter().map(|device| device.name.as_str());
    let shared = shared.map(|backend| backend.link.as_str());
    names.chain(shared).chain([BRIDGE]).collect()
}

fn wants_ipv6(facts: &Facts) -> bool {
    facts
        .subnet_env()
        .is_some_and(|env| !env.ipv6_networks.is_empty())
}

/// A host without IPv6 has none of its parameters.
fn ipv6(facts: &Facts) -> Option<Finding> {
    let is_off = |link: &str| facts.sysctl(&format!("net/ipv6/conf/{link}/disable_ipv6"));
    let off_on = ways(facts).into_iter().find(|link| is_off(link) == Some("1"));
    let place = match (is_off("all"), off_on) {
        _ if !wants_ipv6(facts) => return None,
        (Some("0"), None) => return None,
        (Some("0"), Some(link)) => link,
        (Some(_) | None, _) => "all",
    };
    let on = if place == "all" {
        "this host".to_owned()
    } else {
        place.to_owned()
    };
    Some(Finding::error(
        "kernel.ipv6-off",
        format!("the pod network has IPv6, which is switched off on {on}"),
        format!(
            "set net/ipv6/conf/{place}/disable_ipv6 to 0, boot without ipv6.disable=1, or leave IPv6 out of the network \
             configuration"
        ),
    ))
}

fn reverse_path(facts: &Facts) -> Option<Finding> {
    let device = facts.device()?.name;
    let has = |value: &str| {
        ["all", device.as_str()]
            .iter()
            .any(|name| facts.sysctl(&format!("net/ipv4/conf/{name}/rp_filter")) == Some(value))
    };
    (has("1") && !has("2")).then(|| {
        Finding::note(
            "kernel.rp-filter",
            format!(
                "reverse path filtering is strict on {device}: replies that return by another way are dropped"
            ),
            "nothing, as long as all traffic of pods goes through the tunnel; else set rp_filter to 2",
        )
    })
}

/// Checksums that are left to a hardware, or a kernel, which gets them wrong.
fn checksum_offload(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(Device {
        name: device,
        link: Link {
            kind: LinkKind::Vxlan(vxlan),
            ..
        },
        parent,
        ..
    }) = facts.device()
    else {
        return findings;
    };
    if vxlan.tx_checksum == Some(false) {
        return findings;
    }
    if facts.kernel_version.is_some_and(KernelVersion::spoils_checksums) {
        findings.push(Finding::warning(
            "kernel.checksum-offload",
            format!(
                "{device} leaves checksums to the hardware, and the kernel {} spoils those of packets that are \
                 translated twice, unless its distributor has mended it: connections to Services hang",
                facts.kernel_release
            ),
            "start flanneld without --vxlan-checksum-offload=on, or update the kernel",
        ));
    }
    let driver = parent.and_then(|parent| facts.drivers.get(parent));
    if driver.is_some_and(|driver| driver == "vmxnet3") {
        findings.push(Finding::note(
            "kernel.vmxnet3",
            format!(
                "the interface below {device} is a vmxnet3: some versions of VMware drop tunnelled packets whose \
                 checksum is left to the card"
            ),
            "if pods of other nodes do not answer, start flanneld with --vxlan-checksum-offload=off",
        ));
    }
    findings
}

/// Permanent neighbour entries count towards the limit before linux 5.0.
fn neighbour_limit(facts: &Facts) -> Option<Finding> {
    let old = facts
        .kernel_version
        .is_some_and(|version| version < KernelVersion(5, 0, 0));
    let limit: usize = facts.sysctl("net/ipv4/neigh/default/gc_thresh3")?.parse().ok()?;
    let entries = facts.state.neighs.len();
    (old && entries.saturating_mul(10) > limit.saturating_mul(8)).then(|| {
        Finding::warning(
            "kernel.neighbour-limit",
            format!("{entries} peers take most of the {limit} neighbour entries that this kernel allows"),
            "raise net.ipv4.neigh.default.gc_thresh1, 2 and 3 to several times the number of nodes",
        )
    })
}
