//! Whether tunnelled packets get through: firewalls of this host, and peers that do not answer.

use super::{Backend, Facts, Finding, Probe};
use crate::status::PeerWay;

/// What the packets on the way between nodes are.
#[derive(Clone, Copy)]
enum Outer {
    /// UDP, to this port.
    Udp(u16),
    /// IPv4 in IPv4.
    Ipip,
}

impl Outer {
    /// For people.
    fn text(self) -> String {
        match self {
            Self::Udp(port) => format!("UDP port {port}"),
            Self::Ipip => "IP protocol 4".to_owned(),
        }
    }
}

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for outer in outer(facts) {
        let rules = facts.rules.iter();
        findings.extend(rules.filter_map(|(program, text)| blocked(program, text, outer)));
    }
    findings.extend(facts.probes.iter().filter_map(|probe| silent(facts, probe)));
    findings
}

fn outer(facts: &Facts) -> Vec<Outer> {
    let is_ipip = facts.backend() == Some(Backend::Ipip);
    let ports = facts.tunnel_ports().into_iter().map(Outer::Udp);
    ports.chain(is_ipip.then_some(Outer::Ipip)).collect()
}

/// Looks for a rule that drops the tunnel's packets, or a chain that drops what nothing accepts.
fn blocked(program: &str, text: &str, outer: Outer) -> Option<Finding> {
    let found = if program.ends_with("-save") {
        iptables_drop(text, outer)
    } else {
        nft_drop(text, outer)
    };
    let (is_sure, what) = found?;
    let (id, packets) = match outer {
        Outer::Udp(port) => ("path.port-blocked", format!("UDP packets to port {port}")),
        Outer::Ipip => ("path.protocol-blocked", format!("packets of {}", outer.text())),
    };
    let way_out = format!("accept {packets} from the other nodes");
    Some(if is_sure {
        Finding::error(
            id,
            format!("this host's firewall drops the tunnel's packets ({program}): {what}"),
            way_out,
        )
    } else {
        Finding::warning(
            id,
            format!(
                "this host's firewall seems to drop the tunnel's packets ({program}): {what}, and no rule names {}",
                outer.text()
            ),
            way_out,
        )
    })
}

/// The tunnel's packets are this host's own, not forwarded.
fn iptables_drop(text: &str, outer: Outer) -> Option<(bool, String)> {
    let mut about = text
        .lines()
        .filter(|rule| rule.starts_with("-A ") && !rule.starts_with("-A FORWARD ") && is_about(rule, outer));
    match about.next() {
        Some(rule) if rule.contains("-j DROP") || rule.contains("-j REJECT") => Some((true, rule.to_owned())),
        Some(_) => None,
        None => {
            let policy = text.lines().find(|line| line.starts_with(":INPUT DROP"));
            let accepts_all = text
                .lines()
                .any(|rule| rule.starts_with("-A INPUT") && rule.trim_end() == "-A INPUT -j ACCEPT");
            policy
                .filter(|_| !accepts_all)
                .map(|_| (false, "the policy of INPUT is DROP".to_owned()))
        }
    }
}

/// Whether a rule of iptables names the tunnel's packets.
fn is_about(rule: &str, outer: Outer) -> bool {
    match outer {
        Outer::Udp(port) => {
            let is_udp = rule.contains("-p udp") || !rule.contains("-p ");
            is_udp && (names(rule, "--dport", port) || names(rule, "--dports", port))
        }
        Outer::Ipip => {
            let words: Vec<_> = rule.split_whitespace().collect();
            let names = |three: &[&str]| match three {
                [before, "-p", protocol] => *before != "!" && is_ipip(protocol),
                _ => false,
            };
            words.windows(3).any(names)
        }
    }
}

/// By number, or by the name of `/etc/protocols`.
fn is_ipip(protocol: &str) -> bool {
    matches!(protocol, "4" | "ipencap" | "ipip" | "IP-ENCAP")
}

fn nft_drop(text: &str, outer: Outer) -> Option<(bool, String)> {
    let mut is_forwarded = false;
    let mut about = text.lines().map(str::trim).filter(|rule| {
        if rule.starts_with("chain ") {
            is_forwarded = false;
        }
        is_forwarded |= rule.contains("hook forward");
        !is_forwarded && is_about_in_nft(rule, outer)
    });
    match about.next() {
        Some(rule) if rule.contains(" drop") || rule.contains(" reject") => Some((true, rule.to_owned())),
        Some(_) => None,
        None => {
            let policy = text
                .lines()
                .map(str::trim)
                .find(|line| line.contains("hook input") && line.contains("policy drop"));
            policy.map(|_| (false, "a chain at the hook input has the policy drop".to_owned()))
        }
    }
}

/// Whether a rule of nft names the tunnel's packets.
fn is_about_in_nft(rule: &str, outer: Outer) -> bool {
    match outer {
        Outer::Udp(port) => {
            let mut numbers = rule.split(|c: char| !c.is_ascii_digit());
            rule.contains("udp dport") && numbers.any(|number| number == port.to_string())
        }
        Outer::Ipip => {
            let keys = ["ip protocol ", "meta l4proto "].into_iter();
            let mut values = keys.filter_map(|key| Some(rule.split_once(key)?.1));
            values.any(|value| {
                let listed = value.strip_prefix('{').and_then(|rest| rest.split_once('}'));
                let one = value.split_whitespace().next();
                let values = listed.map(|(list, _)| list).or(one).unwrap_or_default();
                values.split(',').any(|protocol| is_ipip(protocol.trim()))
            })
        }
    }
}

/// Whether a rule has a port, alone or in a list, behind a word.
fn names(rule: &str, word: &str, port: u16) -> bool {
    let mut words = rule.split_whitespace().skip_while(|found| *found != word);
    words
        .nth(1)
        .is_some_and(|ports| ports.split(',').any(|found| found == port.to_string()))
}

fn silent(facts: &Facts, probe: &Probe) -> Option<Finding> {
    match (&probe.tunnel, probe.underlay) {
        (Some(end), true) if !end.answers && end.way == PeerWay::Direct => Some(Finding::error(
            "path.direct-silent",
            format!(
                "the peer {} answers, but {} on it, to which a plain route leads, does not",
                probe.public_ip, end.vtep_ip
            ),
            "let packets from and to addresses of pods through between the nodes (clouds check source and destination), \
             or set DirectRouting to false in the network configuration",
        )),
        (Some(end), true) if !end.answers => {
            let packets: Vec<_> = outer(facts).into_iter().map(Outer::text).collect();
            let packets = if packets.is_empty() {
                "its packets".to_owned()
            } else {
                packets.join(" and ")
            };
            Some(Finding::error(
                "path.tunnel-silent",
                format!(
                    "the peer {} answers, but {} behind its tunnel does not",
                    probe.public_ip, end.vtep_ip
                ),
                format!(
                    "let {packets} through on both nodes and between them; run flanneld check there as well"
                ),
            ))
        }
        (tunnel, false) if tunnel.as_ref().is_none_or(|end| !end.answers) => Some(Finding::warning(
            "path.peer-silent",
            format!("the peer {} does not answer by any way", probe.public_ip),
            "look whether it runs, and whether its address is reachable from here",
        )),
        (Some(_) | None, _) => None,
    }
}
