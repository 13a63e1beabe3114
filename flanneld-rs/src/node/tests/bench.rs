//! A node with a kernel that holds what it is told.

use netstate::{Link, LinkChange, Op};

use super::*;

/// A node with a kernel that does as it is told.
pub(super) struct Bench {
    pub(super) node: Node,
    pub(super) kernel: State,
    pub(super) rules: State,
    pub(super) now: Duration,
    pub(super) file_fails: bool,
    /// The addresses that a look-up finds on a link.
    pub(super) on_link: BTreeMap<IpAddr, IfName>,
    /// Look-ups are not answered.
    pub(super) holds_back_look_ups: bool,
    /// What the changes hold that the kernel refuses, because nothing is reached there.
    pub(super) refused: Option<String>,
    actions: Vec<Action>,
}

impl Bench {
    /// A node that has found this on its device and this lease in the store, and has asked for its own.
    pub(super) fn found(kernel: State, stored: Option<Lease>) -> Self {
        let mut node = Node::new(settings());
        asks_for_lease(&mut node, kernel.clone(), stored);
        Self {
            node,
            kernel,
            rules: State::default(),
            now: Duration::ZERO,
            actions: Vec::new(),
            file_fails: false,
            on_link: BTreeMap::new(),
            holds_back_look_ups: false,
            refused: None,
        }
    }

    /// A node that has just got its lease, with these peers.
    pub(super) fn holding(peers: &[u8]) -> Self {
        let mut bench = Self::found(State::default(), Some(own_lease(mac(250), Some(DAY_SECS))));
        bench.hold(peers);
        bench
    }

    /// A node that has asked for its lease.
    pub(super) fn asking(node: Node) -> Self {
        Self {
            node,
            ..Self::found(State::default(), None)
        }
    }

    /// A node that holds its lease, with `DirectRouting`, on a kernel that holds something from an earlier run.
    pub(super) fn direct(kernel: State, on_link: &[u8], peers: &[u8]) -> Self {
        let mut node = Node::new(Settings {
            direct_routing: true,
            ..settings()
        });
        asks_for_lease(&mut node, kernel.clone(), Some(own_lease(mac(250), None)));
        let eth0 = || "eth0".parse().unwrap();
        let mut bench = Self {
            node,
            kernel,
            on_link: on_link.iter().map(|n| (public_ip(*n).into(), eth0())).collect(),
            ..Self::found(State::default(), None)
        };
        bench.hold(peers);
        bench
    }

    fn hold(&mut self, peers: &[u8]) {
        self.acquire();
        let own = own_lease(mac(250), Some(DAY_SECS));
        let leases: Vec<_> = peers.iter().map(|n| lease(*n, None)).chain([own]).collect();
        self.deliver(snapshot(&leases));
    }

    /// A node in dual stack that has just got its lease, with these leases of others.
    pub(super) fn dual(others: &[Lease]) -> Self {
        let mut node = Node::new(dual_settings());
        asks_for_lease(&mut node, State::default(), None);
        let mut bench = Self::asking(node);
        let own = dual_lease(250, Some(DAY_SECS));
        bench.deliver(Event::LeaseAcquired(Ok(own.clone())));
        let leases: Vec<_> = others.iter().cloned().chain([own]).collect();
        bench.deliver(snapshot(&leases));
        bench
    }

    pub(super) fn acquire(&mut self) {
        self.deliver(Event::LeaseAcquired(Ok(own_lease(mac(250), Some(DAY_SECS)))));
    }

    pub(super) fn clock(&self) -> Now {
        Now {
            monotonic: self.now,
            wall: UnixTime::from_secs(self.now.as_secs()),
        }
    }

    pub(super) fn deliver(&mut self, event: Event) {
        let actions = self.node.handle(self.clock(), event);
        self.actions.extend(actions);
    }

    /// Puts a lease into the store.
    pub(super) fn put(&mut self, lease: Lease) {
        self.deliver(Event::Lease(LeaseEvent::Put(lease)));
    }

    /// Lets some seconds pass, carries out what that leads to, and returns it.
    pub(super) fn tick_after(&mut self, secs: u64) -> Vec<Action> {
        let mut done = self.run(|_, _| {});
        self.now += Duration::from_secs(secs);
        done.extend(self.tick());
        done
    }

    fn change(&mut self, op: &Op) -> Result<(), KernelError> {
        if self
            .refused
            .as_ref()
            .is_some_and(|refused| op.to_string().contains(refused))
        {
            return Err(KernelError {
                class: ErrorClass::Unreachable,
                message: "ENETUNREACH".to_owned(),
            });
        }
        apply(&mut self.kernel, op);
        Ok(())
    }

    /// Lets time pass that is due, carries out what that leads to, and returns it.
    pub(super) fn tick(&mut self) -> Vec<Action> {
        self.deliver(Event::Tick);
        self.run(|_, _| {})
    }

