use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni_types::{AddResult, Code, ContainerId, NetConf, Target};
use net_types::IfName;

use super::conf::{self, Conf};
use super::note;
use super::state::{self, StateFiles, StateName, Stored};
use crate::context::{Attachments, Context};
use crate::delegate::{self, Known, Verb};
use crate::error::{CniError, Failure, Failures};
use crate::plugins::host_local::{self, Holder};
use crate::plugins::ipam::{Earlier, Ipam};
use crate::plugins::{bridge, data_dir};
use crate::sandbox::Sandbox;

#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("flannel knows no attachment {ifname:?} of container {container_id}: its state file is gone")]
    NoState {
        container_id: ContainerId,
        ifname: String,
    },
}

impl CniError for CheckError {
    fn code(&self) -> Code {
        match self {
            Self::NoState { .. } => Code::CHECK_FAILED,
        }
    }
}

/// The plugin that does the work.
enum Delegate {
    /// Ours, in this process.
    Bridge,
    Program(String),
}

impl Delegate {
    fn of(conf: &NetConf) -> Result<Self, Failure> {
        Ok(match conf.object.string("type")? {
            None | Some("bridge") => Self::Bridge,
            Some(other) => Self::Program(other.to_owned()),
        })
    }
}

/// Stores the delegate's configuration, then lets the delegate attach the container. On failure the state is as
/// before.
pub(crate) fn add(
    context: &Context<'_>,
    conf: &NetConf,
    target: &Target,
    sandbox: &Sandbox,
) -> Result<AddResult, Failure> {
    let own = Conf::parse(conf)?;
    let object = own.delegate_conf(conf, Some(&own.subnet_env()?));
    let delegate_conf = NetConf::from_object(object.clone())?;
    let delegate = Delegate::of(&delegate_conf)?;
    if matches!(delegate, Delegate::Bridge) {
        bridge::validate(context, &delegate_conf)?;
    }
    let files = StateFiles::of(&conf::data_dir(conf)?, target);
    let path = path_for_add(&files, &delegate_conf, target)?;
    let before = files.write(&path, &object)?;
    // The file is there before anything is reserved, and until all of it is freed.
    let earlier = match &before {
        Some(_) => Earlier::Possible,
        None => Earlier::Unknown {
            // Where that cannot be known, it is searched.
            others: files.count().map_or(0, |files| files.saturating_sub(1)),
        },
    };
    let added = match &delegate {
        Delegate::Bridge => bridge::add(context, &delegate_conf, target, sandbox, earlier),
        Delegate::Program(name) => delegate::exec_add(context, name, &delegate_conf),
    };
    match added {
        Ok(result) => {
            // After an earlier ADD there may be more, which the DEL has to search.
            if matches!(delegate, Delegate::Bridge) && earlier != Earlier::Possible {
                note::write(&path, target, &result.addresses());
            }
            Ok(result)
        }
        Err(mut failure) => {
            if let Err(e) = state::restore(&path, before.as_deref()) {
                failure.add_details(&e);
            }
            Err(failure)
        }
    }
}

/// The file that belongs to this attachment.
fn path_for_add(files: &StateFiles, conf: &NetConf, target: &Target) -> Result<PathBuf, Failure> {
    let further = files.further();
    if further.exists() {
        return Ok(further);
    }
    let first = files.first();
    let is_anothers = match state::read(&first)? {
        Stored::Missing => false,
        Stored::Conf(stored) if stored.name != conf.name => true,
        Stored::Garbage | Stored::Conf(_) => files.is_first_of_another(&holders(conf, target)?),
    };
    Ok(if is_anothers { further } else { first })
}

/// The container's interfaces that hold an address, so far as this process can know.
fn holders(conf: &NetConf, target: &Target) -> Result<Vec<IfName>, Failure> {
    match Ipam::of(conf)? {
        Ipam::HostLocal => host_local::holders(conf, &target.container_id),
        Ipam::None | Ipam::Program(_) => Ok(Vec::new()),
    }
}

