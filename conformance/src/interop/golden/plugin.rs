//! A host with one pod, attached by kube-flannel's list as the reference's runner did.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use super::files::{Modes, captured_files, state};
use crate::captures::Captures;
use crate::interop::compare::{Compared, Findings, settled};
use crate::interop::labels::Labels;
use crate::interop::normal::{Section, brief_lines, device_lines, sections, table_lines};
use crate::interop::sysctl::{self, Sysctls};
use crate::lab::rules::{iptables_lines, nft_lines};
use crate::lab::runtime::{Attachment, Verb, call_list, run_program};
use crate::lab::{
    Binaries, Namespaces, STAGE_PLUGINS, SUBNET_FILE, command, on_own_thread, prepare_stage, text,
};
use crate::report::{Checked, differs};

/// What is compared.
pub(super) const IDS: [&str; 8] = [
    "PLG-01", "PLG-02", "PLG-03", "PLG-04", "PLG-05", "PLG-06", "PLG-07", "PLG-08",
];

/// What the reference's runner called the container, its namespace and its interface.
const CONTAINER: &str = "cnitool-0cea03627191eaa6cdf9";
const NETNS: &str = "/run/netns/pod0";
const IFNAME: &str = "eth0";
/// Programs under all their names, where one is several.
const PROGRAMS: &str = "/run/plugins";
const NAMES: [&str; 4] = ["flannel", "bridge", "host-local", "portmap"];

/// Runs the plugins in a captured configuration, and looks at all that they write.
///
/// # Errors
/// Fails when a host cannot be made, and differs when ADD fails.
pub(super) fn run(name: &str, captures: &Captures, binaries: &Binaries) -> Checked<Findings> {
    let ended = on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .context("making namespaces, which needs root")?;
        prepare_stage(binaries.dir())?;
        prepare_host(name)?;
        Ok(on_host(name, captures))
    });
    ended?
}

/// A host that forwards nothing, with the subnet file, the programs, and a namespace for the pod.
fn prepare_host(name: &str) -> Result<()> {
    fs::create_dir_all(PROGRAMS).with_context(|| format!("making {PROGRAMS}"))?;
    for name in NAMES {
        let own = Path::new(STAGE_PLUGINS).join(name);
        let program = if own.exists() {
            own
        } else {
            Path::new(STAGE_PLUGINS).join("flannel")
        };
        let link = Path::new(PROGRAMS).join(name);
        symlink(program, link).with_context(|| format!("adding {name}"))?;
    }
    // Forwarding is inherited from the machine, and switching it off sets what hangs on it.
    for value in ["1", "0"] {
        fs::write("/proc/sys/net/ipv4/ip_forward", value).context("switching forwarding off")?;
    }
    fs::create_dir_all("/run/flannel").context("making /run/flannel")?;
    fs::write(SUBNET_FILE, subnet_file(name)).context("writing the subnet file")?;
    for line in ["link set lo up", "netns add pod0", "-n pod0 link set lo up"] {
        ip(line)?;
    }
    Ok(())
}

fn ip(line: &str) -> Result<String> {
    let argv: Vec<_> = ["ip"].into_iter().chain(line.split(' ')).collect();
    printed(&argv)
}

