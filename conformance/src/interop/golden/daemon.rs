//! Three nodes with a daemon each, over etcd.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::captures::{Captures, Entry};
use crate::interop::compare::{Compared, Findings, settled};
use crate::interop::labels::Labels;
use crate::interop::normal::{brief_lines, device_lines, sections, table_lines};
use crate::interop::sysctl;
use crate::lab::rules::{iptables_lines, nft_lines};
use crate::lab::{Binaries, Flanneld, Lab, LabConfig, NODE_LINK, Node, SUBNET_FILE, Store};
use crate::report::{Checked, differs};

/// What is compared.
pub(super) const IDS: [&str; 8] = [
    "GLD-01", "GLD-02", "GLD-03", "GLD-04", "GLD-05", "GLD-06", "GLD-07", "GLD-08",
];

/// As many nodes were captured.
const NODES: u8 = 3;
/// The flags that the captured daemons had, beside those of the store.
const FLAGS: [&str; 2] = ["--ip-masq", "--iface=eth0"];
/// How the captured nodes reached other networks in IPv6.
const WAY_OUT_V6: [&str; 8] = [
    "-6",
    "route",
    "add",
    "default",
    "via",
    "fd00:77::1",
    "dev",
    "eth0",
];
/// How long a daemon may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Shows whether the kernel still looks for others that have an address.
const ADDRESSES: &str = "ip addr";
/// What was looked at once node 1's daemon had ended.
const LEFT: [&str; 3] = ["ip -br link", "ip route", "nft list ruleset"];

/// Runs a daemon on each node in a captured configuration, and looks at all that it writes.
///
/// # Errors
/// Fails when the lab cannot be made, and differs when a daemon does not start or end.
pub(super) fn run(name: &str, captures: &Captures, binaries: &Binaries) -> Checked<Findings> {
    let stage = Stage {
        name,
        captures,
        captured: captures.etcd(name)?,
        lab: Lab::on(
            Store::Etcd,
            &LabConfig {
                nodes: NODES,
                binaries: binaries.clone(),
            },
        )?,
    };
    let conf = stage.net_conf()?;
    stage.lab.put_in_etcd("config", &conf.to_string(), None)?;
    if conf.get("EnableIPv6") == Some(&Value::Bool(true)) {
        for node in stage.lab.nodes() {
            node.use_ipv6()?;
            node.ip(&WAY_OUT_V6)?;
        }
    }
    let mut daemons = start(&stage.lab)?;
    let mut findings = stage.look()?;
    let ended = daemons.first_mut().context("no daemon runs")?.stop(STOP_LIMIT);
    if let Err(error) = ended {
        return differs("the daemon ends on SIGTERM", format!("{error:#}"));
    }
    findings.insert("GLD-08", vec![stage.left()?]);
    Ok(findings)
}

/// One after the other, as they were captured.
fn start(lab: &Lab) -> Checked<Vec<Flanneld>> {
    let mut daemons = Vec::new();
    for node in lab.nodes() {
        match node.start_flanneld(&FLAGS) {
            Ok(daemon) => daemons.push(daemon),
            Err(error) => return differs("the daemon starts", format!("{error:#}")),
        }
    }
    Ok(daemons)
}

struct Stage<'a> {
    name: &'a str,
    captures: &'a Captures,
    captured: Vec<Entry>,
    lab: Lab,
}

/// What was printed, by command.
type Printed = BTreeMap<String, String>;

