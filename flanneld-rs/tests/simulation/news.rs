//! How daemons hear of what happens in their kernels and in the store.

use std::collections::BTreeSet;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use flanneld_rs::node::Event;
use lease_store::{LeaseEvent, LeaseStore, LeaseWatch};
use netstate::{Spot, State};

use crate::daemon::Daemon;
use crate::kernel_view::{noticeable, owned};
use crate::world::{Item, MemberId, World};

/// What a kernel tells of a change: a link's or an address's without what it flushed, else where it is.
#[derive(Debug)]
pub(crate) enum News {
    Anything,
    At(BTreeSet<Spot>),
}

impl News {
    fn between(before: &State, after: &State) -> Self {
        if before.frame() == after.frame() {
            Self::At(before.differing_spots(after))
        } else {
            Self::Anything
        }
    }

    fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Anything, _) => {}
            (_, Self::Anything) => *self = Self::Anything,
            (Self::At(spots), Self::At(more)) => spots.extend(more),
        }
    }
}

impl World {
    /// A kernel tells its daemon what changed since the last time; several changes make one notice.
    pub(crate) fn notice(&mut self, id: MemberId) {
        let now = noticeable(self.kernel(id));
        let member = &mut self.members[id];
        let before = std::mem::replace(&mut member.told, now);
        let life = member.life;
        let Some(daemon) = &mut member.daemon else {
            return;
        };
        let news = News::between(&before, &member.told);
        if member.ill.deaf > 0 {
            daemon.missed_news = true;
            return;
        }
        match &mut daemon.notice {
            Some(pending) => pending.add(news),
            None => {
                daemon.notice = Some(news);
                let delay = self.rng.ms(0..=20);
                self.after(delay, Item::Notice(id, life));
            }
        }
    }

    pub(crate) fn notice_arrives(&mut self, id: MemberId, life: u64) {
        let Some(daemon) = self.daemon(id, life) else {
            return;
        };
        match daemon.notice.take() {
            None => {}
            Some(News::Anything) => self.deliver(id, life, Event::KernelChanged),
            Some(News::At(spots)) => self.deliver(id, life, Event::KernelChangedAt(spots)),
        }
        self.deliver(id, life, Event::RulesChanged);
    }

    /// What a daemon believes to have seen is there, unless it is yet to hear or missed that something changed.
    pub(crate) fn check_mirror(&mut self, id: MemberId) {
        let member = &self.members[id];
        let hears = |daemon: &&Daemon| daemon.notice.is_none() && !daemon.missed_news;
        let daemon = member.daemon.as_ref().filter(hears);
        let Some(mut seen) = daemon.and_then(|daemon| daemon.node.engine().seen()) else {
            return;
        };
        // The kernel tells nothing of these.
        seen.sysctls.clear();
        let there = owned(&self.fabric.nodes[&member.name]);
        if seen != there {
            let name = member.name.clone();
            self.accuse(|| format!("{name} believes to have seen\n{seen}\nbut there is\n{there}"));
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
