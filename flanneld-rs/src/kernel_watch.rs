//! Which of the kernel's notices concern this node: those about its device, and about the interface below it; where peers
//! may be reached without the tunnel, also those about the routes to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::{IfIndex, IfName};
use netlink_monitor::{Monitor, MonitorError, NeighEntry, Notice, Presence};
use netstate::{NeighKey, Spot};
use nix::net::if_::{if_indextoname, if_nametoindex};

use crate::node::Settings;

/// Follows the kernel's notices.
pub struct KernelWatch {
    monitor: Monitor,
    filter: Filter,
}

/// Tells the notices that matter from the others: a busy node makes and removes links and routes all day.
#[derive(Debug)]
struct Filter {
    devices: BTreeSet<IfName>,
    parent: IfName,
    /// The pod networks: a route into one, by whatever link, may take the place of one of ours.
    networks: Vec<IpNetwork>,
    /// This node's addresses, wherever they are.
    locals: BTreeSet<IpAddr>,
    /// The number that the parent has.
    parent_index: Option<IfIndex>,
    /// Numbers that the devices have; content is reported by number.
    indexes: BTreeMap<IfIndex, IfName>,
    /// Whether routes matter that lead to no pods: peers may be reached by them.
    minds_host_routes: bool,
    /// Other links that peers are reached through, with their numbers.
    followed: BTreeMap<IfName, Option<IfIndex>>,
}

impl KernelWatch {
    /// Begins to follow; whatever changes from here on is noticed.
    ///
    /// # Errors
    /// No connection to the kernel can be had.
    pub fn open(settings: &Settings) -> Result<Self, MonitorError> {
        let filter = Filter {
            devices: settings.devices().cloned().collect(),
            parent: settings.parent.clone(),
            networks: settings.networks(),
            locals: settings.sides.iter().map(|side| side.local).collect(),
            indexes: BTreeMap::new(),
            parent_index: None,
            minds_host_routes: settings.direct_routing,
            followed: BTreeMap::new(),
        };
        let mut watch = Self {
            monitor: Monitor::open()?,
            filter,
        };
        watch.learn();
        Ok(watch)
    }

    /// Takes this link for the interface below from here on.
    pub fn follow_parent(&mut self, parent: &IfName) {
        if self.filter.parent != *parent {
            self.filter.parent = parent.clone();
            self.filter.parent_index = index_of(parent);
        }
    }

    /// Asks for the links' numbers: what happened before, or was lost, told nothing of them.
    fn learn(&mut self) {
        let found = self
            .filter
            .devices
            .iter()
            .filter_map(|device| Some((index_of(device)?, device.clone())));
        self.filter.indexes = found.collect();
        self.filter.parent_index = index_of(&self.filter.parent);
        for (link, index) in &mut self.filter.followed {
            *index = index_of(link);
        }
        self.watch_closely();
    }

    /// Names the links that peers are reached through, whose changes matter as the parent's do.
    pub fn follow<'a>(&mut self, links: impl Iterator<Item = &'a IfName>) {
        for link in links {
            if *link != self.filter.parent && !self.filter.followed.contains_key(link) {
                self.filter.followed.insert(link.clone(), index_of(link));
            }
        }
    }

    /// What the interface below is called now, which the kernel knows: notices that come together are in no order.
    fn renamed(&mut self) -> Change {
        let now = self.filter.parent_index.and_then(name_of);
        let Some(name) = now.filter(|name| *name != self.filter.parent) else {
            return Change::Anything;
        };
        self.filter.parent = name.clone();
        Change::Renamed(name)
    }

    fn watch_closely(&mut self) {
        let indexes = self.filter.indexes.keys().copied();
        self.monitor.watch_closely(indexes.collect());
    }

    /// Waits until something changed that may concern this node; what came with it is covered too. Cancel-safe: a
    /// notice is taken and judged in one step.
    pub async fn changed(&mut self) -> Changes {
        loop {
            let mut notice = Some(self.monitor.next().await);
            let mut changes = Changes::default();
            while let Some(taken) = notice {
                changes.host_routes |= self.filter.is_host_route(&taken);
                changes.own.add(self.judge(taken));
                notice = self.monitor.try_next();
            }
            if changes != Changes::default() {
                return changes;
            }
        }
    }

    fn judge(&mut self, notice: Notice) -> Option<Change> {
        if notice == Notice::Lost {
            self.learn();
            return Some(Change::Anything);
        }
        let before = self.filter.indexes.clone();
        let mut change = self.filter.judge(notice);
        if matches!(change, Some(Change::Renamed(_))) {
            change = Some(self.renamed());
        }
        if self.filter.indexes != before {
            self.watch_closely();
        }
        change
    }
}

