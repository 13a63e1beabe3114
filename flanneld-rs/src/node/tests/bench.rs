//! A node with a kernel that holds what it is told.

use netstate::Op;

use super::*;

/// A node with a kernel that does as it is told.
pub(super) struct Bench {
    pub(super) node: Node,
    pub(super) kernel: State,
    pub(super) rules: State,
    pub(super) now: Duration,
    pub(super) file_fails: bool,
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
        }
    }

    /// A node that has just got its lease, with these peers.
    pub(super) fn holding(peers: &[u8]) -> Self {
        let own = own_lease(mac(250), Some(DAY_SECS));
        let leases: Vec<_> = peers
            .iter()
            .map(|n| lease(*n, None))
            .chain([own.clone()])
            .collect();
        let mut bench = Self::found(State::default(), Some(own));
        bench.acquire();
        bench.deliver(snapshot(&leases));
        bench
    }

    /// A node that has asked for its lease.
    pub(super) fn asking(node: Node) -> Self {
        Self {
            node,
            ..Self::found(State::default(), None)
        }
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
                ops.iter().for_each(|op| apply(&mut self.kernel, op));
                Some(Event::Applied(vec![Ok(()); ops.len()]))
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
            Action::FindLease(_)
            | Action::AcquireLease(_)
            | Action::WatchLeases
            | Action::RenewLease(_)
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
        Op::AddLink(name, link) => drop(state.links.insert(name, link)),
        Op::SetLink(..) => {}
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