/// Lets the delegate detach the container with the configuration of the ADD, and forgets that only when the delegate
/// is done: a failed DEL must be repeatable.
pub(crate) fn del(
    context: &Context<'_>,
    conf: &NetConf,
    target: &Target,
    sandbox: Option<&Sandbox>,
) -> Result<(), Failure> {
    let files = StateFiles::of(&conf::data_dir(conf)?, target);
    let (path, stored) = match find(&files, conf)? {
        (path, Stored::Missing) => find_renamed(&files, target)?.unwrap_or((path, Stored::Missing)),
        found => found,
    };
    match stored {
        Stored::Conf(mut delegate_conf) => {
            pass_on_prev_result(&mut delegate_conf, conf);
            let noted = note::read(&path, target);
            delegate_del(context, &delegate_conf, target, sandbox, &noted)?;
            if noted.is_empty() {
                forget(&files, &path, &delegate_conf, target)?;
            } else {
                state::remove(&path)?;
            }
        }
        // A crash before this plugin wrote whole files only; what the ADD made is named by the configuration.
        Stored::Garbage => {
            let delegate_conf = computed(conf)?;
            delegate_del(context, &delegate_conf, target, sandbox, &[])?;
            forget(&files, &path, &delegate_conf, target)?;
        }
        // Nothing is attached, so far as flannel knows; looking for leftovers of our own is cheap.
        Stored::Missing => match computed(conf) {
            Ok(delegate_conf) if matches!(Delegate::of(&delegate_conf), Ok(Delegate::Bridge)) => {
                bridge::del(context, &delegate_conf, target, sandbox, &[])?;
            }
            Ok(_) | Err(_) => {}
        },
    }
    Ok(files.discard_unfinished()?)
}

/// The stored configuration of this attachment, and its file. One of another network is not its own.
fn find(files: &StateFiles, conf: &NetConf) -> Result<(PathBuf, Stored), Failure> {
    for path in [files.further(), files.first()] {
        match state::read(&path)? {
            Stored::Conf(stored) if stored.name != conf.name => {}
            Stored::Missing => {}
            stored @ (Stored::Garbage | Stored::Conf(_)) => return Ok((path, stored)),
        }
    }
    Ok((files.first(), Stored::Missing))
}

/// The stored configuration of this interface under another network's name: the network was renamed while the container
/// ran. An interface is of one attachment, and which one it is of the reservation of its address tells.
fn find_renamed(files: &StateFiles, target: &Target) -> Result<Option<(PathBuf, Stored)>, Failure> {
    for path in [files.further(), files.first()] {
        if let Stored::Conf(stored) = state::read(&path)?
            && holders(&stored, target)?.contains(&target.ifname)
        {
            return Ok(Some((path, Stored::Conf(stored))));
        }
    }
    Ok(None)
}

/// The delegate's configuration anew, with what the subnet file tells if it can be read.
fn computed(conf: &NetConf) -> Result<NetConf, Failure> {
    let own = Conf::parse(conf)?;
    let env = own.subnet_env().ok();
    let mut computed = NetConf::from_object(own.delegate_conf(conf, env.as_ref()))?;
    pass_on_prev_result(&mut computed, conf);
    Ok(computed)
}

fn delegate_del(
    context: &Context<'_>,
    conf: &NetConf,
    target: &Target,
    sandbox: Option<&Sandbox>,
    noted: &[IpAddr],
) -> Result<(), Failure> {
    match Delegate::of(conf)? {
        Delegate::Bridge => bridge::del(context, conf, target, sandbox, noted),
        Delegate::Program(name) => delegate::exec(context, &name, Verb::Del, conf).map(drop),
    }
}

/// Removes a state file, unless it is the first one and another interface's.
fn forget(files: &StateFiles, path: &Path, conf: &NetConf, target: &Target) -> Result<(), Failure> {
    if path == files.first() && files.is_first_of_another(&holders(conf, target)?) {
        return Ok(());
    }
    Ok(state::remove(path)?)
}

