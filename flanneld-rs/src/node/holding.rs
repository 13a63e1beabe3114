//! The part of a node that only exists while it holds its lease.

use std::collections::{BTreeMap, BTreeSet};

use flannel_types::{SubnetEnv, gateway_v4, gateway_v6};
use ipnetwork::IpNetwork;
use net_types::{IfName, SubnetKey};
use netstate::{Prune, State};
use tracing::{info, warn};

use super::reach::Reach;
use super::{Action, Now, public_key, vtep_mac};
use crate::desired::{self, Carrier, DeviceId, Left, Peer, PeerChanges, Peers, Side, Way};
use crate::extension::Queue;
use crate::lease_keeper::LeaseKeeper;
use crate::lease_view::LeaseView;
use crate::reconciler::Goal;

/// Of more changed peers than this at once, only the number is logged.
pub(super) const MAX_LOGGED_CHANGES: usize = 20;

/// A node that holds its lease.
#[derive(Debug)]
pub(super) struct Holding {
    /// IPv4's before IPv6's; one at least.
    pub(super) sides: Vec<HeldSide>,
    pub(super) keeper: LeaseKeeper,
    pub(super) view: LeaseView,
    pub(super) file: SubnetFile,
    /// Whether it is to say something else than what is being written.
    file_outdated: bool,
    pub(super) wants: Wants,
    /// The device with which somebody else announces the own lease.
    pub(super) rival: Option<DeviceId>,
    /// Which peers need no tunnel; `None` where all have one, or the backend has none.
    pub(super) reach: Option<Reach>,
    /// The commands for the peers, where these are what carries packets.
    pub(super) commands: Option<Queue>,
    /// What the engine's goal was made from, besides the peers.
    goal_made_for: Option<(SubnetFile, Prune)>,
    /// The peers that changed since the goal was made, as they were in it.
    pub(super) changed: BTreeMap<IpNetwork, Option<(Peer, Way)>>,
}

/// One family's part of the overlay, with its peers.
#[derive(Debug)]
pub(super) struct HeldSide {
    pub(super) side: Side,
    pub(super) peers: Peers,
}

/// What this node does for its own subnet.
#[derive(Debug)]
pub(super) struct Wants {
    /// What its plugins are told.
    pub(super) subnet_env: SubnetEnv,
    /// Whether packets to addresses that no pod has are dropped.
    pub(super) blackhole: bool,
    /// What an earlier life left, which is to go.
    pub(super) left: Left,
}

/// How a goal differs from the one before.
#[derive(Debug)]
pub(super) enum NewGoal {
    Same,
    Whole(Goal),
    /// Only in what some peers need.
    Some {
        gone: State,
        wanted: State,
    },
}

/// How far the subnet file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubnetFile {
    /// The device is not ready yet.
    NotReady,
    /// There is none yet, or not any more.
    Writing,
    Written,
    /// There is one, and another is being written in its place.
    Rewriting,
}

impl SubnetFile {
    /// Whether the runtime can attach pods by it.
    pub(super) const fn is_there(self) -> bool {
        matches!(self, Self::Written | Self::Rewriting)
    }
}

impl Holding {
    pub(super) fn new(
        sides: Vec<Side>,
        keeper: LeaseKeeper,
        view: LeaseView,
        wants: Wants,
        (reach, commands): (Option<Reach>, Option<Queue>),
    ) -> Self {
        let held = |side| HeldSide {
            side,
            peers: Peers::default(),
        };
        Self {
            sides: sides.into_iter().map(held).collect(),
            keeper,
            view,
            file: SubnetFile::NotReady,
            file_outdated: false,
            reach,
            wants,
            rival: None,
            commands,
            goal_made_for: None,
            changed: BTreeMap::new(),
        }
    }

    /// How the goal may differ from the one made last.
    pub(super) fn new_goal(&mut self, now: Now) -> NewGoal {
        let made_for = (self.file, self.view.prune(now.monotonic));
        // The devices first: pods of this node wait for them, and their peers are not known yet.
        let is_early = self.file == SubnetFile::NotReady;
        if self.goal_made_for == Some(made_for) {
            if is_early || self.changed.is_empty() {
                return NewGoal::Same;
            }
            return self.change_of_goal();
        }
        if !is_early && self.awaits_ways() {
            // What a former run programmed for them would be removed.
            return NewGoal::Same;
        }
        self.goal_made_for = Some(made_for);
        self.changed.clear();
        let none = BTreeMap::new();
        let mut desired = State::default();
        for held in &self.sides {
            let peers = if is_early { &none } else { &held.peers.accepted };
            let own = desired::desired(&held.side, peers, |peer| self.way(peer));
            desired::join(&mut desired, own);
        }
        if self.wants.blackhole {
            let subnets: Vec<_> = self.sides.iter().map(|held| held.side.subnet).collect();
            desired.absorb(desired::blackholes(&subnets));
        }
        NewGoal::Whole(Goal {
            desired,
            scope: desired::scope_with(self.sides.iter().map(|held| &held.side), &self.wants.left),
            prune: if is_early { Prune::Addrs } else { made_for.1 },
        })
    }

