//! This or another project's programs in the configurations in which the reference was captured.

mod daemon;
mod files;
mod plugin;

use super::compare::Findings;
use super::mixed;
use crate::captures::Captures;
use crate::lab::Binaries;
use crate::report::Checked;

/// A configuration that was captured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Configuration {
    pub(super) name: &'static str,
    /// What of the requirements it is about.
    pub(super) ids: &'static [&'static str],
    run: fn(&str, &Captures, &Binaries) -> Checked<Findings>,
}

impl Configuration {
    /// Runs the programs in it, and looks at what they do.
    ///
    /// # Errors
    /// Fails when there are no such captures, when a lab cannot be made, or when a program does not start.
    pub(super) fn run(&self, captures: &Captures, binaries: &Binaries) -> Checked<Findings> {
        (self.run)(self.name, captures, binaries)
    }
}

/// All of them, in the order of a report.
pub(super) const CONFIGURATIONS: [Configuration; 9] = [
    of_daemon("vxlan-nftables"),
    of_daemon("vxlan-iptables"),
    of_daemon("vxlan-dualstack-nftables"),
    of_daemon("vxlan-dualstack-iptables"),
    of_daemon("vxlan-directrouting"),
    of_daemon("host-gw"),
    of_plugin("cni-v4"),
    of_plugin("cni-v4-ports"),
    of_plugin("cni-dualstack-ports"),
];

const fn of_daemon(name: &'static str) -> Configuration {
    Configuration {
        name,
        ids: &daemon::IDS,
        run: daemon::run,
    }
}

const fn of_plugin(name: &'static str) -> Configuration {
    Configuration {
        name,
        ids: &plugin::IDS,
        run: plugin::run,
    }
}

/// The configuration of a name.
pub(super) fn named(name: &str) -> Option<Configuration> {
    CONFIGURATIONS.into_iter().find(|one| one.name == name)
}

/// What a configuration may be called, the mixed one included.
pub(super) fn names() -> Vec<&'static str> {
    let captured = CONFIGURATIONS.iter().map(|one| one.name);
    captured.chain([mixed::NAME]).collect()
}