/// Lets the delegate check the attachment.
pub(crate) fn check(
    context: &Context<'_>,
    conf: &NetConf,
    target: &Target,
    sandbox: &Sandbox,
) -> Result<(), Failure> {
    let (_, stored) = find(&StateFiles::of(&conf::data_dir(conf)?, target), conf)?;
    let mut delegate_conf = match stored {
        Stored::Conf(stored) => *stored,
        Stored::Garbage => computed(conf)?,
        Stored::Missing => {
            return Err(CheckError::NoState {
                container_id: target.container_id.clone(),
                ifname: target.ifname.as_str().to_owned(),
            }
            .into());
        }
    };
    pass_on_prev_result(&mut delegate_conf, conf);
    match Delegate::of(&delegate_conf)? {
        Delegate::Bridge => bridge::check(context, &delegate_conf, target, sandbox),
        Delegate::Program(name) => delegate::exec(context, &name, Verb::Check, &delegate_conf).map(drop),
    }
}

/// Fails with code 50 when an ADD could not be served: no usable subnet file, or the delegate says so.
pub(crate) fn status(context: &Context<'_>, conf: &NetConf) -> Result<(), Failure> {
    let own = Conf::parse(conf)?;
    let env = own.subnet_env().map_err(|error| Failure {
        code: Code::NOT_AVAILABLE,
        ..Failure::from(error)
    })?;
    data_dir::require_room(&conf::data_dir(conf)?)?;
    let delegate_conf = NetConf::from_object(own.delegate_conf(conf, Some(&env)))?;
    match Delegate::of(&delegate_conf)? {
        Delegate::Bridge => bridge::status(context, &delegate_conf),
        Delegate::Program(name) => delegate::exec_status(context, &name, &delegate_conf),
    }
}

/// Lets the delegate clean up, then removes the state files of this network's containers that have no valid
/// attachment, so far as the delegate is done with them. Goes on over failures.
pub(crate) fn gc(context: &Context<'_>, conf: &NetConf, valid: &Attachments) -> Result<(), Failure> {
    let mut delegate_conf = computed(conf)?;
    valid.write(&mut delegate_conf);
    let mut failures = Failures::default();
    let delegate = Delegate::of(&delegate_conf)?;
    let collected = match &delegate {
        Delegate::Bridge => bridge::gc(context, &delegate_conf, valid).map(|()| Known::Yes),
        Delegate::Program(name) => delegate::exec_if_known(context, name, Verb::Gc, &delegate_conf),
    };
    // A delegate that does not know GC still needs the files for each container's DEL.
    let is_done = matches!(collected, Ok(Known::Yes));
    failures.note(collected.map(drop));
    let attached = match all_holders(&delegate, &delegate_conf) {
        Ok(known) => known,
        Err(failure) => {
            failures.note(Err(failure));
            return failures.into_result();
        }
    };
    let is_over = |file: &StateName<'_>| match &attached {
        Some(holders) => !holders.iter().any(|holder| file.may_be_of(holder)),
        None => is_done,
    };
    let dir = conf::data_dir(conf)?;
    failures.note(state::remove_abandoned(&dir));
    let Ok(entries) = fs::read_dir(dir) else {
        return failures.into_result();
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let file = name.to_str().and_then(StateName::parse);
        let file = file.filter(|file| !valid.0.iter().any(|target| file.may_be_of(&Holder::of(target))));
        if file.is_some_and(|file| is_over(&file)) && is_of_network(&entry.path(), conf) {
            failures.note(state::remove(&entry.path()));
        }
    }
    failures.into_result()
}

/// Whom the network's addresses are for, if this process can know.
fn all_holders(delegate: &Delegate, conf: &NetConf) -> Result<Option<Vec<Holder>>, Failure> {
    match (delegate, Ipam::of(conf)?) {
        (Delegate::Bridge, Ipam::HostLocal) => host_local::all_holders(conf).map(Some),
        (Delegate::Bridge, Ipam::None | Ipam::Program(_)) | (Delegate::Program(_), _) => Ok(None),
    }
}

fn is_of_network(path: &Path, conf: &NetConf) -> bool {
    matches!(state::read(path), Ok(Stored::Conf(stored)) if stored.name == conf.name)
}

/// Gives the delegate the result of the ADD, so that it can check and clean up by it.
fn pass_on_prev_result(conf: &mut NetConf, given: &NetConf) {
    if let Some(result) = given.prev_result() {
        conf.object.set("prevResult", result.clone());
    }
}
