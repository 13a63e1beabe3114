use std::collections::BTreeSet;
use std::path::Path;

use cni_types::{AddResult, Code, NetConf, NetworkName, Target};
use netlink::conntrack::OriginalDestination;

use super::attachment::{Attachment, IpFamily, Mapping, addresses_of};
use super::conf::{self, Backend, Conf, data_dir, default_data_dir};
use super::rules::{self, Goal, Look, RulesError};
use super::store::{Store, StoreError};
use crate::context::Attachments;
use crate::error::{Failure, Failures};
use crate::plugins::prev_result;

/// Stored port mappings that could not be put back.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RestoreError(String);

/// Maps the ports that the runtime asks for and no others, and passes the result through. On failure the container's
/// rules are those of before.
pub(crate) fn add(conf: &NetConf, target: &Target) -> Result<AddResult, Failure> {
    let result = prev_result::required(conf)?;
    let own = Conf::parse(conf)?;
    let addresses = addresses_of(&result, &target.ifname);
    let dir = data_dir(conf)?;
    if own.mappings.is_empty() || addresses.is_empty() {
        remove_stored(&dir, conf, target)?;
        return Ok(result);
    }
    let backend = chosen(own.backend)?;
    let attachment = Attachment {
        network: conf.name.clone(),
        target: target.clone(),
        backend,
        conf: Conf {
            backend: Some(backend),
            ..own
        },
        addresses,
    };
    let store = Store::open_or_create(&dir)?;
    let _lock = store.lock()?;
    let stored = store.of_container(&target.container_id)?;
    let before = stored
        .iter()
        .find(|stored| is_of(stored, &conf.name, target))
        .cloned();
    let look = match &before {
        // What was made with the other back end goes.
        Some(before) if before.backend != backend => Look::Everywhere,
        // State comes before rules. The reference keeps none, but no runtime lets two plugins add one container.
        None if stored.is_empty() => Look::New(backend),
        Some(_) | None => Look::Own(backend),
    };
    let goal = goal_with(stored, &attachment)?;
    store.put(&attachment)?;
    let made = make(&goal, look, &attachment);
    made.map_err(|error| {
        let mut failure = Failure::from(error);
        if let Err(undone) = undo(&store, &attachment, before.as_ref()) {
            failure.append_details(&undone.msg);
        }
        failure
    })?;
    Ok(result)
}

/// Removes what an earlier ADD of the attachment mapped.
fn remove_stored(dir: &Path, conf: &NetConf, target: &Target) -> Result<(), Failure> {
    let Some(store) = Store::open(dir)? else {
        return Ok(());
    };
    if store.get(&conf.name, target)?.is_none() {
        return Ok(());
    }
    let _lock = store.lock()?;
    remove(Some(&store), &conf.name, target, BTreeSet::new())
}

fn make(goal: &Goal, look: Look, attachment: &Attachment) -> Result<(), RulesError> {
    goal.reach(look)?;
    // A flow that began before the rules would go on without them.
    rules::flush_udp(&attachment.udp_destinations())?;
    let address = attachment
        .address(IpFamily::V4)
        .filter(|_| attachment.conf.snat && attachment.is_mapped_in(IpFamily::V4));
    // At last: nobody puts it back.
    address.map_or(Ok(()), |address| rules::enable_localhost(address.ip()))
}

/// Puts back what was before a failed ADD.
fn undo(store: &Store, attachment: &Attachment, before: Option<&Attachment>) -> Result<(), Failure> {
    let Some(before) = before else {
        return remove(
            Some(store),
            &attachment.network,
            &attachment.target,
            BTreeSet::new(),
        );
    };
    store.put(before)?;
    let stored = store.of_container(&before.target.container_id)?;
    goal_with(stored, before)?.reach(Look::Everywhere)?;
    Ok(())
}

