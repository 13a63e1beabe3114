use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};

use super::iproute::Ip;
use super::mounts::{self, LEASE_DIR, LOG_DIR};
use super::namespaces::{Namespaces, command};
use super::process::Process;
use super::underlay::NODE_LINK;
use super::{Store, etcd, kube, underlay};

/// One node of a lab: its own network and mount namespaces, held by a process of the lab.
#[derive(Debug)]
pub struct Node {
    number: u8,
    holder_pid: u32,
    namespaces: Namespaces,
    lab_net: Namespaces,
    store: Store,
}

impl Node {
    /// Makes a node and plugs it into the underlay.
    ///
    /// # Errors
    /// Fails when the kernel refuses a namespace, a mount or a link.
    pub(super) fn start(lab: &Namespaces, number: u8, store: Store) -> Result<(Self, Child)> {
        let name = format!("flannel-lab-node{number}");
        let child = lab.run(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .context("making a node's namespaces")?;
            mounts::prepare_node()?;
            // A fresh node forwards nothing, whatever the host does: who needs forwarding has to switch it on.
            fs::write("/proc/sys/net/ipv4/ip_forward", "0").context("switching forwarding off")?;
            let mut holder = command(&["sleep", "infinity"])?;
            holder
                .arg0(&name)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            holder.spawn().context("starting a node's first process")
        })?;
        let namespaces = Namespaces::of_process(child.id())?;
        let node = Self {
            number,
            holder_pid: child.id(),
            namespaces,
            lab_net: lab.net_only()?,
            store,
        };
        node.namespaces.ip(&["link", "set", "lo", "up"])?;
        underlay::plug_in(&node.lab_net, &node.namespaces, number, node.holder_pid)?;
        Ok((node, child))
    }

    /// The node's number in its lab, from 1.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The node's name: `node1`, `node2` and so on.
    #[must_use]
    pub fn name(&self) -> String {
        format!("node{}", self.number)
    }

    /// The node's address on the underlay.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        underlay::node_address(self.number)
    }

    /// The node's address of IPv6 on the underlay, once [`Node::use_ipv6`] has given it.
    #[must_use]
    pub fn address_v6(&self) -> String {
        underlay::node_address_v6(self.number)
    }

    /// Gives the node its address of IPv6 on the underlay.
    ///
    /// # Errors
    /// Fails when iproute2 does.
    pub fn use_ipv6(&self) -> Result<()> {
        let address = format!("{}/64", self.address_v6());
        self.ip(&["address", "add", &address, "dev", NODE_LINK, "nodad"])
            .map(drop)
    }

    /// The process id, as the host sees it, of the process that holds the node's namespaces.
    #[must_use]
    pub fn holder_pid(&self) -> u32 {
        self.holder_pid
    }

    /// The node's namespaces.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Where a file of the node is reached from the host's side; the path must be absolute and free of links.
    #[must_use]
    pub fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.holder_pid))
    }

    /// Where a file of the lease directory is reached from the host's side.
    #[must_use]
    pub fn lease_file(&self, name: &str) -> PathBuf {
        self.file(LEASE_DIR).join(name)
    }

    /// The flags that tell a daemon where its lease is; on Kubernetes `NODE_NAME` tells it whose.
    #[must_use]
    pub fn store_flags(&self) -> Vec<String> {
        match self.store {
            Store::Directory => vec![format!("--lease-dir={LEASE_DIR}")],
            Store::Etcd => vec![format!("--etcd-endpoints={}", etcd::endpoint())],
            Store::Kube => vec![
                "--kube-subnet-mgr".to_owned(),
                format!("--kube-api-url={}", kube::kube_url()),
            ],
        }
    }

    /// What comes before the daemon on a command line so that it knows whose lease it is.
    pub(super) fn name_tag(&self) -> Vec<String> {
        match self.store {
            Store::Directory | Store::Etcd => Vec::new(),
            Store::Kube => vec!["env".to_owned(), format!("NODE_NAME={}", self.name())],
        }
    }

    /// Runs a program on the node to its end and collects what it prints.
    ///
    /// # Errors
    /// Fails when the program cannot be started; a non-zero exit is no error here.
    pub fn exec(&self, argv: &[&str]) -> Result<Output> {
        self.namespaces.output(argv)
    }

    /// Runs `ip` on the node and returns what it prints.
    ///
    /// # Errors
    /// Fails when `ip` exits non-zero.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        self.namespaces.ip(arguments)
    }

    /// Runs a program of iproute2 that prints JSON.
    ///
    /// # Errors
    /// Fails when it exits non-zero or prints no JSON list.
    pub fn json(&self, argv: &[&str]) -> Result<Vec<serde_json::Value>> {
        self.namespaces.json(argv)
    }

    /// Starts a program on the node; its standard output and error are appended to the node's log file of this name.
    ///
    /// # Errors
    /// Fails when the program cannot be started.
    pub fn spawn<S: AsRef<str> + Sync>(&self, argv: &[S], log_name: &str) -> Result<Process> {
        let path = self.log_file(log_name);
        let child = self.namespaces.run(|| {
            let log = fs::File::options().create(true).append(true).open(&path);
            let log = log.with_context(|| format!("opening {path}"))?;
            let mut program = command(argv)?;
            program
                .stdin(Stdio::null())
                .stdout(log.try_clone().context("duplicating a log")?)
                .stderr(log);
            program
                .spawn()
                .with_context(|| format!("starting {}", program.get_program().to_string_lossy()))
        })?;
        Ok(Process::new(child))
    }

    /// What the program with this log name has printed so far.
    ///
    /// # Errors
    /// Fails when there is no such log.
    pub fn log(&self, log_name: &str) -> Result<String> {
        let path = self.file(&self.log_file(log_name));
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Where a log is, as the node sees it.
    #[must_use]
    pub fn log_file(&self, log_name: &str) -> String {
        format!("{LOG_DIR}/{}-{log_name}.log", self.name())
    }

    /// Sets the node's `eth0` down.
    ///
    /// # Errors
    /// Fails when iproute2 does.
    pub fn underlay_down(&self) -> Result<()> {
        underlay::bring_down(&self.namespaces)
    }

    /// Sets the node's `eth0` up again and restores its default route.
    ///
    /// # Errors
    /// Fails when iproute2 does.
    pub fn underlay_up(&self) -> Result<()> {
        underlay::bring_up(&self.namespaces)
    }

    /// Deletes the node's `eth0`.
    ///
    /// # Errors
    /// Fails when iproute2 does.
    pub fn underlay_unplug(&self) -> Result<()> {
        underlay::unplug(&self.namespaces)
    }

    /// Makes the node's `eth0` anew, with the same address.
    ///
    /// # Errors
    /// Fails when iproute2 does.
    pub fn underlay_plug_in(&self) -> Result<()> {
        underlay::plug_in(&self.lab_net, &self.namespaces, self.number, self.holder_pid)
    }
}
