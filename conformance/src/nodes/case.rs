//! What a case is. To add one, write it into the list of its group in `groups/`.

use std::cell::RefCell;

use super::bed::{Bed, Family};
use super::inventory::Inventory;
use crate::report::Checked;

/// What a case looks at.
pub(super) struct Look<'a> {
    pub(super) bed: &'a Bed,
    pub(super) inventory: &'a dyn Inventory,
    pub(super) family: Family,
    measured: RefCell<Vec<String>>,
}

/// What a case does to the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harm {
    /// Nothing that anybody would notice.
    None,
    /// It breaks something, or restarts a daemon, to see what follows.
    Breaks,
}

/// A case: what a network has to do, shown by using it; it is run for each family that the pods have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    /// The id of the requirement.
    pub(super) id: &'static str,
    /// What holds when it passes, in a sentence; unique within the requirement.
    pub(super) name: &'static str,
    pub(super) harm: Harm,
    pub(super) run: fn(&Look<'_>) -> Checked<()>,
}

/// Makes a case that does no harm.
pub(super) const fn case(id: &'static str, name: &'static str, run: fn(&Look<'_>) -> Checked<()>) -> Case {
    Case {
        id,
        name,
        harm: Harm::None,
        run,
    }
}

impl Case {
    /// The same case, which breaks something.
    pub(super) const fn breaks(self) -> Self {
        Self {
            harm: Harm::Breaks,
            ..self
        }
    }
}

impl<'a> Look<'a> {
    pub(super) fn new(bed: &'a Bed, inventory: &'a dyn Inventory, family: Family) -> Self {
        Self {
            bed,
            inventory,
            family,
            measured: RefCell::default(),
        }
    }

    /// Notes a number for the report, however the case ends.
    pub(super) fn measured(&self, words: String) {
        self.measured.borrow_mut().push(words);
    }

    /// All that was noted.
    pub(super) fn into_measured(self) -> Vec<String> {
        self.measured.into_inner()
    }
}
