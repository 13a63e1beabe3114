//! What the daemon waits for before there is a node: the network configuration, then an interface to reach others by.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use flannel_types::{NetConf, PublicAddrs};
use lease_store::{ErrorClass, LeaseStore, StoreError};
use net_types::sentence;
use netlink::RealKernel;
use tracing::warn;

use crate::config::Config;
use crate::host_facts::{self, HostFactsError};
use crate::iface_match::External;
use crate::status::NodeStatus;

/// What is missing is looked for again after this long (flannel `main.go`).
const RETRY: Duration = Duration::from_secs(1);
/// While it is missing, this is said as often.
const REMINDER: Duration = Duration::from_secs(60);

/// Why the daemon waits.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// With the moment at which the log said it.
    told: RefCell<Option<(String, Instant)>>,
}

impl Trouble {
    /// Notes the reason, and returns it if it is to be said.
    fn note(&self, reason: String) -> Option<String> {
        let mut told = self.told.borrow_mut();
        let is_known = |(last, at): &(String, Instant)| *last == reason && at.elapsed() < REMINDER;
        if told.as_ref().is_some_and(is_known) {
            return None;
        }
        *told = Some((reason.clone(), Instant::now()));
        Some(reason)
    }

    fn reason(&self) -> Option<String> {
        self.told.borrow().as_ref().map(|(reason, _)| reason.clone())
    }

    /// What is told of a node that waits for the store.
    pub(super) fn of_store(&self) -> NodeStatus {
        let mut status = NodeStatus {
            reason: Some("waiting for the network configuration".to_owned()),
            ..NodeStatus::default()
        };
        status.store.error = self.reason();
        status
    }

    /// What is told of a node that waits for an interface.
    pub(super) fn of_interface(&self) -> NodeStatus {
        let reason = self.reason().unwrap_or_default();
        let mut status = NodeStatus {
            reason: Some(format!("waiting for an interface: {reason}")),
            ..NodeStatus::default()
        };
        status.store.connected = true;
        status
    }
}

/// What is told of a node that asks iptables what it can.
pub(super) fn for_rules() -> NodeStatus {
    let mut status = NodeStatus {
        reason: Some("waiting for an answer of iptables".to_owned()),
        ..NodeStatus::default()
    };
    status.store.connected = true;
    status
}

/// Waits for the configuration, and for what the store says of this node's addresses, as long as the store has none or
/// is out of reach.
pub(super) async fn read_store<S: LeaseStore>(
    store: &S,
    trouble: &Trouble,
) -> Result<(NetConf, PublicAddrs), StoreError> {
    loop {
        let err = match read_once(store).await {
            Err(err) if err.class() == ErrorClass::Retry => err,
            read => return read,
        };
        if let Some(reason) = trouble.note(sentence(&err)) {
            warn!(
                reason,
                "waiting for the network configuration; the data plane stays as it is"
            );
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn read_once<S: LeaseStore>(store: &S) -> Result<(NetConf, PublicAddrs), StoreError> {
    Ok((store.read_config().await?, store.public_addrs().await?))
}

/// Chooses the external interface, and waits for it where the host is to find it and is not so far: a machine that boots
/// without its uplink would otherwise restart its daemon until there is one.
pub(super) async fn interface(
    kernel: &mut RealKernel,
    config: &Config,
    conf: &NetConf,
    trouble: &Trouble,
) -> Result<External, HostFactsError> {
    loop {
        let err = match host_facts::external(kernel, config, conf) {
            Err(err) if err.may_pass() => err,
            found => return found,
        };
        if let Some(reason) = trouble.note(sentence(&err)) {
            warn!(
                reason,
                "waiting for an interface to reach other nodes by; the data plane stays as it is"
            );
        }
        tokio::time::sleep(RETRY).await;
    }
}
