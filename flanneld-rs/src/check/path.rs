//! Whether tunnelled packets get through: firewalls of this host, and peers that do not answer.

use super::{Backend, Facts, Finding, Probe};
use crate::status::PeerWay;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(port) = facts.tunnel_port() {
        let rules = facts.rules.iter();
        findings.extend(rules.filter_map(|(program, text)| blocked(program, text, port)));
    }
    findings.extend(facts.probes.iter().filter_map(|probe| silent(facts, probe)));
    findings
}

/// Looks for a rule that drops the tunnel's packets, or a chain that drops what nothing accepts.
fn blocked(program: &str, text: &str, port: u16) -> Option<Finding> {
    let found = if program.ends_with("-save") {
        iptables_drop(text, port)
    } else {
        nft_drop(text, port)
    };
    let (severity_is_sure, what) = found?;
    let id = "path.port-blocked";
    let way_out = format!("accept UDP packets to port {port} from the other nodes");
    Some(if severity_is_sure {
        Finding::error(
            id,
            format!("this host's firewall drops the tunnel's packets ({program}): {what}"),
            way_out,
        )
    } else {
        Finding::warning(
            id,
            format!(
                "this host's firewall seems to drop the tunnel's packets ({program}): {what}, and no rule names UDP port {port}"
            ),
            way_out,
        )
    })
}

fn iptables_drop(text: &str, port: u16) -> Option<(bool, String)> {
    let names_port = |rule: &str| names(rule, "--dport", port) || names(rule, "--dports", port);
    let udp = |rule: &str| rule.contains("-p udp") || !rule.contains("-p ");
    let mut about_port = text
        .lines()
        .filter(|rule| rule.starts_with("-A ") && udp(rule) && names_port(rule));
    match about_port.next() {
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

fn nft_drop(text: &str, port: u16) -> Option<(bool, String)> {
    let about_port = text.lines().map(str::trim).find(|rule| {
        rule.contains("udp dport")
            && rule
                .split(|c: char| !c.is_ascii_digit())
                .any(|number| number == port.to_string())
    });
    match about_port {
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
            let packets = match (facts.tunnel_port(), facts.backend()) {
                (Some(port), _) => format!("UDP port {port}"),
                (None, Some(Backend::Ipip)) => "IP protocol 4".to_owned(),
                (None, _) => "its packets".to_owned(),
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
