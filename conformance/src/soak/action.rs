use std::fmt;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::invariants;
use super::random::Random;
use super::world::World;
use crate::lab::faults::Fault;
use crate::lab::runtime::{self, Attachment, Verb};
use crate::lab::{CNI_BIN_DIR, Node, POD_LINK, Store, TUNNEL};

/// How long a daemon may take to end.
const END_LIMIT: Duration = Duration::from_secs(30);
/// More pods than this are on no node.
const MAX_PODS: usize = 6;
/// Fewer nodes than this are never there.
const MIN_NODES: usize = 2;
/// Within this time a plugin is killed: an ADD by a debug build takes about so long.
const KILL_WITHIN_MICROS: u64 = 25_000;
/// How long the store stays away at most.
const AWAY_MILLIS: u64 = 1500;
/// What somebody may leave among the leases: a name that is none, and a lease that cannot be read.
const JUNK: [(&str, &str); 2] = [
    ("notes", "call the network team"),
    ("10.244.250.0-24", "{\"PublicIP\":"),
];
/// The pod network, as the configuration has it.
const NETWORK: &str = "10.244.0.0/16";
const BAD_CONF: &str = "{\"Network\":";

/// Something that happens to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    AddPod {
        node: u8,
    },
    DelPod {
        node: u8,
    },
    /// A plugin is killed in the middle, and DEL is called, as a kubelet would.
    KillAdd {
        node: u8,
        after: Duration,
    },
    KillDel {
        node: u8,
        after: Duration,
    },
    Leave {
        node: u8,
    },
    Join {
        node: u8,
    },
    KillDaemon {
        node: u8,
    },
    RestartDaemon {
        node: u8,
    },
    Reboot {
        node: u8,
    },
    Drift {
        node: u8,
        peer: u8,
        fault: Fault,
    },
    /// Something that is no lease is among the leases for a while.
    Junk,
    /// The configuration cannot be read for a while.
    BadConf,
    /// The store's server is killed, and started again later.
    Outage {
        away: Duration,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddPod { node } => write!(f, "node{node} gets a pod"),
            Self::DelPod { node } => write!(f, "node{node} loses a pod"),
            Self::KillAdd { node, after } => {
                write!(f, "node{node}'s ADD is killed after {} µs", after.as_micros())
            }
            Self::KillDel { node, after } => {
                write!(f, "node{node}'s DEL is killed after {} µs", after.as_micros())
            }
            Self::Leave { node } => write!(f, "node{node} leaves"),
            Self::Join { node } => write!(f, "node{node} joins"),
            Self::KillDaemon { node } => write!(f, "node{node}'s daemon is killed and started"),
            Self::RestartDaemon { node } => write!(f, "node{node}'s daemon is restarted"),
            Self::Reboot { node } => write!(f, "node{node} reboots"),
            Self::Drift { node, peer, fault } => write!(f, "node{node}: {} (node{peer})", fault.name()),
            Self::Junk => write!(f, "junk among the leases"),
            Self::BadConf => write!(f, "a configuration that cannot be read"),
            Self::Outage { away } => write!(f, "the store is away for {} ms", away.as_millis()),
        }
    }
}

impl Action {
    /// Draws what can happen now.
    ///
    /// # Errors
    /// Fails when no node is left, which no action leads to.
    pub(super) fn draw(world: &World, random: &mut Random) -> Result<Self> {
        let here = world.numbers(true);
        let node = random.one_of(&here).context("no node is left")?;
        let pods = |node: u8| {
            let member = world.members.iter().find(|member| member.number == node);
            member.map_or(0, |member| member.pods.len())
        };
        let after = Duration::from_micros(random.below(KILL_WITHIN_MICROS));
        let others: Vec<_> = here.iter().copied().filter(|other| *other != node).collect();
        let drawn = match random.below(20) {
            0..=2 if pods(node) < MAX_PODS => Self::AddPod { node },
            3..=4 if pods(node) > 0 => Self::DelPod { node },
            5..=6 => Self::KillAdd { node, after },
            7 if pods(node) > 0 => Self::KillDel { node, after },
            8 if here.len() > MIN_NODES => Self::Leave { node },
            9..=10 => match random.one_of(&world.numbers(false)) {
                Some(node) => Self::Join { node },
                None => Self::RestartDaemon { node },
            },
            11 => Self::KillDaemon { node },
            12 => Self::Reboot { node },
            13 => Self::Junk,
            14 => Self::BadConf,
            15 if world.store == Store::Etcd => Self::Outage {
                away: Duration::from_millis(random.below(AWAY_MILLIS)),
            },
            _ => Self::Drift {
                node,
                peer: random.one_of(&others).context("a node alone")?,
                fault: random.one_of(&Fault::ALL).context("no fault")?,
            },
        };
        Ok(drawn)
    }

