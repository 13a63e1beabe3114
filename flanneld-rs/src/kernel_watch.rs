//! Which of the kernel's notices concern this node: those about its device, and about the interface below it.

use std::collections::BTreeSet;

use net_types::{IfIndex, IfName};
use netlink_monitor::{Monitor, MonitorError, Notice, Presence};
use nix::net::if_::if_nametoindex;

/// Follows the kernel's notices.
pub struct KernelWatch {
    monitor: Monitor,
    filter: Filter,
}

/// Tells the notices that matter from the others: a busy node makes and removes links and routes all day.
#[derive(Debug)]
struct Filter {
    device: IfName,
    parent: IfName,
    /// Numbers that the device has; content is reported by number.
    indexes: BTreeSet<IfIndex>,
}

impl KernelWatch {
    /// Begins to follow; whatever changes from here on is noticed.
    ///
    /// # Errors
    /// No connection to the kernel can be had.
    pub fn open(device: IfName, parent: IfName) -> Result<Self, MonitorError> {
        let filter = Filter {
            device,
            parent,
            indexes: BTreeSet::new(),
        };
        let mut watch = Self {
            monitor: Monitor::open()?,
            filter,
        };
        watch.learn();
        Ok(watch)
    }

    /// Asks for the device's number: what happened before, or was lost, told nothing of it.
    fn learn(&mut self) {
        let found = if_nametoindex(self.filter.device.as_str())
            .ok()
            .and_then(IfIndex::new);
        self.filter.indexes = found.into_iter().collect();
        self.monitor.watch_closely(self.filter.indexes.clone());
    }

    /// Waits until something changed that may concern this node; what came with it is covered too. Cancel-safe: a
    /// notice is taken and judged in one step.
    pub async fn changed(&mut self) {
        loop {
            let mut notice = Some(self.monitor.next().await);
            let mut concerns = false;
            while let Some(taken) = notice {
                concerns |= self.judge(&taken);
                notice = self.monitor.try_next();
            }
            if concerns {
                return;
            }
        }
    }

    fn judge(&mut self, notice: &Notice) -> bool {
        if *notice == Notice::Lost {
            self.learn();
            return true;
        }
        let before = self.filter.indexes.len();
        let concerns = self.filter.judge(notice);
        if self.filter.indexes.len() != before {
            self.monitor.watch_closely(self.filter.indexes.clone());
        }
        concerns
    }
}

impl Filter {
    fn judge(&mut self, notice: &Notice) -> bool {
        match notice {
            Notice::Lost | Notice::Route { link: None } => true,
            Notice::Link {
                index,
                name,
                presence,
            } => self.judge_link(*index, name, *presence),
            Notice::Addr { link } | Notice::Route { link: Some(link) } | Notice::Neigh { link, .. } => {
                self.indexes.contains(link)
            }
        }
    }

    /// A link that was renamed away, or into our name, concerns us as well.
    fn judge_link(&mut self, index: IfIndex, name: &IfName, presence: Presence) -> bool {
        let is_device = *name == self.device && presence == Presence::Present;
        let was_device = if is_device {
            !self.indexes.insert(index)
        } else {
            self.indexes.remove(&index)
        };
        is_device || was_device || *name == self.parent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_the_device_or_its_parent_is_told() {
        let mut filter = filter();
        assert!(filter.judge(&Notice::Lost));
        assert!(filter.judge(&link(2, "eth0", Presence::Gone)));
        assert!(!filter.judge(&link(7, "veth1234", Presence::Present)));
        assert!(!filter.judge(&Notice::Addr { link: index(5) }));
        assert!(filter.judge(&link(5, "flannel.1", Presence::Present)));
        assert!(filter.judge(&Notice::Addr { link: index(5) }));
        assert!(filter.judge(&Notice::Route { link: Some(index(5)) }));
        assert!(!filter.judge(&Notice::Route { link: Some(index(2)) }));
        assert!(filter.judge(&Notice::Route { link: None }));
    }

    #[test]
    fn a_device_that_is_renamed_or_goes_is_told_and_forgotten() {
        for notice in [
            link(5, "other", Presence::Present),
            link(5, "flannel.1", Presence::Gone),
        ] {
            let mut filter = filter();
            filter.judge(&link(5, "flannel.1", Presence::Present));
            assert!(filter.judge(&notice));
            assert!(!filter.judge(&Notice::Addr { link: index(5) }));
        }
    }

    fn filter() -> Filter {
        let name = |text| IfName::new(text).unwrap();
        Filter {
            device: name("flannel.1"),
            parent: name("eth0"),
            indexes: BTreeSet::new(),
        }
    }

    fn link(n: u32, name: &str, presence: Presence) -> Notice {
        Notice::Link {
            index: index(n),
            name: IfName::new(name).unwrap(),
            presence,
        }
    }

    fn index(n: u32) -> IfIndex {
        IfIndex::new(n).unwrap()
    }
}
