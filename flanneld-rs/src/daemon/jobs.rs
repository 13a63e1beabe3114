//! What the driver waits for besides the kernel: requests to the store, files, looks at the host.

use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use flannel_types::{Lease, NetConf, PublicAddrs, SubnetEnv};
use lease_store::{LeaseStore, StoreError};
use net_types::sentence;
use netlink::RealKernel;
use netstate::KernelError;
use tracing::{debug, info};

use super::start::{self, Refusal};
use crate::cni_conf::CniConf;
use crate::commands::Records;
use crate::config::Config;
use crate::extension::Command;
use crate::node::{Event, StoreFailure};
use crate::readiness::{self, Notice};
use crate::{host_facts, subnet_file};

/// Something that is under way, and ends with an event.
pub(super) type Job<'a> = Pin<Box<dyn Future<Output = Event> + 'a>>;

/// Writes the subnet file, and then what makes the runtime start pods, on a thread of its own: a slow disk must not keep
/// peers and signals waiting.
pub(super) fn write_files<'a>(path: PathBuf, env: SubnetEnv, cni_conf: Option<CniConf>) -> Job<'a> {
    let write = move || {
        subnet_file::write(&path, &env).map_err(|err| sentence(&err))?;
        info!(path = %path.display(), "Wrote subnet file");
        if let Some(cni_conf) = cni_conf {
            cni_conf.write().map_err(|err| sentence(&err))?;
        }
        readiness::notify(Notice::Ready);
        Ok(())
    };
    Box::pin(async move {
        let written = tokio::task::spawn_blocking(write).await;
        Event::SubnetFileWritten(written.unwrap_or_else(|err| Err(err.to_string())))
    })
}

/// Nobody but pods that start misses the file, and they are tried again.
const SUBNET_FILE_AUDIT: Duration = Duration::from_secs(10);

/// Looks at the subnet file now and then until it does not say what was written.
pub(super) fn watch_file<'a>(path: PathBuf, env: SubnetEnv) -> Job<'a> {
    Box::pin(async move {
        loop {
            tokio::time::sleep(SUBNET_FILE_AUDIT).await;
            let (path, env) = (path.clone(), env.clone());
            let look = move || subnet_file::says(&path, &env);
            if let Ok(false) = tokio::task::spawn_blocking(look).await {
                return Event::SubnetFileLost;
            }
        }
    })
}

/// Changes come in bursts, of which one look at the host's links takes in all.
const BURST: Duration = Duration::from_millis(200);

/// Asks for this host's links and addresses, on a thread of its own: others may hold the kernel's lock for long.
pub(super) fn look_at_links<'a>() -> Job<'a> {
    Box::pin(async {
        tokio::time::sleep(BURST).await;
        let reason = match tokio::task::spawn_blocking(host_facts::links).await {
            Ok(Ok(links)) => return Event::HostLinks(links),
            Ok(Err(err)) => err.to_string(),
            Err(err) => err.to_string(),
        };
        // What is wrong, the reconciler's own look at the kernel meets too, and tells.
        debug!(reason, "cannot list this host's links");
        Event::Tick
    })
}

/// Looks up which addresses are on a link of this host, on a thread of its own: thousands take some time.
pub(super) fn look_up_routes<'a>(addresses: BTreeSet<IpAddr>) -> Job<'a> {
    let look_up = move || RealKernel::open()?.on_link(&addresses);
    Box::pin(async move {
        let found = tokio::task::spawn_blocking(look_up).await;
        let found = found.map_err(|err| err.to_string());
        Event::RoutesFound(found.and_then(|found| found.map_err(|err: KernelError| sentence(&err))))
    })
}

/// Runs a command, on a thread of its own: others' programs may take long.
pub(super) fn run_command<'a>(records: Records, command: Command) -> Job<'a> {
    let run = move || records.run(&command).map_err(|err| sentence(&err));
    Box::pin(async move {
        let done = tokio::task::spawn_blocking(run).await;
        Event::CommandDone(done.unwrap_or_else(|err| Err(err.to_string())))
    })
}

/// An address that a DHCP client takes away and gives again is most often back by then.
const ADDRESS_SETTLES: Duration = Duration::from_secs(15);

/// Chooses the external interface as at a start, after a while, on a thread of its own; one that this node can begin with.
pub(super) fn look_for_interface<'a>(config: Config, conf: NetConf, is_recording: bool) -> Job<'a> {
    Box::pin(async move {
        tokio::time::sleep(ADDRESS_SETTLES).await;
        if is_recording {
            return Event::InterfaceFound(Err(Refusal::Recorded.to_string()));
        }
        let choose = move || start::usable(&config, &conf).map_err(|refusal| sentence(&refusal));
        let chosen = tokio::task::spawn_blocking(choose).await;
        Event::InterfaceFound(chosen.unwrap_or_else(|err| Err(err.to_string())))
    })
}

/// Looks for the stored lease; one that this node had under other addresses gets its present ones first.
pub(super) fn find<S: LeaseStore>(store: &S, node: PublicAddrs, earlier: Option<Lease>) -> Job<'_> {
    Box::pin(async move {
        if let Some(earlier) = earlier.filter(|lease| lease.attrs.addrs() != node) {
            match store.readdress(&earlier, node).await {
                Ok(lease) => return Event::LeaseFound(Ok(Some(lease))),
                // It was carried out before, or there is nothing left to take along.
                Err(StoreError::Lost { .. }) => {}
                Err(err) => return Event::LeaseFound(Err(err.into())),
            }
        }
        Event::LeaseFound(store.find(node).await.map_err(StoreFailure::from))
    })
}

/// Renews the own lease.
pub(super) fn renew<S: LeaseStore>(store: &S, lease: Lease) -> Job<'_> {
    Box::pin(async move { Event::LeaseRenewed(store.renew(&lease).await.map_err(StoreFailure::from)) })
}

/// Waits for the job, which then is done with; for ever when there is none. Cancel-safe: the job stays where it is.
pub(super) async fn finish<T>(job: &mut Option<Pin<Box<dyn Future<Output = T> + '_>>>) -> T {
    match job {
        Some(running) => {
            let done = running.await;
            *job = None;
            done
        }
        None => pending().await,
    }
}
