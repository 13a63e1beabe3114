//! What was changed since the last observation, and how the kernel took it.

use std::collections::BTreeMap;

use netstate::{KernelError, ObjectKey};

/// Changes that are yet to be seen. Mostly thousands are acknowledged and none is refused: only refusals are in a map.
#[derive(Debug, Default)]
pub(super) struct Attempted {
    acknowledged: Vec<ObjectKey>,
    refused: BTreeMap<ObjectKey, KernelError>,
}

impl Attempted {
    pub(super) fn is_empty(&self) -> bool {
        self.acknowledged.is_empty() && self.refused.is_empty()
    }

    /// Takes the result of a change. Of several changes to one object the first refusal is the cause of the others.
    pub(super) fn add(&mut self, object: ObjectKey, result: Result<(), KernelError>) {
        match result {
            Ok(()) => self.acknowledged.push(object),
            Err(err) => {
                self.refused.entry(object).or_insert(err);
            }
        }
    }

    /// Forgets the changes that were acknowledged.
    pub(super) fn forget_acknowledged(&mut self) {
        self.acknowledged.clear();
    }

    /// Forgets the changes of some objects.
    pub(super) fn forget(&mut self, is_meant: impl Fn(&ObjectKey) -> bool) {
        self.acknowledged.retain(|object| !is_meant(object));
        self.refused.retain(|object, _| !is_meant(object));
    }

    /// Takes those changes whose objects differ all the same, each with its refusal if there was one; the others have
    /// had their effect.
    pub(super) fn take_vain(
        &mut self,
        differs: impl Fn(&ObjectKey) -> bool,
    ) -> BTreeMap<ObjectKey, Option<KernelError>> {
        let Self {
            acknowledged,
            refused,
        } = std::mem::take(self);
        let acknowledged = acknowledged.into_iter().map(|object| (object, None));
        let refused = refused.into_iter().map(|(object, err)| (object, Some(err)));
        acknowledged
            .chain(refused)
            .filter(|(object, _)| differs(object))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use netstate::ErrorClass;

    use super::*;

    #[test]
    fn of_several_changes_to_one_object_the_first_refusal_counts() {
        let mut attempted = Attempted::default();
        assert!(attempted.is_empty());
        let results = [
            ("a", Ok(())),
            ("b", Ok(())),
            ("b", Err(refusal("first"))),
            ("b", Err(refusal("second"))),
            ("c", Ok(())),
            ("d", Ok(())),
            ("e", Err(refusal("old"))),
        ];
        for (name, result) in results {
            attempted.add(link(name), result);
        }
        attempted.forget(|object| [link("d"), link("e")].contains(object));
        let vain = attempted.take_vain(|object| *object != link("c"));
        assert_eq!(
            vain.into_iter().collect::<Vec<_>>(),
            [(link("a"), None), (link("b"), Some(refusal("first")))]
        );
        assert!(attempted.is_empty());
        attempted.add(link("a"), Ok(()));
        attempted.add(link("b"), Err(refusal("kept")));
        attempted.forget_acknowledged();
        assert_eq!(attempted.take_vain(|_| true).len(), 1);
    }

    fn link(name: &str) -> ObjectKey {
        ObjectKey::Link(name.parse().unwrap())
    }

    fn refusal(message: &str) -> KernelError {
        KernelError {
            class: ErrorClass::Busy,
            message: message.to_owned(),
        }
    }
}
