use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use net_types::{IfName, IfNameError};

use crate::{ContainerId, IdError};

/// What the environment variables of a call say, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The operation with its parameters.
    pub call: Call,
    /// `CNI_ARGS` as given; empty when unset.
    pub args: String,
    /// The directories of `CNI_PATH`, in order.
    pub path: Vec<PathBuf>,
    /// Whether the plugin's own namespace is allowed as the container's (`CNI_NETNS_OVERRIDE`).
    pub netns_override: bool,
}

/// An operation of the specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Attach a container.
    Add {
        /// What is attached.
        target: Target,
        /// Path of the container's network namespace.
        netns: String,
    },
    /// Check an attachment.
    Check {
        /// What is checked.
        target: Target,
        /// Path of the container's network namespace.
        netns: String,
    },
    /// Detach a container.
    Del {
        /// What is detached.
        target: Target,
        /// Path of the container's network namespace, if the runtime still knows one.
        netns: Option<String>,
    },
    /// Say whether ADD can be served.
    Status,
    /// Remove what no valid attachment needs.
    Gc,
    /// Say which versions are supported.
    Version,
}

/// One attachment of a network: a container's interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The container.
    pub container_id: ContainerId,
    /// Name of the interface inside the container.
    pub ifname: IfName,
}

/// Why the environment is not that of a valid call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvError {
    /// Variables that the operation needs are unset or empty.
    #[error("required env variables [{}] missing", .0.join(","))]
    Missing(Vec<&'static str>),
    /// Variables that the operation reads are set to bytes that are no text.
    #[error("env variables [{}] are not UTF-8; set them to text or unset them", .0.join(","))]
    NotText(Vec<&'static str>),
    /// No such operation.
    #[error("unknown CNI_COMMAND: {0}")]
    UnknownCommand(String),
    /// The container id breaks the rule.
    #[error("invalid CNI_CONTAINERID: {0}")]
    ContainerId(IdError),
    /// The interface name breaks the rule.
    #[error("invalid CNI_IFNAME: {0}")]
    IfName(IfNameError),
}

const COMMAND: &str = "CNI_COMMAND";
const CONTAINER_ID: &str = "CNI_CONTAINERID";
const NETNS: &str = "CNI_NETNS";
const IFNAME: &str = "CNI_IFNAME";
const PATH: &str = "CNI_PATH";
const ARGS: &str = "CNI_ARGS";

impl Environment {
    /// Reads a call; `None` when `CNI_COMMAND` is unset or empty, which asks who the plugin is. Variables that the
    /// specification does not know are passed over. `not_text` names those that are set to bytes that are no text.
    ///
    /// # Errors
    /// A variable is missing, invalid or no text; the error names every missing one.
    pub fn from_vars(
        vars: &BTreeMap<String, String>,
        not_text: &BTreeSet<String>,
    ) -> Result<Option<Self>, EnvError> {
        require_text(not_text, &[COMMAND])?;
        let Some(command) = value_of(vars, COMMAND) else {
            return Ok(None);
        };
        require_text(not_text, read_by(command))?;
        let path = value_of(vars, PATH).unwrap_or_default().split(':');
        let overridden =
            value_of(vars, "CNI_NETNS_OVERRIDE").is_some_and(|v| v == "1" || v.eq_ignore_ascii_case("true"));
        Ok(Some(Self {
            call: call(command, vars)?,
            args: value_of(vars, ARGS).unwrap_or_default().to_owned(),
            path: path.filter(|dir| !dir.is_empty()).map(PathBuf::from).collect(),
            netns_override: overridden,
        }))
    }
}

fn value_of<'a>(vars: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    let value = vars.get(name).map(String::as_str);
    value.filter(|text| !text.is_empty())
}

/// The variables that must be text for an operation. A detachment goes on without the others, as it does where they are
/// unset.
fn read_by(command: &str) -> &'static [&'static str] {
    match command {
        "ADD" | "CHECK" => &[CONTAINER_ID, NETNS, IFNAME, ARGS, PATH],
        "DEL" => &[CONTAINER_ID, IFNAME],
        "STATUS" | "GC" => &[PATH],
        _ => &[],
    }
}

