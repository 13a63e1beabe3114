//! Carries out what a node decides, at once, in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fake_kernel::FakeKernel;
use flannel_types::{NetConf, PreviousSubnets, SubnetEnv, UnixTime};
use flanneld_rs::desired::{FilterMode, IpipDevice, Masquerade, RuleSettings, Underlay, WireguardDevice};
use flanneld_rs::node::{
    Action, CarrierSettings, Event, Node, Now, Settings, SideSettings, StopReason, StoreFailure,
    VxlanSettings,
};
use flanneld_rs::reconciler::Work;
use ipnetwork::IpNetwork;
use lease_store::{LeaseRequest, LeaseStore, LeaseWatch, MemoryStore, MemoryWatch};
use net_types::registry::{IPIP_DEVICE, VXLAN_PORT, WIREGUARD_DEVICE};
use net_types::{IfName, MacAddr, Vni, WgSecret};
use netlink::RealKernel;
use netstate::{Kernel, Op, Spot};

/// The address of the node on the underlay.
pub(crate) const PUBLIC_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 250);
/// The MAC address that the device gets if nothing else decides.
pub(crate) const RANDOM_MAC: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 0xfa]);
/// Links that an earlier run may have made.
const FORMER_DEVICES: [&str; 5] = [
    "flannel.1",
    "flannel.7",
    "flannel-v6.1",
    "flannel-wg",
    "flannel.ipip",
];
const EPOCH_SECS: u64 = 1_800_000_000;
/// More events than this without time passing are a loop.
const MAX_EVENTS: u32 = 10_000;

/// How packets travel to the peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Vxlan,
    DirectRouting,
    HostGw,
    Wireguard,
    Ipip,
    IpipDirectRouting,
    Alloc,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vxlan | Self::DirectRouting => "vxlan",
            Self::HostGw => "host-gw",
            Self::Wireguard => "wireguard",
            Self::Ipip | Self::IpipDirectRouting => "ipip",
            Self::Alloc => "alloc",
        }
    }

    fn routes_directly(self) -> bool {
        matches!(self, Self::DirectRouting | Self::IpipDirectRouting)
    }

    pub(crate) fn net_conf(self) -> NetConf {
        let name = self.name();
        let direct = self.routes_directly();
        let text = format!(
            r#"{{"Network": "10.244.0.0/16", "Backend": {{"Type": "{name}", "DirectRouting": {direct}}}}}"#
        );
        NetConf::parse(&text).unwrap()
    }
}

/// The two sides of one kernel.
pub(crate) struct Kernels {
    pub(crate) kernel: Box<dyn Host>,
    pub(crate) rules: Box<dyn Kernel>,
}

/// A kernel whose routes can be looked up.
pub(crate) trait Host: Kernel {
    fn on_link(&mut self, addresses: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, IfName>;
}

impl Host for FakeKernel {
    fn on_link(&mut self, addresses: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, IfName> {
        Self::on_link(self, addresses)
    }
}

impl Host for RealKernel {
    fn on_link(&mut self, addresses: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, IfName> {
        Self::on_link(self, addresses).unwrap()
    }
}

/// A node with its kernel, its store and its clock.
pub(crate) struct Driver {
    pub(crate) kernel: Box<dyn Host>,
    /// The kernel's packet filter rules.
    pub(crate) rules: Box<dyn Kernel>,
    pub(crate) store: MemoryStore,
    pub(crate) backend: Backend,
    pub(crate) subnet_file: Option<SubnetEnv>,
    pub(crate) subnet_file_refused: bool,
    /// Pod networks of families that are off, as the subnet file of an earlier run tells them.
    pub(crate) former_networks: Vec<IpNetwork>,
    pub(crate) run: Option<Run>,
    pub(crate) stopped: Option<StopReason>,
    /// The changes that were asked for since the last step.
    pub(crate) changes: Vec<Op>,
    now: Duration,
}

/// One run of the daemon.
pub(crate) struct Run {
    pub(crate) node: Node,
    watch: Option<MemoryWatch>,
    events: VecDeque<Event>,
}

impl Driver {
    pub(crate) fn new(Kernels { kernel, rules }: Kernels) -> Self {
        let store = MemoryStore::new(0);
        store.set_config(Some(Backend::Vxlan.net_conf()));
        Self {
            kernel,
            rules,
            store,
            backend: Backend::Vxlan,
            subnet_file: None,
            subnet_file_refused: false,
            former_networks: Vec::new(),
            run: None,
            stopped: None,
            changes: Vec::new(),
            now: Duration::ZERO,
        }
    }