/// What may have changed in the kernel that concerns this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// What is this node's, and the links below it.
    pub own: Change,
    /// Whether routes may have that lead to no pods, where they matter.
    pub host_routes: bool,
}

/// What may have changed of this node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Not known, or a link or an address.
    Anything,
    /// What stands at these spots.
    At(BTreeSet<Spot>),
    /// Anything, and the interface below has this name now.
    Renamed(IfName),
}

impl Default for Change {
    fn default() -> Self {
        Self::At(BTreeSet::new())
    }
}

impl Change {
    fn add(&mut self, other: Option<Self>) {
        match (&mut *self, other) {
            (_, None) => {}
            (change, Some(Self::Renamed(name))) => *change = Self::Renamed(name),
            (Self::Anything | Self::Renamed(_), _) => {}
            (_, Some(Self::Anything)) => *self = Self::Anything,
            (Self::At(spots), Some(Self::At(more))) => spots.extend(more),
        }
    }
}

impl Filter {
    fn judge(&mut self, notice: Notice) -> Option<Change> {
        let is_ours = |link: IfIndex| self.indexes.contains_key(&link);
        match notice {
            Notice::Lost => Some(Change::Anything),
            Notice::Link {
                index,
                name,
                presence,
            } => self.judge_link(index, &name, presence),
            Notice::Addr { link, ip } => {
                let is_followed = self.followed.values().any(|index| *index == Some(link));
                let is_below = self.parent_index == Some(link) || self.locals.contains(&ip);
                let concerns = is_ours(link) || is_below || is_followed;
                concerns.then_some(Change::Anything)
            }
            Notice::Route { link, key } => {
                let concerns = link.is_none_or(is_ours) || self.is_pods(key.dst);
                concerns.then(|| Change::At([Spot::Route(key)].into()))
            }
            Notice::Neigh { link, entry, .. } => {
                let link = self.indexes.get(&link)?.clone();
                let spot = match entry {
                    NeighEntry::Neigh(ip) => Spot::Neigh(NeighKey { link, ip }),
                    NeighEntry::Fdb(mac) => Spot::Fdb(link, mac),
                };
                Some(Change::At([spot].into()))
            }
        }
    }

    /// Whether it is about a route that a peer may be reached by. Each link, also a pod's, has one to its own IPv6
    /// addresses, at which there are no peers.
    fn is_host_route(&self, notice: &Notice) -> bool {
        let Notice::Route { key, .. } = notice else {
            return false;
        };
        let is_link_s_own = matches!(key.dst, IpNetwork::V6(dst) if dst.ip().is_unicast_link_local() || dst.ip().is_multicast());
        self.minds_host_routes && !self.is_pods(key.dst) && !is_link_s_own
    }

    fn is_pods(&self, dst: IpNetwork) -> bool {
        self.networks
            .iter()
            .any(|network| network.contains(dst.network()))
    }

    /// A link that was renamed away, or into our name, concerns us as well.
    fn judge_link(&mut self, index: IfIndex, name: &IfName, presence: Presence) -> Option<Change> {
        let is_renamed =
            self.parent_index == Some(index) && *name != self.parent && presence == Presence::Present;
        if *name == self.parent {
            self.parent_index = (presence == Presence::Present).then_some(index);
        }
        let mut is_followed = self.followed.values().any(|known| *known == Some(index));
        if let Some(known) = self.followed.get_mut(name) {
            *known = (presence == Presence::Present).then_some(index);
            is_followed = true;
        }
        let is_device = self.devices.contains(name) && presence == Presence::Present;
        let before = if is_device {
            self.indexes.insert(index, name.clone())
        } else {
            self.indexes.remove(&index)
        };
        if is_renamed {
            return Some(Change::Renamed(name.clone()));
        }
        let concerns = is_device || before.is_some() || *name == self.parent || is_followed;
        concerns.then_some(Change::Anything)
    }
}

