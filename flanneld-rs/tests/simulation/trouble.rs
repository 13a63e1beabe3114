//! The troubles that a world meets, and how long each may hurt once it is over.

use std::time::Duration;

use flannel_types::Lease;
use lease_store::Reach;
use net_types::MacAddr;
use netstate::{AdminState, ErrorClass, Op};

use crate::kernel_view::{phantom, phantom_key, public_ip, underlay};
use crate::world::{Item, MemberId, World, plug_card};

/// A stranger's change that was noticed is mended within this.
const NOTICED: Duration = Duration::from_secs(1);
/// So is the device, or what hangs on the card.
const DEVICE: Duration = Duration::from_secs(3);
/// A daemon that could not start tries each second, and its peers must hear of it.
const START: Duration = Duration::from_secs(6);
/// A refused change is tried again after 30 s at the latest.
const REFUSED: Duration = Duration::from_secs(32);
/// What nobody noticed is found by the next audit, 60 s after the last observation.
const AUDIT: Duration = Duration::from_secs(62);

/// A lease that ran out is renewed, or found to be lost, at once; in the worst of worlds the store is out of reach then,
/// and at the next try a minute later.
const SLEEP: Duration = Duration::from_secs(130);

const HOUR: Duration = Duration::from_secs(60 * 60);
const MAX_MEMBERS: usize = 6;
const FIRST_PHANTOM: u8 = 200;
const LAST_PHANTOM: u8 = 215;

/// A kind of trouble; each world meets some kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Content,
    Device,
    Card,
    Foreign,
    Crash,
    Membership,
    Store,
    Phantoms,
    Kernel,
    Deafness,
    SubnetFile,
    Clock,
}

const GROUPS: [Group; 12] = [
    Group::Content,
    Group::Device,
    Group::Card,
    Group::Foreign,
    Group::Crash,
    Group::Membership,
    Group::Store,
    Group::Phantoms,
    Group::Kernel,
    Group::Deafness,
    Group::SubnetFile,
    Group::Clock,
];

/// How a trouble goes on or ends.
#[derive(Debug)]
pub(crate) enum End {
    Storm(MemberId, u32),
    CardUp(MemberId),
    CardBack(MemberId),
    Remove(MemberId, Op),
    Resume(MemberId),
    LeaseExpires(MemberId),
    StoreBack,
    ConfigBack,
    Reconnect(MemberId),
    LeasesBack(Vec<Lease>),
    FaultsOver(MemberId),
    Hearing(MemberId),
    FileBack(MemberId),
}

impl World {
    pub(crate) fn foresee_troubles(&mut self) {
        let chance = self.rng.within(10..=60);
        let mut groups = Vec::from(GROUPS);
        groups.retain(|_| self.rng.percent(chance));
        if groups.is_empty() {
            groups.push(Group::Content);
        }
        self.healed_by = Duration::from_secs(10);
        let mut at = Duration::from_secs(5);
        for _ in 0..self.rng.within(2..=12) {
            at += self.rng.ms(5..=2000);
            if let Some(group) = self.rng.pick(&groups) {
                self.at(at, Item::Trouble(group));
            }
        }
    }

    pub(crate) fn begin_trouble(&mut self, group: Group) {
        let present = self.present();
        let Some(id) = self.rng.pick(&present) else { return };
        self.log(|| format!("trouble: {group:?} with n{}", id + 1));
        match group {
            Group::Content if self.rng.percent(15) => self.end_trouble(End::Storm(id, 60)),
            Group::Content => self.edited(id, NOTICED, |world| world.edit_content(id)),
            Group::Device => self.edited(id, DEVICE, |world| world.edit_device(id)),
            Group::Card => self.begin_card_trouble(id),
            Group::Foreign => self.begin_foreign_trouble(id),
            Group::Crash => {
                self.members[id].ill.stopped += 1;
                self.kill(id);
                self.ends(0..=3000, START, End::Resume(id));
            }
            Group::Membership => self.change_membership(id),
            Group::Store => self.begin_store_trouble(id),
            Group::Phantoms => self.change_phantoms(),
            Group::Kernel => self.begin_kernel_trouble(id),
            Group::Deafness => {
                self.members[id].ill.deaf += 1;
                self.ends(300..=5000, AUDIT, End::Hearing(id));
            }
            Group::SubnetFile => {
                self.members[id].ill.file_refused += 1;
                self.ends(300..=5000, START, End::FileBack(id));
            }
            Group::Clock => self.set_clocks(id),
        }
    }