    pub(crate) fn start(&mut self) {
        self.stopped = None;
        self.run = Some(Run {
            node: Node::new(Settings {
                former_networks: self.former_networks.clone(),
                ..settings(self.backend)
            }),
            watch: None,
            events: VecDeque::from([Event::Start]),
        });
    }

    /// Lets the kernel tell that something changed.
    pub(crate) fn notice(&mut self) {
        if let Some(run) = &mut self.run {
            run.events.push_back(Event::KernelChanged);
        }
    }

    /// Lets time pass, and everything happen that is due in it.
    pub(crate) fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now + time;
        for _ in 0..MAX_EVENTS {
            let now = self.clock();
            let Some(run) = &mut self.run else { break };
            let wake = run.node.wake_at(now);
            let event = match run.next_event() {
                Some(event) => event,
                None => match wake {
                    Some(at) if at <= end => {
                        self.now = self.now.max(at);
                        Event::Tick
                    }
                    Some(_) | None => break,
                },
            };
            self.deliver(event);
        }
        let now = self.clock();
        let is_hot = self
            .run
            .as_ref()
            .is_some_and(|run| run.node.wake_at(now).is_some_and(|at| at <= self.now));
        self.now = end;
        self.store.set_now(self.clock().wall);
        if is_hot {
            Err("the daemon does not come to rest".to_owned())
        } else {
            Ok(())
        }
    }

    /// Whether the node is ready, or why not.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        let run = self.run.as_ref().ok_or("the daemon does not run")?;
        run.node.readiness(self.now).map_err(|err| err.to_string())
    }

    fn clock(&self) -> Now {
        Now {
            monotonic: self.now,
            wall: UnixTime::from_secs(EPOCH_SECS + self.now.as_secs()),
        }
    }

    fn deliver(&mut self, event: Event) {
        let now = self.clock();
        let Some(run) = &mut self.run else { return };
        for action in run.node.handle(now, event) {
            let answers = self.carry_out(action);
            if let Some(run) = &mut self.run {
                run.events.extend(answers);
            }
        }
    }

