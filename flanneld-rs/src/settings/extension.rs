//! From the configuration of the backend `extension` to its commands.

use std::collections::BTreeMap;

use flannel_types::Extension;
use tracing::warn;

use crate::extension::{ExtensionSettings, blank_as_none, shell_syntax};

/// The commands, with a warning of each that can hardly do what its author meant.
pub(super) fn settings(extension: &Extension) -> ExtensionSettings {
    for (command, line) in [
        ("PreStartupCommand", &extension.pre_startup),
        ("PostStartupCommand", &extension.post_startup),
        ("SubnetAddCommand", &extension.subnet_add),
        ("SubnetRemoveCommand", &extension.subnet_remove),
    ] {
        if let Some(syntax) = shell_syntax(line) {
            warn!(
                command,
                syntax,
                "a command of the backend \"extension\" is not given to a shell, but split at white space: what only a \
                 shell understands belongs into a script that the command names"
            );
        }
    }
    if !extension.shutdown.trim().is_empty() {
        warn!(
            "the ShutdownCommand in the network configuration is never run, as by upstream: the data plane stays when \
             flanneld ends; leave it out"
        );
    }
    ExtensionSettings {
        pre_startup: blank_as_none(&extension.pre_startup),
        post_startup: blank_as_none(&extension.post_startup),
        subnet_add: extension.subnet_add.clone(),
        subnet_remove: extension.subnet_remove.clone(),
        ran: BTreeMap::new(),
    }
}
