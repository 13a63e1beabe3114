use std::collections::BTreeMap;

use netstate::{ErrorClass, KernelError, ObjectKey, Op};

use crate::refusal::refusal;

/// How much was asked of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Changes that were acknowledged.
    pub applied: u64,
    /// Changes that were refused.
    pub refused: u64,
    /// Observations, failed ones included.
    pub observed: u64,
}

/// What shall fail.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    next: Option<Run>,
    objects: BTreeMap<ObjectKey, ErrorClass>,
    observations: Option<Run>,
}

/// A number of failures of one class.
#[derive(Debug, Clone, Copy)]
struct Run {
    left: u32,
    class: ErrorClass,
}

impl Faults {
    pub(crate) fn fail_next(&mut self, left: u32, class: ErrorClass) {
        self.next = Some(Run { left, class });
    }

    pub(crate) fn fail_on(&mut self, object: ObjectKey, class: ErrorClass) {
        self.objects.insert(object, class);
    }

    pub(crate) fn fail_observations(&mut self, left: u32, class: ErrorClass) {
        self.observations = Some(Run { left, class });
    }

    pub(crate) fn of_op(&mut self, op: &Op) -> Option<KernelError> {
        if let Some(error) = take(&mut self.next) {
            return Some(error);
        }
        if self.objects.is_empty() {
            return None;
        }
        self.objects.get(&op.object()).map(|class| injected(*class))
    }

    pub(crate) fn of_observation(&mut self) -> Result<(), KernelError> {
        match take(&mut self.observations) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn take(run: &mut Option<Run>) -> Option<KernelError> {
    let current = run.as_mut()?;
    let Some(left) = current.left.checked_sub(1) else {
        *run = None;
        return None;
    };
    current.left = left;
    Some(injected(current.class))
}

fn injected(class: ErrorClass) -> KernelError {
    refusal(class, format!("injected fault {class:?}"))
}
