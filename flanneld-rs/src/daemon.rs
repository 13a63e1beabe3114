//! The driver: one loop that carries out what [`crate::node`] decides.
//!
//! One task owns the node. The executor thread owns the netlink socket, because applying thousands of changes takes
//! milliseconds in which signals and the store must still be heard. The store is asked one thing at a time. Every
//! branch of the loop is cancel-safe: what it waits for is kept by its own object, not by the dropped future.

use std::future::pending;
use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime};

use flannel_types::{Lease, LeaseAttrs, NetConf, PublicAddrs, UnixTime};
use lease_store::{LeaseEvent, LeaseRequest, LeaseStore, LeaseWatch, StoreError};
use net_types::sentence;
use netlink_monitor::MonitorError;
use netstate::{KernelError, Op};
use tokio::task::JoinError;
use tracing::{debug, info, warn};

use crate::cni_conf::{CniConf, CniConfError, EndSignal};
use crate::commands::{CommandError, Records};
use crate::config::Config;
use crate::executor::{Events, Executor, ExecutorEnded};
use crate::host_facts::HostFactsError;
use crate::iface_match::External;
use crate::kernel_watch::{Change, Changes, KernelWatch};
use crate::node::{Action, Event, Move, Node, Now, StopReason, StoreFailure};
use crate::readiness::{self, Notice};
use crate::reconciler::Work;
use crate::record::{RecordError, Recorder};
use crate::rules_watch::RulesWatch;
use crate::serve::{Desk, ServeError};
use crate::settings::SettingsError;
use crate::signals::{Request, Signals};
use crate::subnet_file;

mod ending;
mod jobs;
mod start;
mod succession;
mod waiting;

use jobs::{
    Job, find, finish, look_at_links, look_for_interface, look_up_routes, renew, run_command, watch_file,
    write_files,
};
use start::{Begin, Refusal, Trial, try_out};
use succession::{Handover, Succession};
use waiting::Trouble;

/// Of more changes at once than this, only the number is logged.
const MAX_LOGGED_CHANGES: usize = 5;

