use super::{Facts, Finding, kernel_version};

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = missing_modules(facts);
    findings.extend(sysctls(facts));
    findings.extend(checksum_offload(facts));
    findings.extend(neighbour_limit(facts));
    findings
}

fn missing_modules(facts: &Facts) -> Vec<Finding> {
    let is_needed = |module: &&&str| **module != "vxlan" || !facts.is_routed();
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

fn sysctls(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.sysctl("net/ipv4/ip_forward") == Some("0") {
        findings.push(Finding::error(
            "kernel.ip-forward",
            "the kernel does not forward IPv4 packets: pods reach only their own node".to_owned(),
            "set net.ipv4.ip_forward=1 in /etc/sysctl.d, and look what sets it to 0",
        ));
    }
    let ipv6_wanted = facts
        .subnet_env()
        .is_some_and(|env| !env.ipv6_networks.is_empty());
    let ipv6_off = facts.sysctl("net/ipv6/conf/all/disable_ipv6") != Some("0");
    if ipv6_wanted && ipv6_off {
        findings.push(Finding::error(
            "kernel.ipv6-off",
            "the pod network has IPv6, which is switched off on this host".to_owned(),
            "set net.ipv6.conf.all.disable_ipv6=0, boot without ipv6.disable=1, or leave IPv6 out of the network \
             configuration",
        ));
    }
    if let Some((device, ..)) = facts.device() {
        let strict = ["all", device.as_str()]
            .iter()
            .any(|name| facts.sysctl(&format!("net/ipv4/conf/{name}/rp_filter")) == Some("1"));
        let loose = ["all", device.as_str()]
            .iter()
            .any(|name| facts.sysctl(&format!("net/ipv4/conf/{name}/rp_filter")) == Some("2"));
        if strict && !loose {
            findings.push(Finding::note(
                "kernel.rp-filter",
                format!("reverse path filtering is strict on {device}: replies that return by another way are dropped"),
                "nothing, as long as all traffic of pods goes through the tunnel; else set rp_filter to 2",
            ));
        }
    }
    findings
}

/// The kernel computed wrong outer checksums for packets that are translated twice until "netfilter: nat: never update
/// the UDP checksum when it's 0" (linux 5.7, 5.6.13, 5.4.41, 4.19.123, 4.14.181).
fn checksum_offload(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some((device, _, vxlan)) = facts.device() else {
        return findings;
    };
    let way_out =
        format!("if connections to Services hang, run ethtool -K {device} tx-checksum-ip-generic off");
    let mended = match kernel_version(&facts.kernel_release) {
        Some((5, 6, patch)) => patch >= 13,
        Some((5, 4, patch)) => patch >= 41,
        Some((4, 19, patch)) => patch >= 123,
        Some((4, 14, patch)) => patch >= 181,
        Some((major, minor, _)) => (major, minor) >= (5, 7),
        None => true,
    };
    if !mended {
        findings.push(Finding::warning(
            "kernel.checksum-offload",
            format!(
                "the kernel {} may compute wrong checksums for tunnelled packets that are translated twice, unless its \
                 distributor has mended it",
                facts.kernel_release
            ),
            format!("{way_out}, or update the kernel"),
        ));
    }
    let driver = vxlan.parent.as_ref().and_then(|parent| facts.drivers.get(parent));
    if driver.is_some_and(|driver| driver == "vmxnet3") {
        findings.push(Finding::note(
            "kernel.vmxnet3",
            format!(
                "the interface below {device} is a vmxnet3: some versions of VMware drop tunnelled packets whose \
                 checksum is left to the card"
            ),
            way_out,
        ));
    }
    findings
}

/// Permanent neighbour entries count towards the limit before linux 5.0.
fn neighbour_limit(facts: &Facts) -> Option<Finding> {
    let old = kernel_version(&facts.kernel_release).is_some_and(|version| version < (5, 0, 0));
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