    /// Takes the peers into the goal that changed, but for those whose way is not known yet: what they had stays.
    fn change_of_goal(&mut self) -> NewGoal {
        let changed = std::mem::take(&mut self.changed);
        let (ready, waiting) = changed
            .into_iter()
            .partition(|(subnet, _)| self.accepted(*subnet).is_none_or(|peer| self.knows_way(peer)));
        let ready: BTreeMap<_, Option<(Peer, Way)>> = ready;
        self.changed = waiting;
        if ready.is_empty() {
            return NewGoal::Same;
        }
        let (mut gone, mut wanted) = (State::default(), State::default());
        for (subnet, before) in ready {
            let Some(held) = self.side_of(subnet) else {
                continue;
            };
            let objects = |peer: &Peer, way: &Way| desired::of_peer(&held.side, subnet, peer, way);
            gone.absorb(before.map(|(peer, way)| objects(&peer, &way)).unwrap_or_default());
            let present = held.peers.accepted.get(&subnet);
            wanted.absorb(
                present
                    .map(|peer| objects(peer, &self.way(peer)))
                    .unwrap_or_default(),
            );
        }
        self.complete(&gone, &mut wanted);
        NewGoal::Some { gone, wanted }
    }

    /// Where families share a WireGuard device, a change in one of them makes over a peer that the other may have too.
    fn complete(&self, gone: &State, wanted: &mut State) {
        let touched: BTreeSet<_> = gone
            .wg_peers
            .keys()
            .chain(wanted.wg_peers.keys())
            .cloned()
            .collect();
        if self.sides.len() < 2 || touched.is_empty() {
            return;
        }
        for HeldSide { side, peers } in &self.sides {
            let Some(device) = side.wireguard() else { continue };
            let is_touched = |peer: &Peer| {
                let of_peer = touched.iter().filter(|key| key.link == device.name);
                let mut keys = of_peer.map(|key| DeviceId::PublicKey(key.public_key));
                keys.any(|key| peer.device() == Some(key))
            };
            for (subnet, peer) in peers.accepted.iter().filter(|(_, peer)| is_touched(peer)) {
                desired::join(wanted, desired::of_peer(side, *subnet, peer, &self.way(peer)));
            }
        }
    }

    /// Leaves to others what an earlier life of this node had, if it was removed.
    pub(super) fn forget_leftovers(&mut self) {
        let was_pruned =
            matches!(self.goal_made_for, Some((file, Prune::Remove)) if file != SubnetFile::NotReady);
        if was_pruned && self.wants.left != Left::default() {
            self.wants.left = Left::default();
            // The goal is made anew.
            self.goal_made_for = None;
        }
    }

    /// Takes this link for the one that carries the outer packets from here on.
    pub(super) fn follow(&mut self, before: &IfName, parent: &IfName) {
        for held in &mut self.sides {
            match &mut held.side.carrier {
                Carrier::Vxlan(device) => device.parent = parent.clone(),
                Carrier::HostGw(link) => *link = parent.clone(),
                Carrier::Wireguard(_) | Carrier::Ipip(_) | Carrier::Alloc | Carrier::Extension => {}
            }
        }
        if let Some(reach) = &mut self.reach {
            reach.rename(before, parent);
        }
        // The goal is made anew.
        self.goal_made_for = None;
    }

    /// Takes these MTUs for what the devices of the families carry, and the least of them for what pods may send.
    pub(super) fn carry(&mut self, mtus_bytes: &[u32], pod_mtu_bytes: u32) -> Option<Action> {
        for (held, mtu_bytes) in self.sides.iter_mut().zip(mtus_bytes) {
            match &mut held.side.carrier {
                Carrier::Vxlan(device) => device.mtu_bytes = *mtu_bytes,
                Carrier::Wireguard(device) => device.mtu_bytes = *mtu_bytes,
                Carrier::Ipip(device) => device.mtu_bytes = *mtu_bytes,
                Carrier::HostGw(_) | Carrier::Alloc | Carrier::Extension => {}
            }
        }
        // The goal is made anew.
        self.goal_made_for = None;
        self.wants.subnet_env.mtu = pod_mtu_bytes;
        self.rewrite_file()
    }

    /// Has the subnet file written anew, because it is to say something else; after the writing that is under way, if
    /// one is.
    fn rewrite_file(&mut self) -> Option<Action> {
        match self.file {
            SubnetFile::NotReady => None,
            SubnetFile::Written => Some(self.write_file(SubnetFile::Rewriting)),
            SubnetFile::Writing | SubnetFile::Rewriting => {
                self.file_outdated = true;
                None
            }
        }
    }

    /// Has the subnet file written; `during` is how far it is until that is done.
    pub(super) fn write_file(&mut self, during: SubnetFile) -> Action {
        self.file = during;
        self.file_outdated = false;
        Action::WriteSubnetFile(self.wants.subnet_env.clone())
    }

