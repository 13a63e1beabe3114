//! What a case is. To add one, write it into the list of its group in `groups/`.

use serde_json::Value;

use super::stage::Stage;
use super::subject::{Subject, kind, usual_conf};
use crate::report::Checked;

/// Whom a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The first plugin of the list, which makes the interface.
    First,
    /// Every program that the configuration names, one after another.
    Each,
    /// Every plugin after the first.
    Chained,
    /// The address management that the first plugin runs.
    Ipam,
    /// The whole list, called as a runtime calls it.
    List,
    /// The plugin of this type, wherever the directory has it, with a configuration of the runner's own.
    Type(&'static str),
}

/// A case: what a plugin has to do, shown by calling it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    /// The id of the requirement, which tells level, section and versions.
    pub(super) id: &'static str,
    /// What holds when it passes, in a sentence; unique within the requirement.
    pub(super) name: &'static str,
    pub(super) about: About,
    /// Does it, on a stage of its own.
    pub(super) run: fn(&Stage<'_>) -> Checked<()>,
}

/// Makes a case.
pub(super) const fn case(
    id: &'static str,
    name: &'static str,
    about: About,
    run: fn(&Stage<'_>) -> Checked<()>,
) -> Case {
    Case { id, name, about, run }
}

/// A plugin that a case is run on, before its version is chosen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    /// What the report calls it.
    pub(super) shown: String,
    /// The programs that have to support the version.
    pub(super) programs: Vec<String>,
    pub(super) plugin: String,
    pub(super) conf: Value,
    /// How many plugins of the list come before it.
    pub(super) before: usize,
}

impl Candidate {
    fn new(plugin: String, conf: Value, before: usize) -> Self {
        Self {
            shown: plugin.clone(),
            programs: vec![plugin.clone()],
            plugin,
            conf,
            before,
        }
    }
}

impl About {
    /// The plugins that it means among those that are judged.
    ///
    /// # Errors
    /// Fails with the reason why there are none.
    pub(super) fn candidates(self, subject: &Subject) -> Result<Vec<Candidate>, String> {
        let of_list = subject.plugins.iter().enumerate();
        let mut of_list = of_list.map(|(before, conf)| Candidate::new(kind(conf), conf.clone(), before));
        let ipam = || {
            let conf = subject.plugins.first()?.clone();
            Some(Candidate::new(subject.ipam()?, conf, 0))
        };
        let (found, otherwise) = match self {
            Self::First => (
                of_list.next().into_iter().collect(),
                "the list is empty".to_owned(),
            ),
            Self::Each => {
                let mut found: Vec<Candidate> = Vec::new();
                for one in of_list.chain(ipam()) {
                    if !found.iter().any(|other| other.plugin == one.plugin) {
                        found.push(one);
                    }
                }
                (found, "the list is empty".to_owned())
            }
            Self::Chained => (
                of_list.skip(1).collect(),
                "the list has one plugin only".to_owned(),
            ),
            Self::Ipam => (
                ipam().into_iter().collect(),
                "the configuration names no address management".to_owned(),
            ),
            Self::List => {
                let first = of_list.next().map(|first| Candidate {
                    shown: "list".to_owned(),
                    programs: subject.types(),
                    ..first
                });
                (first.into_iter().collect(), "the list is empty".to_owned())
            }
            Self::Type(kind) => {
                let there = subject
                    .has(kind)
                    .then(|| Candidate::new(kind.to_owned(), usual_conf(kind), 1));
                (
                    there.into_iter().collect::<Vec<_>>(),
                    format!("the directory has no {kind}"),
                )
            }
        };
        if found.is_empty() {
            Err(otherwise)
        } else {
            Ok(found)
        }
    }

    /// What the report calls a case that has no plugin.
    pub(super) fn shown(self) -> &'static str {
        match self {
            Self::First | Self::Each => "",
            Self::Chained => "chained",
            Self::Ipam => "ipam",
            Self::List => "list",
            Self::Type(kind) => kind,
        }
    }
}