    /// Whether all has to be right before it may happen after `before`, which happened since all was.
    pub(super) fn waits_for_rest(self, before: &[Self]) -> bool {
        match self {
            // What is judged while the store is away has to be whole when it goes.
            Self::Outage { .. } => true,
            // Somebody's route in the place of one that a daemon has held gives way; where it came first it stays.
            Self::Drift { fault, .. } => fault == Fault::RouteMoved,
            Self::KillDaemon { node } | Self::RestartDaemon { node } => {
                let moved = |action: &Self| matches!(action, Self::Drift { node: of, fault: Fault::RouteMoved, .. } if *of == node);
                before.iter().any(moved)
            }
            Self::AddPod { .. }
            | Self::DelPod { .. }
            | Self::KillAdd { .. }
            | Self::KillDel { .. }
            | Self::Leave { .. }
            | Self::Join { .. }
            | Self::Reboot { .. }
            | Self::Junk
            | Self::BadConf => false,
        }
    }

    /// Lets it happen.
    ///
    /// # Errors
    /// Fails when what must work in it does not.
    pub(super) fn happen(self, world: &mut World) -> Result<()> {
        match self {
            Self::AddPod { node } => world.add_pod(node),
            Self::DelPod { node } => {
                let pod = world.member(node)?.pods.pop().context("no pod to delete")?;
                world.node(node)?.del_pod(&pod)
            }
            Self::KillAdd { node, after } => kill_add(world, node, after),
            Self::KillDel { node, after } => kill_del(world, node, after),
            Self::Leave { node } => leave(world, node),
            Self::Join { node } => world.start_daemon(node),
            Self::KillDaemon { node } => {
                end_daemon(world, node, Signal::SIGKILL)?;
                world.start_daemon(node)
            }
            Self::RestartDaemon { node } => {
                end_daemon(world, node, Signal::SIGTERM)?;
                world.start_daemon(node)
            }
            Self::Reboot { node } => reboot(world, node),
            Self::Drift { node, peer, fault } => {
                let drifted = fault.inject(world.node(node)?, world.node(peer)?);
                match fault {
                    // The underlay has to be back.
                    Fault::UnderlayFlap | Fault::UnderlayRemade => drifted,
                    Fault::RouteDeleted
                    | Fault::RouteAltered
                    | Fault::RouteMoved
                    | Fault::NeighbourDeleted
                    | Fault::NeighbourAltered
                    | Fault::FdbDeleted
                    | Fault::FdbAltered
                    | Fault::AddressDeleted
                    | Fault::DeviceDown
                    | Fault::DeviceDeleted => {
                        // What another action of the round has taken away cannot be broken.
                        drifted.ok();
                        Ok(())
                    }
                }
            }
            Self::Junk => junk(world),
            Self::BadConf => {
                world.configure(BAD_CONF)?;
                thread::sleep(Duration::from_millis(100));
                world.configure_rightly()
            }
            Self::Outage { away } => outage(world, away),
        }
    }
}

/// Runs a plugin's operation and kills it after some time; it may have ended before.
fn killed(node: &Node, verb: Verb, attachment: &Attachment, after: Duration) -> Result<()> {
    let list = runtime::list_of(node)?;
    let ended = runtime::call_list(&list, verb, None, |plugin, conf| {
        let mut child = node
            .namespaces()
            .run(|| runtime::start_program(CNI_BIN_DIR, plugin, verb, attachment, conf))?;
        thread::sleep(after);
        // It fails only when the plugin has ended already.
        child.kill().ok();
        child
            .wait_with_output()
            .context("waiting for a plugin that was killed")
    });
    match ended {
        Ok(_) => Ok(()),
        // Killed ones have said nothing, or a result and no more; one that answers with an error failed by itself.
        Err(error) => match error.downcast_ref::<runtime::PluginError>() {
            Some(plugin) if plugin.object.get("code").is_none() => Ok(()),
            Some(_) | None => Err(error),
        },
    }
}

