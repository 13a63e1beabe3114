//! A daemon's run: its node, its watch, and how its actions take effect and are answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use fake_kernel::FakeKernel;
use flannel_types::{Lease, LeaseAttrs, PublicAddrs, SubnetEnv};
use flanneld_rs::desired::{FilterMode, Masquerade, RuleSettings};
use flanneld_rs::node::{
    Action, CarrierSettings, Event, Node, Now, Outlook, Settings, SideSettings, StoreFailure, VxlanSettings,
};
use flanneld_rs::reconciler::Work;
use lease_store::{LEASE_TTL, LeaseEvent, LeaseRequest, MemoryWatch};
use net_types::registry::VXLAN_PORT;
use net_types::{MacAddr, SubnetKey, Vni};
use netstate::{Kernel, KernelError, Op, Scope, Spot, State};

use crate::kernel_view::{device, foreign, network, public_ip, underlay, v4};
use crate::ledger::{GRACE, Ledger};
use crate::news::News;
use crate::world::{Item, MemberId, World};

/// The packet filter rules that every daemon wants.
pub(crate) const RULES: RuleSettings = RuleSettings {
    mode: FilterMode::Nftables,
    masquerade: Masquerade::FullyRandom,
    forward: true,
};

/// More ticks than this in one instant are a busy loop.
const MAX_TICKS_AT_ONCE: u32 = 20;

/// One run of a daemon.
pub(crate) struct Daemon {
    pub(crate) node: Node,
    /// From the moment that it asked for it.
    pub(crate) watch: Option<MemoryWatch>,
    pub(crate) ledger: Ledger,
    /// How often it asked for changes.
    pub(crate) applies: u64,
    /// How often it looked at the kernel other than to verify its own changes.
    rounds: u32,
    started: Duration,
    /// The timer that counts.
    tick: u64,
    ticks_at_once: (Duration, u32),
    /// What the notice says that is under way.
    pub(crate) notice: Option<News>,
    /// Notices were lost since it looked at everything.
    pub(crate) missed_news: bool,
    pub(crate) watch_pending: bool,
}

/// Something that a daemon asked for.
#[derive(Debug)]
pub(crate) enum Effect {
    Observe(Scope),
    ObserveAt(Scope, BTreeSet<Spot>),
    /// The changes that are left, and the results so far.
    Apply(Vec<Op>, Vec<Result<(), KernelError>>),
    Rules(Work),
    Find(PublicAddrs),
    Acquire(LeaseAttrs),
    Renew(Lease),
    Write(SubnetEnv),
    LookUp(BTreeSet<IpAddr>),
}

impl World {
    /// Starts a daemon as a supervisor does: again and again, until its host and the store let it.
    pub(crate) fn start(&mut self, id: MemberId) {
        let member = &self.members[id];
        if member.ill.gone || member.ill.stopped > 0 || member.daemon.is_some() {
            return;
        }
        let is_readable = matches!(self.store.snapshot(), LeaseEvent::Snapshot { .. });
        let (number, is_cut) = (member.number, member.ill.cut > 0);
        if !self.kernel(id).owns(public_ip(number).into()) || !is_readable || is_cut {
            self.after(Duration::from_secs(1), Item::Start(id));
            return;
        }
        let settings = self.settings(number);
        let now = self.now;
        let member = &mut self.members[id];
        member.life += 1;
        let life = member.life;
        member.daemon = Some(Daemon {
            node: Node::new(settings),
            watch: None,
            ledger: Ledger::default(),
            applies: 0,
            rounds: 0,
            started: now,
            tick: 0,
            ticks_at_once: (now, 0),
            notice: None,
            missed_news: false,
            watch_pending: false,
        });
        self.log(|| format!("n{number} starts, life {life}"));
        self.deliver(id, life, Event::Start);
    }

    fn settings(&mut self, number: u8) -> Settings {
        let renew_after = Duration::from_secs(self.rng.within(20..=90));
        let [a, b, c, d, e, f, ..] = self.rng.next().to_be_bytes();
        Settings {
            sides: vec![SideSettings {
                network: network().into(),
                local: public_ip(number).into(),
                public_ip: public_ip(number).into(),
                carrier: CarrierSettings::Vxlan(VxlanSettings {
                    device: device(),
                    vni: Vni::DEFAULT,
                    port: VXLAN_PORT,
                    learning: false,
                    gbp: false,
                    mtu_bytes: 1450,
                    random_mac: MacAddr::local_from_random([a, b, c, d, e, f]),
                }),
            }],
            parent: underlay(),
            pod_mtu_bytes: 1450,
            conf: self.conf.clone(),
            renew_margin: LEASE_TTL - renew_after,
            mass_loss_grace: GRACE,
            rules: RULES,
            rules_audit: Duration::from_secs(60),
            blackhole: false,
            tx_checksum: Some(false),
            former_devices: Vec::new(),
            former_networks: Vec::new(),
            direct_routing: false,
            extension: None,
            is_on_trial: false,
            refused: None,
        }
    }