fn name_of(index: IfIndex) -> Option<IfName> {
    let name = if_indextoname(index.get()).ok()?;
    IfName::new(name.to_str().ok()?).ok()
}

fn index_of(link: &IfName) -> Option<IfIndex> {
    if_nametoindex(link.as_str()).ok().and_then(IfIndex::new)
}

#[cfg(test)]
mod tests {
    use net_types::MacAddr;
    use netlink_monitor::NeighChange;
    use netstate::RouteKey;

    use super::*;

    #[test]
    fn only_what_concerns_the_device_or_its_parent_is_told() {
        let mut filter = filter();
        assert_eq!(filter.judge(Notice::Lost), Some(Change::Anything));
        assert_eq!(filter.judge(addr(index(2))), Some(Change::Anything));
        assert_eq!(
            filter.judge(link(2, "eth0", Presence::Gone)),
            Some(Change::Anything)
        );
        assert_eq!(filter.judge(link(7, "veth1234", Presence::Present)), None);
        assert_eq!(filter.judge(addr(index(2))), None);
        assert_eq!(
            filter.judge(link(3, "eth0", Presence::Present)),
            Some(Change::Anything)
        );
        assert_eq!(filter.judge(addr(index(3))), Some(Change::Anything));
        assert_eq!(filter.judge(addr(index(5))), None);
        assert_eq!(
            filter.judge(link(5, "flannel.1", Presence::Present)),
            Some(Change::Anything)
        );
        assert_eq!(filter.judge(addr(index(5))), Some(Change::Anything));
        let at_route = Some(Change::At([Spot::Route(route())].into()));
        assert_eq!(filter.judge(route_through(Some(index(5)))), at_route);
        assert_eq!(filter.judge(route_through(None)), at_route);
        // By whatever link: it may have taken the place of one of ours.
        assert_eq!(filter.judge(route_through(Some(index(2)))), at_route);
        let elsewhere = Notice::Route {
            link: Some(index(2)),
            key: RouteKey {
                dst: "10.9.5.0/24".parse().unwrap(),
                ..route()
            },
        };
        assert_eq!(filter.judge(elsewhere), None);
    }

    #[test]
    fn entries_of_the_device_are_told_by_their_spots() {
        let mut filter = filter();
        filter.judge(link(5, "flannel.1", Presence::Present));
        let name: IfName = "flannel.1".parse().unwrap();
        let (ip, mac) = ("10.244.5.0".parse().unwrap(), MacAddr::new([2, 0, 0, 0, 0, 1]));
        let entries = [
            (
                NeighEntry::Neigh(ip),
                Spot::Neigh(NeighKey {
                    link: name.clone(),
                    ip,
                }),
            ),
            (NeighEntry::Fdb(mac), Spot::Fdb(name, mac)),
        ];
        for (entry, spot) in entries {
            let notice = |link| Notice::Neigh {
                link: index(link),
                entry,
                change: NeighChange::Removed,
            };
            assert_eq!(filter.judge(notice(5)), Some(Change::At([spot].into())));
            assert_eq!(filter.judge(notice(6)), None);
        }
    }

    #[test]
    fn where_peers_may_be_direct_routes_to_them_and_links_that_lead_to_them_matter() {
        let to = |dst: &str| Notice::Route {
            link: Some(index(2)),
            key: RouteKey {
                dst: dst.parse().unwrap(),
                ..route()
            },
        };
        let mut filter = filter();
        let all = ["192.168.77.0/24", "192.168.77.3/32", "0.0.0.0/0", "fd00:77::/64"];
        assert!(!all.iter().any(|dst| filter.is_host_route(&to(dst))));
        filter.minds_host_routes = true;
        assert!(all.iter().all(|dst| filter.is_host_route(&to(dst))));
        for elsewhere in ["10.244.7.0/24", "10.244.7.9/32", "fe80::/64", "ff00::/8"] {
            assert!(!filter.is_host_route(&to(elsewhere)), "{elsewhere}");
        }
        assert!(!filter.is_host_route(&addr(index(2))));

        let eth1 = |presence| link(9, "eth1", presence);
        assert_eq!(filter.judge(eth1(Presence::Present)), None);
        filter.followed.insert("eth1".parse().unwrap(), None);
        assert_eq!(filter.judge(addr(index(9))), None);
        assert_eq!(filter.judge(eth1(Presence::Present)), Some(Change::Anything));
        assert_eq!(filter.judge(addr(index(9))), Some(Change::Anything));
        assert_eq!(filter.judge(eth1(Presence::Gone)), Some(Change::Anything));
        assert_eq!(filter.judge(addr(index(9))), None);
    }

