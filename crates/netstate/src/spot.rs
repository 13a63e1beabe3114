use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use net_types::{IfName, MacAddr};

use crate::{FdbKey, NeighKey, ObjectKey, RouteKey, RouteKind, State, WgPeerKey};

#[cfg(test)]
mod tests;

/// A place in one of the large tables of a namespace, which can be looked at and compared without the others.
///
/// Links, addresses and everything else of which there are few have no spots: what happens to a link or an address
/// can flush a whole table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spot {
    /// A route.
    Route(RouteKey),
    /// A neighbour.
    Neigh(NeighKey),
    /// The forwarding entries of one MAC address on a link: of a unicast one, setting another replaces the one.
    Fdb(IfName, MacAddr),
    /// A peer of a WireGuard device.
    WgPeer(WgPeerKey),
}

impl Spot {
    /// Where an object stands, if it is in a large table.
    #[must_use]
    pub fn of(object: &ObjectKey) -> Option<Self> {
        match object {
            ObjectKey::Route(key) => Some(Self::Route(key.clone())),
            ObjectKey::Neigh(key) => Some(Self::Neigh(key.clone())),
            ObjectKey::Fdb(key) => Some(Self::of_fdb(key)),
            ObjectKey::WgPeer(key) => Some(Self::WgPeer(key.clone())),
            ObjectKey::Link(_)
            | ObjectKey::Wireguard(_)
            | ObjectKey::Addr(_)
            | ObjectKey::Sysctl(_)
            | ObjectKey::NftTable(_)
            | ObjectKey::Iptables(_) => None,
        }
    }

    fn of_fdb(key: &FdbKey) -> Self {
        Self::Fdb(key.link.clone(), key.mac)
    }
}

impl State {
    /// What is not in the large tables.
    #[must_use]
    pub fn frame(&self) -> Self {
        Self {
            links: self.links.clone(),
            addrs: self.addrs.clone(),
            wireguard: self.wireguard.clone(),
            sysctls: self.sysctls.clone(),
            nft: self.nft.clone(),
            iptables: self.iptables.clone(),
            ..Self::default()
        }
    }

    /// What stands at some spots, and nothing else.
    #[must_use]
    pub fn at(&self, spots: &BTreeSet<Spot>) -> Self {
        let mut part = Self::default();
        for spot in spots {
            match spot {
                Spot::Route(key) => {
                    let route = self.routes.get(key);
                    part.routes
                        .extend(route.map(|route| (key.clone(), route.clone())));
                }
                Spot::Neigh(key) => {
                    let neigh = self.neighs.get(key);
                    part.neighs.extend(neigh.map(|neigh| (key.clone(), *neigh)));
                }
                Spot::Fdb(link, mac) => part.fdb.extend(self.fdb_at(link, *mac).cloned()),
                Spot::WgPeer(key) => {
                    let peer = self.wg_peers.get(key);
                    part.wg_peers.extend(peer.map(|peer| (key.clone(), peer.clone())));
                }
            }
        }
        part
    }

    /// Removes what stands at a spot.
    pub fn clear_at(&mut self, spot: &Spot) {
        match spot {
            Spot::Route(key) => drop(self.routes.remove(key)),
            Spot::Neigh(key) => drop(self.neighs.remove(key)),
            Spot::WgPeer(key) => drop(self.wg_peers.remove(key)),
            Spot::Fdb(link, mac) => {
                let there: Vec<_> = self.fdb_at(link, *mac).cloned().collect();
                for key in &there {
                    self.fdb.remove(key);
                }
            }
        }
    }

    /// Takes all that another state holds.
    pub fn absorb(&mut self, other: Self) {
        self.links.extend(other.links);
        self.addrs.extend(other.addrs);
        self.routes.extend(other.routes);
        self.neighs.extend(other.neighs);
        self.fdb.extend(other.fdb);
        self.wireguard.extend(other.wireguard);
        self.wg_peers.extend(other.wg_peers);
        self.sysctls.extend(other.sysctls);
        self.nft.extend(other.nft);
        self.iptables.extend(other.iptables);
    }