/// What a program prints where the calling thread is.
fn printed(argv: &[&str]) -> Result<String> {
    let line = argv.join(" ");
    let output = command(argv)?
        .output()
        .with_context(|| format!("starting `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The node's lease as the reference's daemon wrote it.
fn subnet_file(name: &str) -> String {
    let v6 = "FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:7::1/64\n";
    format!(
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\n{}FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        if is_dual(name) { v6 } else { "" }
    )
}

fn is_dual(name: &str) -> bool {
    name.contains("dualstack")
}

/// kube-flannel's list; ports are mapped by iptables, which the reference takes wherever it is installed.
fn list(name: &str) -> Value {
    let mut portmap =
        json!({"type": "portmap", "backend": "iptables", "capabilities": {"portMappings": true}});
    if name.ends_with("-ports") {
        let mappings = json!([
            {"containerPort": 80, "hostPort": 20001, "protocol": "tcp"},
            {"containerPort": 53, "hostPort": 20053, "protocol": "udp"},
        ]);
        if let Some(members) = portmap.as_object_mut() {
            members.insert("runtimeConfig".to_owned(), json!({ "portMappings": mappings }));
        }
    }
    let delegate = json!({"hairpinMode": true, "isDefaultGateway": true});
    let plugins = json!([{"type": "flannel", "delegate": delegate}, portmap]);
    json!({"name": "cbr0", "cniVersion": "1.0.0", "plugins": plugins})
}

fn call(name: &str, verb: Verb, cached: Option<&Value>) -> Result<Value> {
    let attachment = Attachment {
        container_id: CONTAINER.to_owned(),
        netns: NETNS.to_owned(),
        ifname: IFNAME.to_owned(),
    };
    call_list(&list(name), verb, cached, |plugin, conf| {
        run_program(PROGRAMS, plugin, verb, &attachment, conf)
    })
}

fn on_host(name: &str, captures: &Captures) -> Checked<Findings> {
    let pod = Namespaces::of_netns_file(Path::new(NETNS))?;
    let before = [sysctl::all()?, pod.run(sysctl::all)?];
    let result = match call(name, Verb::Add, None) {
        Ok(result) => result,
        Err(error) => return differs("ADD succeeds", format!("{error:#}")),
    };
    let captured: Value = serde_json::from_str(captures.text(name, "add-result.json")?)
        .context("reading the captured result")?;
    let host = Host {
        name,
        captures,
        pod,
        captured: labels(&captured),
        own: labels(&result),
    };
    let mut findings = Findings::new();
    findings.insert(
        "PLG-01",
        vec![host.compared("ADD", json_lines(&captured), json_lines(&result))],
    );
    host.kernel(&mut findings)?;
    host.parameters(&before, &mut findings)?;
    let files = host.captures.text(name, "state-after-add.txt")?;
    let files = host.compared("host", captured_files(files), state(Modes::Shown)?);
    findings.insert("PLG-07", vec![files]);
    let outcome = |verb| match call(name, verb, Some(&result)) {
        Ok(_) => format!("{} succeeds", verb.text()),
        Err(error) => format!("{} fails: {error:#}", verb.text()),
    };
    let calls = [outcome(Verb::Check), outcome(Verb::Del)].to_vec();
    let expected = ["CHECK succeeds", "DEL succeeds"].map(str::to_owned).to_vec();
    let left = host.left()?;
    findings.insert("PLG-08", vec![host.compared("calls", expected, calls), left]);
    Ok(findings)
}

/// The host and its pod, after ADD.
struct Host<'a> {
    name: &'a str,
    captures: &'a Captures,
    pod: Namespaces,
    captured: Labels,
    own: Labels,
}

impl Host<'_> {
    fn compared(&self, place: &str, expected: Vec<String>, observed: Vec<String>) -> Compared {
        let apply =
            |labels: &Labels, lines: Vec<String>| lines.iter().map(|line| labels.apply(line)).collect();
        Compared {
            place: place.to_owned(),
            expected: apply(&self.captured, expected),
            observed: apply(&self.own, observed),
        }
    }

    /// Links, addresses, routes, entries and rules.
    fn kernel(&self, findings: &mut Findings) -> Result<()> {
        let mut captured = sections(self.captures.text(self.name, "kernel.txt")?);
        captured.extend(sections(self.captures.text(self.name, "rules.txt")?));
        let own = |(head, _): &Section| Ok(form(head).1(&self.print(head)?, &self.own));
        let seen = settled(
            || captured.iter().map(own).collect::<Result<Vec<_>>>(),
            |seen| !seen.iter().flatten().any(|line| line.contains("tentative")),
        )?;
        for ((head, text), observed) in captured.iter().zip(seen) {
            let (id, of) = form(head);
            findings.entry(id).or_default().push(Compared {
                place: head.clone(),
                expected: of(text, &self.captured),
                observed,
            });
        }
        Ok(())
    }

    /// What a section of a capture holds, now.
    fn print(&self, head: &str) -> Result<String> {
        let (place, commands): (_, &[&[&str]]) = match head {
            "pod: ip -d addr" => (Some(&self.pod), &[&["ip", "-d", "addr"]]),
            "pod: ip -d route" => (
                Some(&self.pod),
                &[
                    &["ip", "-d", "route", "show", "table", "all"],
                    &["ip", "-6", "-d", "route", "show"],
                ],
            ),
            "pod: neigh" => (Some(&self.pod), &[&["ip", "neigh"]]),
            "host: ip -d addr" => (None, &[&["ip", "-d", "addr"]]),
            "host: bridge -d link" => (None, &[&["bridge", "-d", "link"]]),
            "host: bridge fdb" => (None, &[&["bridge", "fdb"]]),
            "host: routes" => (None, &[&["ip", "-d", "route", "show", "table", "all"]]),
            "host: rule" => (None, &[&["ip", "rule"]]),
            "nft list ruleset" => (None, &[&["nft", "list", "ruleset"]]),
            "iptables-save" => (None, &[&["iptables-save"]]),
            "ip6tables-save" => (None, &[&["ip6tables-save"]]),
            _ => bail!("the capture has an unknown part {head:?}"),
        };
        let run = |argv: &&[&str]| match place {
            // The host's programs and mounts, in the pod's network.
            Some(pod) => pod.net_only()?.run(|| printed(argv)),
            None => printed(argv),
        };
        commands.iter().map(run).collect()
    }

    fn parameters(&self, before: &[Sysctls; 2], findings: &mut Findings) -> Result<()> {
        let [host, pod] = before;
        let changed = [
            ("host", sysctl::changes(host, &sysctl::all()?)),
            ("pod", sysctl::changes(pod, &self.pod.run(sysctl::all)?)),
        ];
        for (place, lines) in changed {
            let text = self.captures.text(self.name, &format!("{place}-sysctl.txt"))?;
            let sorted = |labels: &Labels, lines: Vec<String>| {
                let mut lines: Vec<_> = lines.iter().map(|line| labels.apply_to_name(line)).collect();
                lines.sort();
                lines
            };
            findings.entry("PLG-06").or_default().push(Compared {
                place: place.to_owned(),
                expected: sorted(&self.captured, text.lines().map(str::to_owned).collect()),
                observed: sorted(&self.own, lines),
            });
        }
        Ok(())
    }

    /// Links, rules and files once DEL was called.
    fn left(&self) -> Result<Compared> {
        let text = self.captures.text(self.name, "after-del.txt")?;
        let (links, rules, files) = divided(text);
        let seen = settled(
            || Ok([ip("-br link")?, printed(&["nft", "list", "ruleset"])?]),
            |_| true,
        )?;
        let lines = |links: &str, rules: &str, labels: &Labels| {
            let mut lines = brief_lines(links, labels);
            lines.extend(nft_lines(&labels.apply(rules)));
            lines
        };
        let [own_links, own_rules] = &seen;
        let (mut expected, mut observed) = (
            lines(&links, &rules, &self.captured),
            lines(own_links, own_rules, &self.own),
        );
        expected.extend(captured_files(&files));
        observed.extend(state(Modes::Left)?);
        Ok(Compared {
            place: "host".to_owned(),
            expected,
            observed,
        })
    }
}

/// Names and addresses that a result tells.
fn labels(result: &Value) -> Labels {
    let mut labels = Labels::default();
    let links = result.get("interfaces").and_then(Value::as_array);
    for link in links.into_iter().flatten() {
        let name = text(link, "name");
        let what = if name.starts_with("veth") {
            labels.add(name, "VETH");
            "VETH"
        } else {
            name
        };
        labels.add(text(link, "mac"), &format!("{what}.mac"));
    }
    labels
}

/// A result in one form, whatever the order of its members.
fn json_lines(result: &Value) -> Vec<String> {
    format!("{result:#}").lines().map(str::to_owned).collect()
}

type Form = fn(&str, &Labels) -> Vec<String>;

/// What a part of a capture is about, and how it is read.
fn form(head: &str) -> (&'static str, Form) {
    match head {
        "nft list ruleset" => ("PLG-05", |text, labels| nft_lines(&labels.apply(text))),
        "iptables-save" | "ip6tables-save" => ("PLG-05", |text, labels| iptables_lines(&labels.apply(text))),
        "host: bridge fdb" => ("PLG-04", |text, labels| {
            // The rest was learned.
            let fixed: Vec<_> = text
                .lines()
                .filter(|line| line.trim().ends_with("permanent"))
                .collect();
            table_lines("fdb", &fixed.join("\n"), labels)
        }),
        _ if head.contains("addr") || head.contains("link") => ("PLG-02", device_lines),
        _ => ("PLG-03", |text, labels| table_lines("table", text, labels)),
    }
}

/// Divides what was captured after DEL into links, rules and files.
fn divided(text: &str) -> (String, String, String) {
    let (mut links, mut rules, mut files) = (String::new(), String::new(), String::new());
    for line in text.lines() {
        let part = if !files.is_empty() || line.starts_with("== ") {
            &mut files
        } else if !rules.is_empty() || line.starts_with("table ") || line.starts_with('#') {
            &mut rules
        } else {
            &mut links
        };
        part.push_str(line);
        part.push('\n');
    }
    (links, rules, files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_is_divided() {
        let text = "lo UNKNOWN 00 <UP>\n# Warning: x\ntable ip nat {\n}\n== ./networks/cbr0/lock\n\n";
        let expected = (
            "lo UNKNOWN 00 <UP>\n".to_owned(),
            "# Warning: x\ntable ip nat {\n}\n".to_owned(),
            "== ./networks/cbr0/lock\n\n".to_owned(),
        );
        assert_eq!(divided(text), expected);
    }
}
