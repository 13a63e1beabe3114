//! Two nodes between which is measured: by the daemon and the plugin, by plain commands, or bare.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::backend::{Backend, Family};
use super::cpu::Pair;
use super::iperf::{self, Carried, Load};
use super::plain::{self, POD};
use super::round_trip::{self, Ends};
use super::twin::{self, plain_node};
use super::{BenchConfig, Wire};
use crate::lab::{
    Flanneld, Ip, Lab, LabConfig, NODE_LINK, Namespaces, Node, POD_LINK, Process, text, wait_until,
};

/// How long a path or a server may take to be there.
const LIMIT: Duration = Duration::from_secs(30);
/// What stands before a program that is to run in a node's pod.
pub(super) const IN_POD: [&str; 4] = ["ip", "netns", "exec", POD];

/// Two nodes, and the two ends between which packets go.
pub(super) struct Bed {
    // Fields are dropped in this order: what runs in the lab is reaped before the lab waits for its processes to end.
    _server: Process,
    daemons: Vec<Flanneld>,
    client: Namespaces,
    server: Namespaces,
    address: IpAddr,
    /// What stands before a program that is to run at an end.
    prefix: &'static [&'static str],
    lab: Lab,
}

impl Bed {
    /// Two nodes with nothing on them; packets go from node to node.
    ///
    /// # Errors
    /// Fails when the lab cannot be made.
    pub(super) fn underlay(config: &BenchConfig, wire: Wire) -> Result<Self> {
        let lab = lab(config, wire)?;
        let to = lab.node(2)?;
        let address = match wire.family {
            Family::V4 => IpAddr::V4(to.address()),
            Family::V6 => IpAddr::V6(underlay_v6(to)),
        };
        Self::between(lab, Vec::new(), &[], address)
    }

    /// Two nodes with the daemon, and a pod on each, attached by the plugin.
    ///
    /// # Errors
    /// Fails when the lab cannot be made, or when daemon or plugin fail.
    pub(super) fn ours(config: &BenchConfig, backend: Backend, wire: Wire) -> Result<Self> {
        let lab = lab(config, wire)?;
        let net_conf = lab.shared_file("leases/config");
        fs::write(&net_conf, backend.net_conf(wire.family)).context("writing the network configuration")?;
        let mut daemons = Vec::new();
        for node in lab.nodes() {
            daemons.push(node.start_flanneld(&["--ip-masq"])?);
        }
        for node in lab.nodes() {
            node.add_pod(POD)?;
        }
        let address = pod_address(lab.node(2)?, wire.family)?;
        Self::between(lab, daemons, &IN_POD, address)
    }

    /// Two nodes with the state of another bed's nodes, made by plain commands, and compared with them.
    ///
    /// # Errors
    /// Fails when the lab cannot be made, when a command fails, or when the state is another.
    pub(super) fn plain(config: &BenchConfig, ours: &Self, backend: Backend, wire: Wire) -> Result<Self> {
        let lab = lab(config, wire)?;
        let [one, two] = [1, 2].map(|number| plain_node(ours.lab.node(number)?, backend, wire));
        let (one, two) = (one?, two?);
        for (node, own, peer) in [(lab.node(1)?, &one, &two), (lab.node(2)?, &two, &one)] {
            let output = node.exec(&["sh", "-c", &plain::script(own, peer, backend)])?;
            if !output.status.success() {
                bail!(
                    "plain commands: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
            }
        }
        for (plain, ours) in lab.nodes().iter().zip(ours.lab.nodes()) {
            twin::assert_same(ours, plain)?;
        }
        let address = pod_address(lab.node(2)?, wire.family)?;
        Self::between(lab, Vec::new(), &IN_POD, address)
    }

    /// Starts the server, and waits until the client's end reaches it.
    fn between(
        lab: Lab,
        daemons: Vec<Flanneld>,
        prefix: &'static [&'static str],
        address: IpAddr,
    ) -> Result<Self> {
        let (from, to) = (lab.node(1)?, lab.node(2)?);
        let server = listen(to, prefix)?;
        let client = end(from, prefix)?;
        wait_until("the other end to answer", LIMIT, || {
            client.run(|| Ok(round_trip::answers(address)))
        })?;
        Ok(Self {
            _server: server,
            client,
            server: end(to, prefix)?,
            daemons,
            address,
            prefix,
            lab,
        })
    }