    /// Somebody sets a member's clock, by less than its lease has left; or all machines sleep, perhaps for longer than any
    /// lease lives.
    fn set_clocks(&mut self, id: MemberId) {
        let minutes = i64::try_from(self.rng.within(0..=22 * 60)).unwrap();
        if self.rng.percent(50) {
            let sign = if self.rng.percent(50) { 1 } else { -1 };
            self.members[id].clock_error_secs = sign * minutes * 60;
            self.heals(NOTICED);
            return;
        }
        let hours = u32::try_from(self.rng.within(1..=60)).unwrap();
        self.slept += HOUR * hours;
        self.store.set_now(self.wall());
        self.store_changed();
        self.heals(SLEEP);
    }

    fn begin_card_trouble(&mut self, id: MemberId) {
        if self.rng.percent(50) {
            self.edited(id, DEVICE, |world| world.set_card(id, AdminState::Down));
            self.ends(50..=4000, DEVICE, End::CardUp(id));
        } else {
            self.edited(id, DEVICE, |world| {
                world.kernel(id).remove_link(&underlay());
            });
            self.ends(50..=4000, START, End::CardBack(id));
        }
    }

    fn begin_foreign_trouble(&mut self, id: MemberId) {
        match self.rng.within(0..=2) {
            0 => self.edited(id, NOTICED, |world| world.add_foreign(id)),
            1 => {
                if let Some(removal) = self.usurp_route(id) {
                    self.ends(100..=8000, REFUSED, End::Remove(id, removal));
                }
                self.notice(id);
            }
            _ => {
                let removal = self.usurp_vni(id);
                self.notice(id);
                self.ends(100..=8000, REFUSED, End::Remove(id, removal));
            }
        }
    }

    fn change_membership(&mut self, id: MemberId) {
        if self.members.len() < MAX_MEMBERS && self.rng.percent(50) {
            let id = self.join();
            self.log(|| format!("n{} joins", id + 1));
            self.heals(START);
        } else if self.present().len() > 2 {
            let name = self.members[id].name.clone();
            self.kill(id);
            self.members[id].ill.gone = true;
            self.fabric.unplug(&name);
            self.ends(0..=5000, NOTICED, End::LeaseExpires(id));
        }
    }

    fn begin_store_trouble(&mut self, id: MemberId) {
        match self.rng.within(0..=4) {
            0 => {
                self.outages += 1;
                self.store.set_reach(Reach::Unreachable);
                self.ends(100..=8000, START, End::StoreBack);
            }
            1 => {
                self.unconfigured += 1;
                self.store.set_config(None);
                self.ends(100..=8000, START, End::ConfigBack);
            }
            2 => {
                self.members[id].ill.cut += 1;
                self.ends(100..=8000, START, End::Reconnect(id));
                self.watch_anew(id);
            }
            3 => self.remove_lease_of(id),
            _ => {
                (0..self.members.len()).for_each(|id| self.remove_lease_of(id));
                let leases = self.store.leases();
                leases.keys().for_each(|key| self.store.remove(*key));
                let phantoms = leases.into_values().filter(|lease| lease.expires.is_none());
                let back = End::LeasesBack(phantoms.collect());
                self.ends(100..=20_000, START, back);
            }
        }
        self.store_changed();
    }

    fn change_phantoms(&mut self) {
        let leases = self.store.leases();
        let phantoms: Vec<_> = leases
            .into_values()
            .filter(|lease| lease.expires.is_none())
            .collect();
        match self.rng.within(0..=3) {
            0 if !phantoms.is_empty() => {
                phantoms.iter().for_each(|lease| self.store.remove(lease.key));
                self.ends(100..=30_000, NOTICED, End::LeasesBack(phantoms));
            }
            1 => {
                let number = self.rng.within(FIRST_PHANTOM.into()..=LAST_PHANTOM.into());
                self.store.remove(phantom_key(u8::try_from(number).unwrap()));
            }
            2 => (FIRST_PHANTOM..=LAST_PHANTOM).for_each(|number| self.put_phantom(number)),
            _ => {
                let number = self.rng.within(FIRST_PHANTOM.into()..=LAST_PHANTOM.into());
                self.put_phantom(u8::try_from(number).unwrap());
            }
        }
        self.store_changed();
        self.heals(NOTICED);
    }

