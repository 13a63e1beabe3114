use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::lab::{Binaries, Flanneld, Lab, LabConfig, Node, Pod, Store};

/// As in Flannel's manifest.
const DAEMON_FLAGS: [&str; 1] = ["--ip-masq"];
/// Its rules are nftables', so that no kernel module has to be there.
const NET_CONF: &str = r#"{"Network":"10.244.0.0/16","EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#;

/// Leases of Kubernetes are its nodes', and its configuration is a file of each daemon's.
const NO_KUBE: &str = "the soak keeps leases in a directory or in etcd";

/// A lab with what runs on it.
pub(super) struct World {
    // Fields are dropped in this order: the daemons are reaped before the lab waits for its processes to end.
    pub(super) members: Vec<Member>,
    pub(super) lab: Lab,
    pub(super) store: Store,
    next_pod: u32,
}

/// What runs on a node.
pub(super) struct Member {
    pub(super) number: u8,
    /// `None` while the node has left.
    pub(super) daemon: Option<Flanneld>,
    pub(super) pods: Vec<Pod>,
}

impl World {
    /// Makes a lab with a daemon and a pod on each node.
    ///
    /// # Errors
    /// Fails as [`Lab::on`], and when a daemon or a plugin does.
    pub(super) fn start(nodes: u8, store: Store, bin_dir: Option<PathBuf>) -> Result<Self> {
        let binaries = bin_dir.as_deref().map_or_else(Binaries::find, Binaries::in_dir)?;
        let lab = Lab::on(store, &LabConfig { nodes, binaries })?;
        let mut world = Self {
            members: Vec::new(),
            lab,
            store,
            next_pod: 1,
        };
        world.configure(NET_CONF)?;
        for number in 1..=nodes {
            world.members.push(Member {
                number,
                daemon: None,
                pods: Vec::new(),
            });
            world.start_daemon(number)?;
            world.add_pod(number)?;
        }
        Ok(world)
    }

    /// A node by its number.
    ///
    /// # Errors
    /// Fails when there is none.
    pub(super) fn node(&self, number: u8) -> Result<&Node> {
        self.lab.node(number)
    }

    /// What runs on a node.
    ///
    /// # Errors
    /// Fails when there is no such node.
    pub(super) fn member(&mut self, number: u8) -> Result<&mut Member> {
        let found = self.members.iter_mut().find(|member| member.number == number);
        found.context("a node that there is not")
    }

    /// The numbers of the nodes on which a daemon runs, or of those on which none does.
    pub(super) fn numbers(&self, running: bool) -> Vec<u8> {
        let wanted = self
            .members
            .iter()
            .filter(|member| member.daemon.is_some() == running);
        wanted.map(|member| member.number).collect()
    }

    /// The nodes on which a daemon runs, each with what runs there.
    ///
    /// # Errors
    /// Fails when the lab has lost a node.
    pub(super) fn present(&self) -> Result<Vec<(&Node, &Member)>> {
        let members = self.members.iter().filter(|member| member.daemon.is_some());
        members
            .map(|member| Ok((self.node(member.number)?, member)))
            .collect()
    }

    /// Starts a node's daemon, and waits until it is ready.
    ///
    /// # Errors
    /// Fails when it does not become so.
    pub(super) fn start_daemon(&mut self, number: u8) -> Result<()> {
        let daemon = self.node(number)?.start_flanneld(&DAEMON_FLAGS)?;
        self.member(number)?.daemon = Some(daemon);
        Ok(())
    }

    /// A name that no pod had before.
    pub(super) fn pod_name(&mut self) -> String {
        let name = format!("pod{}", self.next_pod);
        self.next_pod += 1;
        name
    }

    /// Attaches a pod.
    ///
    /// # Errors
    /// Fails when a plugin does.
    pub(super) fn add_pod(&mut self, number: u8) -> Result<()> {
        let name = self.pod_name();
        let pod = self.node(number)?.add_pod(&name)?;
        self.member(number)?.pods.push(pod);
        Ok(())
    }

    /// Writes the network configuration to where the daemons read it.
    ///
    /// # Errors
    /// Fails when the store takes nothing.
    pub(super) fn configure(&self, text: &str) -> Result<()> {
        match self.store {
            Store::Etcd => self.lab.put_in_etcd("config", text, None),
            Store::Kube => bail!(NO_KUBE),
            Store::Directory => {
                let path = self.lab.shared_file("leases/config");
                let new = path.with_file_name("config.new");
                fs::write(&new, text).context("writing the network configuration")?;
                fs::rename(&new, &path).context("writing the network configuration")
            }
        }
    }

    /// The network configuration that is right.
    pub(super) fn configure_rightly(&self) -> Result<()> {
        self.configure(NET_CONF)
    }

    /// Removes a lease from the store.
    ///
    /// # Errors
    /// Fails when it is not there.
    pub(super) fn remove_lease(&self, name: &str) -> Result<()> {
        match self.store {
            Store::Etcd => self.lab.remove_lease_from_etcd(name),
            Store::Kube => bail!(NO_KUBE),
            Store::Directory => {
                let path = self.lab.shared_file("leases/subnets").join(name);
                fs::remove_file(&path).with_context(|| format!("removing the lease {name}"))
            }
        }
    }

    /// Writes a lease into the store.
    ///
    /// # Errors
    /// Fails when the store takes nothing.
    pub(super) fn put_lease(&self, name: &str, text: &str) -> Result<()> {
        match self.store {
            Store::Etcd => self.lab.put_in_etcd(&format!("subnets/{name}"), text, None),
            Store::Kube => bail!(NO_KUBE),
            Store::Directory => {
                let path = self.lab.shared_file("leases/subnets").join(name);
                fs::write(&path, text).with_context(|| format!("writing the lease {name}"))
            }
        }
    }
}
