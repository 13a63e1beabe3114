//! A container: a network namespace with a name, and what is in it.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use crate::lab::{Ip, Namespaces, on_own_thread, text};

/// A container on a stage; its namespace ends with the stage, or with [`Container::end`].
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) netns: String,
    pub(super) ifname: String,
    /// A port of the host's that is this container's, where ports are mapped.
    pub(super) host_port: u16,
}

impl Container {
    /// Makes the namespace, in the calling thread's mount namespace.
    ///
    /// # Errors
    /// Fails when the kernel refuses it.
    pub(super) fn make(id: &str, host_port: u16) -> Result<Self> {
        fs::create_dir_all("/run/netns").context("making /run/netns")?;
        let netns = format!("/run/netns/{id}");
        File::create_new(&netns).with_context(|| format!("making {netns}"))?;
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
            let own = Some("/proc/thread-self/ns/net");
            mount(own, netns.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .with_context(|| format!("binding a namespace to {netns}"))
        })?;
        Ok(Self {
            id: id.to_owned(),
            netns,
            ifname: "eth0".to_owned(),
            host_port,
        })
    }

    /// The same container with another interface.
    pub(super) fn with_ifname(&self, ifname: &str) -> Self {
        let (id, netns) = (self.id.clone(), self.netns.clone());
        Self {
            id,
            netns,
            ifname: ifname.to_owned(),
            host_port: self.host_port,
        }
    }

    /// Ends the namespace; its path names nothing any more.
    ///
    /// # Errors
    /// Fails when the kernel refuses it.
    pub(super) fn end(&self) -> Result<()> {
        umount2(self.netns.as_str(), MntFlags::MNT_DETACH)
            .with_context(|| format!("leaving {}", self.netns))?;
        fs::remove_file(&self.netns).with_context(|| format!("removing {}", self.netns))
    }

    /// Runs `ip` in the container.
    ///
    /// # Errors
    /// Fails when `ip` does.
    pub(super) fn ip(&self, arguments: &[&str]) -> Result<String> {
        self.namespaces()?.ip(arguments)
    }

    /// Whether the container's interface is there.
    ///
    /// # Errors
    /// Fails when `ip` does.
    pub(super) fn has_interface(&self) -> Result<bool> {
        let links = self.namespaces()?.json(&["ip", "-j", "link"])?;
        Ok(links.iter().any(|link| text(link, "ifname") == self.ifname))
    }

    /// The addresses of the container's interface, as `10.0.0.2/24`, without those that the kernel gives by itself.
    ///
    /// # Errors
    /// Fails when `ip` does, as it does without the interface.
    pub(super) fn addresses(&self) -> Result<Vec<String>> {
        let links = self
            .namespaces()?
            .json(&["ip", "-j", "address", "show", "dev", &self.ifname])?;
        let infos = links
            .iter()
            .filter_map(|link| link.get("addr_info")?.as_array())
            .flatten();
        let infos = infos.filter(|info| text(info, "scope") != "link");
        let prefix = |info: &Value| info.get("prefixlen").and_then(Value::as_u64).unwrap_or_default();
        Ok(infos
            .map(|info| format!("{}/{}", text(info, "local"), prefix(info)))
            .collect())
    }

    /// The container's interface as `ip` shows it.
    ///
    /// # Errors
    /// Fails when `ip` does.
    pub(super) fn interface(&self) -> Result<Value> {
        let links = self
            .namespaces()?
            .json(&["ip", "-j", "-d", "link", "show", "dev", &self.ifname])?;
        links.into_iter().next().context("`ip` shows no interface")
    }

    /// The container's routes of a family (`-4` or `-6`), as `ip` shows them.
    ///
    /// # Errors
    /// Fails when `ip` does.
    pub(super) fn routes(&self, family: &str) -> Result<Vec<Value>> {
        self.namespaces()?.json(&["ip", "-j", family, "route"])
    }

    fn namespaces(&self) -> Result<Namespaces> {
        Namespaces::of_netns_file(Path::new(&self.netns))
    }
}
