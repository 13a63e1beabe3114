use super::{Facts, Finding};

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let managers = &facts.managers;
    let mut findings = Vec::new();
    if managers.networkd_removes_routes == Some(true) {
        findings.push(Finding::warning(
            "host.networkd",
            "systemd-networkd removes routes that it did not make, flannel's included, when it restarts".to_owned(),
            "install deploy/systemd/networkd-flannel.conf as /etc/systemd/networkd.conf.d/flannel.conf; flanneld puts \
             the routes back, but packets are lost until then",
        ));
    }
    if managers.network_manager_leaves_alone == Some(false) {
        findings.push(Finding::warning(
            "host.network-manager",
            "NetworkManager may take over flannel's device and the pods' interfaces".to_owned(),
            "install deploy/systemd/networkmanager-flannel.conf as /etc/NetworkManager/conf.d/flannel.conf",
        ));
    }
    if let Some(policy) = managers.mac_policy.as_ref().filter(|policy| *policy != "none") {
        findings.push(Finding::note(
            "host.mac-policy",
            format!("udev's MACAddressPolicy is {policy} for flannel's device"),
            "nothing, as flanneld sets the address itself; deploy/systemd/10-flannel.link keeps udev away for good",
        ));
    }
    findings
}