    /// Takes that the subnet file was written.
    pub(super) fn file_written(&mut self) -> Option<Action> {
        self.file = SubnetFile::Written;
        self.file_outdated.then(|| self.write_file(SubnetFile::Rewriting))
    }

    pub(super) fn side_of(&self, subnet: IpNetwork) -> Option<&HeldSide> {
        let mut sides = self.sides.iter();
        sides.find(|held| held.side.is_ipv6() == subnet.is_ipv6())
    }

    /// Divides the leases of the view anew.
    pub(super) fn divide(&mut self) {
        let view = &self.view;
        let divide = |held: &mut HeldSide| held.peers.divide_anew(&held.side, view.peers());
        let changes: Vec<_> = self.sides.iter_mut().map(divide).collect();
        self.take_changes(changes);
    }

    /// Takes over what the view says of one lease.
    pub(super) fn divide_one(&mut self, key: SubnetKey) {
        let view = &self.view;
        let lease = |key: &SubnetKey| view.peer(key);
        let change = |held: &mut HeldSide| held.peers.change(&held.side, key, lease);
        let changes: Vec<_> = self.sides.iter_mut().map(change).collect();
        self.take_changes(changes);
    }

    /// Notes whether the own lease, as the store tells it, announces another device than this node's: only another host with the same public IP writes that.
    pub(super) fn note_rival(&mut self) {
        let rival = self.view.own().and_then(|own| {
            let foreign = |held: &HeldSide| match &held.side.carrier {
                Carrier::Vxlan(device) => vtep_mac(own, held.side.is_ipv6())
                    .filter(|mac| *mac != device.mac)
                    .map(DeviceId::VtepMac),
                Carrier::Wireguard(device) => public_key(own, held.side.is_ipv6())
                    .filter(|key| *key != device.public_key)
                    .map(DeviceId::PublicKey),
                Carrier::HostGw(_) | Carrier::Ipip(_) | Carrier::Alloc | Carrier::Extension => None,
            };
            self.sides.iter().find_map(foreign)
        });
        if self.rival == rival {
            return;
        }
        self.rival = rival;
        let subnet = self.keeper.lease().key;
        match rival {
            Some(device) => warn!(
                %subnet,
                %device,
                "another host announces this node's lease with its own device, and peers send to that one: the two have \
                 one public IP; give each an address of its own with --iface or --public-ip"
            ),
            None => info!(%subnet, "this node's lease announces this node again"),
        }
    }

    /// Takes the changes of each family.
    fn take_changes(&mut self, changes: Vec<PeerChanges>) {
        let mut all = Vec::new();
        for (held, changes) in self.sides.iter().zip(changes) {
            let problems = changes.new_problems.iter();
            for (key, problem) in problems.filter_map(|key| held.peers.refused.get_key_value(key)) {
                warn!(lease = %key, %problem, "a lease is not programmed");
            }
            held.log_changes(&changes.before);
            all.extend(changes.before);
        }
        self.wish_for_commands();
        for (subnet, before) in all {
            let before = before.map(|peer| (peer, self.way(&peer)));
            self.changed.entry(subnet).or_insert(before);
            let present = self.accepted(subnet).map(|peer| peer.public_ip);
            if let (Some(reach), Some(address)) = (&mut self.reach, present) {
                reach.want(address);
            }
        }
    }
}

impl HeldSide {
    /// One line a peer while they are few; a whole cluster's at once is one line.
    fn log_changes(&self, before: &BTreeMap<IpNetwork, Option<Peer>>) {
        let accepted = &self.peers.accepted;
        if before.len() > MAX_LOGGED_CHANGES {
            let changed = before
                .keys()
                .filter(|subnet| accepted.contains_key(*subnet))
                .count();
            info!(
                changed,
                removed = before.len() - changed,
                peers = accepted.len(),
                "peers changed"
            );
            return;
        }
        for subnet in before.keys() {
            match accepted.get(subnet) {
                Some(peer) => {
                    let device = peer.device().map(|device| device.to_string());
                    info!(%subnet, public_ip = %peer.public_ip, device, "peer added or changed");
                }
                None => info!(%subnet, "peer removed"),
            }
        }
    }
}

/// What the subnet file says of these families.
pub(super) fn subnet_env(sides: &[Side], mtu_bytes: u32, ip_masq: bool) -> SubnetEnv {
    let mut env = SubnetEnv {
        networks: Vec::new(),
        subnet: None,
        ipv6_networks: Vec::new(),
        ipv6_subnet: None,
        mtu: mtu_bytes,
        ip_masq,
    };
    for side in sides {
        match side.network {
            IpNetwork::V4(network) => env.networks.push(network),
            IpNetwork::V6(network) => env.ipv6_networks.push(network),
        }
        match side.subnet {
            IpNetwork::V4(subnet) => env.subnet = Some(gateway_v4(subnet)),
            IpNetwork::V6(subnet) => env.ipv6_subnet = Some(gateway_v6(subnet)),
        }
    }
    env
}
