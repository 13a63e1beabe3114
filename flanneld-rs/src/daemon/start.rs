//! From a network configuration to a node that runs.

use std::future::{Future, ready};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use flannel_types::NetConf;
use lease_store::LeaseStore;
use net_types::{IfName, MacAddr};
use netlink::RealKernel;
use tracing::{info, warn};

use super::jobs::look_at_links;
use super::waiting::{self, Trouble};
use super::{DaemonError, Driver, Ended, KERNEL_EVENTS, RULES_EVENTS, Succession};
use crate::cni_conf::CniConf;
use crate::commands::{CommandError, Records};
use crate::config::Config;
use crate::desired::RuleSettings;
use crate::executor::Executor;
use crate::host_facts::{self, HostFactsError};
use crate::iface_match::External;
use crate::kernel_watch::KernelWatch;
use crate::node::{Node, Settings};
use crate::port_rules::{self, PortRules};
use crate::record::Recorder;
use crate::rules_kernel::RulesKernel;
use crate::rules_watch::RulesWatch;
use crate::serve::Desk;
use crate::settings::{self, Identity};
use crate::signals::Signals;
use crate::subnet_file;

/// What a run begins with.
pub(super) struct Begin<'a, S> {
    pub(super) config: &'a Config,
    pub(super) store: &'a S,
    pub(super) cni_conf: Option<&'a CniConf>,
    /// What counts in it.
    pub(super) succession: &'a Succession,
}

/// A network configuration that is being tried out, with the interface to use it with.
pub(super) type Trial<'a> = Pin<Box<dyn Future<Output = Result<External, Refusal>> + 'a>>;

/// Why a changed network configuration is not applied to a node that runs.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("a record is made of what the node does with the one before")]
    Recorded,
    #[error("this node's address would be {to} and {from} no more, at which others know it")]
    Moved { from: IpAddr, to: IpAddr },
    #[error(transparent)]
    Begin(#[from] DaemonError),
    #[error("it could not be tried out")]
    Untried(#[from] tokio::task::JoinError),
}

impl<S: LeaseStore> Begin<'_, S> {
    /// Starts the node, and runs it until a signal or another network configuration.
    pub(super) async fn run(self, signals: &mut Signals, desk: &mut Desk) -> Result<Ended, DaemonError> {
        let Self {
            config,
            store,
            cni_conf,
            succession,
        } = self;
        let conf = succession.conf.clone();
        settings::check(&conf)?;
        let mut kernel = RealKernel::open().map_err(DaemonError::Netlink)?;
        let trouble = Trouble::default();
        let external = tokio::select! {
            found = find_interface(&mut kernel, config, succession, &trouble) => found?,
            signal = signals.end() => return Ok(Ended::Signal(signal)),
            never = desk.answer_without_node(|| trouble.of_interface()) => match never {},
        };
        tell_of(&external);
        let (rules_kernel, rules) = tokio::select! {
            found = find_rules(config, conf.enable_nftables) => found?,
            signal = signals.end() => return Ok(Ended::Signal(signal)),
            never = desk.answer_without_node(waiting::for_rules) => match never {},
        };
        let rules_watch = RulesWatch::open(rules.mode, config.rules.audit_interval)?;
        let rules_audit = rules_watch.audit_interval(config.rules.audit_interval);
        let mut settings = settings_for(config, &conf, &external, (rules, rules_audit))?;
        add_former(&mut settings, config, succession);
        add_host_facts(&mut settings, config, &mut kernel)?;
        let records = recall_commands(config, &mut settings, succession.earlier.is_some())?;
        let kernel_watch = KernelWatch::open(&settings)?;
        let _ports = PortRules::keep(config.portmap_plugin.clone(), port_rules::STATE_DIR.into());
        let recorder = config.record.as_deref().map(Recorder::start).transpose()?;
        let mut node = Node::new(settings);
        if recorder.is_some() {
            node.keep_inputs();
        }
        let driver = Driver {
            config,
            store,
            conf,
            external,
            cni_conf,
            kernel_watch,
            rules_watch,
            executor: Executor::start("executor", kernel, KERNEL_EVENTS).map_err(DaemonError::Thread)?,
            rules_executor: Executor::start("rules", rules_kernel, RULES_EVENTS)
                .map_err(DaemonError::Thread)?,
            watch: None,
            node,
            recorder,
            job: None,
            file: None,
            written: None,
            trial: None,
            tried: None,
            addrs: Some(look_at_links()),
            addrs_changed: false,
            routes: None,
            command: None,
            records,
            interface: None,
            earlier: succession.earlier.clone(),
            heard: None,
            started: Instant::now(),
        };
        driver.run(signals, desk).await
    }
}

/// What is fixed while a network configuration counts.
fn settings_for(
    config: &Config,
    conf: &NetConf,
    external: &External,
    rules: (RuleSettings, Duration),
) -> Result<Settings, DaemonError> {
    let random = || random_mac().map_err(DaemonError::Random);
    let identity = Identity {
        random_macs: [random()?, random()?],
        wireguard_key: &|| config.wireguard_key.read_or_make(),
    };
    Ok(settings::settings(config, conf, external, &identity, rules)?)
}