    /// Ends a daemon at once; what it asked for may or may not take effect.
    pub(crate) fn kill(&mut self, id: MemberId) {
        let member = &mut self.members[id];
        member.life += 1;
        if member.daemon.take().is_some() {
            self.log(|| format!("n{} ends", id + 1));
        }
    }

    pub(crate) fn daemon(&mut self, id: MemberId, life: u64) -> Option<&mut Daemon> {
        let member = &mut self.members[id];
        member.daemon.as_mut().filter(|_| member.life == life)
    }

    pub(crate) fn deliver(&mut self, id: MemberId, life: u64, event: Event) {
        let now = Now {
            monotonic: self.now,
            wall: self.wall_of(id),
        };
        self.log(|| format!("n{} hears {}", id + 1, brief(&event)));
        let Some(daemon) = self.daemon(id, life) else {
            return;
        };
        daemon.ledger.note(now.monotonic, &event);
        let verifies = matches!(event, Event::Applied(_));
        let actions = daemon.node.handle(now, event);
        for action in actions {
            self.carry_out(id, life, action, verifies);
        }
        self.set_timer(id, life, now);
        self.check_mirror(id);
    }

    fn set_timer(&mut self, id: MemberId, life: u64, now: Now) {
        let Some(daemon) = self.daemon(id, life) else {
            return;
        };
        daemon.tick += 1;
        let tick = daemon.tick;
        if let Some(at) = daemon.node.wake_at(now) {
            self.at(at, Item::Tick(id, life, tick));
        }
    }

    pub(crate) fn tick(&mut self, id: MemberId, life: u64, tick: u64) {
        let now = self.now;
        let Some(daemon) = self.daemon(id, life).filter(|daemon| daemon.tick == tick) else {
            return;
        };
        let (since, ticks) = &mut daemon.ticks_at_once;
        *ticks = if *since == now { *ticks + 1 } else { 0 };
        *since = now;
        if *ticks > MAX_TICKS_AT_ONCE {
            self.accuse(|| format!("n{}: its timer runs hot", id + 1));
        }
        self.deliver(id, life, Event::Tick);
    }

    fn carry_out(&mut self, id: MemberId, life: u64, action: Action, verifies: bool) {
        self.log(|| format!("n{} {}", id + 1, deed(&action)));
        let (effect, delay) = match action {
            Action::Kernel(Work::Observe(scope)) => {
                self.count_round(id, life, verifies);
                (Effect::Observe(scope), self.rng.ms(0..=8))
            }
            Action::Kernel(Work::ObserveAt(scope, spots)) => {
                self.count_round(id, life, verifies);
                (Effect::ObserveAt(scope, spots), self.rng.ms(0..=3))
            }
            Action::Kernel(Work::Apply(ops)) => {
                self.judge_plan(id, life, &ops);
                (Effect::Apply(ops, Vec::new()), self.rng.ms(0..=4))
            }
            Action::Rules(work) => (Effect::Rules(work), self.rng.ms(0..=500)),
            Action::FindLease(node) => (Effect::Find(node), self.rng.ms(1..=30)),
            Action::WatchLeases => {
                self.begin_watch(id);
                return;
            }
            Action::AcquireLease(attrs) => (Effect::Acquire(attrs), self.rng.ms(1..=30)),
            Action::RenewLease(lease) => (Effect::Renew(lease), self.rng.ms(1..=30)),
            Action::WriteSubnetFile(env) => (Effect::Write(env), self.rng.ms(0..=2)),
            Action::LookUpRoutes(addresses) => (Effect::LookUp(addresses), self.rng.ms(0..=20)),
            Action::RunCommand(command) => unreachable!("nobody here has commands: {command:?}"),
            Action::TryConf(conf) | Action::ApplyConf(conf) => {
                unreachable!("nobody changes the configuration: {conf:?}")
            }
            Action::LookForInterface | Action::Move(_) => unreachable!("nobody's address changes"),
            Action::Stop(_) => {
                self.kill(id);
                let delay = self.rng.ms(500..=2000);
                self.after(delay, Item::Start(id));
                return;
            }
        };
        self.after(delay, Item::Effect(id, life, effect));
    }