    /// Packs the large tables. Entries that came one by one in their order have left the trees' nodes half empty, and
    /// those that are collected at once fill them.
    pub fn pack(&mut self) {
        self.routes = std::mem::take(&mut self.routes).into_iter().collect();
        self.neighs = std::mem::take(&mut self.neighs).into_iter().collect();
        self.fdb = std::mem::take(&mut self.fdb).into_iter().collect();
    }

    /// The spots where something stands.
    #[must_use]
    pub fn spots(&self) -> BTreeSet<Spot> {
        let routes = self.routes.keys().cloned().map(Spot::Route);
        let neighs = self.neighs.keys().cloned().map(Spot::Neigh);
        let wg_peers = self.wg_peers.keys().cloned().map(Spot::WgPeer);
        routes
            .chain(neighs)
            .chain(wg_peers)
            .chain(self.fdb.iter().map(Spot::of_fdb))
            .collect()
    }

    /// The spots where another state differs.
    #[must_use]
    pub fn differing_spots(&self, other: &Self) -> BTreeSet<Spot> {
        let routes = differing_keys(&self.routes, &other.routes).map(Spot::Route);
        let neighs = differing_keys(&self.neighs, &other.neighs).map(Spot::Neigh);
        let fdb = self.fdb.symmetric_difference(&other.fdb).map(Spot::of_fdb);
        let wg_peers = differing_keys(&self.wg_peers, &other.wg_peers).map(Spot::WgPeer);
        routes.chain(neighs).chain(fdb).chain(wg_peers).collect()
    }

    /// Whether another state holds the same at a spot.
    #[must_use]
    pub fn agrees_at(&self, other: &Self, spot: &Spot) -> bool {
        match spot {
            Spot::Route(key) => self.routes.get(key) == other.routes.get(key),
            Spot::Neigh(key) => self.neighs.get(key) == other.neighs.get(key),
            Spot::WgPeer(key) => self.wg_peers.get(key) == other.wg_peers.get(key),
            Spot::Fdb(link, mac) => self.fdb_at(link, *mac).eq(other.fdb_at(link, *mac)),
        }
    }

    /// What a route needs to lead to its gateway: the permanent neighbour, and the forwarding entries of that one's MAC.
    #[must_use]
    pub fn needed_by(&self, route: &RouteKey) -> Vec<ObjectKey> {
        let hop = match self.routes.get(route).map(|route| &route.kind) {
            Some(RouteKind::Unicast(hop)) => hop,
            Some(RouteKind::Blackhole) | None => return Vec::new(),
        };
        let neigh = hop.gateway.map(|ip| NeighKey {
            link: hop.link.clone(),
            ip,
        });
        let found = neigh.and_then(|key| self.neighs.get_key_value(&key));
        let needed = found.map(|(key, neigh)| {
            let fdb = self.fdb_at(&key.link, neigh.mac).cloned().map(ObjectKey::Fdb);
            fdb.chain([ObjectKey::Neigh(key.clone())])
        });
        needed.into_iter().flatten().collect()
    }

    fn fdb_at(&self, link: &IfName, mac: MacAddr) -> impl Iterator<Item = &FdbKey> {
        let first = FdbKey {
            link: link.clone(),
            mac,
            remote: IpAddr::from([0; 4]),
        };
        let last = FdbKey {
            link: link.clone(),
            mac,
            remote: IpAddr::from([u8::MAX; 16]),
        };
        self.fdb.range(first..=last)
    }
}

/// The keys that only one of two maps has, or with different values.
fn differing_keys<'a, K: Ord + Clone, V: PartialEq>(
    one: &'a BTreeMap<K, V>,
    other: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = K> + 'a {
    let gone_or_altered = one.iter().filter(|(key, value)| other.get(*key) != Some(*value));
    let new = other.keys().filter(|key| !one.contains_key(*key));
    gone_or_altered.map(|(key, _)| key).chain(new).cloned()
}