    fn put_phantom(&mut self, number: u8) {
        let [a, b, ..] = self.rng.next().to_be_bytes();
        self.store
            .put(phantom(number, MacAddr::new([6, 0, 0, a, b, number])));
    }

    fn begin_kernel_trouble(&mut self, id: MemberId) {
        let classes = [
            ErrorClass::Denied,
            ErrorClass::Busy,
            ErrorClass::Exists,
            ErrorClass::NotFound,
            ErrorClass::Other(5),
        ];
        let class = self.rng.pick(&classes).unwrap();
        let count = u32::try_from(self.rng.within(1..=12)).unwrap();
        match self.rng.within(0..=2) {
            0 => {
                let object = self.any_object(id);
                self.log(|| format!("changes of {object} fail"));
                self.kernel(id).fail_on(object, class);
            }
            1 => self.kernel(id).fail_next(count, class),
            _ => self.kernel(id).fail_observations(count, class),
        }
        self.edited(id, NOTICED, |world| world.edit_content(id));
        self.ends(300..=5000, REFUSED, End::FaultsOver(id));
    }

    pub(crate) fn end_trouble(&mut self, end: End) {
        self.log(|| format!("trouble: {end:?}"));
        match end {
            End::Storm(id, left) => {
                self.edited(id, NOTICED, |world| world.delete_a_route(id));
                if left > 0 {
                    self.ends(10..=40, NOTICED, End::Storm(id, left - 1));
                }
            }
            End::CardUp(id) => self.edited(id, DEVICE, |world| world.set_card(id, AdminState::Up)),
            End::CardBack(id) => self.edited(id, START, |world| {
                let number = world.members[id].number;
                let kernel = world.kernel(id);
                if !kernel.dump().links.contains_key(&underlay()) {
                    plug_card(kernel, number);
                }
            }),
            // Foreign links and routes are not among what a daemon asks notices of.
            End::Remove(id, removal) => self.edit(id, &[removal]),
            End::Resume(id) => {
                self.members[id].ill.stopped -= 1;
                self.start(id);
            }
            End::LeaseExpires(id) => self.remove_lease_of(id),
            End::StoreBack => {
                self.outages -= 1;
                if self.outages == 0 {
                    self.store.set_reach(Reach::Reachable);
                }
            }
            End::ConfigBack => {
                self.unconfigured -= 1;
                if self.unconfigured == 0 {
                    self.store.set_config(Some(self.conf.clone()));
                }
            }
            End::Reconnect(id) => {
                self.members[id].ill.cut -= 1;
                self.watch_anew(id);
            }
            End::LeasesBack(leases) => leases.into_iter().for_each(|lease| self.store.put(lease)),
            End::FaultsOver(id) => self.kernel(id).clear_faults(),
            End::Hearing(id) => self.members[id].ill.deaf -= 1,
            End::FileBack(id) => self.members[id].ill.file_refused -= 1,
        }
        self.store_changed();
    }

    fn remove_lease_of(&mut self, id: MemberId) {
        self.heals(START);
        let own = public_ip(self.members[id].number);
        for lease in self.store.leases().into_values() {
            if lease.attrs.public_ip == Some(own) {
                self.store.remove(lease.key);
            }
        }
        self.store_changed();
    }

    /// Makes a change that the kernel tells its daemon of.
    fn edited(&mut self, id: MemberId, heals_within: Duration, change: impl FnOnce(&mut Self)) {
        change(self);
        self.kernel_changed(id);
        self.notice(id);
        self.heals(heals_within);
    }

    fn ends(&mut self, after_ms: std::ops::RangeInclusive<u64>, heals_within: Duration, end: End) {
        let delay = self.rng.ms(after_ms);
        self.after(delay, Item::End(end));
        self.healed_by = self.healed_by.max(self.now + delay + heals_within);
    }

    fn heals(&mut self, within: Duration) {
        self.healed_by = self.healed_by.max(self.now + within);
    }
}
