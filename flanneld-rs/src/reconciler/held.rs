//! Which routes of the goal this run has held: an observation showed them as desired.
//!
//! A route through another link is invisible, so that one of ours which somebody replaced looks absent, and so does one
//! whose place was taken before we ever had it. The first is put back by replacing; the second is somebody else's.

use std::collections::BTreeSet;

use netstate::{Op, RouteKey, State};

use super::mirror::Mirror;

/// The routes of the present goal, divided into those held and the others. Only the others are stored: while all is
/// well there are none, and an observation costs nothing here.
#[derive(Debug, Default)]
pub(super) struct HeldRoutes {
    never_held: BTreeSet<RouteKey>,
}

impl HeldRoutes {
    /// Takes a new goal. What the old one did not name starts as never held.
    pub(super) fn change_goal(&mut self, old: Option<&State>, new: &State) {
        let was_held = |key: &RouteKey| {
            old.is_some_and(|old| old.routes.contains_key(key)) && !self.never_held.contains(key)
        };
        let never_held = new.routes.keys().filter(|key| !was_held(key)).cloned().collect();
        self.never_held = never_held;
    }

    /// Takes a change of the goal: it wanted the routes of `before`, and now wants those of `wanted` in their place.
    pub(super) fn change_some(&mut self, before: &State, wanted: &State) {
        for key in before
            .routes
            .keys()
            .filter(|key| !wanted.routes.contains_key(*key))
        {
            self.never_held.remove(key);
        }
        let new = wanted
            .routes
            .keys()
            .filter(|key| !before.routes.contains_key(*key));
        self.never_held.extend(new.cloned());
    }

    /// Takes what was observed: what is as desired is held from here on.
    pub(super) fn observed(&mut self, mirror: &Mirror) {
        self.never_held.retain(|key| !mirror.has_route(key));
    }

    /// Turns the making of a route that was held into a replacement, whatever stands in its place.
    pub(super) fn put_back(&self, op: Op) -> Op {
        if let Op::AddRoute(key, route) = &op
            && !self.never_held.contains(key)
        {
            return Op::ReplaceRoute(key.clone(), route.clone());
        }
        op
    }
}