    /// Carries out the actions that wait, and those that follow; returns them.
    pub(super) fn run(&mut self, look: impl Fn(&Self, &Action)) -> Vec<Action> {
        let mut done = Vec::new();
        while !self.actions.is_empty() {
            let action = self.actions.remove(0);
            look(self, &action);
            if let Some(answer) = self.answer(&action) {
                self.deliver(answer);
            }
            done.push(action);
            assert!(done.len() < 100, "the node does not come to rest");
        }
        done
    }

    fn answer(&mut self, action: &Action) -> Option<Event> {
        match action {
            Action::Kernel(Work::Observe(_)) => Some(Event::Observed(Ok(self.kernel.clone()))),
            Action::Kernel(Work::ObserveAt(_, spots)) => Some(Event::Observed(Ok(self.kernel.at(spots)))),
            Action::Kernel(Work::Apply(ops)) => {
                let results = ops.iter().map(|op| self.change(op)).collect();
                Some(Event::Applied(results))
            }
            Action::Rules(Work::Observe(_)) => Some(Event::RulesObserved(Ok(self.rules.clone()))),
            Action::Rules(Work::ObserveAt(_, spots)) => Some(Event::RulesObserved(Ok(self.rules.at(spots)))),
            Action::Rules(Work::Apply(ops)) => {
                ops.iter().for_each(|op| apply(&mut self.rules, op));
                Some(Event::RulesApplied(vec![Ok(()); ops.len()]))
            }
            Action::WriteSubnetFile(_) if self.file_fails => {
                Some(Event::SubnetFileWritten(Err("the disk is full".to_owned())))
            }
            Action::WriteSubnetFile(_) => Some(Event::SubnetFileWritten(Ok(()))),
            Action::LookUpRoutes(_) if self.holds_back_look_ups => None,
            Action::LookUpRoutes(asked) => {
                let found = self
                    .on_link
                    .iter()
                    .filter(|(address, _)| asked.contains(*address));
                let found = found.map(|(address, link)| (*address, link.clone()));
                Some(Event::RoutesFound(Ok(found.collect())))
            }
            Action::TryConf(_) => Some(Event::ConfTried(Ok(()))),
            Action::FindLease(_)
            | Action::AcquireLease(_)
            | Action::WatchLeases
            | Action::RenewLease(_)
            | Action::RunCommand(_)
            | Action::ApplyConf(_)
            | Action::LookForInterface
            | Action::Move(_)
            | Action::Stop(_) => None,
        }
    }

    /// Puts a peer's route onto the device that no lease names.
    pub(super) fn add_stale_peer(&mut self) {
        self.kernel.routes.extend(stale_peer().routes);
    }
}

/// Does what a change says, and nothing else.
fn apply(state: &mut State, op: &Op) {
    match op.clone() {
        Op::AddLink(name, link) | Op::ReplaceLink(name, link) => drop(state.links.insert(name, link)),
        Op::SetLink(name, change) => set(state.links.get_mut(&name).unwrap(), change),
        Op::DelLink(name) => drop(state.links.remove(&name)),
        Op::AddAddr(key, addr) => drop(state.addrs.insert(key, addr)),
        Op::DelAddr(key) => drop(state.addrs.remove(&key)),
        Op::AddRoute(key, route) | Op::ReplaceRoute(key, route) => drop(state.routes.insert(key, route)),
        Op::DelRoute(key, _) => drop(state.routes.remove(&key)),
        Op::SetNeigh(key, neigh) => drop(state.neighs.insert(key, neigh)),
        Op::DelNeigh(key) => drop(state.neighs.remove(&key)),
        Op::SetFdb(key) => drop(state.fdb.insert(key)),
        Op::DelFdb(key) => drop(state.fdb.remove(&key)),
        Op::SetWireguard(link, device) => drop(state.wireguard.insert(link, device)),
        Op::SetWgPeer(key, peer) => drop(state.wg_peers.insert(key, peer)),
        Op::DelWgPeer(key) => drop(state.wg_peers.remove(&key)),
        Op::SetSysctl(key, value) => drop(state.sysctls.insert(key, value)),
        Op::SetNftTable(key, table) => drop(state.nft.insert(key, table)),
        Op::DelNftTable(key) => drop(state.nft.remove(&key)),
        Op::SetIptables(key, change) => drop(state.iptables.insert(key, change.desired)),
    }
}

fn set(link: &mut Link, change: LinkChange) {
    match (change, &mut link.kind) {
        (LinkChange::Admin(admin), _) => link.admin = admin,
        (LinkChange::Mtu(mtu_bytes), _) => link.mtu_bytes = Some(mtu_bytes),
        (LinkChange::Mac(mac), _) => link.mac = Some(mac),
        (LinkChange::Port(port), _) => link.port = Some(port),
        (LinkChange::VxlanLocal(local), LinkKind::Vxlan(vxlan)) => vxlan.local = Some(local),
        (LinkChange::VxlanLearning(learning), LinkKind::Vxlan(vxlan)) => vxlan.learning = learning,
        (change, kind) => panic!("{change:?} of {kind:?}"),
    }
}