impl Stage<'_> {
    fn net_conf(&self) -> Result<Value> {
        let config = self.captured.iter().find(|entry| entry.name == "config");
        let text = config.context("the capture has no configuration")?;
        serde_json::from_str(&text.value).context("reading the captured configuration")
    }

    fn text(&self, node: &Node, file: &str) -> Result<&str> {
        self.captures.text(self.name, &format!("{}-{file}", node.name()))
    }

    /// The programs that show the rules, and the files in which that was captured.
    fn rules(&self) -> Result<Vec<(&'static str, &'static str)>> {
        let conf = self.net_conf()?;
        let is_on = |key: &str| conf.get(key) == Some(&Value::Bool(true));
        if is_on("EnableNFTables") {
            return Ok(vec![("nft list ruleset", "nft-ruleset.txt")]);
        }
        let mut programs = vec![("iptables-save", "iptables-save.txt")];
        if is_on("EnableIPv6") {
            programs.push(("ip6tables-save", "ip6tables-save.txt"));
        }
        Ok(programs)
    }

    fn look(&self) -> Result<Findings> {
        let mut all = Vec::new();
        for node in self.lab.nodes() {
            let kernel = sections(self.text(node, "kernel.txt")?);
            let rules = self.rules()?;
            let commands: Vec<_> = kernel
                .iter()
                .map(|(command, _)| command.clone())
                .chain(rules.iter().map(|(command, _)| (*command).to_owned()))
                .chain([ADDRESSES.to_owned()])
                .collect();
            all.push((node, commands));
        }
        let (entries, printed) = settled(
            || {
                let entries = self.lab.entries_in_etcd()?;
                let looked = all.iter().map(|(node, commands)| print(node, commands));
                Ok((entries, looked.collect::<Result<Vec<_>>>()?))
            },
            |(entries, printed)| is_ready(entries, printed),
        )?;
        let mut findings = Findings::new();
        for (index, (node, printed)) in self.lab.nodes().iter().zip(&printed).enumerate() {
            let labels = Both {
                captured: Labels::of_leases(&self.captured, index)?,
                own: Labels::of_leases(&entries, index)?,
            };
            self.of_node(node, &labels, &entries, printed, &mut findings)?;
        }
        Ok(findings)
    }

    fn of_node(
        &self,
        node: &Node,
        labels: &Both,
        entries: &[Entry],
        printed: &Printed,
        findings: &mut Findings,
    ) -> Result<()> {
        let mut add = |id, expected, observed| {
            let place = node.name();
            findings.entry(id).or_default().push(Compared {
                place,
                expected,
                observed,
            });
        };
        let Both { captured, own } = labels;
        add(
            "GLD-01",
            lease_lines(&self.captured, captured),
            lease_lines(entries, own),
        );
        let file = fs::read_to_string(node.file(SUBNET_FILE)).context("reading the subnet file")?;
        let lines = |text: &str, labels: &Labels| labels.apply(text).lines().map(str::to_owned).collect();
        add(
            "GLD-02",
            lines(self.text(node, "subnet.env")?, captured),
            lines(&file, own),
        );
        let (mut expected, mut observed) = (Parts::new(), Parts::new());
        for (command, text) in sections(self.text(node, "kernel.txt")?) {
            let seen = printed.get(&command).map_or("", String::as_str);
            let (id, of) = form(&command);
            expected
                .entry(id)
                .or_default()
                .extend(of(&command, &text, captured));
            observed.entry(id).or_default().extend(of(&command, seen, own));
        }
        for (command, file) in self.rules()? {
            let seen = printed.get(command).map_or("", String::as_str);
            let of = rule_form(command);
            expected
                .entry("GLD-06")
                .or_default()
                .extend(of(&captured.apply(self.text(node, file)?)));
            observed.entry("GLD-06").or_default().extend(of(&own.apply(seen)));
        }
        for (id, lines) in expected {
            add(id, lines, observed.remove(id).unwrap_or_default());
        }
        // The parameters of the first node alone were captured.
        if node.number() == 1 {
            let captured = self.text(node, "sysctl-device-nondefault.txt")?;
            let is_device = |name: &str| name == NODE_LINK || name.starts_with("flannel");
            let all = node.namespaces().run(sysctl::all)?;
            let lines = captured.lines().map(str::to_owned).collect();
            add("GLD-07", lines, sysctl::beside_default(&all, is_device));
        }
        Ok(())
    }

    /// What node 1 holds without its daemon.
    fn left(&self) -> Result<Compared> {
        let node = self.lab.node(1)?;
        let captured = Labels::of_leases(&self.captured, 0)?;
        let own = Labels::of_leases(&self.lab.entries_in_etcd()?, 0)?;
        let commands = LEFT.map(str::to_owned);
        let (links, routes, rules) = divided(self.text(node, "after-sigterm.txt")?);
        let printed = print(node, &commands)?;
        let seen = |command: &str| printed.get(command).map_or("", String::as_str);
        let [br, route, nft] = LEFT;
        let lines = |links: &str, routes: &str, rules: &str, labels: &Labels| {
            let mut lines = brief_lines(links, labels);
            lines.extend(table_lines("route", routes, labels));
            lines.extend(nft_lines(&labels.apply(rules)));
            lines
        };
        Ok(Compared {
            place: node.name(),
            expected: lines(&links, &routes, &rules, &captured),
            observed: lines(seen(br), seen(route), seen(nft), &own),
        })
    }
}

