//! What a running upstream daemon leaves on its nodes and in etcd: captures of a real one, rebuilt in a lab.
//!
//! The captures are of flannel v0.28.9 on three nodes with the addresses that a lab's first three nodes have.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use conformance::captures::{Captures, Entry};
use conformance::lab::rules::{iptables_lines, nft_lines};
use conformance::lab::{Lab, Node, SUBNET_FILE};

use crate::rules::Mode;
use crate::support::run_all;

/// Where rules are put for a program to read, on a node.
const RULES_FILE: &str = "/run/upstream-rules";

/// What an upstream daemon left, of three nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upstream {
    mode: Mode,
}

impl Upstream {
    pub(crate) fn of(mode: Mode) -> Self {
        Self { mode }
    }

    fn configuration(self) -> &'static str {
        match self.mode {
            Mode::Nftables => "vxlan-nftables",
            Mode::IptablesNft | Mode::IptablesLegacy => "vxlan-iptables",
        }
    }

    fn text(self, name: &str) -> String {
        let captures = Captures::built_in();
        captures.text(self.configuration(), name).unwrap().to_owned()
    }

    fn entries(self) -> Vec<Entry> {
        Captures::built_in().etcd(self.configuration()).unwrap()
    }

    fn of_node(self, node: &Node, name: &str) -> String {
        self.text(&format!("{}-{name}", node.name()))
    }

    /// Puts the configuration and the leases into etcd.
    pub(crate) fn rebuild_etcd(self, lab: &Lab) {
        for entry in self.entries() {
            let ttl = entry.ttl_secs.map(Duration::from_secs);
            lab.put_in_etcd(&entry.name, &entry.value, ttl).unwrap();
        }
    }

    /// The name and the value of a node's lease.
    pub(crate) fn lease(self, node: &Node) -> (String, String) {
        let address = format!("\"{}\"", node.address());
        let mut entries = self.entries().into_iter();
        let found = entries.find(|entry| entry.value.contains(&address)).unwrap();
        (found.name.trim_start_matches("subnets/").to_owned(), found.value)
    }

    /// Makes a node's device, its content, the rules and the subnet file as they were captured.
    pub(crate) fn rebuild_node(self, node: &Node) {
        let text = self.of_node(node, "kernel.txt");
        let after = |line: &str, word: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            let place = words.iter().position(|candidate| *candidate == word).unwrap();
            words[place + 1].to_owned()
        };
        let mac = after(
            text.lines().find(|line| line.contains("link/ether")).unwrap(),
            "link/ether",
        );
        let mut commands = vec![
            format!(
                "ip link add flannel.1 mtu 1450 address {mac} type vxlan id 1 local {} dev eth0 dstport 8472 nolearning",
                node.address()
            ),
            "ip link set flannel.1 up".to_owned(),
        ];
        for line in essence(&text) {
            if line.starts_with("inet ") {
                commands.push(format!("ip address add {} dev flannel.1", after(&line, "inet")));
            } else if let Some(entry) = line.strip_suffix(" self permanent") {
                commands.push(format!(
                    "bridge fdb add {} dev flannel.1 dst {} self permanent",
                    entry.split(' ').next().unwrap(),
                    after(&line, "dst")
                ));
            } else if let Some(entry) = line.strip_suffix(" PERMANENT") {
                commands.push(format!("ip neighbour add {entry} nud permanent dev flannel.1"));
            } else if line.starts_with("unicast ") {
                let subnet = after(&line, "unicast");
                let gateway = after(&line, "via");
                commands.push(format!(
                    "ip route add {subnet} via {gateway} dev flannel.1 onlink"
                ));
            }
        }
        // Neighbours and routes sort before entries and addresses; the kernel takes routes last.
        commands.sort_by_key(|command| command.starts_with("ip route"));
        run_all(node, &commands.iter().map(String::as_str).collect::<Vec<_>>());
        let accept_ra = "/proc/sys/net/ipv6/conf/flannel.1/accept_ra";
        node.namespaces().run(|| Ok(fs::write(accept_ra, "0")?)).unwrap();
        self.rebuild_rules(node);
        fs::create_dir_all(node.file(SUBNET_FILE).parent().unwrap()).unwrap();
        fs::write(node.file(SUBNET_FILE), self.of_node(node, "subnet.env")).unwrap();
    }

    fn rebuild_rules(self, node: &Node) {
        let (program, text) = match self.mode {
            Mode::Nftables => ("nft -f", "nft-ruleset.txt"),
            Mode::IptablesNft => ("iptables-nft-restore", "iptables-save.txt"),
            Mode::IptablesLegacy => ("iptables-legacy-restore", "iptables-save.txt"),
        };
        fs::write(node.file(RULES_FILE), self.of_node(node, text)).unwrap();
        run_all(node, &[&format!("{program} {RULES_FILE}")]);
        self.mode.use_on(node);
    }

    /// Asserts that a node's device with its content, and the subnet file, are as upstream's were.
    #[track_caller]
    pub(crate) fn assert_device_as_captured(self, node: &Node) {
        let commands = [
            "ip -d link show flannel.1",
            "ip addr show flannel.1",
            "bridge fdb show dev flannel.1",
            "ip neigh show dev flannel.1",
            "ip -d route show table all",
        ];
        let live: String = commands.iter().map(|command| run_all(node, &[command])).collect();
        assert_eq!(
            essence(&live),
            essence(&self.of_node(node, "kernel.txt")),
            "{}",
            node.name()
        );
        let file = fs::read_to_string(node.file(SUBNET_FILE)).unwrap();
        assert_eq!(file, self.of_node(node, "subnet.env"), "{}", node.name());
    }

    /// Asserts that a node's rules are upstream's, but for what is decided to be otherwise.
    #[track_caller]
    pub(crate) fn assert_rules_as_captured(self, node: &Node, but_for: &[(&str, &str)]) {
        let (command, name) = match self.mode {
            Mode::Nftables => ("nft --stateless list ruleset", "nft-ruleset.txt"),
            Mode::IptablesNft => ("iptables-nft-save", "iptables-save.txt"),
            Mode::IptablesLegacy => ("iptables-legacy-save", "iptables-save.txt"),
        };
        let mut captured = self.of_node(node, name);
        for (theirs, ours) in but_for {
            assert!(captured.contains(theirs), "the capture has no {theirs:?}");
            captured = captured.replace(theirs, ours);
        }
        let live = run_all(node, &[command]);
        let lines = |text: &str| match self.mode {
            Mode::Nftables => nft_lines(text),
            // The node has rules of others as well.
            Mode::IptablesNft | Mode::IptablesLegacy => {
                let mut lines = iptables_lines(text);
                lines.retain(|line| line.contains("FLANNEL"));
                lines
            }
        };
        assert_eq!(lines(&live), lines(&captured), "{}", node.name());
    }

    /// The routes through the device that were left after upstream's daemon had ended, on the first node.
    pub(crate) fn routes_after_sigterm(self) -> BTreeSet<String> {
        device_routes(&self.text("node1-after-sigterm.txt"))
    }
}

/// The routes through the device in what `ip route` prints.
pub(crate) fn device_routes(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| line.contains("dev flannel.1 onlink"))
        .map(str::to_owned)
        .collect()
}

/// Of what iproute2 prints about the device, the lines that the daemon answers for, without what depends on the kernel's
/// version.
fn essence(text: &str) -> BTreeSet<String> {
    let kept = |line: &&str| {
        line.starts_with("link/ether")
            || line.starts_with("vxlan id")
            || line.starts_with("inet ")
            || line.ends_with(" self permanent")
            || line.ends_with(" PERMANENT")
            || line.contains("dev flannel.1 table main proto boot")
    };
    let own = |line: &str| {
        line.split(" addrgenmode")
            .next()
            .unwrap_or(line)
            .trim()
            .to_owned()
    };
    let lines = text.lines().map(str::trim).filter(kept).map(own);
    // What `ip link` prints behind the address says how many others listen.
    let address = |line: String| line.split(" promiscuity").next().unwrap_or(&line).to_owned();
    lines.map(address).collect()
}