/// What a container's rules are with an attachment among those that are stored.
fn goal_with(stored: Vec<Attachment>, attachment: &Attachment) -> Result<Goal, Failure> {
    let mut all = stored;
    all.retain(|other| !is_of(other, &attachment.network, &attachment.target));
    all.push(attachment.clone());
    Ok(Goal::of(
        &attachment.network,
        &attachment.target.container_id,
        &all,
    )?)
}

fn is_of(attachment: &Attachment, network: &NetworkName, target: &Target) -> bool {
    attachment.network == *network && attachment.target == *target
}

/// Removes the attachment's rules, whoever made them and whatever the configuration says.
///
/// A container's interface is of one attachment. If it is stored under another network's name, the network was renamed.
pub(crate) fn del(conf: &NetConf, target: &Target) -> Result<(), Failure> {
    let store = Store::open(&data_dir(conf)?)?;
    let mut networks = match &store {
        Some(store) => networks_of(store, target)?,
        None => BTreeSet::new(),
    };
    // Without state there is nothing to be kept from others, nor to be found for most containers.
    let lock = match &store {
        Some(store) if !networks.is_empty() => Some(store.lock()?),
        Some(_) | None => None,
    };
    networks.insert(conf.name.clone());
    // What cannot be read here was never mapped.
    let asked = conf::mappings(conf).unwrap_or_default();
    let flows: BTreeSet<_> = asked.iter().flat_map(Mapping::udp_destinations).collect();
    let mut failures = Failures::default();
    for network in networks {
        failures.note(remove(store.as_ref(), &network, target, flows.clone()));
    }
    drop(lock);
    failures.into_result()
}

/// The networks that the interface's ports are stored under.
fn networks_of(store: &Store, target: &Target) -> Result<BTreeSet<NetworkName>, StoreError> {
    let stored = store.of_container(&target.container_id)?.into_iter();
    let own = stored.filter(|stored| stored.target == *target);
    Ok(own.map(|stored| stored.network).collect())
}

/// Removes an attachment's rules, then its state; `flows` went perhaps to UDP ports that it had beside those known here.
fn remove(
    store: Option<&Store>,
    network: &NetworkName,
    target: &Target,
    mut flows: BTreeSet<OriginalDestination>,
) -> Result<(), Failure> {
    let mut others = match store {
        Some(store) => store.of_container(&target.container_id)?,
        None => Vec::new(),
    };
    let own = others.iter().position(|other| is_of(other, network, target));
    if let Some(own) = own.map(|position| others.remove(position)) {
        flows.extend(own.udp_destinations());
    }
    let outcome = Goal::of(network, &target.container_id, &others)?.reach(Look::Everywhere)?;
    flows.extend(outcome.udp_destinations);
    rules::flush_udp(&flows)?;
    if let Some(store) = store {
        store.remove(network, target)?;
    }
    Ok(())
}

/// Fails unless every rule of the attachment is there.
pub(crate) fn check(conf: &NetConf, target: &Target) -> Result<(), Failure> {
    let result = prev_result::required(conf)?;
    let own = Conf::parse(conf)?;
    let addresses = addresses_of(&result, &target.ifname);
    if own.mappings.is_empty() || addresses.is_empty() {
        return Ok(());
    }
    let stored = match Store::open(&data_dir(conf)?)? {
        Some(store) => store.get(&conf.name, target)?,
        None => None,
    };
    let first = match (own.backend, &stored) {
        (Some(backend), _) => backend,
        (None, Some(stored)) => stored.backend,
        (None, None) => chosen(None)?,
    };
    let mut attachment = Attachment {
        network: conf.name.clone(),
        target: target.clone(),
        backend: first,
        conf: own,
        addresses,
    };
    let found = verify(&attachment);
    if found.is_err() && first == Backend::Nftables && attachment.conf.backend.is_none() && stored.is_none() {
        // The reference, which stores nothing, prefers iptables.
        attachment.backend = Backend::Iptables;
        if verify(&attachment).is_ok() {
            return Ok(());
        }
    }
    Ok(found?)
}

/// Fails unless every rule of an attachment is there in its back end.
fn verify(attachment: &Attachment) -> Result<(), RulesError> {
    let of_one = std::slice::from_ref(attachment);
    Goal::of(&attachment.network, &attachment.target.container_id, of_one)?.verify()
}

