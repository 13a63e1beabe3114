//! What a stranger does to a node's device, its content and its surroundings.

use net_types::MacAddr;
use net_types::registry::RTPROT_BOOT;
use netstate::{AdminState, Link, LinkKind, Neigh, Nexthop, Op, Route, RouteKey, RouteKind, State};

use crate::kernel_view::{device, network, op, owned, underlay};
use crate::safety::{Entry, Misled};
use crate::world::{MemberId, World};

impl World {
    /// Makes changes as a stranger; what the kernel refuses did not happen.
    pub(crate) fn edit(&mut self, id: MemberId, ops: &[Op]) {
        for op in ops {
            let answer = self.kernel(id).edit(op);
            self.log(|| format!("a stranger on n{}: {op}: {answer:?}", id + 1));
        }
        self.kernel_changed(id);
    }

    /// Deletes, alters or adds one object on the device.
    pub(crate) fn edit_content(&mut self, id: MemberId) {
        let state = owned(&self.fabric.nodes[&self.members[id].name]);
        let choice = self.rng.within(0..=10);
        let ops = match choice {
            0 => self.deletion(&state).into_iter().collect(),
            1 => self.route_alteration(&state),
            2 => self.neigh_alteration(&state),
            3 => self.fdb_alteration(&state),
            4 => state.addrs.keys().cloned().map(Op::DelAddr).collect(),
            5 => return self.mislead(id, &state),
            6 => self.rules_alteration(id).into_iter().collect(),
            _ => {
                let additions = [
                    "add route 10.99.0.0/24 dev flannel.1 proto 3",
                    "add route 10.244.77.0/24 via 10.244.77.0 dev flannel.1 onlink proto 3 metric 50",
                    "set neigh flannel.1 10.244.77.0 mac 02:ba:d0:00:00:01",
                    "set fdb flannel.1 02:ba:d0:00:00:01 remote 192.168.77.252",
                    "add addr flannel.1 10.244.255.9/32",
                    "add addr flannel.1 172.20.0.1/24",
                    "set sysctl net/ipv6/conf/flannel.1/accept_ra 1",
                ];
                self.rng.pick(&additions).map(op).into_iter().collect()
            }
        };
        self.edit(id, &ops);
    }

    /// Deletes a table of packet filter rules, or takes one of its rules away.
    fn rules_alteration(&mut self, id: MemberId) -> Option<Op> {
        let tables: Vec<_> = self.kernel(id).dump().nft.into_iter().collect();
        let (key, mut table) = self.rng.pick(&tables)?;
        if self.rng.percent(50) {
            return Some(Op::DelNftTable(key));
        }
        table.chains.first_entry()?.get_mut().rules.pop();
        Some(Op::SetNftTable(key, table))
    }

    fn deletion(&mut self, state: &State) -> Option<Op> {
        let routes = state.routes.clone().into_iter();
        let routes = routes.map(|(key, route)| Op::DelRoute(key, route));
        let neighs = state.neighs.keys().cloned().map(Op::DelNeigh);
        let fdb = state.fdb.iter().cloned().map(Op::DelFdb);
        let all: Vec<_> = routes.chain(neighs).chain(fdb).collect();
        self.rng.pick(&all)
    }

    fn route_alteration(&mut self, state: &State) -> Vec<Op> {
        let Some((key, route)) = self.any_route(state) else {
            return Vec::new();
        };
        let altered = if self.rng.percent(50) {
            Route {
                protocol: RTPROT_BOOT + 1,
                ..route
            }
        } else {
            via("10.244.255.255", route)
        };
        vec![Op::ReplaceRoute(key, altered)]
    }

    fn neigh_alteration(&mut self, state: &State) -> Vec<Op> {
        let keys: Vec<_> = state.neighs.keys().cloned().collect();
        let mac = MacAddr::new([2, 0xba, 0xd0, 0, 0, 9]);
        let key = self.rng.pick(&keys);
        key.map(|key| Op::SetNeigh(key, Neigh { mac }))
            .into_iter()
            .collect()
    }

    fn fdb_alteration(&mut self, state: &State) -> Vec<Op> {
        let keys: Vec<_> = state.fdb.iter().cloned().collect();
        let Some(mut key) = self.rng.pick(&keys) else {
            return Vec::new();
        };
        key.remote = match self.rng.pick(&keys) {
            Some(other) if self.rng.percent(50) => other.remote,
            Some(_) | None => "192.168.77.253".parse().unwrap(),
        };
        vec![Op::SetFdb(key)]
    }

    /// Sends a peer's packets to another peer.
    fn mislead(&mut self, id: MemberId, state: &State) {
        let Some((key, route)) = self.any_route(state) else {
            return;
        };
        let Some((other_key, other)) = self.any_route(state) else {
            return;
        };
        let ipnetwork::IpNetwork::V4(subnet) = key.dst else {
            return;
        };
        let RouteKind::Unicast(hop) = &other.kind else {
            return;
        };
        let neighs = &state.neighs;
        let other_neigh = neighs.iter().find(|(neigh, _)| Some(neigh.ip) == hop.gateway);
        let own_neigh = neighs.keys().find(|neigh| neigh.ip == key.dst.network());
        let entry = match (own_neigh, other_neigh) {
            (Some(own), Some((_, neigh))) if self.rng.percent(50) => Entry::Neigh(own.clone(), *neigh),
            _ => Entry::Route(
                key.clone(),
                Route {
                    protocol: route.protocol,
                    ..other
                },
            ),
        };
        if other_key != key {
            self.members[id].misled.push(Misled {
                subnet,
                entry: entry.clone(),
            });
        }
        self.edit(id, &[entry.op()]);
    }