    /// Five rounds a second, and five more at once after quiet.
    fn count_round(&mut self, id: MemberId, life: u64, verifies: bool) {
        let now = self.now;
        let Some(daemon) = self.daemon(id, life).filter(|_| !verifies) else {
            return;
        };
        daemon.rounds += 1;
        let lived = now - daemon.started;
        let (rounds, allowed) = (daemon.rounds, 7 + 5 * lived.as_secs());
        if u64::from(rounds) > allowed + 5 {
            self.accuse(|| format!("n{}: {rounds} rounds in {lived:?}", id + 1));
        }
    }

    /// Holds a plan against what the daemon was told.
    fn judge_plan(&mut self, id: MemberId, life: u64, ops: &[Op]) {
        let now = self.now;
        let Some(daemon) = self.daemon(id, life) else {
            return;
        };
        daemon.applies += 1;
        let objection = ops.iter().find_map(|op| daemon.ledger.objection(now, op));
        if let Some(objection) = objection {
            self.accuse(|| format!("n{} plans {objection}", id + 1));
        }
    }

    pub(crate) fn take_effect(&mut self, id: MemberId, life: u64, effect: Effect) {
        // A request that is on its way to the store arrives also when its sender is no more.
        let sender_lives = self.daemon(id, life).is_some();
        let is_request = matches!(effect, Effect::Acquire(_));
        if !(sender_lives || is_request && self.rng.percent(50)) {
            return;
        }
        let event = match effect {
            Effect::Observe(scope) => {
                let observation = self.kernel(id).observe(&scope);
                if let Some(daemon) = self.daemon(id, life).filter(|_| observation.is_ok()) {
                    daemon.missed_news = false;
                }
                Event::Observed(observation)
            }
            Effect::ObserveAt(scope, spots) => Event::Observed(self.kernel(id).observe_at(&scope, &spots)),
            Effect::Apply(ops, results) => match self.apply_some(id, life, ops, results) {
                Some(results) => Event::Applied(results),
                None => return,
            },
            Effect::Rules(Work::Observe(scope)) => Event::RulesObserved(self.kernel(id).observe(&scope)),
            Effect::Rules(Work::ObserveAt(scope, spots)) => {
                Event::RulesObserved(self.kernel(id).observe_at(&scope, &spots))
            }
            Effect::Rules(Work::Apply(ops)) => Event::RulesApplied(self.apply_rules(id, &ops)),
            Effect::Find(node) => Event::LeaseFound(self.find(id, node)),
            Effect::Acquire(attrs) => Event::LeaseAcquired(self.acquire(id, attrs)),
            Effect::Renew(lease) => {
                self.store.set_now(self.wall());
                let is_cut = self.members[id].ill.cut > 0;
                let answer = if is_cut {
                    Err(out_of_reach())
                } else {
                    self.store.renew_now(&lease).map_err(StoreFailure::from)
                };
                self.store_changed();
                Event::LeaseRenewed(answer)
            }
            Effect::Write(env) => Event::SubnetFileWritten(self.write(id, &env)),
            Effect::LookUp(addresses) => Event::RoutesFound(Ok(self.kernel(id).on_link(&addresses))),
        };
        let delay = self.rng.ms(0..=4);
        self.after(delay, Item::Event(id, life, event));
    }

    /// Applies some of the changes, and leaves the rest for a little later; others may come in between.
    fn apply_some(
        &mut self,
        id: MemberId,
        life: u64,
        mut ops: Vec<Op>,
        mut results: Vec<Result<(), KernelError>>,
    ) -> Option<Vec<Result<(), KernelError>>> {
        let count = usize::try_from(self.rng.within(1..=8)).unwrap().min(ops.len());
        let later = ops.split_off(count);
        results.extend(self.apply(id, life, &ops));
        self.kernel_changed(id);
        self.notice(id);
        if later.is_empty() {
            return Some(results);
        }
        let delay = self.rng.ms(0..=2);
        self.after(delay, Item::Effect(id, life, Effect::Apply(later, results)));
        None
    }

    /// Applies changes, which must leave alone what is foreign, but for a route in the place of one that the run held.
    /// A neighbour or forwarding entry of the device can touch nothing else.
    fn apply(&mut self, id: MemberId, life: u64, ops: &[Op]) -> Vec<Result<(), KernelError>> {
        let is_harmless = |op: &Op| {
            let is_entry = matches!(
                op,
                Op::SetNeigh(..) | Op::DelNeigh(_) | Op::SetFdb(_) | Op::DelFdb(_)
            );
            is_entry && op.link() == Some(&device())
        };
        let kernel = self.kernel(id);
        if ops.iter().all(is_harmless) {
            return kernel.apply(ops);
        }
        let mut before = foreign(kernel);
        let results = kernel.apply(ops);
        let after = foreign(kernel);
        if let Some(daemon) = self.daemon(id, life) {
            let displaced = ops.iter().filter_map(|op| daemon.ledger.may_displace(op));
            let gone = displaced.filter(|key| !after.routes.contains_key(key));
            for key in gone {
                before.routes.remove(key);
            }
        }
        if after != before {
            self.accuse(|| {
                format!(
                    "n{}: {ops:?} changed foreign objects\n{before}\nto\n{after}",
                    id + 1
                )
            });
        }
        results
    }

