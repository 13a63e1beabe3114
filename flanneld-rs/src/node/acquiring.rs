//! How a node gets its lease, and begins to work with it.

use std::collections::BTreeMap;

use flannel_types::{Lease, LeaseAttrs, VxlanData, WireguardData};
use net_types::{IfName, MacAddr};
use tracing::{info, warn};

use super::commands::StartCommand;
use super::found::Found;
use super::holding::{self, Holding, Wants};
use super::reach::Reach;
use super::{
    Action, CarrierSettings, Node, Now, Outlook, STORE_RETRY, SideSettings, Stage, StopReason, StoreFailure,
};
use crate::desired::{self, Carrier, Masquerade, Side, VxlanDevice};
use crate::extension::Queue;
use crate::lease_keeper::LeaseKeeper;
use crate::lease_view::LeaseView;

impl Node {
    /// Asks for the lease: an existing device's MAC goes into it, and the stored lease's MAC onto a device that is yet
    /// to be made.
    pub(super) fn lease_found(
        &mut self,
        now: Now,
        result: Result<Option<Lease>, StoreFailure>,
    ) -> Option<Action> {
        let stored = match result {
            Ok(stored) => stored,
            Err(failure) => return self.store_failed(now, failure),
        };
        self.standing.store_answered();
        let Stage::LookingForLease(found) = &mut self.stage else {
            return None;
        };
        found.was_member = stored.is_some();
        let addrs = self.settings.public_addrs();
        let mut attrs = LeaseAttrs {
            public_ip: addrs.v4,
            public_ipv6: addrs.v6,
            backend_type: self.settings.conf.backend.lease_type().to_owned(),
            backend_data: None,
            backend_v6_data: None,
        };
        let mut macs = BTreeMap::new();
        for side in &self.settings.sides {
            let data = match &side.carrier {
                CarrierSettings::Vxlan(vxlan) => {
                    let vtep_mac = found.settle_mac(vxlan, stored.as_ref(), side.is_ipv6());
                    macs.insert(vxlan.device.clone(), vtep_mac);
                    let vni = vxlan.vni;
                    VxlanData { vni, vtep_mac }.to_json()
                }
                CarrierSettings::Wireguard(device) => {
                    let data = WireguardData {
                        public_key: device.public_key,
                        port: Some(device.listen_port),
                    };
                    data.to_json()
                }
                CarrierSettings::HostGw
                | CarrierSettings::Ipip(_)
                | CarrierSettings::Alloc
                | CarrierSettings::Extension => continue,
            };
            let place = if side.is_ipv6() {
                &mut attrs.backend_v6_data
            } else {
                &mut attrs.backend_data
            };
            *place = Some(data);
        }
        let found = std::mem::take(found);
        if let Some(command) = self.pre_startup() {
            self.stage = Stage::StartCommand(StartCommand::Pre { found, attrs });
            return Some(Action::RunCommand(command));
        }
        let ask = Action::AcquireLease(attrs.clone());
        self.stage = Stage::AcquiringLease { found, macs, attrs };
        Some(ask)
    }

    pub(super) fn lease_acquired(&mut self, now: Now, result: Result<Lease, StoreFailure>) -> Option<Action> {
        let Stage::AcquiringLease { found, macs, .. } = &mut self.stage else {
            return None;
        };
        let lease = match result {
            Ok(lease) => lease,
            Err(failure) => return self.store_failed(now, failure),
        };
        let (found, macs) = (std::mem::take(found), std::mem::take(macs));
        self.standing.store_answered();
        info!(subnet = %lease.key, public_ip = %self.settings.public_addrs(), "lease acquired");
        if let Some(command) = self.post_startup(&lease) {
            self.stage = Stage::StartCommand(StartCommand::Post { found, lease });
            return Some(Action::RunCommand(command));
        }
        Some(self.hold(now, lease, found, &macs))
    }

    /// Begins to work with the own lease.
    pub(super) fn hold(
        &mut self,
        now: Now,
        lease: Lease,
        found: Found,
        macs: &BTreeMap<IfName, MacAddr>,
    ) -> Action {
        let sides = self
            .settings
            .sides
            .iter()
            .map(|side| self.side_for(side, &lease, macs));
        let Some(sides) = sides.collect::<Option<Vec<_>>>() else {
            let reason = format!("the lease {} lacks a subnet of an enabled family", lease.key);
            return self.stop(StopReason::NoLease(reason));
        };
        let mut view = LeaseView::new(&lease, found.peer_subnets, self.settings.mass_loss_grace);
        if !found.was_member {
            view.distrust_store(now.monotonic);
        }
        let ip_masq = self.settings.rules.masquerade != Masquerade::Off;
        let rules = self.rules_goal(&sides, desired::rules_scope());
        self.rules.set_goal(rules);
        let keeper = LeaseKeeper::new(lease, self.settings.renew_margin);
        let reach = self.settings.direct_routing.then(Reach::default);
        let commands = self.settings.extension.as_ref().map(Queue::new);
        let wants = Wants {
            subnet_env: holding::subnet_env(&sides, self.settings.pod_mtu_bytes, ip_masq),
            blackhole: self.settings.blackhole,
            left: found.left,
        };
        self.stage = Stage::Holding(Box::new(Holding::new(
            sides,
            keeper,
            view,
            wants,
            (reach, commands),
        )));
        self.begin_trial(now.monotonic);
        // Only now, so that the first snapshot holds the own lease.
        Action::WatchLeases
    }

    /// One family's part of the overlay; `None` if the lease has no subnet of it.
    fn side_for(&self, side: &SideSettings, lease: &Lease, macs: &BTreeMap<IfName, MacAddr>) -> Option<Side> {
        let mut subnets = lease.key.subnets();
        let parent = self.settings.parent.clone();
        let carrier = match &side.carrier {
            CarrierSettings::HostGw => Carrier::HostGw(parent),
            CarrierSettings::Wireguard(device) => Carrier::Wireguard(device.clone()),
            CarrierSettings::Ipip(device) => Carrier::Ipip(device.clone()),
            CarrierSettings::Alloc => Carrier::Alloc,
            CarrierSettings::Extension => Carrier::Extension,
            CarrierSettings::Vxlan(vxlan) => Carrier::Vxlan(VxlanDevice {
                name: vxlan.device.clone(),
                vni: vxlan.vni,
                port: vxlan.port,
                learning: vxlan.learning,
                gbp: vxlan.gbp,
                tx_checksum: self.settings.tx_checksum,
                mac: macs.get(&vxlan.device).copied().unwrap_or(vxlan.random_mac),
                mtu_bytes: vxlan.mtu_bytes,
                parent,
            }),
        };
        Some(Side {
            network: side.network,
            subnet: subnets.find(|subnet| subnet.is_ipv6() == side.is_ipv6())?,
            local: side.local,
            public_ip: side.public_ip,
            carrier,
        })
    }

    pub(super) fn store_failed(&mut self, now: Now, failure: StoreFailure) -> Option<Action> {
        self.standing.store_lost(&failure.message);
        match failure.outlook {
            Outlook::Retry => {
                if self.told.as_ref() != Some(&failure.message) {
                    warn!(
                        reason = failure.message,
                        "no lease yet, trying again every second"
                    );
                    self.told = Some(failure.message);
                }
                self.retry_at = Some(now.monotonic + STORE_RETRY);
                None
            }
            Outlook::GiveUp => Some(self.stop(StopReason::NoLease(failure.message))),
            Outlook::Lost => Some(self.stop(StopReason::LeaseRevoked)),
        }
    }
}