/// The interface that the configuration was tried out with, or one that is there now.
async fn find_interface(
    kernel: &mut RealKernel,
    config: &Config,
    succession: &Succession,
    trouble: &Trouble,
) -> Result<External, HostFactsError> {
    match &succession.external {
        Some(external) => Ok(external.clone()),
        None => waiting::interface(kernel, config, &succession.conf, trouble).await,
    }
}

/// Looks, on a thread of its own, which rules can be had: programs of others are asked for what they can.
async fn find_rules(
    config: &Config,
    enable_nftables: bool,
) -> Result<(RulesKernel, RuleSettings), DaemonError> {
    let wanted = config.rules;
    let find = move || {
        let mut kernel = RulesKernel::open();
        let settings = kernel.settings(enable_nftables, wanted);
        (kernel, settings)
    };
    tokio::task::spawn_blocking(find)
        .await
        .map_err(DaemonError::Rules)
}

/// Looks, on a thread of its own, whether the node could begin anew with a network configuration: programs of others are
/// asked for what they can. Returns the interface to do so with.
pub(super) fn try_out<'a>(
    config: &Config,
    conf: NetConf,
    external: &External,
    is_recording: bool,
) -> Trial<'a> {
    if is_recording {
        return Box::pin(ready(Err(Refusal::Recorded)));
    }
    let (config, external) = (config.clone(), external.clone());
    Box::pin(async move { tokio::task::spawn_blocking(move || usable_at(&config, &conf, &external)).await? })
}

/// Fails if a node that has these addresses could not begin anew with a network configuration, or not with the same ones.
fn usable_at(config: &Config, conf: &NetConf, external: &External) -> Result<External, Refusal> {
    let found = usable(config, conf)?;
    for (had, has) in [(&external.v4, &found.v4), (&external.v6, &found.v6)] {
        let (Some(had), Some(has)) = (had, has) else {
            continue;
        };
        let moved = [(had.public_ip, has.public_ip), (had.local, has.local)];
        if let Some((from, to)) = moved.into_iter().find(|(from, to)| from != to) {
            return Err(Refusal::Moved { from, to });
        }
    }
    Ok(found)
}

/// Chooses the interface as at a start; fails if a node could not begin with a network configuration there.
pub(super) fn usable(config: &Config, conf: &NetConf) -> Result<External, Refusal> {
    let mut kernel = RealKernel::open().map_err(DaemonError::Netlink)?;
    let found = host_facts::external(&mut kernel, config, conf).map_err(DaemonError::from)?;
    let rules = RulesKernel::open().settings(conf.enable_nftables, config.rules);
    settings_for(config, conf, &found, (rules, config.rules.audit_interval))?;
    Ok(found)
}

/// Logs which interface was chosen, and whether it might as well be another one.
fn tell_of(external: &External) {
    for ends in external.v4.iter().chain(&external.v6) {
        info!(link = %external.link, local = %ends.local, public_ip = %ends.public_ip, "external interface");
    }
    if !external.alternatives.is_empty() {
        let others: Vec<&str> = external.alternatives.iter().map(IfName::as_str).collect();
        warn!(
            link = %external.link,
            others = others.join(", "),
            "the default route spreads over several interfaces: choose one with --iface to be sure"
        );
    }
}

/// Adds what this host has and is.
fn add_host_facts(
    settings: &mut Settings,
    config: &Config,
    kernel: &mut RealKernel,
) -> Result<(), HostFactsError> {
    settings.former_devices = host_facts::former_devices(kernel)?;
    settings.tx_checksum = host_facts::tx_checksum(config.checksum_offload, settings);
    Ok(())
}

/// Adds what came before this configuration: in an earlier run, as its subnet file tells, or in this process.
fn add_former(settings: &mut Settings, config: &Config, succession: &Succession) {
    settings.is_on_trial = succession.before.is_some();
    settings.refused = succession.refused.clone();
    let refused = succession.refused.as_ref().map(|refused| &refused.conf);
    let previous = subnet_file::previous(&config.subnet_file);
    settings.former_networks = settings::former_networks(&succession.conf, &previous, refused);
}

/// Looks what commands of an earlier run did, where commands carry packets; another backend may undo it. Of a node that has
/// moved, the kernel may have: with an address it flushes the routes by way of it.
fn recall_commands(
    config: &Config,
    settings: &mut Settings,
    is_moved: bool,
) -> Result<Option<Records>, CommandError> {
    let records = Records::beside(&config.subnet_file)?;
    let Some(extension) = &mut settings.extension else {
        records.distrust()?;
        return Ok(None);
    };
    let is_remade = is_moved || extension.pre_startup.is_some() || extension.post_startup.is_some();
    extension.ran = records.recall(&extension.subnet_add, is_remade)?;
    Ok(Some(records))
}

fn random_mac() -> io::Result<MacAddr> {
    let mut octets = [0; 6];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut octets)?;
    Ok(MacAddr::local_from_random(octets))
}
