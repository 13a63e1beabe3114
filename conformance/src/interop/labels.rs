//! What differs from run to run, by names that stay: addresses that were drawn, and names that were made up.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::captures::Entry;
use crate::lab::text;

/// Texts and the labels that stand for them.
#[derive(Debug, Clone, Default)]
pub(super) struct Labels(Vec<(String, String)>);

impl Labels {
    /// Labels of what is written in the leases: the node's own is `OWN`, the next one by public address `PEER1`, and so
    /// on, so that the nodes of a cluster look alike. The node is told by its index in the order of public addresses.
    ///
    /// # Errors
    /// Fails when a lease cannot be read.
    pub(super) fn of_leases(entries: &[Entry], node: usize) -> Result<Self> {
        let mut leases = leases(entries)?;
        leases.sort_by_key(|lease| lease.public_ip);
        let count = leases.len();
        let mut labels = Self::default();
        for (index, lease) in leases.into_iter().enumerate() {
            let distance = (index + count).saturating_sub(node) % count;
            let who = if distance == 0 {
                "OWN".to_owned()
            } else {
                format!("PEER{distance}")
            };
            for (text, what) in lease.texts {
                labels.add(&text, &format!("{who}.{what}"));
            }
        }
        Ok(labels)
    }

    /// Has a label stand for a text.
    pub(super) fn add(&mut self, text: &str, label: &str) {
        self.0.push((text.to_owned(), label.to_owned()));
    }

    /// Replaces texts by their labels, addresses that the kernel made of a MAC address by `fe80::ID`, and what is left of
    /// MAC addresses by `MAC`.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut replaced = String::with_capacity(text.len());
        for word in split(text) {
            let label = self.0.iter().find(|(text, _)| text == word);
            match label {
                Some((_, label)) => replaced.push_str(label),
                None if is_made_of_a_mac(word) => replaced.push_str("fe80::ID"),
                None => replaced.push_str(&self.within(word)),
            }
        }
        replaced
    }

    /// The same where names stand between dots, as in `net.ipv4.conf.veth1.mtu`.
    pub(super) fn apply_to_name(&self, text: &str) -> String {
        text.split('.')
            .map(|part| self.apply(part))
            .collect::<Vec<_>>()
            .join(".")
    }

    /// MAC addresses also stand within words, as a bridge's number does.
    fn within(&self, word: &str) -> String {
        match word.split_once('.') {
            Some((number, mac)) if mac.matches(':').count() == 5 => {
                format!("{number}.{}", self.apply(&padded(mac)))
            }
            _ if is_mac(word) && !is_of_no_one(word) => "MAC".to_owned(),
            _ => word.to_owned(),
        }
    }
}

/// Divides a text into words that may be addresses or names, and what is between them.
fn split(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == ':' || c == '.';
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let inside = is_part(first);
        let end = rest.find(|c| is_part(c) != inside).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        words.push(word);
        rest = behind;
    }
    words
}

/// iproute2 prints a bridge's number without leading zeros.
fn padded(mac: &str) -> String {
    mac.split(':')
        .map(|part| format!("{part:0>2}"))
        .collect::<Vec<_>>()
        .join(":")
}

fn is_mac(word: &str) -> bool {
    let parts: Vec<_> = word.split(':').collect();
    parts.len() == 6
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit()))
}

/// Nobody's and everybody's.
fn is_of_no_one(mac: &str) -> bool {
    matches!(mac, "00:00:00:00:00:00" | "ff:ff:ff:ff:ff:ff")
}

fn is_made_of_a_mac(word: &str) -> bool {
    word.len() > "fe80::".len() && word.starts_with("fe80::")
}

/// What is in a lease that differs from run to run.
struct Lease {
    public_ip: Ipv4Addr,
    texts: Vec<(String, &'static str)>,
}

fn leases(entries: &[Entry]) -> Result<Vec<Lease>> {
    let subnets = entries
        .iter()
        .filter_map(|entry| Some((entry.name.strip_prefix("subnets/")?, &entry.value)));
    subnets
        .map(|(name, value)| lease(name, value).with_context(|| format!("reading the lease {name}")))
        .collect()
}

fn lease(name: &str, value: &str) -> Result<Lease> {
    let value: Value = serde_json::from_str(value).context("reading its value")?;
    let mut texts = Vec::new();
    for subnet in name.split('&') {
        let (address, _) = subnet.rsplit_once('-').context("it names no subnet")?;
        if let Ok(address) = address.parse::<Ipv4Addr>() {
            texts.push((address.to_string(), "subnet"));
            let gateway = Ipv4Addr::from_bits(address.to_bits().saturating_add(1));
            texts.push((gateway.to_string(), "gateway"));
        } else {
            let address: Ipv6Addr = address.parse().context("it names no subnet")?;
            texts.push((address.to_string(), "subnet6"));
            let gateway = Ipv6Addr::from_bits(address.to_bits().saturating_add(1));
            texts.push((gateway.to_string(), "gateway6"));
        }
    }
    let public = text(&value, "PublicIP");
    for (key, what) in [("PublicIP", "address"), ("PublicIPv6", "address6")] {
        texts.push((text(&value, key).to_owned(), what));
    }
    for (key, what) in [("BackendData", "mac"), ("BackendV6Data", "mac6")] {
        let mac = value.get(key).map_or("", |data| text(data, "VtepMAC"));
        texts.push((mac.to_owned(), what));
    }
    texts.retain(|(text, _)| !text.is_empty());
    Ok(Lease {
        public_ip: public.parse().context("its public address is none")?,
        texts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captures::Captures;

    #[test]
    fn a_node_and_its_peers_are_told_by_their_distance() {
        let entries = Captures::built_in().etcd("vxlan-nftables").unwrap();
        let text = "10.244.4.0/24 10.244.4.1 10.244.47.0 dst 192.168.77.13 72:e5:67:00:44:8c 8000.ee:a0:95:3e:f2:fa 8000.e6:2c:26:5a:4c:4a";
        let of = |node| Labels::of_leases(&entries, node).unwrap().apply(text);
        assert_eq!(
            of(0),
            "OWN.subnet/24 OWN.gateway PEER1.subnet dst PEER2.address PEER2.mac 8000.PEER1.mac 8000.OWN.mac"
        );
        assert_eq!(
            of(2),
            "PEER1.subnet/24 PEER1.gateway PEER2.subnet dst OWN.address OWN.mac 8000.PEER2.mac 8000.PEER1.mac"
        );
    }

    #[test]
    fn what_nobody_has_named_is_told_by_its_kind() {
        let text = "link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff local fe80::9c:1 dev eth0 fe80::/64 10.1.0.0/16";
        assert_eq!(
            Labels::default().apply(text),
            "link/ether MAC brd ff:ff:ff:ff:ff:ff local fe80::ID dev eth0 fe80::/64 10.1.0.0/16"
        );
    }
}
