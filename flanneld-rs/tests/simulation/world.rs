//! The world: its clock, its queue of things to come, and its members.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fake_kernel::{Fabric, FakeKernel};
use flannel_types::{NetConf, PreviousSubnets, UnixTime};
use flanneld_rs::node::Event;
use ipnetwork::Ipv4Network;
use lease_store::MemoryStore;
use net_types::MacAddr;
use netstate::State;

use crate::daemon::{Daemon, Effect};
use crate::kernel_view::{NETWORK, op, public_ip, underlay};
use crate::rng::Rng;
use crate::trouble::{End, Group};
use crate::{liveness, safety};

/// The wall clock when a world begins.
const EPOCH_SECS: u64 = 1_800_000_000;
/// A world that takes more steps than this is stuck in a loop.
const MAX_STEPS: u32 = 400_000;

pub(crate) type MemberId = usize;

/// A simulated world.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Duration,
    /// How long all machines have slept, in which no monotonic clock goes on.
    pub(crate) slept: Duration,
    pub(crate) fabric: Fabric,
    pub(crate) store: MemoryStore,
    pub(crate) conf: NetConf,
    pub(crate) members: Vec<Member>,
    /// Which members ever held a subnet.
    pub(crate) holders: BTreeMap<Ipv4Network, BTreeSet<MemberId>>,
    /// How many troubles keep the store out of reach.
    pub(crate) outages: u32,
    /// How many troubles keep the configuration away.
    pub(crate) unconfigured: u32,
    /// When all must be well again.
    pub(crate) healed_by: Duration,
    /// What happened, if somebody wants to read it.
    pub(crate) trace: Option<Vec<String>>,
    queue: BTreeMap<(Duration, u64), Item>,
    queued: u64,
    /// How many troubles, or parts of them, are to come.
    troubles_ahead: usize,
    /// The first rule that was broken.
    pub(crate) violation: Option<String>,
}

/// A node of the network.
pub(crate) struct Member {
    /// Its name in the fabric.
    pub(crate) name: String,
    pub(crate) number: u8,
    /// By how many seconds its wall clock is wrong.
    pub(crate) clock_error_secs: i64,
    /// Counts the runs of its daemon, so that answers meant for an earlier run are told apart.
    pub(crate) life: u64,
    pub(crate) daemon: Option<Daemon>,
    /// What the subnet file says.
    pub(crate) subnet: Option<Ipv4Network>,
    pub(crate) ill: Ill,
    /// What its kernel told of what the daemon owns, or would have told.
    pub(crate) told: State,
    /// Wrong entries that a stranger made, which mislead packets until they are mended.
    pub(crate) misled: Vec<safety::Misled>,
}

/// What is wrong with a member at present; each is a count, as troubles overlap.
#[derive(Debug, Default)]
pub(crate) struct Ill {
    /// It left for good.
    pub(crate) gone: bool,
    /// Its daemon is kept from starting.
    pub(crate) stopped: u32,
    /// Its notices are lost.
    pub(crate) deaf: u32,
    /// It cannot reach the store.
    pub(crate) cut: u32,
    /// Its subnet file cannot be written.
    pub(crate) file_refused: u32,
}

/// A thing to come.
#[derive(Debug)]
pub(crate) enum Item {
    /// The supervisor starts the daemon, if it does not run.
    Start(MemberId),
    /// Something reaches a daemon.
    Event(MemberId, u64, Event),
    /// A kernel's notice reaches a daemon.
    Notice(MemberId, u64),
    /// A daemon's timer, and which one.
    Tick(MemberId, u64, u64),
    /// A daemon's watch looks for news.
    Watch(MemberId, u64),
    /// Something that a daemon asked for takes effect.
    Effect(MemberId, u64, Effect),
    /// A trouble begins.
    Trouble(Group),
    /// A trouble goes on or ends.
    End(End),
}

impl Item {
    fn is_trouble(&self) -> bool {
        matches!(self, Self::Trouble(_) | Self::End(_))
    }
}

impl World {
    pub(crate) fn new(seed: u64, traced: bool) -> Self {
        let conf = format!(r#"{{"Network": "{NETWORK}", "Backend": {{"Type": "vxlan"}}}}"#);
        let conf = NetConf::parse(&conf).unwrap();
        let store = MemoryStore::new(seed);
        store.set_config(Some(conf.clone()));
        let mut world = Self {
            rng: Rng::new(seed),
            now: Duration::ZERO,
            slept: Duration::ZERO,
            fabric: Fabric::default(),
            store,
            conf,
            members: Vec::new(),
            holders: BTreeMap::new(),
            outages: 0,
            unconfigured: 0,
            healed_by: Duration::ZERO,
            trace: traced.then(Vec::new),
            queue: BTreeMap::new(),
            queued: 0,
            troubles_ahead: 0,
            violation: None,
        };
        for _ in 0..world.rng.within(2..=4) {
            world.join();
        }
        world.foresee_troubles();
        world
    }

    /// Runs the world to its end; says which rule was broken, if one was.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        self.run_until(Duration::from_secs(10))?;
        while self.troubles_ahead > 0 {
            self.step();
            self.verdict()?;
        }
        self.run_until(self.healed_by)?;
        liveness::check_reach(self)?;
        self.run_until(self.healed_by + liveness::FORGET_WITHIN)?;
        liveness::check_exact(self)?;
        let before = liveness::applies(self);
        self.run_until(self.now + liveness::QUIET)?;
        liveness::check_quiet(self, &before)
    }