    /// Whether the kernel cannot make the devices of a backend.
    ///
    /// # Errors
    /// Fails when it refuses for another reason.
    pub(super) fn lacks_driver(&self, backend: Backend) -> Result<bool> {
        let Some(driver) = backend.driver() else {
            return Ok(false);
        };
        let node = self.lab.node(1)?;
        let add = ["ip", "link", "add", "probe0", "type"];
        let argv: Vec<_> = add.into_iter().chain(driver.split(' ')).collect();
        let output = node.exec(&argv)?;
        if output.status.success() {
            node.ip(&["link", "delete", "probe0"])?;
            return Ok(false);
        }
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if ["Unknown device type", "not supported"]
            .iter()
            .any(|known| words.contains(known))
        {
            return Ok(true);
        }
        bail!("`{}` failed: {}", argv.join(" "), words.trim())
    }

    /// Sends for a second and returns what arrived; `None` when the server is not yet ready for another client.
    ///
    /// # Errors
    /// Fails when iperf3 does.
    pub(super) fn carry(&self, load: Load, udp_bytes: u16) -> Result<Option<Carried>> {
        let client = load.client(&self.address.to_string(), udp_bytes, Pair::look()?);
        let argv: Vec<_> = self
            .prefix
            .iter()
            .copied()
            .chain(client.iter().map(String::as_str))
            .collect();
        let output = self.lab.node(1)?.exec(&argv)?;
        let text = String::from_utf8_lossy(&output.stdout);
        if iperf::is_busy(&text) {
            return Ok(None);
        }
        let carried = iperf::parse(&text);
        carried
            .with_context(|| format!("{} to {}", load.name(), self.address))
            .map(Some)
    }

    /// Round trips of UDP, in microseconds.
    ///
    /// # Errors
    /// Fails when an answer does not come in time.
    pub(super) fn udp_round_trips(&self) -> Result<Vec<f64>> {
        round_trip::udp(self.ends())
    }

    /// Round trips of TCP, in microseconds.
    ///
    /// # Errors
    /// Fails when an answer does not come in time.
    pub(super) fn tcp_round_trips(&self) -> Result<Vec<f64>> {
        round_trip::tcp(self.ends())
    }

    /// Looks that the daemons still run: what was measured is a running data plane.
    ///
    /// # Errors
    /// Fails when one has ended.
    pub(super) fn assert_running(&mut self) -> Result<()> {
        for daemon in &mut self.daemons {
            if let Some(status) = daemon.ended()? {
                bail!("flanneld ended ({status}) while its data plane was measured");
            }
        }
        Ok(())
    }

    fn ends(&self) -> Ends<'_> {
        Ends {
            client: &self.client,
            server: &self.server,
            address: self.address,
        }
    }
}

/// Starts iperf3 at an end, and waits until it listens.
fn listen(node: &Node, prefix: &[&str]) -> Result<Process> {
    let port = iperf::PORT.to_string();
    let programs = [&iperf::FIRST[..], &["iperf3", "--server", "--port", &port]].concat();
    let server = node.spawn(&[prefix, &programs].concat(), "iperf3")?;
    let filter = format!("sport = :{port}");
    let look = [prefix, &["ss", "-Hltn", &filter]].concat();
    wait_until("iperf3 to listen", LIMIT, || {
        Ok(!node.exec(&look)?.stdout.is_empty())
    })?;
    Ok(server)
}

/// Two nodes on a wire, which have addresses of both families.
fn lab(config: &BenchConfig, wire: Wire) -> Result<Lab> {
    let lab = Lab::new(&LabConfig {
        nodes: 2,
        binaries: config.binaries.clone(),
    })?;
    let mtu = wire.mtu.to_string();
    for node in lab.nodes() {
        let port = format!("port{}", node.number());
        lab.namespaces().ip(&["link", "set", &port, "mtu", &mtu])?;
        node.ip(&["link", "set", NODE_LINK, "mtu", &mtu])?;
        let address = format!("{}/64", underlay_v6(node));
        node.ip(&["address", "add", &address, "dev", NODE_LINK, "nodad"])?;
    }
    Ok(lab)
}

/// A node's address on the underlay in IPv6, whose host part is that of IPv4.
pub(super) fn underlay_v6(node: &Node) -> Ipv6Addr {
    let [.., host] = node.address().octets();
    Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, host.into())
}

/// Where an end is: the node, or its pod.
fn end(node: &Node, prefix: &[&str]) -> Result<Namespaces> {
    if prefix.is_empty() {
        return node.namespaces().net_only();
    }
    Namespaces::of_netns_file(&node.file(&format!("/run/netns/{POD}")))
}

fn pod_address(node: &Node, family: Family) -> Result<IpAddr> {
    let family = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    let links = end(node, &IN_POD)?.json(&[
        "ip", "-j", family, "address", "show", "dev", POD_LINK, "scope", "global",
    ])?;
    let address = links.first().and_then(|link| link.pointer("/addr_info/0"));
    let address = address.map(|info| text(info, "local")).unwrap_or_default();
    address
        .parse()
        .with_context(|| format!("{}'s pod has no address but {address:?}", node.name()))
}
