use std::path::PathBuf;

use cni_types::{AddResult, Code, NetConf, Target};
use ipnetwork::IpNetwork;
use netstate::iptables::{IptablesFamily, JumpRule};
use nftables::Nftables;

use super::conf::{self, Attachment, Conf};
use super::note::Notes;
use super::{backend, iptables, nft, note};
use crate::context::Attachments;
use crate::error::{CniError, Failure, Failures};
use crate::plugins::netfilter::{self, Backend, NetfilterError, Until};
use crate::plugins::prev_result;

/// The rules are not as they shall be.
#[derive(Debug, thiserror::Error)]
enum FirewallError {
    #[error(
        "the rules for the container in table {} are not as they were made",
        nft::table()
    )]
    Incomplete,
    #[error("iptables lacks \"-A {} {}\" in table filter", .0.chain, .0.rule)]
    Missing(JumpRule),
}

impl CniError for FirewallError {
    fn code(&self) -> Code {
        Code::CHECK_FAILED
    }
}

/// Has the container's packets forwarded, and passes the result through. A failure leaves no rule of the container's.
pub(crate) fn add(conf: &NetConf, target: &Target) -> Result<AddResult, Failure> {
    let own = Conf::parse(conf)?;
    let result = prev_result::required(conf)?;
    let attachment = own.attachment(&result)?;
    let mut nftables = netfilter::open_if_present()?;
    let made = match backend::choose(own.backend, nftables.as_mut())? {
        Backend::Nftables => add_nft(conf, target, &attachment),
        Backend::Iptables => add_iptables(conf, target, &own, &attachment, nftables),
    };
    made.map_err(|mut failure| {
        if let Err(e) = del(conf, target) {
            failure.append_details(&e.msg);
        }
        failure
    })?;
    Ok(result)
}

fn add_nft(conf: &NetConf, target: &Target, attachment: &Attachment) -> Result<(), Failure> {
    let mut nftables = netfilter::open()?;
    let made = netfilter::settle(&mut nftables, &nft::table(), Until::Settled, |found| {
        nft::setup(found, &conf.name, target, attachment)
    });
    Ok(made?)
}

fn add_iptables(
    conf: &NetConf,
    target: &Target,
    own: &Conf,
    attachment: &Attachment,
    mut nftables: Option<Nftables>,
) -> Result<(), Failure> {
    let notes = Notes::lock(&conf::data_dir(conf)?)?;
    // Not the file of former versions, which may be another's: that one waits for DEL.
    let path = notes.path(target);
    let mut outdated = notes.hosts(&path)?;
    outdated.retain(|host| !attachment.hosts.contains(host));
    // What an earlier ADD noted stays noted until its rules are gone: nothing else tells of them.
    let all = [attachment.hosts.as_slice(), outdated.as_slice()].concat();
    notes.write(&conf.name, target, &all)?;
    for (family, hosts) in netfilter::by_family(&attachment.hosts) {
        for programs in netfilter::iptables_deciding(nftables.as_mut(), family, iptables::TABLE)? {
            netfilter::settle_iptables(&programs, iptables::TABLE, |table| {
                iptables::setup(table, own, attachment, &hosts)
            })?;
        }
    }
    if outdated.is_empty() {
        return Ok(());
    }
    remove_from_iptables(&notes.free(&outdated, &[path])?, nftables)?;
    Ok(notes.write(&conf.name, target, &attachment.hosts)?)
}

/// Fails unless the container's rules are there, in either back end.
pub(crate) fn check(conf: &NetConf, target: &Target) -> Result<(), Failure> {
    let own = Conf::parse(conf)?;
    let attachment = own.attachment(&prev_result::required(conf)?)?;
    let mut nftables = netfilter::open_if_present()?;
    if let Some(nftables) = &mut nftables {
        let found = netfilter::read(nftables, &nft::table())?;
        if nft::is_complete(found.as_ref(), &conf.name, target, &attachment) {
            return Ok(());
        }
    }
    for (family, hosts) in netfilter::by_family(&attachment.hosts) {
        let all = netfilter::iptables_with(nftables.as_mut(), family, iptables::TABLE, iptables::CONTAINERS)?;
        let tables = all.iter().map(|programs| programs.save(iptables::TABLE));
        let mut tables = tables
            .collect::<Result<Vec<_>, _>>()
            .map_err(NetfilterError::Iptables)?;
        // A table of the legacy variant's is there as soon as anybody has looked for it.
        tables.retain(iptables::decides);
        if tables.is_empty() {
            return Err(FirewallError::Incomplete.into());
        }
        for table in tables {
            if let Some(missing) = iptables::missing(&table, &own, &attachment, &hosts) {
                return Err(FirewallError::Missing(missing).into());
            }
        }
    }
    Ok(())
}

