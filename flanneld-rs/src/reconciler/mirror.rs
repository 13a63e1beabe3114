//! What the kernel holds, as it was seen last.
//!
//! Mostly it holds what the goal wants, so that only what is otherwise is kept: a changed goal turns what it wanted
//! before into something otherwise, and a look at a few spots corrects these. So a change among thousands costs as
//! much as one among three.

use std::collections::BTreeSet;

use net_types::IfName;
use netstate::{ObjectKey, Op, RouteKey, Spot, State, plan};

use super::Goal;

/// At more spots than this at once the kernel's tables are read whole: asking for one takes 5 µs, listing 5,000 routes,
/// neighbours and entries 12 ms (measured on 6.18, see netlink/tests/spots.rs).
const MAX_SPOTS: usize = 600;

/// What may be otherwise in the kernel than it was seen last.
#[derive(Debug, Default)]
pub(super) enum Unseen {
    #[default]
    Nothing,
    /// What stands at these spots.
    Spots(BTreeSet<Spot>),
    Anything,
}

impl Unseen {
    pub(super) fn add(&mut self, spots: impl IntoIterator<Item = Spot>) {
        let mut all = match std::mem::take(self) {
            Self::Nothing => BTreeSet::new(),
            Self::Spots(all) => all,
            Self::Anything => {
                *self = Self::Anything;
                return;
            }
        };
        all.extend(spots);
        *self = match all.len() {
            0 => Self::Nothing,
            1..=MAX_SPOTS => Self::Spots(all),
            _ => Self::Anything,
        };
    }

    /// Adds where an object stands, or everything if it has no spot.
    pub(super) fn add_object(&mut self, object: &ObjectKey) {
        match Spot::of(object) {
            Some(spot) => self.add([spot]),
            None => *self = Self::Anything,
        }
    }

    pub(super) const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

/// The kernel as it was seen last: as desired, except at some spots. See the module's description.
#[derive(Debug)]
pub(super) struct Mirror {
    /// Where the kernel is not as desired.
    spots: BTreeSet<Spot>,
    /// What stands there, and all that is not in the large tables.
    there: State,
}

impl Mirror {
    /// Takes all that the kernel holds.
    pub(super) fn of(desired: &State, observed: &State) -> Self {
        let spots = desired.differing_spots(observed);
        let mut there = observed.frame();
        there.absorb(observed.at(&spots));
        Self { spots, there }
    }

    /// Takes what stands at some spots.
    pub(super) fn look(&mut self, desired: &State, spots: BTreeSet<Spot>, observed: State) {
        spots.iter().for_each(|spot| self.there.clear_at(spot));
        self.there.absorb(observed);
        self.spots.extend(spots);
        self.forget_agreeing(desired);
    }

    /// Takes a goal that is otherwise at some spots; `before` is what the old one wanted there.
    pub(super) fn change_goal(&mut self, desired: &State, before: &State, spots: &BTreeSet<Spot>) {
        let agreed: BTreeSet<_> = spots.difference(&self.spots).cloned().collect();
        self.there.absorb(before.at(&agreed));
        self.spots.extend(agreed);
        self.forget_agreeing(desired);
    }

    fn forget_agreeing(&mut self, desired: &State) {
        let there = &mut self.there;
        self.spots.retain(|spot| {
            let differs = !desired.agrees_at(there, spot);
            if !differs {
                there.clear_at(spot);
            }
            differs
        });
    }

    /// Whether a route is as desired.
    pub(super) fn has_route(&self, key: &RouteKey) -> bool {
        !self.spots.contains(&Spot::Route(key.clone()))
    }

    /// Whether a link is there.
    pub(super) fn has_link(&self, name: &IfName) -> bool {
        self.there.links.contains_key(name)
    }

    /// The changes that remain, as [`plan`] of the whole would give them: as long as no link or address is among them,
    /// which would flush more than is known here.
    pub(super) fn plan(&self, goal: &Goal) -> Vec<Op> {
        let mut desired = goal.desired.frame();
        desired.absorb(goal.desired.at(&self.spots));
        plan(&desired, &self.there, goal.prune)
    }

    /// Leaves out removals of what routes still need that are yet to be replaced: should the kernel refuse the new one, the
    /// old one goes on working.
    pub(super) fn spare_needed(&self, ops: &mut Vec<Op>) {
        let replaced = ops.iter().filter_map(|op| {
            let Op::ReplaceRoute(key, _) = op else {
                return None;
            };
            Some(key)
        });
        let needed: BTreeSet<_> = replaced.flat_map(|key| self.there.needed_by(key)).collect();
        let is_removal = |op: &Op| matches!(op, Op::DelNeigh(_) | Op::DelFdb(_));
        ops.retain(|op| !is_removal(op) || !needed.contains(&op.object()));
    }

    /// All that the kernel holds.
    pub(super) fn state(&self, desired: &State) -> State {
        let mut state = desired.clone();
        self.spots.iter().for_each(|spot| state.clear_at(spot));
        let large_tables = state.at(&state.spots());
        let mut state = self.there.clone();
        state.absorb(large_tables);
        state
    }
}
