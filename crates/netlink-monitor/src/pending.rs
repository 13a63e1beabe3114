use std::collections::BTreeSet;

/// Most notices that wait to be taken; with more, the consumer had better look at everything.
const PENDING_MAX: usize = 1024;

/// A notice among which one says that anything may have changed.
pub(crate) trait Lossy: Ord {
    /// That one.
    const LOST: Self;
}

/// Notices that wait to be taken: equal ones are merged, and too many become [`Lossy::LOST`].
#[derive(Debug)]
pub(crate) struct Pending<N>(BTreeSet<N>);

impl<N> Default for Pending<N> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<N: Lossy> Pending<N> {
    pub(crate) fn add(&mut self, notice: N) {
        if self.0.contains(&N::LOST) {
            return;
        }
        self.0.insert(notice);
        if self.0.len() > PENDING_MAX {
            self.lose();
        }
    }

    /// Everything is to be looked at, which says more than any notice.
    pub(crate) fn lose(&mut self) {
        self.0.clear();
        self.0.insert(N::LOST);
    }

    pub(crate) fn take(&mut self) -> Option<N> {
        self.0.pop_first()
    }
}

#[cfg(test)]
mod tests {
    use net_types::IfIndex;

    use super::*;
    use crate::Notice;

    fn addr(link: u32) -> Notice {
        let link = IfIndex::new(link).unwrap();
        let ip = [10, 0, 0, 1].into();
        Notice::Addr { link, ip }
    }

    #[test]
    fn equal_notices_are_merged() {
        let mut pending = Pending::default();
        for link in [1, 2, 1, 2, 1] {
            pending.add(addr(link));
        }
        assert_eq!(pending.take(), Some(addr(1)));
        assert_eq!(pending.take(), Some(addr(2)));
        assert_eq!(pending.take(), None);
    }

    #[test]
    fn a_loss_replaces_what_waits_and_what_comes_until_it_is_taken() {
        let mut pending = Pending::default();
        pending.add(addr(1));
        pending.lose();
        pending.add(addr(2));
        assert_eq!(pending.take(), Some(Notice::Lost));
        assert_eq!(pending.take(), None);
        pending.add(addr(3));
        assert_eq!(pending.take(), Some(addr(3)));
    }

    #[test]
    fn too_many_notices_become_a_loss() {
        let mut pending = Pending::default();
        for link in 1..=u32::try_from(PENDING_MAX).unwrap() {
            pending.add(addr(link));
        }
        assert_eq!(pending.0.len(), PENDING_MAX);
        pending.add(addr(u32::MAX));
        assert_eq!(pending.take(), Some(Notice::Lost));
        assert_eq!(pending.take(), None);
    }
}