/// Removes the container's rules in every back end, so far as they are known by comment, by note, or by the result.
pub(crate) fn del(conf: &NetConf, target: &Target) -> Result<(), Failure> {
    let mut nftables = netfilter::open_if_present()?;
    if let Some(nftables) = &mut nftables {
        netfilter::settle(nftables, &nft::table(), Until::Settled, |found| {
            found.map_or_else(Vec::new, |found| nft::teardown(found, target))
        })?;
    }
    // The reference notes nothing; a result that cannot be read tells nothing.
    let result = prev_result::required(conf).unwrap_or_default();
    let mut hosts: Vec<_> = result
        .ips
        .iter()
        .map(|ip| IpNetwork::from(ip.address.ip()))
        .collect();
    let dir = conf::data_dir(conf)?;
    if !note::is_dir(&dir)? {
        return remove_from_iptables(&hosts, nftables);
    }
    let notes = Notes::lock(&dir)?;
    let noted = notes.of(target)?;
    hosts.extend(noted.iter().flat_map(|(_, note)| note.hosts()));
    // Its own file goes also if it tells nothing.
    let mut given_up = vec![notes.path(target)];
    given_up.extend(noted.into_iter().map(|(path, _)| path));
    given_up.dedup();
    release(&notes, &hosts, &given_up, nftables)
}

/// Fails when ADD could not be served: the configuration or the node's packet filters leave no back end.
pub(crate) fn status(conf: &NetConf) -> Result<(), Failure> {
    let own = Conf::parse(conf)?;
    let unavailable = |failure: Failure| Failure {
        code: Code::NOT_AVAILABLE,
        ..failure
    };
    let mut nftables = netfilter::open_if_present().map_err(|e| unavailable(e.into()))?;
    let chosen = backend::choose(own.backend, nftables.as_mut());
    match chosen.map_err(|e| unavailable(e.into()))? {
        Backend::Nftables => {
            netfilter::open().map_err(|e| unavailable(e.into()))?;
        }
        Backend::Iptables => {
            netfilter::iptables_for(nftables.as_mut(), IptablesFamily::V4)
                .map_err(|e| unavailable(e.into()))?;
        }
    }
    Ok(())
}

/// Removes the rules of the network's containers that have no valid attachment. Goes on over failures.
pub(crate) fn gc(conf: &NetConf, valid: &Attachments) -> Result<(), Failure> {
    let mut failures = Failures::default();
    let mut nftables = netfilter::open_if_present()?;
    if let Some(nftables) = &mut nftables {
        let removed = netfilter::settle(nftables, &nft::table(), Until::Settled, |found| {
            found.map_or_else(Vec::new, |found| nft::gc(found, &conf.name, &valid.0))
        });
        failures.note(removed);
    }
    let dir = conf::data_dir(conf)?;
    if note::is_dir(&dir)? {
        failures.note(gc_iptables(conf, valid, nftables));
        failures.note(note::remove_abandoned(&dir));
    }
    failures.into_result()
}

fn gc_iptables(conf: &NetConf, valid: &Attachments, nftables: Option<Nftables>) -> Result<(), Failure> {
    let notes = Notes::lock(&conf::data_dir(conf)?)?;
    let stale = notes.stale(&conf.name, &valid.0)?;
    let hosts: Vec<_> = stale.iter().flat_map(|(_, note)| note.hosts()).collect();
    let paths: Vec<_> = stale.into_iter().map(|(path, _)| path).collect();
    release(&notes, &hosts, &paths, nftables)
}

/// Removes the rules for addresses from iptables that no other attachment has, then the notes.
fn release(
    notes: &Notes,
    hosts: &[IpNetwork],
    given_up: &[PathBuf],
    nftables: Option<Nftables>,
) -> Result<(), Failure> {
    remove_from_iptables(&notes.free(hosts, given_up)?, nftables)?;
    for path in given_up {
        notes.remove(path)?;
    }
    Ok(())
}

fn remove_from_iptables(hosts: &[IpNetwork], mut nftables: Option<Nftables>) -> Result<(), Failure> {
    let mut hosts = hosts.to_vec();
    hosts.sort_unstable();
    hosts.dedup();
    for (family, hosts) in netfilter::by_family(&hosts) {
        let all = netfilter::iptables_with(nftables.as_mut(), family, iptables::TABLE, iptables::CONTAINERS)?;
        for programs in all {
            netfilter::settle_iptables(&programs, iptables::TABLE, |table| {
                iptables::teardown(table, &hosts)
            })?;
        }
    }
    Ok(())
}