struct Both {
    captured: Labels,
    own: Labels,
}

type Parts = BTreeMap<&'static str, Vec<String>>;

/// Reads what a command printed.
type Form = fn(&str, &str, &Labels) -> Vec<String>;

/// What a command's output is about, and how it is read.
fn form(command: &str) -> (&'static str, Form) {
    if command.contains("route") || command.contains("rule") {
        ("GLD-05", |command, text, labels| {
            let table = if command.contains("rule") { "rule" } else { "route" };
            table_lines(table, text, labels)
        })
    } else if command.contains("fdb") || command.contains("neigh") {
        ("GLD-04", |command, text, labels| {
            let words: Vec<_> = command.split_whitespace().collect();
            let table = [words.get(1), words.last()].map(|word| word.copied().unwrap_or_default());
            table_lines(&table.join(" "), text, labels)
        })
    } else {
        ("GLD-03", |_, text, labels| device_lines(text, labels))
    }
}

fn rule_form(command: &str) -> fn(&str) -> Vec<String> {
    match command {
        "nft list ruleset" => nft_lines,
        _ => iptables_lines,
    }
}

/// What the commands print, on standard error where they fail.
fn print(node: &Node, commands: &[String]) -> Result<Printed> {
    let run = |command: &String| {
        let argv: Vec<_> = command.split_whitespace().collect();
        let output = node.exec(&argv)?;
        let text = if output.status.success() {
            output.stdout
        } else {
            output.stderr
        };
        Ok((command.clone(), String::from_utf8_lossy(&text).into_owned()))
    };
    commands.iter().map(run).collect()
}

/// Every node knows the others, and the kernel has looked whether addresses are others' as well.
fn is_ready(entries: &[Entry], printed: &[Printed]) -> bool {
    let subnets: Vec<_> = entries
        .iter()
        .filter_map(|entry| entry.name.strip_prefix("subnets/")?.split('-').next())
        .collect();
    let text = |one: &Printed| one.values().cloned().collect::<String>();
    subnets.len() == usize::from(NODES)
        && printed.iter().map(text).all(|text| {
            !text.contains("tentative") && subnets.iter().all(|subnet| text.contains(&format!("{subnet}/")))
        })
}

/// The leases with their values and how long they last.
fn lease_lines(entries: &[Entry], labels: &Labels) -> Vec<String> {
    let leases = entries.iter().filter(|entry| entry.name.starts_with("subnets/"));
    let mut lines: Vec<_> = leases
        .map(|entry| {
            let end = entry
                .ttl_secs
                .map_or("never ends".to_owned(), |secs| format!("ends after {secs} s"));
            labels.apply(&format!("{} = {}, {end}", entry.name, entry.value))
        })
        .collect();
    lines.sort();
    lines
}

/// Divides what was captured after SIGTERM into links, routes and rules.
fn divided(text: &str) -> (String, String, String) {
    let (mut links, mut routes, mut rules) = (String::new(), String::new(), String::new());
    for line in text.lines().filter(|line| !line.starts_with("# after")) {
        let is_rule = !rules.is_empty() || line.starts_with("table ") || line.starts_with('#');
        let part = if is_rule {
            &mut rules
        } else if line.contains('<') {
            &mut links
        } else {
            &mut routes
        };
        part.push_str(line);
        part.push('\n');
    }
    (links, routes, rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_is_divided() {
        let text = "# after SIGTERM, node 1\nlo UNKNOWN 00 <UP>\n10.0.0.0/8 dev a\ntable ip x {\n\tcomment \"<\"\n}\n";
        let expected = (
            "lo UNKNOWN 00 <UP>\n".to_owned(),
            "10.0.0.0/8 dev a\n".to_owned(),
            "table ip x {\n\tcomment \"<\"\n}\n".to_owned(),
        );
        assert_eq!(divided(text), expected);
    }
}