/// Why the daemon ended with a failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// The network configuration for the runtime cannot be used, or not be removed.
    #[error(transparent)]
    CniConf(#[from] CniConfError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network configuration cannot be used here.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The external interface is not known.
    #[error(transparent)]
    HostFacts(#[from] HostFactsError),
    /// The kernel cannot be talked to.
    #[error("cannot open a netlink socket")]
    Netlink(#[source] KernelError),
    /// Nothing can be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Health cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Changes in the kernel cannot be followed.
    #[error(transparent)]
    KernelWatch(#[from] MonitorError),
    /// No randomness.
    #[error("cannot get random bytes for a MAC address")]
    Random(#[source] io::Error),
    /// No thread.
    #[error("cannot start the thread that programs the kernel")]
    Thread(#[source] io::Error),
    /// Nobody knows which rules can be had.
    #[error("cannot find out which packet filter rules can be had")]
    Rules(#[source] JoinError),
    /// The thread ended.
    #[error(transparent)]
    Executor(#[from] ExecutorEnded),
    /// What commands of an earlier run did is not known.
    #[error(transparent)]
    Commands(#[from] CommandError),
    /// The node gave up.
    #[error("{0}")]
    Stopped(StopReason),
}

/// Runs the node until a signal or its end; the kernel is left as it is.
///
/// # Errors
/// It cannot start, or cannot go on.
pub async fn run<S: LeaseStore>(config: &Config, store: &S) -> Result<(), DaemonError> {
    let mut signals = Signals::open().map_err(DaemonError::Signals)?;
    let cni_conf = config.cni_conf.as_ref().map(CniConf::read).transpose()?;
    let ended_by = run_until_end(config, store, &mut signals, cni_conf.as_ref()).await;
    readiness::notify(Notice::Stopping);
    let ended_by = ended_by?;
    if let (Some(cni_conf), Some(signal)) = (cni_conf, ended_by) {
        cni_conf.end(signal).map_err(CniConfError::from)?;
    }
    Ok(())
}

/// Returns the signal that ended the daemon; none when its lease was revoked.
async fn run_until_end<S: LeaseStore>(
    config: &Config,
    store: &S,
    signals: &mut Signals,
    cni_conf: Option<&CniConf>,
) -> Result<Option<EndSignal>, DaemonError> {
    let mut desk = Desk::open(config).await?;
    for sentence in &config.notices {
        warn!("{sentence}");
    }
    let trouble = Trouble::default();
    let (conf, told) = tokio::select! {
        read = waiting::read_store(store, &trouble) => read?,
        signal = signals.end() => return Ok(Some(signal)),
        never = desk.answer_without_node(|| trouble.of_store()) => match never {},
    };
    if conf.backend_defaulted {
        warn!("the network configuration has no Backend, vxlan is used");
    }
    let config = &with_public_addrs(config, told);
    let mut succession = Succession::of(conf);
    loop {
        let begin = Begin {
            config,
            store,
            cni_conf,
            succession: &succession,
        };
        match begin.run(signals, &mut desk).await {
            Ok(Ended::Signal(signal)) => return Ok(Some(signal)),
            Ok(Ended::Revoked) => return Ok(None),
            Ok(Ended::NewConf(change)) => {
                info!("the network configuration has changed, beginning anew with it");
                succession.advance(*change);
            }
            Ok(Ended::Moved(moved)) => {
                let from = moved.lease.attrs.addrs();
                info!(%from, "this node has another address, beginning anew with it");
                succession.move_to(*moved);
            }
            Err(err) => succession.go_back(err)?,
        }
    }
}

/// What the store's administrator says comes before the command line, as upstream has it.
fn with_public_addrs(config: &Config, told: PublicAddrs) -> Config {
    let public = PublicAddrs {
        v4: told.v4.or(config.public.v4),
        v6: told.v6.or(config.public.v6),
    };
    Config {
        public,
        ..config.clone()
    }
}

/// What ended a run with one network configuration.
enum Ended {
    Signal(EndSignal),
    /// The own lease was taken away.
    Revoked,
    /// Another configuration is to count.
    NewConf(Box<Handover>),
    /// This node has other addresses.
    Moved(Box<Move>),
}

const KERNEL_EVENTS: Events = Events {
    observed: Event::Observed,
    applied: Event::Applied,
};

const RULES_EVENTS: Events = Events {
    observed: Event::RulesObserved,
    applied: Event::RulesApplied,
};

struct Driver<'a, S: LeaseStore> {
    config: &'a Config,
    store: &'a S,
    conf: NetConf,
    external: External,
    cni_conf: Option<&'a CniConf>,
    kernel_watch: KernelWatch,
    rules_watch: RulesWatch,
    executor: Executor,
    /// Apart from the other, because it may have to wait for others' locks.
    rules_executor: Executor,
    /// From the moment that the own lease is held.
    watch: Option<S::Watch>,
    node: Node,
    recorder: Option<Recorder>,
    /// The node asks the store for one thing at a time.
    job: Option<Job<'a>>,
    /// The subnet file that is being written.
    file: Option<Job<'a>>,
    /// The subnet file that was written, and is looked after.
    written: Option<Job<'a>>,
    /// The host's addresses that are being looked at.
    addrs: Option<Job<'a>>,
    /// Whether they may be otherwise than the look that is under way sees.
    addrs_changed: bool,
    /// The routes to peers that are being looked up.
    routes: Option<Job<'a>>,
    /// The administrator's command that runs.
    command: Option<Job<'a>>,
    /// Where what was run is kept, where commands carry packets.
    records: Option<Records>,
    /// The configuration that is being tried out.
    trial: Option<Trial<'a>>,
    /// The interface that one was tried out with.
    tried: Option<External>,
    /// The interface that is looked for in place of one that lost an address.
    interface: Option<Job<'a>>,
    /// The own lease of this process's run before, when this node had other addresses.
    earlier: Option<Lease>,
    /// What came together with another event, and is the next one.
    heard: Option<Event>,
    started: Instant,
}

impl<S: LeaseStore> Driver<'_, S> {
    async fn run(mut self, signals: &mut Signals, desk: &mut Desk) -> Result<Ended, DaemonError> {
        let mut event = Event::Start;
        loop {
            let now = self.now();
            if matches!(event, Event::SubnetFileWritten(Ok(()))) {
                self.store.network_is_up();
                let written = self.node.subnet_env().cloned();
                self.written = written.map(|env| watch_file(self.config.subnet_file.clone(), env));
            }
            let actions = self.node.handle(now, event);
            self.kernel_watch.follow_parent(self.node.parent());
            if let Some(recorder) = &mut self.recorder {
                recorder.record(self.node.take_inputs());
            }
            for action in actions {
                if let Action::Stop(reason) = action {
                    return stopped(reason);
                }
                if let Action::ApplyConf(conf) = action {
                    let change = self.handover_to(*conf);
                    return self.hand_over(Ended::NewConf(change), signals, desk).await;
                }
                if let Action::Move(to) = action {
                    return self.hand_over(Ended::Moved(to), signals, desk).await;
                }
                self.carry_out(action)?;
            }
            event = match self.serve_until_event(signals, desk).await? {
                ControlFlow::Continue(next) => next,
                ControlFlow::Break(signal) => return Ok(Ended::Signal(signal)),
            };
        }
    }

    /// Answers questions until something happens; breaks at a signal that ends the daemon.
    async fn serve_until_event(
        &mut self,
        signals: &mut Signals,
        desk: &mut Desk,
    ) -> Result<ControlFlow<EndSignal, Event>, DaemonError> {
        loop {
            let event = tokio::select! {
                request = signals.next() => match request {
                    Request::End(signal) => return Ok(ControlFlow::Break(signal)),
                    Request::LookAgain => Event::KernelChanged,
                },
                event = self.next_event() => event?,
                question = desk.next() => {
                    desk.answer(question, &self.node, self.now());
                    continue;
                }
            };
            return Ok(ControlFlow::Continue(event));
        }
    }

    async fn next_event(&mut self) -> Result<Event, DaemonError> {
        if let Some(event) = self.heard.take() {
            return Ok(event);
        }
        let now = self.now();
        let wait = self.node.wake_at(now).map(|at| at.saturating_sub(now.monotonic));
        let event = tokio::select! {
            answer = self.executor.answer() => answer?,
            answer = self.rules_executor.answer() => answer?,
            answer = finish(&mut self.job) => answer,
            answer = finish(&mut self.file) => answer,
            answer = finish(&mut self.written) => answer,
            answer = finish(&mut self.trial) => self.conf_tried(answer),
            answer = finish(&mut self.addrs) => {
                if std::mem::take(&mut self.addrs_changed) {
                    self.addrs = Some(look_at_links());
                    Event::Tick
                } else {
                    answer
                }
            }
            answer = finish(&mut self.routes) => self.routes_found(answer),
            answer = finish(&mut self.command) => answer,
            answer = finish(&mut self.interface) => answer,
            event = next_news(&mut self.watch) => Event::Lease(event),
            changes = self.kernel_watch.changed() => self.kernel_changed(changes),
            () = self.rules_watch.changed() => Event::RulesChanged,
            () = sleep(wait) => Event::Tick,
        };
        Ok(event)
    }

    fn kernel_changed(&mut self, changes: Changes) -> Event {
        match changes.own {
            Change::Anything => {
                self.addrs_may_differ();
                Event::KernelChanged
            }
            Change::Renamed(parent) => {
                self.addrs_may_differ();
                Event::ParentRenamed(parent)
            }
            Change::At(spots) if spots.is_empty() => Event::HostRoutesChanged,
            Change::At(spots) => {
                self.heard = changes.host_routes.then_some(Event::HostRoutesChanged);
                Event::KernelChangedAt(spots)
            }
        }
    }

    /// What happens to the links that peers are reached through concerns this node from here on.
    fn routes_found(&mut self, answer: Event) -> Event {
        if let Event::RoutesFound(Ok(on_link)) = &answer {
            self.kernel_watch.follow(on_link.values());
        }
        answer
    }

    /// The interface is kept for the life that may begin.
    fn conf_tried(&mut self, answer: Result<External, Refusal>) -> Event {
        let tried = answer.map(|external| self.tried = Some(external));
        Event::ConfTried(tried.map_err(|refusal| sentence(&refusal)))
    }

    fn addrs_may_differ(&mut self) {
        // A look that is under way may be too old.
        self.addrs_changed = self.addrs.is_some();
        self.addrs.get_or_insert_with(look_at_links);
    }

    fn carry_out(&mut self, action: Action) -> Result<(), DaemonError> {
        match action {
            Action::Kernel(work) => {
                if let Work::Apply(ops) = &work {
                    log_changes(ops);
                }
                self.executor.submit(work)?;
            }
            Action::Rules(work) => {
                if let Work::Apply(ops) = &work {
                    log_changes(ops);
                }
                self.rules_executor.submit(work)?;
            }
            Action::FindLease(node) => self.job = Some(find(self.store, node, self.earlier.clone())),
            Action::LookForInterface => {
                let (config, conf) = (self.config.clone(), self.conf.clone());
                self.interface = Some(look_for_interface(config, conf, self.is_recording()));
            }
            Action::AcquireLease(attrs) => self.job = Some(self.acquire(attrs)),
            Action::WatchLeases => self.watch = Some(self.store.watch()?),
            Action::RenewLease(lease) => self.job = Some(renew(self.store, lease)),
            Action::WriteSubnetFile(env) => {
                self.written = None;
                self.file = Some(write_files(
                    self.config.subnet_file.clone(),
                    env,
                    self.cni_conf.cloned(),
                ));
            }
            Action::LookUpRoutes(addresses) => self.routes = Some(look_up_routes(addresses)),
            Action::RunCommand(command) => {
                self.command = self.records.clone().map(|records| run_command(records, command));
            }
            Action::TryConf(conf) => {
                self.trial = Some(try_out(self.config, *conf, &self.external, self.is_recording()));
            }
            Action::ApplyConf(_) | Action::Move(_) | Action::Stop(_) => {}
        }
        Ok(())
    }

    /// Whether a record is made, which tells of one life of the node.
    fn is_recording(&self) -> bool {
        self.recorder.as_ref().is_some_and(Recorder::is_recording)
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.started.elapsed(),
            wall: UnixTime::from(SystemTime::now()),
        }
    }
}

impl<'a, S: LeaseStore> Driver<'a, S> {
    fn acquire(&self, attrs: LeaseAttrs) -> Job<'a> {
        let store = self.store;
        let previous = subnet_file::previous(&self.config.subnet_file);
        let request = LeaseRequest {
            conf: self.conf.clone(),
            attrs,
            previous,
        };
        Box::pin(
            async move { Event::LeaseAcquired(store.acquire(&request).await.map_err(StoreFailure::from)) },
        )
    }
}

/// Each change while they are few, as when something is put back; else their number, and each for those who debug.
fn log_changes(ops: &[Op]) {
    if ops.len() <= MAX_LOGGED_CHANGES {
        ops.iter().for_each(|op| info!(%op, "changing the kernel"));
    } else {
        info!(changes = ops.len(), "changing the kernel");
        ops.iter().for_each(|op| debug!(%op, "changing the kernel"));
    }
}

/// Waits for the store's next news; for ever before the watch has begun. Cancel-safe as [`LeaseWatch::next_event`] is.
async fn next_news<W: LeaseWatch>(watch: &mut Option<W>) -> LeaseEvent {
    match watch {
        Some(watch) => watch.next_event().await,
        None => pending().await,
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => pending().await,
    }
}

fn stopped(reason: StopReason) -> Result<Ended, DaemonError> {
    match reason {
        StopReason::LeaseRevoked => {
            warn!("{reason}");
            Ok(Ended::Revoked)
        }
        StopReason::NoLease(_) | StopReason::NotUp(_) | StopReason::Command { .. } => {
            Err(DaemonError::Stopped(reason))
        }
    }
}
