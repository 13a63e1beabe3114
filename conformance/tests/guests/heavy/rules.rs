use conformance::guest::GuestLab;

use crate::heavy::{clean, configure, guests};

/// Starts the daemon with rules on the first guest, and returns what `show` lists of them.
fn rules_of(lab: &mut GuestLab, nftables: bool, expected: &str, show: &str) -> String {
    let conf =
        format!(r#"{{"Network":"10.244.0.0/16","EnableNFTables":{nftables},"Backend":{{"Type":"vxlan"}}}}"#);
    let prefix = configure(lab, "rules", &conf);
    let guest = lab.guest(1).unwrap();
    clean(guest);
    guest.start_flanneld(&format!("{prefix} --ip-masq")).unwrap();
    let shown = format!("{show} | grep -e '{expected}'");
    guest
        .wait_for(&shown, std::time::Duration::from_secs(60))
        .unwrap();
    let shown = guest.sh(show).unwrap();
    guest.stop_flanneld().unwrap();
    clean(guest);
    shown
}

#[test]
fn nf_tables_rules_load_and_list_as_written() {
    let mut lab = guests();
    let shown = rules_of(&mut lab, true, "masquerade", "nft list table ip flannel-ipv4");
    for line in [
        "type nat hook postrouting priority srcnat; policy accept;",
        "ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random",
        "ip saddr 10.244.0.0/16 accept",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
}

#[test]
fn iptables_rules_load_by_the_nf_tables_variant() {
    let mut lab = guests();
    let shown = rules_of(&mut lab, false, "MASQUERADE", "iptables-nft-save -t nat");
    let rule = "-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully";
    assert!(shown.contains(rule), "{shown}");
}
