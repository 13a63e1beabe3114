use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::peer_watch::PeerKeys;
use crate::lab::{Lab, Node, text};

/// An end of life that no run of this program sees.
const EXPIRATION: &str = "2099-01-01T00:00:00Z";
/// The underlay address and the tunnel MAC of a peer that exists in the lease directory only.
const PUBLIC_IP: &str = "192.168.77.253";
const VTEP_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xfd];

/// The file of a node's lease.
///
/// # Errors
/// Fails when the node has none, or the lease directory cannot be read.
pub(super) fn file_of(lab: &Lab, node: &Node) -> Result<PathBuf> {
    let public_ip = node.address().to_string();
    let leases = fs::read_dir(lab.shared_file("leases/subnets")).context("reading the lease directory")?;
    let found = leases.flatten().map(|entry| entry.path()).find(|path| {
        let lease: Option<Value> = fs::read_to_string(path)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok());
        lease.is_some_and(|lease| text(&lease, "PublicIP") == public_ip)
    });
    found.with_context(|| format!("{} has no lease", node.name()))
}

/// The lease of a peer that is made up for a measurement.
pub(super) struct MadeUp {
    file: PathBuf,
    draft: PathBuf,
    keys: PeerKeys,
}

impl MadeUp {
    /// Takes a subnet that nobody has.
    ///
    /// # Errors
    /// Fails when there is none.
    pub(super) fn choose(lab: &Lab) -> Result<Self> {
        let candidates = (1..=254).map(|third| Ipv4Addr::new(10, 244, third, 0));
        let mut free = candidates.filter_map(|subnet| {
            let file = lab.shared_file(&format!("leases/subnets/{subnet}-24"));
            (!file.exists()).then_some((subnet, file))
        });
        let (subnet, file) = free.next().context("every subnet is leased")?;
        let keys = PeerKeys {
            subnet,
            vtep_mac: VTEP_MAC,
        };
        Ok(Self {
            file,
            draft: lab.shared_file("bench-lease"),
            keys,
        })
    }

    /// What names the peer in a node's kernel.
    pub(super) fn keys(&self) -> &PeerKeys {
        &self.keys
    }

    /// Writes the lease beside the directory, so that [`MadeUp::put`] is one rename.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub(super) fn draft(&self) -> Result<()> {
        let mac = VTEP_MAC.map(|byte| format!("{byte:02x}")).join(":");
        let lease = json!({
            "PublicIP": PUBLIC_IP, "PublicIPv6": null, "BackendType": "vxlan",
            "BackendData": {"VNI": 1, "VtepMAC": mac}, "Expiration": EXPIRATION,
        });
        fs::write(&self.draft, format!("{lease}\n")).context("drafting a lease")
    }

    /// Puts the drafted lease into the directory.
    ///
    /// # Errors
    /// Fails when it cannot be renamed.
    pub(super) fn put(&self) -> Result<()> {
        fs::rename(&self.draft, &self.file).context("putting a lease")
    }

    /// Removes the lease.
    ///
    /// # Errors
    /// Fails when it is gone already.
    pub(super) fn remove(&self) -> Result<()> {
        fs::remove_file(&self.file).context("removing a lease")
    }
}