    fn run_until(&mut self, time: Duration) -> Result<(), String> {
        for _ in 0..MAX_STEPS {
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            if next.is_none_or(|at| at > time) {
                self.now = time;
                return self.verdict();
            }
            self.step();
            self.verdict()?;
        }
        Err(format!("at {:?}: the world does not come to rest", self.now))
    }

    fn verdict(&mut self) -> Result<(), String> {
        let now = self.now;
        match self.violation.take() {
            None => Ok(()),
            Some(why) => Err(format!("at {now:?}: {why}")),
        }
    }

    fn step(&mut self) {
        let Some(((at, _), item)) = self.queue.pop_first() else {
            return;
        };
        self.now = at;
        self.troubles_ahead -= usize::from(item.is_trouble());
        match item {
            Item::Start(id) => self.start(id),
            Item::Event(id, life, event) => self.deliver(id, life, event),
            Item::Notice(id, life) => self.notice_arrives(id, life),
            Item::Tick(id, life, tick) => self.tick(id, life, tick),
            Item::Watch(id, life) => self.look_for_news(id, life),
            Item::Effect(id, life, effect) => self.take_effect(id, life, effect),
            Item::Trouble(group) => self.begin_trouble(group),
            Item::End(end) => self.end_trouble(end),
        }
    }

    pub(crate) fn after(&mut self, delay: Duration, item: Item) {
        self.at(self.now + delay, item);
    }

    pub(crate) fn at(&mut self, time: Duration, item: Item) {
        self.queued += 1;
        self.troubles_ahead += usize::from(item.is_trouble());
        self.queue.insert((time.max(self.now), self.queued), item);
    }

    pub(crate) fn log(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} {}", now.as_secs_f64(), line()));
        }
    }

    /// Notes that a rule is broken; the first counts.
    pub(crate) fn accuse(&mut self, why: impl FnOnce() -> String) {
        self.violation.get_or_insert_with(why);
    }

    /// The true time, which the store has.
    pub(crate) fn wall(&self) -> UnixTime {
        UnixTime::from_secs(EPOCH_SECS + self.now.as_secs() + self.slept.as_secs())
    }

    /// What time a member takes it to be.
    pub(crate) fn wall_of(&self, id: MemberId) -> UnixTime {
        let error = self.members[id].clock_error_secs;
        UnixTime::from_secs(self.wall().secs().checked_add_signed(error).unwrap())
    }

    /// Adds a node, which starts its daemon a little later.
    pub(crate) fn join(&mut self) -> MemberId {
        let id = self.members.len();
        let number = u8::try_from(id + 1).unwrap();
        let name = format!("n{number}");
        let mut kernel = FakeKernel::new();
        plug_card(&mut kernel, number);
        kernel
            .edit(&op("add link cni0 bridge mac 0a:00:00:00:00:01 down"))
            .unwrap();
        kernel.edit(&op("set link cni0 up")).unwrap();
        self.fabric.nodes.insert(name.clone(), kernel);
        self.members.push(Member {
            name,
            number,
            clock_error_secs: 0,
            life: 0,
            daemon: None,
            subnet: None,
            ill: Ill::default(),
            told: State::default(),
            misled: Vec::new(),
        });
        let delay = self.rng.ms(0..=2000);
        self.after(delay, Item::Start(id));
        id
    }

    pub(crate) fn kernel(&mut self, id: MemberId) -> &mut FakeKernel {
        self.fabric.nodes.get_mut(&self.members[id].name).unwrap()
    }

    /// The members that have not left.
    pub(crate) fn present(&self) -> Vec<MemberId> {
        let ids = 0..self.members.len();
        ids.filter(|id| !self.members[*id].ill.gone).collect()
    }

    /// Gives a node the gateway of its pods, as the CNI plugin does for the first pod.
    pub(crate) fn write_subnet_file(&mut self, id: MemberId, subnet: Ipv4Network) {
        let before = self.members[id].subnet.replace(subnet);
        if before == Some(subnet) {
            return;
        }
        let kernel = self.kernel(id);
        let gateway = flannel_types::gateway_v4(subnet);
        kernel.edit(&op(&format!("add addr cni0 {gateway}"))).unwrap();
        if let Some(before) = before {
            let gateway = flannel_types::gateway_v4(before);
            kernel.edit(&op(&format!("del addr cni0 {gateway}"))).unwrap();
        }
        self.kernel_changed(id);
    }

    pub(crate) fn previous(&self, id: MemberId) -> PreviousSubnets {
        PreviousSubnets {
            subnet: self.members[id].subnet,
            ..PreviousSubnets::default()
        }
    }

    /// Checks what hangs on a kernel that just changed.
    pub(crate) fn kernel_changed(&mut self, id: MemberId) {
        if let Some(why) = safety::misdelivery(self, id) {
            self.accuse(|| why);
        }
    }
}

/// Gives a node the network card that it has on the underlay.
pub(crate) fn plug_card(kernel: &mut FakeKernel, number: u8) {
    let mac = MacAddr::new([2, 0, 0, 0, 1, number]);
    let addr = format!("{}/24", public_ip(number)).parse().unwrap();
    kernel.add_physical(&underlay(), mac, addr).unwrap();
}