fn require_text(not_text: &BTreeSet<String>, names: &[&'static str]) -> Result<(), EnvError> {
    let named = names.iter().filter(|name| not_text.contains(**name));
    let named: Vec<_> = named.copied().collect();
    if named.is_empty() {
        Ok(())
    } else {
        Err(EnvError::NotText(named))
    }
}

fn call(command: &str, vars: &BTreeMap<String, String>) -> Result<Call, EnvError> {
    let netns = || value_of(vars, NETNS).map(str::to_owned);
    match command {
        "ADD" => {
            require(vars, &[CONTAINER_ID, NETNS, IFNAME])?;
            let netns = netns().unwrap_or_default();
            target(vars).map(|target| Call::Add { target, netns })
        }
        "CHECK" => {
            require(vars, &[CONTAINER_ID, NETNS, IFNAME])?;
            let netns = netns().unwrap_or_default();
            target(vars).map(|target| Call::Check { target, netns })
        }
        "DEL" => {
            require(vars, &[CONTAINER_ID, IFNAME])?;
            target(vars).map(|target| Call::Del {
                target,
                netns: netns(),
            })
        }
        "STATUS" => Ok(Call::Status),
        "GC" => require(vars, &[PATH]).map(|()| Call::Gc),
        "VERSION" => Ok(Call::Version),
        other => Err(EnvError::UnknownCommand(other.to_owned())),
    }
}

fn require(vars: &BTreeMap<String, String>, names: &[&'static str]) -> Result<(), EnvError> {
    let missing = names.iter().filter(|name| value_of(vars, name).is_none());
    let missing: Vec<_> = missing.copied().collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(EnvError::Missing(missing))
    }
}

fn target(vars: &BTreeMap<String, String>) -> Result<Target, EnvError> {
    let text = |name| value_of(vars, name).unwrap_or_default();
    Ok(Target {
        container_id: ContainerId::new(text(CONTAINER_ID)).map_err(EnvError::ContainerId)?,
        ifname: IfName::new(text(IFNAME)).map_err(EnvError::IfName)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        owned.collect()
    }

    fn read(vars: &BTreeMap<String, String>) -> Result<Option<Environment>, EnvError> {
        Environment::from_vars(vars, &BTreeSet::new())
    }

    fn add(changed: &[(&str, &str)]) -> Result<Option<Environment>, EnvError> {
        let mut all = vars(&[
            ("CNI_COMMAND", "ADD"),
            (CONTAINER_ID, "c1"),
            (NETNS, "/run/netns/pod"),
            (IFNAME, "eth0"),
            (PATH, "/opt/cni/bin:/usr/lib/cni"),
        ]);
        all.extend(vars(changed));
        read(&all)
    }

    #[test]
    fn a_complete_add_is_read() {
        let env = add(&[("TRACEPARENT", "x"), ("CNI_NETNS_OVERRIDE", "TRUE")]).unwrap();
        let env = env.unwrap();
        assert!(
            matches!(&env.call, Call::Add { target, netns } if target.container_id.as_str() == "c1"
            && target.ifname.as_str() == "eth0" && netns == "/run/netns/pod")
        );
        assert_eq!(env.path.len(), 2);
        assert!(env.netns_override);
    }

    #[test]
    fn an_unset_or_empty_command_asks_who_the_plugin_is() {
        assert_eq!(read(&vars(&[])), Ok(None));
        assert_eq!(add(&[("CNI_COMMAND", "")]), Ok(None));
    }

    #[test]
    fn every_missing_variable_is_named_and_an_empty_one_is_missing() {
        let error = add(&[(CONTAINER_ID, ""), (NETNS, ""), (IFNAME, ""), (PATH, "")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"
        );
        let del = read(&vars(&[("CNI_COMMAND", "DEL")])).unwrap_err();
        assert_eq!(
            del.to_string(),
            "required env variables [CNI_CONTAINERID,CNI_IFNAME] missing"
        );
        let gc = read(&vars(&[("CNI_COMMAND", "GC")])).unwrap_err();
        assert_eq!(gc, EnvError::Missing(vec![PATH]));
    }

    #[test]
    fn status_and_version_need_nothing_and_del_needs_no_netns() {
        for command in ["STATUS", "VERSION"] {
            let env = read(&vars(&[("CNI_COMMAND", command)]));
            assert!(env.unwrap().is_some());
        }
        let del = add(&[("CNI_COMMAND", "DEL"), (NETNS, "")]).unwrap().unwrap();
        assert!(matches!(del.call, Call::Del { netns: None, .. }));
    }

    #[test]
    fn commands_are_case_sensitive_and_unknown_ones_are_named() {
        let error = add(&[("CNI_COMMAND", "add")]).unwrap_err();
        assert_eq!(error.to_string(), "unknown CNI_COMMAND: add");
    }

    #[test]
    fn invalid_ids_and_names_are_refused_on_add_and_del() {
        for command in ["ADD", "DEL", "CHECK"] {
            let id = add(&[("CNI_COMMAND", command), (CONTAINER_ID, "../x")]);
            assert!(id.unwrap_err().to_string().contains("\"../x\""));
            let name = add(&[("CNI_COMMAND", command), (IFNAME, "a/b")]);
            assert!(matches!(name, Err(EnvError::IfName(_))));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_named_where_the_operation_reads_them() {
        let all = [COMMAND, CONTAINER_ID, NETNS, IFNAME, ARGS, PATH];
        for (command, read) in [
            ("ADD", &[CONTAINER_ID, NETNS, IFNAME, ARGS, PATH][..]),
            ("CHECK", &[CONTAINER_ID, NETNS, IFNAME, ARGS, PATH]),
            ("DEL", &[CONTAINER_ID, IFNAME]),
            ("STATUS", &[PATH]),
            ("GC", &[PATH]),
            ("VERSION", &[]),
        ] {
            for name in all {
                let mut given = vars(&[
                    (COMMAND, command),
                    (CONTAINER_ID, "c1"),
                    (NETNS, "/run/netns/pod"),
                    (IFNAME, "eth0"),
                    (PATH, "/opt/cni/bin"),
                ]);
                given.remove(name);
                let found = Environment::from_vars(&given, &BTreeSet::from([name.to_owned()]));
                if name == COMMAND || read.contains(&name) {
                    assert_eq!(found, Err(EnvError::NotText(vec![name])), "{command}");
                } else {
                    assert!(found.unwrap().is_some(), "{command} {name}");
                }
            }
        }
    }
}
