use std::io::{self, Write};

use cni_types::{AddResult, Code, NetConf, Target};
use net_types::{IfName, MacAddr};
use netlink::{LinkSetting, LinkSettings, NetnsError, RealKernel};
use netstate::{ErrorClass, Kernel, KernelError, Op, Scope, SysctlKey};

use super::allowlist::Allowlist;
use super::backup::{Backup, BackupError};
use super::conf::{self, Conf};
use crate::context::{Attachments, Context};
use crate::error::{CniError, Failure, Failures};
use crate::plugins::{attachment_file, prev_result};
use crate::sandbox::Sandbox;

/// Why an interface or a parameter is not as it shall be.
#[derive(Debug, thiserror::Error)]
enum TuningError {
    #[error("sysctl {name:?} is not allowed on this node; allowed is what matches one of {patterns:?}")]
    NotAllowed { name: String, patterns: Vec<String> },
    #[error("cannot enter the container's network namespace")]
    Enter(#[source] NetnsError),
    #[error("cannot open the kernel's networking in the container")]
    Open(#[source] KernelError),
    #[error("cannot read the settings of {:?} in the container", .0.as_str())]
    Settings(IfName, #[source] KernelError),
    #[error("cannot set sysctl {}", .0.as_str())]
    Sysctl(SysctlKey, #[source] KernelError),
    #[error("cannot give {:?} in the container {setting}", ifname.as_str())]
    Setting {
        setting: LinkSetting,
        ifname: IfName,
        #[source]
        source: KernelError,
    },
    #[error("sysctl {} is {found:?}, configured is {wanted:?}", key.as_str())]
    OtherSysctl {
        key: SysctlKey,
        found: String,
        wanted: String,
    },
    #[error("{:?} in the container does not have {setting}, as configured", ifname.as_str())]
    OtherSetting { ifname: IfName, setting: LinkSetting },
}

impl CniError for TuningError {
    fn code(&self) -> Code {
        match self {
            Self::NotAllowed { .. } => Code::BAD_CONFIG,
            Self::Enter(_) => Code::BAD_NETNS,
            Self::Open(_) | Self::Settings(..) | Self::Sysctl(..) | Self::Setting { .. } => Code::KERNEL,
            Self::OtherSysctl { .. } | Self::OtherSetting { .. } => Code::CHECK_FAILED,
        }
    }
}

/// Sets what is configured. A failure leaves everything as it was.
pub(crate) fn add(
    context: &Context<'_>,
    conf: &NetConf,
    target: &Target,
    sandbox: &Sandbox,
) -> Result<AddResult, Failure> {
    let own = Conf::parse(conf, &context.env.args, target.ifname.as_str())?;
    require_allowed(&own)?;
    let dir = conf::data_dir(conf)?;
    let mut result = prev_result::required(conf)?;
    let mut pod = Pod::open(sandbox, target)?;
    if own.settings.is_empty() {
        pod.set_sysctls(&own)?;
        return Ok(result);
    }
    let before = pod.settings()?;
    let backup = Backup::of(&before, &own.settings, &conf.name);
    attachment_file::write(&dir, target, &backup).map_err(BackupError)?;
    let done = pod.tune(&own, &before);
    done.map_err(|error| {
        let mut failure = Failure::from(error);
        if let Err(e) = pod.put_back(&backup, &[]) {
            // The file stays for a DEL.
            failure.add_details(&e);
        } else if let Err(e) = attachment_file::remove(&attachment_file::path(&dir, target)) {
            failure.add_details(&BackupError(e));
        }
        failure
    })?;
    show(&mut result, &own.settings, &target.ifname);
    Ok(result)
}

/// Fails if a parameter or the interface is not as configured.
pub(crate) fn check(
    context: &Context<'_>,
    conf: &NetConf,
    target: &Target,
    sandbox: &Sandbox,
) -> Result<(), Failure> {
    let own = Conf::parse(conf, &context.env.args, target.ifname.as_str())?;
    prev_result::required(conf)?;
    let mut pod = Pod::open(sandbox, target)?;
    for (key, wanted) in &own.sysctls {
        // A parameter that can only be written tells nothing.
        let Some(found) = pod.read(key) else { continue };
        if words(&found) != words(wanted) {
            let (key, wanted) = (key.clone(), wanted.clone());
            return Err(TuningError::OtherSysctl { key, found, wanted }.into());
        }
    }
    if own.settings.is_empty() {
        return Ok(());
    }
    let now = pod.settings()?;
    match own.settings.iter().find(|setting| !now.has(**setting)) {
        None => Ok(()),
        Some(setting) => Err(TuningError::OtherSetting {
            ifname: target.ifname.clone(),
            setting: *setting,
        }
        .into()),
    }
}

/// Puts back what an ADD changed of the interface, if that is still there and so far as the kernel lets it: what it
/// refuses now it would refuse for ever, and the container must go. An interface whose hardware address is known to
/// be otherwise is another container's, which got the namespace's path.
pub(crate) fn del(conf: &NetConf, target: &Target, sandbox: Option<&Sandbox>) -> Result<(), Failure> {
    let file = attachment_file::path(&conf::data_dir(conf)?, target);
    let backup: Option<Backup> = attachment_file::read(&file).map_err(BackupError)?;
    if let (Some(backup), Some(sandbox)) = (backup, sandbox) {
        let put_back = Pod::open(sandbox, target)
            .and_then(|mut pod| pod.put_back(&backup, &known_macs(conf, target, &backup)));
        if let Err(e) = put_back {
            // Only people read it, and need not.
            let _unread = writeln!(io::stderr(), "tuning: {}", Failure::from(e).msg);
        }
    }
    Ok(attachment_file::remove(&file).map_err(BackupError)?)
}

/// Fails when the configuration is unusable, or the node does not allow what it sets: with code 50 where the node's list
/// of allowed parameters is to be changed.
pub(crate) fn status(context: &Context<'_>, conf: &NetConf) -> Result<(), Failure> {
    conf::data_dir(conf)?;
    let own = Conf::of_any(conf, &context.env.args)?;
    require_allowed(&own).map_err(|failure| Failure {
        code: Code::NOT_AVAILABLE,
        ..failure
    })
}

/// Removes the files of attachments of this network that are not valid. Their interfaces are gone with them.
pub(crate) fn gc(conf: &NetConf, valid: &Attachments) -> Result<(), Failure> {
    let mut failures = Failures::default();
    let dir = conf::data_dir(conf)?;
    failures.note(statefile::remove_abandoned(&dir).map_err(BackupError));
    let stale = attachment_file::stale::<Backup>(&dir, &conf.name, &valid.0).map_err(BackupError)?;
    for (path, _) in stale {
        failures.note(attachment_file::remove(&path).map_err(BackupError));
    }
    failures.into_result()
}

fn require_allowed(own: &Conf) -> Result<(), Failure> {
    if own.names.is_empty() {
        return Ok(());
    }
    let Some(list) = Allowlist::of_node()? else {
        return Ok(());
    };
    match own.names.iter().find(|name| !list.permits(name)) {
        None => Ok(()),
        Some(name) => Err(TuningError::NotAllowed {
            name: name.clone(),
            patterns: list.patterns().into_iter().map(str::to_owned).collect(),
        }
        .into()),
    }
}

/// Writes what was changed into the result.
fn show(result: &mut AddResult, settings: &[LinkSetting], ifname: &IfName) {
    let of_container = |name: &str, in_sandbox: bool| in_sandbox && name == ifname.as_str();
    for interface in &mut result.interfaces {
        if !of_container(&interface.name, interface.is_in_sandbox()) {
            continue;
        }
        for setting in settings {
            match setting {
                LinkSetting::Mac(mac) => interface.mac = Some(mac.to_string()),
                LinkSetting::MtuBytes(mtu_bytes) => interface.mtu_bytes = Some(i64::from(*mtu_bytes)),
                LinkSetting::Promiscuous(_) | LinkSetting::AllMulticast(_) | LinkSetting::TxQueueLen(_) => {}
            }
        }
    }
}

/// The hardware addresses that the container's interface may have: by the result of an ADD, by the configuration, and
/// from before. None where there is no result: nothing tells then whose it is.
fn known_macs(conf: &NetConf, target: &Target, backup: &Backup) -> Vec<MacAddr> {
    let of_result = || {
        let result = prev_result::required(conf).ok()?;
        let (_, interface) = result.container_interface(target.ifname.as_str())?;
        interface.mac.as_deref()?.parse().ok()
    };
    let Some(of_result) = of_result() else {
        return Vec::new();
    };
    let own = Conf::parse(conf, "", target.ifname.as_str());
    let settings = own.map(|own| own.settings).unwrap_or_default();
    let configured = settings.into_iter().filter_map(|setting| match setting {
        LinkSetting::Mac(mac) => Some(mac),
        LinkSetting::MtuBytes(_)
        | LinkSetting::Promiscuous(_)
        | LinkSetting::AllMulticast(_)
        | LinkSetting::TxQueueLen(_) => None,
    });
    configured.chain([of_result]).chain(backup.mac()).collect()
}

/// The kernel prints several numbers with tabs between them, whatever was written.
fn words(value: &str) -> Vec<&str> {
    value.split_whitespace().collect()
}

/// The container's kernel.
struct Pod {
    kernel: RealKernel,
    ifname: IfName,
}

impl Pod {
    fn open(sandbox: &Sandbox, target: &Target) -> Result<Self, TuningError> {
        let netns = sandbox.netns.try_clone().map_err(TuningError::Enter)?;
        Ok(Self {
            kernel: RealKernel::open_in(netns).map_err(TuningError::Open)?,
            ifname: target.ifname.clone(),
        })
    }

    fn settings(&mut self) -> Result<LinkSettings, TuningError> {
        let settings = self.kernel.link_settings(&self.ifname);
        settings.map_err(|e| TuningError::Settings(self.ifname.clone(), e))
    }

    /// Sets parameters, then the interface; parameters are as before if anything fails.
    fn tune(&mut self, own: &Conf, before: &LinkSettings) -> Result<(), TuningError> {
        let written = self.set_sysctls(own)?;
        let missing = own.settings.iter().filter(|setting| !before.has(**setting));
        let missing: Vec<_> = missing.copied().collect();
        self.set(&missing).inspect_err(|_| self.undo_sysctls(&written))
    }

    /// Sets parameters; returns the values from before, so far as they could be read.
    fn set_sysctls(&mut self, own: &Conf) -> Result<Vec<Op>, TuningError> {
        let mut undo = Vec::new();
        for (key, value) in &own.sysctls {
            let before = self.read(key).map(|value| Op::SetSysctl(key.clone(), value));
            let mut results = self.kernel.apply(&[Op::SetSysctl(key.clone(), value.clone())]);
            if let Some(Err(e)) = results.pop() {
                self.undo_sysctls(&undo);
                return Err(TuningError::Sysctl(key.clone(), e));
            }
            undo.extend(before);
        }
        Ok(undo)
    }

    /// Writes parameters as they were; what was read can be written, or the container is on its way out.
    fn undo_sysctls(&mut self, undo: &[Op]) {
        drop(self.kernel.apply(undo));
    }

    fn read(&mut self, key: &SysctlKey) -> Option<String> {
        let scope = Scope {
            sysctls: [key.clone()].into(),
            ..Scope::default()
        };
        self.kernel.observe(&scope).ok()?.sysctls.remove(key)
    }

    fn set(&mut self, settings: &[LinkSetting]) -> Result<(), TuningError> {
        let results = self.kernel.set_link(&self.ifname, settings);
        for (setting, result) in settings.iter().zip(results) {
            result.map_err(|source| TuningError::Setting {
                setting: *setting,
                ifname: self.ifname.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Sets the interface as it was, if its hardware address is one of these where any is known; one that is gone needs
    /// nothing.
    fn put_back(&mut self, backup: &Backup, macs: &[MacAddr]) -> Result<(), TuningError> {
        match self.settings() {
            Ok(now) if !macs.is_empty() && !now.mac.is_some_and(|mac| macs.contains(&mac)) => Ok(()),
            Ok(now) => self.set(&backup.settings(&now)),
            Err(TuningError::Settings(_, e)) if e.class == ErrorClass::NoDevice => Ok(()),
            Err(e) => Err(e),
        }
    }
}
