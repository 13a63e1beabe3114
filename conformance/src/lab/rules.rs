//! Packet filter rules as lines that name their table and chain, in whatever order the chains were made.

use std::collections::BTreeMap;

/// By table and chain, the rules in their order.
type Chains = BTreeMap<(String, String), Vec<String>>;

/// Tables of iptables' program, in which nft prints some targets by its version, and some on standard error.
const OF_IPTABLES: [&str; 4] = ["nat", "filter", "mangle", "raw"];
const TARGETS: [&str; 4] = [" XT target", " xt target", " masquerade", " dnat"];

/// Reads what `nft list ruleset` prints, without counters; in tables of iptables' program also without the targets that
/// depend on nft's version, which `iptables-save` shows.
#[must_use]
pub fn nft_lines(text: &str) -> Vec<String> {
    let mut chains = Chains::new();
    let (mut table, mut chain, mut is_iptables) = (String::new(), String::new(), false);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            (table, chain) = (name.trim_end_matches(" {").to_owned(), String::new());
            is_iptables = OF_IPTABLES
                .iter()
                .any(|name| table.ends_with(&format!(" {name}")));
            chains.entry((table.clone(), chain.clone())).or_default();
        } else if let Some(name) = line.strip_prefix("chain ") {
            name.trim_end_matches(" {").clone_into(&mut chain);
            chains.entry((table.clone(), chain.clone())).or_default();
        } else if line == "}" {
            chain.clear();
        } else if !line.is_empty() && !line.starts_with('#') {
            let rule = without_counters(line);
            let rule = if is_iptables { plain(&rule) } else { rule };
            chains
                .entry((table.clone(), chain.clone()))
                .or_default()
                .push(rule);
        }
    }
    lines("table", chains)
}

/// Reads what `iptables-save` prints, without counters.
#[must_use]
pub fn iptables_lines(text: &str) -> Vec<String> {
    let mut chains = Chains::new();
    let mut table = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some((chain, policy)) = line.strip_prefix(':').and_then(|line| line.split_once(' ')) {
            let policy = policy.split(' ').next().unwrap_or_default();
            let rules = chains.entry((table.clone(), chain.to_owned())).or_default();
            rules.push(format!("policy {policy}"));
        } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|line| line.split_once(' ')) {
            let rules = chains.entry((table.clone(), chain.to_owned())).or_default();
            rules.push(rule.to_owned());
        }
    }
    lines("", chains)
}

fn lines(kind: &str, chains: Chains) -> Vec<String> {
    let of = |((table, chain), rules): ((String, String), Vec<String>)| {
        let place = format!("{kind} {table} {chain}").trim().to_owned();
        let head = rules.is_empty().then(|| place.clone());
        let rules = rules.into_iter().map(move |rule| format!("{place}: {rule}"));
        head.into_iter().chain(rules).collect::<Vec<_>>()
    };
    chains.into_iter().flat_map(of).collect()
}

/// Leaves out `packets N bytes N`.
fn without_counters(rule: &str) -> String {
    let mut kept = Vec::new();
    let mut words = rule.split_whitespace();
    while let Some(word) = words.next() {
        if matches!(word, "packets" | "bytes") {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

fn plain(rule: &str) -> String {
    let ends = TARGETS.iter().filter_map(|target| rule.find(target));
    let end = ends.min().unwrap_or(rule.len());
    rule.get(..end).unwrap_or(rule).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_nft_name_their_place_and_count_nothing() {
        let text = "table ip a {\n\tcomment \"x\"\n\tchain c {\n\t\tip saddr 10.0.0.1 counter packets 3 bytes 180 accept\n\t}\n}\n\
            # Warning: managed by iptables-nft\ntable ip6 nat {\n\tchain d {\n\t\t counter XT target MASQUERADE not found\n\n\t}\n\tchain e {\n\t}\n}\n";
        let expected = [
            "table ip a: comment \"x\"",
            "table ip a c: ip saddr 10.0.0.1 counter accept",
            "table ip6 nat",
            "table ip6 nat d: counter",
            "table ip6 nat e",
        ];
        assert_eq!(nft_lines(text), expected);
    }

    #[test]
    fn rules_of_iptables_keep_their_order_within_a_chain() {
        let text = "*nat\n:B - [0:0]\n:A ACCEPT [1:2]\n-A B -j RETURN\n-A B -j DROP\nCOMMIT\n";
        let expected = [
            "nat A: policy ACCEPT",
            "nat B: policy -",
            "nat B: -j RETURN",
            "nat B: -j DROP",
        ];
        assert_eq!(iptables_lines(text), expected);
    }
}