fn kill_add(world: &mut World, number: u8, after: Duration) -> Result<()> {
    let name = world.pod_name();
    let node = world.node(number)?;
    node.ip(&["netns", "add", &name])?;
    let attachment = Attachment {
        container_id: name.clone(),
        netns: format!("/run/netns/{name}"),
        ifname: POD_LINK.to_owned(),
    };
    killed(node, Verb::Add, &attachment, after)?;
    runtime::call(node, Verb::Del, &attachment, None).context("DEL after an ADD that was killed")?;
    node.ip(&["netns", "delete", &name]).map(drop)
}

fn kill_del(world: &mut World, number: u8, after: Duration) -> Result<()> {
    let pod = world.member(number)?.pods.pop().context("no pod to delete")?;
    let node = world.node(number)?;
    killed(node, Verb::Del, pod.attachment(), after)?;
    node.del_pod(&pod).context("DEL after one that was killed")
}

fn end_daemon(world: &mut World, number: u8, signal: Signal) -> Result<()> {
    let mut daemon = world.member(number)?.daemon.take().context("no daemon to end")?;
    daemon.signal(signal)?;
    let (_, status) = daemon.wait(END_LIMIT)?;
    if signal == Signal::SIGTERM && !status.success() {
        bail!("the daemon of node{number} ended with {status}");
    }
    Ok(())
}

/// A node is drained and its machine taken away, and its lease is removed as if its time were over. (Where the machine
/// stayed and joined again, its daemon would hold removals for a minute: the store forgot a node that had been a member.)
fn leave(world: &mut World, number: u8) -> Result<()> {
    let pods = std::mem::take(&mut world.member(number)?.pods);
    let node = world.node(number)?;
    pods.iter().try_for_each(|pod| node.del_pod(pod))?;
    let (subnet, length) = node.subnet()?;
    end_daemon(world, number, Signal::SIGTERM)?;
    forget_memory(world.node(number)?)?;
    world.remove_lease(&format!("{subnet}-{length}"))
}

/// What is in memory goes: processes, links, rules, `/run`. What is on the disk stays, and the kubelet cleans up.
fn reboot(world: &mut World, number: u8) -> Result<()> {
    end_daemon(world, number, Signal::SIGKILL)?;
    let pods = std::mem::take(&mut world.member(number)?.pods);
    let node = world.node(number)?;
    pods.iter().try_for_each(|pod| node.end_pod(pod))?;
    forget_memory(node)?;
    world.start_daemon(number)?;
    let node = world.node(number)?;
    pods.iter()
        .try_for_each(|pod| node.detach_pod(pod))
        .context("DEL after a reboot")?;
    world.add_pod(number)
}

/// Removes what a machine forgets when it goes down.
fn forget_memory(node: &Node) -> Result<()> {
    for link in ["cni0", TUNNEL] {
        // It may never have been made, or gone with the underlay.
        node.ip(&["link", "delete", link]).ok();
    }
    // One that somebody put in the place of a peer's.
    node.ip(&["-4", "route", "flush", "root", NETWORK])?;
    node.exec(&["nft", "flush", "ruleset"])?;
    for dir in ["/run/flannel", "/run/cni"] {
        let dir = node.file(dir);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("emptying {}", dir.display()))?;
        }
    }
    Ok(())
}

fn junk(world: &World) -> Result<()> {
    for (name, text) in JUNK {
        world.put_lease(name, text)?;
    }
    thread::sleep(Duration::from_millis(100));
    JUNK.iter().try_for_each(|(name, _)| world.remove_lease(name))
}

/// The data plane must be whole while the store is away.
fn outage(world: &World, away: Duration) -> Result<()> {
    world.lab.kill_etcd()?;
    let unreachable = invariants::unreachable(world);
    thread::sleep(away);
    world.lab.start_etcd()?;
    let unreachable = unreachable?;
    if !unreachable.is_empty() {
        bail!("while the store was away: {}", unreachable.join(", "));
    }
    Ok(())
}