    /// Carries out an action; the answer may be followed by the echo of what it did.
    fn carry_out(&mut self, action: Action) -> Vec<Event> {
        match action {
            Action::Kernel(Work::Observe(scope)) => vec![Event::Observed(self.kernel.observe(&scope))],
            Action::Kernel(Work::ObserveAt(scope, spots)) => {
                vec![Event::Observed(self.kernel.observe_at(&scope, &spots))]
            }
            Action::Kernel(Work::Apply(ops)) => {
                self.changes.extend(ops.iter().cloned());
                vec![Event::Applied(self.kernel.apply(&ops)), echo(&ops)]
            }
            Action::Rules(Work::Observe(scope)) => vec![Event::RulesObserved(self.rules.observe(&scope))],
            Action::Rules(Work::ObserveAt(scope, spots)) => {
                vec![Event::RulesObserved(self.rules.observe_at(&scope, &spots))]
            }
            Action::Rules(Work::Apply(ops)) => {
                vec![Event::RulesApplied(self.rules.apply(&ops)), Event::RulesChanged]
            }
            Action::FindLease(node) => {
                let answer = self.store.find_now(node);
                vec![Event::LeaseFound(answer.map_err(StoreFailure::from))]
            }
            Action::WatchLeases => {
                if let Some(run) = &mut self.run {
                    run.watch = Some(self.store.watch().unwrap());
                }
                Vec::new()
            }
            Action::AcquireLease(attrs) => {
                let previous = PreviousSubnets {
                    subnet: Some("10.244.250.0/24".parse().unwrap()),
                    ..PreviousSubnets::default()
                };
                let request = LeaseRequest {
                    conf: self.backend.net_conf(),
                    attrs,
                    previous,
                };
                let answer = self.store.acquire_now(&request);
                vec![Event::LeaseAcquired(answer.map_err(StoreFailure::from))]
            }
            Action::RenewLease(lease) => {
                let answer = self.store.renew_now(&lease);
                vec![Event::LeaseRenewed(answer.map_err(StoreFailure::from))]
            }
            Action::WriteSubnetFile(env) => {
                if self.subnet_file_refused {
                    return vec![Event::SubnetFileWritten(Err("the disk is full".to_owned()))];
                }
                self.subnet_file = Some(env);
                vec![Event::SubnetFileWritten(Ok(()))]
            }
            Action::LookUpRoutes(addresses) => {
                vec![Event::RoutesFound(Ok(self.kernel.on_link(&addresses)))]
            }
            Action::RunCommand(command) => unreachable!("no scenario has commands: {command:?}"),
            Action::TryConf(conf) | Action::ApplyConf(conf) => {
                unreachable!("no scenario has another configuration: {conf:?}")
            }
            Action::LookForInterface | Action::Move(_) => unreachable!("no scenario takes an address away"),
            Action::Stop(reason) => {
                self.stopped = Some(reason);
                self.run = None;
                Vec::new()
            }
        }
    }
}

impl Run {
    fn next_event(&mut self) -> Option<Event> {
        let watch = |watch: &mut MemoryWatch| {
            let mut context = Context::from_waker(Waker::noop());
            match pin!(watch.next_event()).poll(&mut context) {
                Poll::Ready(event) => Some(Event::Lease(event)),
                Poll::Pending => None,
            }
        };
        self.events.pop_front().or_else(|| watch(self.watch.as_mut()?))
    }
}

fn settings(backend: Backend) -> Settings {
    let vxlan = VxlanSettings {
        device: "flannel.1".parse().unwrap(),
        vni: Vni::DEFAULT,
        port: VXLAN_PORT,
        learning: false,
        gbp: false,
        mtu_bytes: 1450,
        random_mac: RANDOM_MAC,
    };
    let (carrier, pod_mtu_bytes) = match backend {
        Backend::Vxlan | Backend::DirectRouting => (CarrierSettings::Vxlan(vxlan), 1450),
        Backend::HostGw => (CarrierSettings::HostGw, 1500),
        Backend::Wireguard => (CarrierSettings::Wireguard(wireguard()), 1420),
        Backend::Ipip | Backend::IpipDirectRouting => (CarrierSettings::Ipip(ipip()), 1480),
        Backend::Alloc => (CarrierSettings::Alloc, 1500),
    };
    Settings {
        sides: vec![SideSettings {
            network: "10.244.0.0/16".parse().unwrap(),
            local: PUBLIC_IP.into(),
            public_ip: PUBLIC_IP.into(),
            carrier,
        }],
        parent: "eth0".parse().unwrap(),
        pod_mtu_bytes,
        conf: backend.net_conf(),
        renew_margin: Duration::from_secs(3600),
        mass_loss_grace: Duration::from_secs(60),
        rules: RuleSettings {
            mode: FilterMode::Nftables,
            masquerade: Masquerade::FullyRandom,
            forward: true,
        },
        rules_audit: Duration::from_secs(60),
        blackhole: false,
        tx_checksum: None,
        direct_routing: backend.routes_directly(),
        former_devices: FORMER_DEVICES.map(|name| name.parse().unwrap()).into(),
        former_networks: Vec::new(),
        extension: None,
        is_on_trial: false,
        refused: None,
    }
}

fn ipip() -> IpipDevice {
    IpipDevice {
        name: IPIP_DEVICE.parse().unwrap(),
        mtu_bytes: 1480,
    }
}

/// A device with a pair of keys: the private one in the form that the kernel tells it in (RFC 7748 §5, `decodeScalar25519`).
fn wireguard() -> WireguardDevice {
    let mut private_key = [8; 32];
    private_key[31] |= 0x40;
    WireguardDevice {
        name: WIREGUARD_DEVICE.parse().unwrap(),
        private_key: WgSecret::new(private_key),
        public_key: "MdSras7slhE3kXA3k25gcW+sVzr+lNnahKgCBEjfwRI=".parse().unwrap(),
        listen_port: 51820,
        preshared_key: Some(WgSecret::new([7; 32])),
        keepalive_secs: 0,
        underlay: Underlay::Ipv4,
        mtu_bytes: 1420,
    }
}

/// What the kernel tells of changes that the daemon itself made.
fn echo(ops: &[Op]) -> Event {
    let spots = ops.iter().map(|op| Spot::of(&op.object()));
    spots
        .collect::<Option<_>>()
        .map_or(Event::KernelChanged, Event::KernelChangedAt)
}
