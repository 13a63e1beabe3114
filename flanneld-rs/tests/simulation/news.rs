//! How daemons hear of what happens in their kernels and in the store.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use flanneld_rs::node::Event;
use lease_store::{LeaseEvent, LeaseStore, LeaseWatch};

use crate::world::{Item, MemberId, World};

impl World {
    /// A kernel tells its daemon that something changed; several changes make one notice.
    pub(crate) fn notice(&mut self, id: MemberId) {
        let member = &mut self.members[id];
        let life = member.life;
        let Some(daemon) = member.daemon.as_mut().filter(|_| member.ill.deaf == 0) else {
            return;
        };
        if !std::mem::replace(&mut daemon.notice_pending, true) {
            let delay = self.rng.ms(0..=20);
            self.after(delay, Item::Notice(id, life));
        }
    }

    pub(crate) fn notice_arrives(&mut self, id: MemberId, life: u64) {
        if let Some(daemon) = self.daemon(id, life) {
            daemon.notice_pending = false;
            self.deliver(id, life, Event::KernelChanged);
            self.deliver(id, life, Event::RulesChanged);
        }
    }

    /// The store's content or reach changed: watches will hear of it.
    pub(crate) fn store_changed(&mut self) {
        for id in 0..self.members.len() {
            self.expect_news(id);
        }
    }

    pub(crate) fn expect_news(&mut self, id: MemberId) {
        let member = &mut self.members[id];
        let life = member.life;
        let Some(daemon) = member.daemon.as_mut().filter(|_| member.ill.cut == 0) else {
            return;
        };
        if !std::mem::replace(&mut daemon.watch_pending, true) {
            let delay = self.rng.ms(2..=60);
            self.after(delay, Item::Watch(id, life));
        }
    }

    pub(crate) fn look_for_news(&mut self, id: MemberId, life: u64) {
        let is_cut = self.members[id].ill.cut > 0;
        let Some(daemon) = self.daemon(id, life) else {
            return;
        };
        daemon.watch_pending = false;
        if is_cut {
            return;
        }
        let Some(watch) = &mut daemon.watch else {
            return;
        };
        let next = pin!(watch.next_event()).poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(event) = next {
            self.deliver(id, life, Event::Lease(event));
            self.expect_news(id);
        }
    }

    /// A daemon that holds its lease begins to watch.
    pub(crate) fn begin_watch(&mut self, id: MemberId) {
        let watch = self.store.watch().unwrap();
        let life = self.members[id].life;
        if let Some(daemon) = self.daemon(id, life) {
            daemon.watch = Some(watch);
        }
        self.expect_news(id);
    }

    /// A daemon that lost its connection to the store, or has it back, watches anew.
    pub(crate) fn watch_anew(&mut self, id: MemberId) {
        let watch = self.store.watch().unwrap();
        let life = self.members[id].life;
        let is_cut = self.members[id].ill.cut > 0;
        let Some(daemon) = self.daemon(id, life) else {
            return;
        };
        if daemon.watch.is_none() {
            return;
        }
        daemon.watch = Some(watch);
        if is_cut {
            let reason = "the connection is lost".to_owned();
            self.deliver(id, life, Event::Lease(LeaseEvent::Unsynced { reason }));
        } else {
            self.expect_news(id);
        }
    }
}