    fn any_route(&mut self, state: &State) -> Option<(RouteKey, Route)> {
        let is_peer =
            |(key, _): &(&RouteKey, &Route)| key.metric == 0 && key.dst.prefix() > network().prefix();
        let routes = state.routes.iter().filter(is_peer);
        let routes: Vec<_> = routes.map(|(key, route)| (key.clone(), route.clone())).collect();
        self.rng.pick(&routes)
    }

    /// Alters the device, or takes or replaces it.
    pub(crate) fn edit_device(&mut self, id: MemberId) {
        // Two nodes with one MAC exclude each other, and one of them stays cut off: that is no trouble that passes.
        let set_mac = format!("set link flannel.1 mac 02:ba:d0:00:01:{id:02x}");
        let edits: &[&[&str]] = &[
            &["set link flannel.1 down"],
            &["set link flannel.1 down", "set link flannel.1 up"],
            &[&set_mac],
            &["set link flannel.1 mtu 1400"],
            &["set link flannel.1 learning"],
            &["set link flannel.1 local 192.168.77.251"],
            &["del link flannel.1"],
            &[
                "del link flannel.1",
                "add link flannel.1 bridge down",
                "set link flannel.1 up",
            ],
            &[
                "del link flannel.1",
                "add link flannel.1 vxlan vni 7 port 8472 parent eth0 nolearning down",
            ],
            &[
                "del link flannel.1",
                "add link flannel.1 vxlan vni 1 port 8472 nolearning down",
            ],
        ];
        let edit: Vec<_> = self
            .rng
            .pick(edits)
            .unwrap()
            .iter()
            .map(|text| op(text))
            .collect();
        self.edit(id, &edit);
    }

    /// Adds a link with an address, a route and a neighbour that are no business of the daemon's.
    pub(crate) fn add_foreign(&mut self, id: MemberId) {
        let n = self.rng.within(1..=200);
        let name = format!("far{n}");
        let link = Link {
            kind: LinkKind::Other("dummy".to_owned()),
            mac: None,
            mtu_bytes: None,
            admin: AdminState::Up,
            port: None,
        };
        if self.kernel(id).add_foreign(&name.parse().unwrap(), &link).is_ok() {
            self.edit(
                id,
                &[
                    op(&format!("add addr {name} 172.30.{n}.1/24")),
                    op(&format!(
                        "add route 10.99.{n}.0/24 via 172.30.{n}.2 dev {name} proto 3"
                    )),
                    op(&format!("set neigh {name} 172.30.{n}.2 mac 02:fa:00:00:00:01")),
                ],
            );
        }
    }

    /// Puts a route of its own in the place of a peer's; returns what removes it.
    pub(crate) fn usurp_route(&mut self, id: MemberId) -> Option<Op> {
        let state = owned(&self.fabric.nodes[&self.members[id].name]);
        let (key, route) = self.any_route(&state)?;
        let blackhole = Route {
            kind: RouteKind::Blackhole,
            protocol: RTPROT_BOOT + 1,
            ..route
        };
        let ops = [
            Op::DelRoute(key.clone(), route),
            Op::AddRoute(key.clone(), blackhole.clone()),
        ];
        self.edit(id, &ops);
        Some(Op::DelRoute(key, blackhole))
    }

    /// Takes the network identifier by a device of its own; returns what removes it.
    pub(crate) fn usurp_vni(&mut self, id: MemberId) -> Op {
        let add = "add link strange0 vxlan vni 1 port 8472 nolearning down";
        let ops = ["del link flannel.1", add, "set link strange0 up"].map(op);
        self.edit(id, &ops);
        op("del link strange0")
    }

    /// Deletes one of the device's routes, whichever.
    pub(crate) fn delete_a_route(&mut self, id: MemberId) {
        let state = owned(&self.fabric.nodes[&self.members[id].name]);
        if let Some((key, route)) = self.any_route(&state) {
            self.edit(id, &[Op::DelRoute(key, route)]);
        }
    }

    pub(crate) fn set_card(&mut self, id: MemberId, admin: AdminState) {
        let change = netstate::LinkChange::Admin(admin);
        self.edit(id, &[Op::SetLink(underlay(), change)]);
    }

    /// An object of the device that the kernel may refuse to change for a while.
    pub(crate) fn any_object(&mut self, id: MemberId) -> netstate::ObjectKey {
        let state = owned(&self.fabric.nodes[&self.members[id].name]);
        let deletion = if self.rng.percent(70) {
            self.deletion(&state)
        } else {
            None
        };
        deletion.map_or_else(|| netstate::ObjectKey::Link(device()), |op| op.object())
    }
}

fn via(gateway: &str, route: Route) -> Route {
    let nexthop = Nexthop {
        link: device(),
        gateway: Some(gateway.parse().unwrap()),
        onlink: true,
    };
    Route {
        kind: RouteKind::Unicast(nexthop),
        ..route
    }
}