/// Fails with code 50 when an ADD could not be served: the back end cannot be used.
pub(crate) fn status(conf: &NetConf) -> Result<(), Failure> {
    let own = Conf::parse(conf)?;
    let usable = chosen(own.backend).and_then(rules::usable);
    usable.map_err(|error| Failure {
        code: Code::NOT_AVAILABLE,
        ..Failure::from(error)
    })
}

/// Removes the rules of this network's attachments that are not valid: those that are stored, and those of iptables
/// that name the network. Goes on over failures.
///
/// A rule of nftables names its container only. One that is not stored was made by the reference, perhaps for another
/// network, and stays for the container's DEL.
pub(crate) fn gc(conf: &NetConf, valid: &Attachments) -> Result<(), Failure> {
    let mut failures = Failures::default();
    let store = Store::open(&data_dir(conf)?)?;
    let lock = store.as_ref().map(Store::lock).transpose()?;
    if let Some(store) = &store {
        let of_network = store
            .all()?
            .into_iter()
            .filter(|stored| stored.network == conf.name);
        for stale in of_network.filter(|stored| !valid.0.contains(&stored.target)) {
            failures.note(remove(
                Some(store),
                &stale.network,
                &stale.target,
                BTreeSet::new(),
            ));
        }
        failures.note(store.remove_unreadable());
    }
    let containers = valid.0.iter().map(|target| target.container_id.clone()).collect();
    failures.note(rules::gc_iptables(&conf.name, &containers));
    drop(lock);
    failures.into_result()
}

/// Puts back the rules of all stored attachments that are gone, for instance because a firewall was loaded anew, and
/// returns how many containers had lost some. It changes nothing that is as it should be.
///
/// `dir` is the directory of the state; `None` is the plugin's default.
///
/// # Errors
/// The state cannot be read, or the rules of a container cannot be made; those of the others are.
pub fn restore_all(dir: Option<&Path>) -> Result<usize, RestoreError> {
    // Without state there is nothing to restore; where it was said to be, it is missed.
    if let Some(given) = dir
        && matches!(statefile::is_dir(given), Ok(false))
    {
        return Err(RestoreError(format!("{} is no directory", given.display())));
    }
    let dir = dir.map_or_else(default_data_dir, Path::to_owned);
    let restored = restore(&dir);
    restored.map_err(|failure| RestoreError(failure.msg))
}

fn restore(dir: &Path) -> Result<usize, Failure> {
    let Some(store) = Store::open(dir)? else {
        return Ok(0);
    };
    let _lock = store.lock()?;
    let mut failures = Failures::default();
    let mut count = 0;
    let all = store.all()?;
    let containers = all
        .iter()
        .map(|stored| (&stored.network, &stored.target.container_id));
    for (network, container_id) in containers.collect::<BTreeSet<_>>() {
        let of_container = all
            .iter()
            .filter(|stored| stored.target.container_id == *container_id);
        let of_container: Vec<_> = of_container.cloned().collect();
        let step = Goal::of(network, container_id, &of_container).map_err(Failure::from);
        let step = step.and_then(|goal| Ok(goal.reach(Look::Wanted)?));
        let step = step.and_then(|outcome| {
            if outcome.changed {
                count += 1;
                let of_network = of_container.iter().filter(|stored| stored.network == *network);
                let flows = of_network.flat_map(Attachment::udp_destinations).collect();
                rules::flush_udp(&flows)?;
            }
            Ok(())
        });
        failures.note(step);
    }
    failures.into_result().map(|()| count)
}

/// The back end that a configuration names; else nftables, or iptables if the kernel has no nftables.
fn chosen(backend: Option<Backend>) -> Result<Backend, RulesError> {
    match backend {
        Some(backend) => Ok(backend),
        None if rules::has_nftables()? => Ok(Backend::Nftables),
        None => Ok(Backend::Iptables),
    }
}
