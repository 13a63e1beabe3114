use std::collections::{BTreeMap, BTreeSet};

use cni_types::{DecodeError, Environment, NetConf, Object, Target};
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, SandboxError};

/// What every plugin of a call sees of its caller.
pub(crate) struct Context<'a> {
    /// The checked variables.
    pub(crate) env: &'a Environment,
    /// All variables as given, for delegates that are programs.
    pub(crate) vars: &'a BTreeMap<String, String>,
    /// Random bits of this call.
    pub(crate) random: u64,
}

impl Context<'_> {
    /// The container's namespace, for a call that needs it.
    pub(crate) fn sandbox(&self, netns: &str) -> Result<Sandbox, SandboxError> {
        Sandbox::open(netns, self.env.netns_override)
    }

    /// The container's namespace, if it still is one.
    pub(crate) fn remaining_sandbox(&self, netns: &str) -> Result<Option<Sandbox>, SandboxError> {
        Sandbox::open_remaining(netns, self.env.netns_override)
    }
}

/// The attachments that a GC keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Attachments(pub(crate) BTreeSet<Target>);

/// The keys of the list, the specification's first; the tag spec-v1.1.0 used the other, libcni sends both.
const VALID_KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

impl Attachments {
    /// Writes a list that is `null` as an empty one: this is how libcni sends it (Go's empty slice), while `null`
    /// means an absent key everywhere else. `given` is the configuration as it came.
    pub(crate) fn fill_in_null(conf: &mut NetConf, given: &Value) {
        for key in VALID_KEYS {
            if given.get(key).is_some_and(Value::is_null) {
                conf.object.set(key, Value::Array(Vec::new()));
            }
        }
    }

    /// Writes the list into a delegate's configuration.
    pub(crate) fn write(&self, conf: &mut NetConf) {
        let entries = self.0.iter().map(|target| {
            json!({
                "containerID": target.container_id.as_str(),
                "ifname": target.ifname.as_str(),
            })
        });
        let list = Value::Array(entries.collect());
        for key in VALID_KEYS {
            conf.object.set(key, list.clone());
        }
    }

    /// Reads the list of a GC; `None` when there is no such key, which is not the same as an empty list: the caller
    /// doesn't say what is valid, so nothing may be removed.
    pub(crate) fn parse(conf: &NetConf) -> Result<Option<Self>, DecodeError> {
        let Some(key) = VALID_KEYS.into_iter().find(|key| conf.object.get(key).is_some()) else {
            return Ok(None);
        };
        let mut valid = BTreeSet::new();
        for entry in conf.object.objects(key)? {
            valid.insert(target(key, &entry)?);
        }
        Ok(Some(Self(valid)))
    }
}

fn target(key: &'static str, entry: &Object) -> Result<Target, DecodeError> {
    let id = entry.string("containerID")?.unwrap_or_default();
    let ifname = entry.string("ifname")?.unwrap_or_default();
    let invalid = |found: &str| DecodeError::Type {
        key: key.to_owned(),
        expected: "a list of valid containerID and ifname",
        found: found.to_owned(),
    };
    Ok(Target {
        container_id: cni_types::ContainerId::new(id).map_err(|_| invalid(id))?,
        ifname: net_types::IfName::new(ifname).map_err(|_| invalid(ifname))?,
    })
}
