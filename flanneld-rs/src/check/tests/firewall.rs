use super::*;

#[test]
fn firewalls_that_drop_the_tunnel_are_told_from_those_that_do_not() {
    use Severity::{Error, Warning};
    let rows = [
        (
            "iptables-save",
            "-A INPUT -p udp -m udp --dport 8472 -j DROP\n",
            Some(Error),
        ),
        (
            "iptables-save",
            "-A INPUT -p udp -m multiport --dports 53,8472 -j REJECT\n",
            Some(Error),
        ),
        (
            "iptables-save",
            "-A INPUT -p udp -m udp --dport 84720 -j DROP\n",
            None,
        ),
        (
            "iptables-save",
            "-A INPUT -p tcp -m tcp --dport 8472 -j DROP\n",
            None,
        ),
        (
            "iptables-save",
            ":INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n",
            Some(Warning),
        ),
        (
            "iptables-save",
            ":INPUT DROP [0:0]\n-A INPUT -p udp -m udp --dport 8472 -j ACCEPT\n",
            None,
        ),
        ("iptables-save", ":INPUT ACCEPT [0:0]\n", None),
        ("nft", "\tudp dport 8472 drop\n", Some(Error)),
        (
            "nft",
            "\tudp dport { 53, 8472 } counter packets 0 bytes 0 reject\n",
            Some(Error),
        ),
        ("nft", "\tudp dport 4789 drop\n", None),
        (
            "nft",
            "\ttype filter hook input priority filter; policy drop;\n\tudp dport 8472 accept\n",
            None,
        ),
        (
            "nft",
            "\ttype filter hook input priority filter; policy drop;\n\tct state established accept\n",
            Some(Warning),
        ),
        (
            "nft",
            "\ttype filter hook forward priority filter; policy drop;\n",
            None,
        ),
    ];
    for (program, text, severity) in rows {
        let mut facts = good();
        facts.rules.insert(program, text.to_owned());
        let found = findings(&facts);
        assert_eq!(found.first().map(|finding| finding.severity), severity, "{text}");
        assert!(
            found.iter().all(|finding| finding.id == "path.port-blocked"),
            "{text}"
        );
    }
}

#[test]
fn firewalls_that_drop_ip_in_ip_are_told_from_those_that_do_not() {
    use Severity::{Error, Warning};
    const INPUT: &str = "\ttype filter hook input priority filter; policy drop;\n";
    let rows = [
        ("iptables-save", "-A INPUT -p ipencap -j DROP\n", Some(Error)),
        (
            "iptables-save",
            "-A INPUT -s 192.0.2.0/24 -p 4 -j REJECT\n",
            Some(Error),
        ),
        ("iptables-save", "-A FORWARD -p ipencap -j DROP\n", None),
        ("iptables-save", "-A INPUT ! -p ipencap -j DROP\n", None),
        (
            "iptables-save",
            "-A INPUT -p udp -m udp --dport 4 -j DROP\n",
            None,
        ),
        ("iptables-save", ":INPUT DROP [0:0]\n", Some(Warning)),
        (
            "iptables-save",
            ":INPUT DROP [0:0]\n-A INPUT -p ipencap -j ACCEPT\n",
            None,
        ),
        ("nft", "\tip protocol ipencap drop\n", Some(Error)),
        ("nft", "\tip saddr 192.0.2.4 ip protocol 4 drop\n", Some(Error)),
        ("nft", "\tmeta l4proto { 1, 4 } counter reject\n", Some(Error)),
        ("nft", "\tip protocol != ipencap drop\n", None),
        ("nft", "\tip saddr 10.4.0.0/16 meta l4proto tcp drop\n", None),
        (
            "nft",
            "chain f {\n\ttype filter hook forward priority 0;\n\tip protocol ipencap drop\n}\n",
            None,
        ),
        ("nft", INPUT, Some(Warning)),
    ];
    for (program, text, severity) in rows {
        let mut facts = good();
        by_ipip(&mut facts);
        facts.rules.insert(program, text.to_owned());
        let found = findings(&facts);
        assert_eq!(found.first().map(|finding| finding.severity), severity, "{text}");
        let mut ids = found.iter().map(|finding| finding.id);
        assert!(ids.all(|id| id == "path.protocol-blocked"), "{text}");
    }
    let mut facts = good();
    by_ipip(&mut facts);
    let accepted = format!("{INPUT}\tip protocol ipencap accept\n");
    facts.rules.insert("nft", accepted);
    assert_eq!(findings(&facts), []);
}

/// Each family's device has a port of its own.
#[test]
fn firewalls_are_asked_for_every_port_of_wireguard() {
    let mut facts = good();
    by_wireguard(&mut facts);
    let mut second = node(&mut facts).device.clone().unwrap();
    (second.name, second.port) = ("flannel-wg-v6".to_owned(), Some(51821));
    node(&mut facts).second_device = Some(second);
    for (port, expected) in [(51820, 1), (51821, 1), (8472, 0)] {
        let rule = format!("-A INPUT -p udp -m udp --dport {port} -j DROP\n");
        facts.rules.insert("iptables-save", rule);
        let found = findings(&facts);
        assert_eq!(found.len(), expected, "{port}");
        assert!(found.iter().all(|finding| finding.id == "path.port-blocked"));
    }
}
