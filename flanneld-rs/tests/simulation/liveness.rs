//! What must hold when the troubles are over.
//!
//! First every node reaches every other and its daemon has nothing left to do. Later, when also what was held back
//! may go, each device holds exactly what the leases ask for. From then on no daemon asks for a change.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use fake_kernel::Delivery;
use flannel_types::Lease;
use flanneld_rs::desired::{self, Network};
use ipnetwork::IpNetwork;

use crate::daemon::RULES;
use crate::kernel_view::{network, outer, owned, pod_of, public_ip, v4, vtep_mac};
use crate::world::{MemberId, World};

/// When what was held back for the grace time of 60 s must be gone.
pub(crate) const FORGET_WITHIN: Duration = Duration::from_secs(62);
/// How long a world is watched that nothing happens in: two audits and a renewal.
pub(crate) const QUIET: Duration = Duration::from_secs(130);

pub(crate) fn check_reach(world: &World) -> Result<(), String> {
    for from in world.present() {
        check_settled(world, from)?;
        for to in world.present() {
            check_pair(world, from, to)?;
        }
    }
    Ok(())
}

fn check_settled(world: &World, id: MemberId) -> Result<(), String> {
    let member = &world.members[id];
    let name = &member.name;
    let lease = own_lease(world, id).ok_or_else(|| format!("{name} has no lease"))?;
    if member.subnet != lease.key.v4() {
        let file = member.subnet;
        return Err(format!(
            "{name} holds {} but its subnet file says {file:?}",
            lease.key
        ));
    }
    let daemon = member
        .daemon
        .as_ref()
        .ok_or_else(|| format!("{name} does not run"))?;
    let engine = daemon.node.engine();
    let failed: Vec<_> = engine.failures().map(|(key, _)| key.to_string()).collect();
    if !engine.is_settled() || !failed.is_empty() {
        return Err(format!("{name} is not settled; failed: {failed:?}"));
    }
    Ok(())
}

/// A pod and a node reach a pod of the other node and the other end of the tunnel.
fn check_pair(world: &World, from: MemberId, to: MemberId) -> Result<(), String> {
    let (sender, receiver) = (&world.members[from], &world.members[to]);
    let (Some(own), Some(subnet)) = (sender.subnet, receiver.subnet) else {
        return Err("a member has no subnet".to_owned());
    };
    for source in [pod_of(own), IpAddr::V4(public_ip(sender.number))] {
        for destination in [pod_of(subnet), IpAddr::V4(subnet.network())] {
            let delivery = world.fabric.deliver(&sender.name, source, destination);
            let node = receiver.name.clone();
            if delivery != (Delivery::Delivered { node }) {
                return Err(format!(
                    "{source} on {} to {destination}: {delivery:?}",
                    sender.name
                ));
            }
        }
    }
    Ok(())
}

pub(crate) fn check_exact(world: &World) -> Result<(), String> {
    check_reach(world)?;
    world
        .present()
        .into_iter()
        .try_for_each(|id| check_device(world, id))
}

fn check_device(world: &World, id: MemberId) -> Result<(), String> {
    let name = &world.members[id].name;
    let own = own_lease(world, id).ok_or_else(|| format!("{name} has no lease"))?;
    let leases = world.store.leases();
    let peers: Vec<_> = leases.values().filter(|lease| lease.key != own.key).collect();
    let held = owned(&world.fabric.nodes[name]);

    let subnets: BTreeSet<_> = peers.iter().map(|lease| IpNetwork::V4(v4(lease.key))).collect();
    let routes: BTreeSet<_> = held.routes.keys().map(|key| key.dst).collect();
    same(name, "routes", &routes, &subnets)?;
    let gateway = |lease: &&Lease| (IpAddr::V4(v4(lease.key).network()), vtep_mac(lease));
    let neighs = held
        .neighs
        .iter()
        .map(|(key, neigh)| (key.ip, neigh.mac))
        .collect();
    same(name, "neighbours", &neighs, &peers.iter().map(gateway).collect())?;
    let entry = |lease: &&Lease| (vtep_mac(lease), outer(lease));
    let fdb = held.fdb.iter().map(|key| (key.mac, key.remote)).collect();
    same(
        name,
        "forwarding entries",
        &fdb,
        &peers.iter().map(entry).collect(),
    )?;
    let cluster = IpNetwork::V4(network());
    let subnet = IpNetwork::V4(v4(own.key));
    let rules = desired::rules(RULES, &[Network { cluster, subnet }]);
    if world.fabric.nodes[name].dump().nft != rules.nft {
        return Err(format!(
            "{name} has not the packet filter rules that it should have"
        ));
    }
    let addrs = held.addrs.keys().map(|key| key.addr).collect();
    let own_addr = IpNetwork::from(IpAddr::V4(v4(own.key).network()));
    same(name, "addresses", &addrs, &BTreeSet::from([own_addr]))
}

fn same<T: Ord + std::fmt::Debug>(
    name: &str,
    what: &str,
    held: &BTreeSet<T>,
    wanted: &BTreeSet<T>,
) -> Result<(), String> {
    if held == wanted {
        return Ok(());
    }
    let surplus: Vec<_> = held.difference(wanted).collect();
    let missing: Vec<_> = wanted.difference(held).collect();
    Err(format!(
        "{name}: {what} beyond the leases: {surplus:?}, missing: {missing:?}"
    ))
}

/// How often each daemon asked for changes, and in which life.
pub(crate) fn applies(world: &World) -> Vec<(u64, Option<u64>)> {
    let count = |id: MemberId| {
        let member = &world.members[id];
        (member.life, member.daemon.as_ref().map(|daemon| daemon.applies))
    };
    world.present().into_iter().map(count).collect()
}

pub(crate) fn check_quiet(world: &World, before: &[(u64, Option<u64>)]) -> Result<(), String> {
    if applies(world) == before {
        return Ok(());
    }
    Err("a daemon changes the kernel although nothing happens".to_owned())
}

fn own_lease(world: &World, id: MemberId) -> Option<Lease> {
    let own = public_ip(world.members[id].number);
    let leases = world.store.leases();
    leases
        .into_values()
        .find(|lease| lease.attrs.public_ip == Some(own))
}