    #[test]
    fn several_changes_are_told_as_one() {
        let mut change = Change::At(BTreeSet::new());
        let at = |mac| {
            Change::At(
                [Spot::Fdb(
                    "flannel.1".parse().unwrap(),
                    MacAddr::new([2, 0, 0, 0, 0, mac]),
                )]
                .into(),
            )
        };
        for mac in [1, 2, 1] {
            change.add(Some(at(mac)));
        }
        change.add(None);
        assert!(matches!(&change, Change::At(spots) if spots.len() == 2));
        change.add(Some(Change::Anything));
        change.add(Some(at(3)));
        assert_eq!(change, Change::Anything);
    }

    #[test]
    fn a_device_that_is_renamed_or_goes_is_told_and_forgotten() {
        for notice in [
            link(5, "other", Presence::Present),
            link(5, "flannel.1", Presence::Gone),
        ] {
            let mut filter = filter();
            filter.judge(link(5, "flannel.1", Presence::Present));
            assert_eq!(filter.judge(notice), Some(Change::Anything));
            assert_eq!(filter.judge(addr(index(5))), None);
        }
    }

    #[test]
    fn a_parent_that_is_renamed_is_followed() {
        let mut filter = filter();
        let renamed = Change::Renamed("lan0".parse().unwrap());
        assert_eq!(
            filter.judge(link(2, "lan0", Presence::Present)),
            Some(renamed.clone())
        );
        let anything = Some(Change::Anything);
        assert_eq!(filter.judge(addr(index(2))), anything);
        filter.parent = "lan0".parse().unwrap();
        // Another one under the old name is nothing to us.
        assert_eq!(filter.judge(link(3, "eth0", Presence::Present)), None);
        assert_eq!(filter.judge(link(2, "lan0", Presence::Gone)), anything);
        for others in [[None, anything.clone()], [anything, None]] {
            let mut change = Change::At(BTreeSet::new());
            let [before, after] = others;
            change.add(before);
            change.add(Some(renamed.clone()));
            change.add(after);
            assert_eq!(change, renamed);
        }
    }

    #[test]
    fn an_own_address_concerns_us_on_any_link() {
        let notice = |ip: &str| Notice::Addr {
            link: index(9),
            ip: ip.parse().unwrap(),
        };
        assert_eq!(filter().judge(notice("192.168.77.250")), Some(Change::Anything));
        assert_eq!(filter().judge(notice("192.168.77.251")), None);
    }

    fn addr(link: IfIndex) -> Notice {
        let ip = [192, 168, 77, 9].into();
        Notice::Addr { link, ip }
    }

    fn route() -> RouteKey {
        RouteKey {
            table: 254,
            dst: "10.244.5.0/24".parse().unwrap(),
            metric: 0,
        }
    }

    fn route_through(link: Option<IfIndex>) -> Notice {
        let key = route();
        Notice::Route { link, key }
    }

    fn filter() -> Filter {
        let name = |text| IfName::new(text).unwrap();
        Filter {
            devices: [name("flannel.1"), name("flannel-v6.1")].into(),
            parent: name("eth0"),
            networks: vec!["10.244.0.0/16".parse().unwrap()],
            locals: [[192, 168, 77, 250].into()].into(),
            parent_index: Some(index(2)),
            indexes: BTreeMap::new(),
            minds_host_routes: false,
            followed: BTreeMap::new(),
        }
    }

    fn link(n: u32, name: &str, presence: Presence) -> Notice {
        Notice::Link {
            index: index(n),
            name: IfName::new(name).unwrap(),
            presence,
        }
    }

    fn index(n: u32) -> IfIndex {
        IfIndex::new(n).unwrap()
    }
}