    /// Changes packet filter rules, which must leave alone everything else.
    fn apply_rules(&mut self, id: MemberId, ops: &[Op]) -> Vec<Result<(), KernelError>> {
        let kernel = self.kernel(id);
        let rest = |kernel: &FakeKernel| State {
            nft: BTreeMap::new(),
            ..kernel.dump()
        };
        let before = rest(kernel);
        let results = kernel.apply(ops);
        if rest(kernel) != before {
            self.accuse(|| format!("n{}: {ops:?} changed more than rules", id + 1));
        }
        results
    }

    fn find(&mut self, id: MemberId, node: PublicAddrs) -> Result<Option<Lease>, StoreFailure> {
        if self.members[id].ill.cut > 0 {
            return Err(out_of_reach());
        }
        self.store.set_now(self.wall());
        self.store.find_now(node).map_err(StoreFailure::from)
    }

    fn acquire(&mut self, id: MemberId, attrs: LeaseAttrs) -> Result<Lease, StoreFailure> {
        if self.members[id].ill.cut > 0 {
            return Err(out_of_reach());
        }
        self.store.set_now(self.wall());
        let request = LeaseRequest {
            conf: self.conf.clone(),
            attrs,
            previous: self.previous(id),
        };
        let lease = self.store.acquire_now(&request).map_err(StoreFailure::from)?;
        self.holders.entry(v4(lease.key)).or_default().insert(id);
        self.store_changed();
        Ok(lease)
    }

    fn write(&mut self, id: MemberId, env: &SubnetEnv) -> Result<(), String> {
        if self.members[id].ill.file_refused > 0 {
            return Err("the disk is full".to_owned());
        }
        if let Some(gateway) = env.subnet {
            self.write_subnet_file(id, v4(SubnetKey::new(gateway, None)));
        }
        Ok(())
    }
}

fn out_of_reach() -> StoreFailure {
    StoreFailure {
        message: "the connection is lost".to_owned(),
        outlook: Outlook::Retry,
    }
}

/// An event in few words.
fn brief(event: &Event) -> String {
    match event {
        Event::Observed(Ok(state)) => format!("what was observed:\n{state}"),
        Event::Lease(LeaseEvent::Put(lease)) => format!("of the lease {}", lease.key),
        Event::Lease(LeaseEvent::Snapshot { leases, .. }) => {
            let keys: Vec<_> = leases.keys().map(ToString::to_string).collect();
            format!("a snapshot: {}", keys.join(" "))
        }
        Event::Start
        | Event::Observed(Err(_))
        | Event::Applied(_)
        | Event::KernelChanged
        | Event::KernelChangedAt(_)
        | Event::RulesObserved(_)
        | Event::RulesApplied(_)
        | Event::RulesChanged
        | Event::LeaseFound(_)
        | Event::LeaseAcquired(_)
        | Event::LeaseRenewed(_)
        | Event::Lease(_)
        | Event::SubnetFileWritten(_)
        | Event::SubnetFileLost
        | Event::HostLinks(_)
        | Event::HostRoutesChanged
        | Event::RoutesFound(_)
        | Event::ParentRenamed(_)
        | Event::CommandDone(_)
        | Event::ConfTried(_)
        | Event::InterfaceFound(_)
        | Event::Tick => format!("{event:?}"),
    }
}

/// An action in few words.
fn deed(action: &Action) -> String {
    match action {
        Action::Kernel(Work::Observe(_)) => "observes".to_owned(),
        Action::Kernel(Work::ObserveAt(_, spots)) => format!("observes {spots:?}"),
        Action::Kernel(Work::Apply(ops)) => {
            let ops: Vec<_> = ops.iter().map(|op| format!("\n{op}")).collect();
            format!("applies{}", ops.concat())
        }
        Action::Rules(_)
        | Action::FindLease(_)
        | Action::AcquireLease(_)
        | Action::WatchLeases
        | Action::RenewLease(_)
        | Action::WriteSubnetFile(_)
        | Action::LookUpRoutes(_)
        | Action::RunCommand(_)
        | Action::TryConf(_)
        | Action::ApplyConf(_)
        | Action::LookForInterface
        | Action::Move(_)
        | Action::Stop(_) => {
            format!("does {action:?}")
        }
    }
}
