use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::registry::RT_TABLE_MAIN;
use net_types::{IfName, MacAddr};
use netstate::{
    Addr, AddrKey, AdminState, ErrorClass, Kernel, KernelError, Link, LinkKind, NeighKey, NetnsLabel,
    ObjectKey, Op, RouteKind, Scope, State,
};

use crate::faults::{Counters, Faults};
use crate::namespace::Namespace;

/// A kernel in memory that holds one network namespace.
///
/// The program under test uses it as [`Kernel`]: those calls are counted and meet the faults that were set. A
/// stranger, or the hardware, uses the other methods: they are neither counted nor hindered.
#[derive(Debug, Clone)]
pub struct FakeKernel {
    pub(crate) namespace: Namespace,
    faults: Faults,
    counters: Counters,
}

impl Default for FakeKernel {
    fn default() -> Self {
        Self::new()
    }
}

impl Kernel for FakeKernel {
    fn observe(&mut self, scope: &Scope) -> Result<State, KernelError> {
        self.counters.observed += 1;
        self.faults.of_observation()?;
        Ok(self.namespace.observe(scope))
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Result<(), KernelError>> {
        // What was to be made on a new link says nothing of the old one that stayed.
        let mut kept: BTreeMap<&IfName, KernelError> = BTreeMap::new();
        let mut results = Vec::with_capacity(ops.len());
        for op in ops {
            let result = match op.link().and_then(|link| kept.get(link)) {
                Some(refusal) => Err(refusal.clone()),
                None => self.apply_one(op),
            };
            if let (Op::ReplaceLink(name, _), Err(refusal)) = (op, &result)
                && self.namespace.device(name).is_ok()
            {
                kept.insert(name, refusal.clone());
            }
            results.push(result);
        }
        results
    }
}

impl FakeKernel {
    /// Makes a kernel without any link.
    #[must_use]
    pub fn new() -> Self {
        let mut namespace = Namespace::default();
        namespace.add_namespace_sysctls();
        Self {
            namespace,
            faults: Faults::default(),
            counters: Counters::default(),
        }
    }

    fn apply_one(&mut self, op: &Op) -> Result<(), KernelError> {
        let result = match self.faults.of_op(op) {
            Some(error) => Err(error),
            None => self.namespace.apply(op),
        };
        match result {
            Ok(()) => self.counters.applied += 1,
            Err(_) => self.counters.refused += 1,
        }
        result
    }

    /// Applies one change as a stranger.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn edit(&mut self, op: &Op) -> Result<(), KernelError> {
        self.namespace.apply(op)
    }

    /// Adds a network card that is up, with an address.
    ///
    /// # Errors
    /// The name is taken.
    pub fn add_physical(&mut self, name: &IfName, mac: MacAddr, addr: IpNetwork) -> Result<(), KernelError> {
        let link = Link {
            kind: LinkKind::Other(String::new()),
            mac: Some(mac),
            mtu_bytes: None,
            admin: AdminState::Up,
            port: None,
        };
        self.add_foreign(name, &link)?;
        let link = name.clone();
        self.namespace.add_addr(&AddrKey { link, addr }, Addr::default())
    }

    /// Adds a link of any kind as it is, up if it says so.
    ///
    /// # Errors
    /// The name is taken, or the link is the port of a bridge that does not exist.
    pub fn add_foreign(&mut self, name: &IfName, link: &Link) -> Result<(), KernelError> {
        self.namespace.add_foreign(name, link)
    }

    /// Takes a link of any kind away, as when a card is pulled; `false` if there is none.
    pub fn remove_link(&mut self, name: &IfName) -> bool {
        self.namespace.remove_link(name)
    }

    /// Adds a neighbour that the kernel learned, which is not permanent.
    ///
    /// # Errors
    /// There is no such link.
    pub fn learn_neigh(&mut self, key: &NeighKey, mac: MacAddr) -> Result<(), KernelError> {
        self.namespace.set_neigh(key, mac, false)
    }

    /// The neighbours that are not permanent.
    #[must_use]
    pub fn learned_neighs(&self) -> BTreeMap<NeighKey, MacAddr> {
        let of_link = |(name, device): (&IfName, &crate::namespace::Device)| {
            let learned = device.neighs.iter().filter(|(_, neigh)| !neigh.permanent);
            let keyed = learned.map(|(ip, neigh)| {
                let link = name.clone();
                (NeighKey { link, ip: *ip }, neigh.mac)
            });
            keyed.collect::<Vec<_>>()
        };
        self.namespace.links.iter().flat_map(of_link).collect()
    }

    /// Makes a further namespace, empty, by whose label the peer of a veth pair can be created in it.
    pub fn add_netns(&mut self, label: NetnsLabel) {
        self.namespace.pods.insert(label, Self::new());
    }

    /// Deletes a namespace, and with it the veth pairs that end in it; `false` if there is none.
    pub fn remove_netns(&mut self, label: &NetnsLabel) -> bool {
        let removed = self.namespace.pods.remove(label).is_some();
        self.namespace.forget_ends_of_deleted_pairs();
        removed
    }

    /// The kernel's view from inside a further namespace.
    pub fn netns(&mut self, label: &NetnsLabel) -> Option<&mut Self> {
        self.namespace.pods.get_mut(label)
    }

    /// Everything the namespace holds, foreign objects and the kernel's own routes included, but no learned
    /// neighbour. Of routes with equal keys it has the one that is used.
    #[must_use]
    pub fn dump(&self) -> State {
        self.namespace.dump()
    }

    /// Whether a link holds this address.
    #[must_use]
    pub fn owns(&self, ip: IpAddr) -> bool {
        self.namespace.owns(ip)
    }

    /// Those of some addresses that are on a link, with the link: the route to them has no gateway.
    #[must_use]
    pub fn on_link(&self, addresses: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, IfName> {
        let link = |ip: &IpAddr| match &self.namespace.look_up(RT_TABLE_MAIN, *ip)?.1.kind {
            RouteKind::Unicast(hop) if hop.gateway.is_none() && !self.owns(*ip) => Some(hop.link.clone()),
            RouteKind::Unicast(_) | RouteKind::Blackhole => None,
        };
        addresses.iter().filter_map(|ip| Some((*ip, link(ip)?))).collect()
    }

    /// Lets the next `count` changes fail with this class, whatever they are.
    pub fn fail_next(&mut self, count: u32, class: ErrorClass) {
        self.faults.fail_next(count, class);
    }

    /// Lets every change of this object fail with this class.
    pub fn fail_on(&mut self, object: ObjectKey, class: ErrorClass) {
        self.faults.fail_on(object, class);
    }

    /// Lets the next `count` observations fail with this class.
    pub fn fail_observations(&mut self, count: u32, class: ErrorClass) {
        self.faults.fail_observations(count, class);
    }

    /// Lets every change and observation succeed again.
    pub fn clear_faults(&mut self) {
        self.faults = Faults::default();
    }

    /// How much was asked of this kernel through [`Kernel`].
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
