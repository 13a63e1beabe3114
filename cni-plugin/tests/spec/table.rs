//! A table of calls with what they must end with.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::common::{BINARY, Node, Pod, on_a_node};

const REFERENCE: &str = "/usr/lib/cni";

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// With status 0, and a result on standard output after ADD and VERSION, else nothing.
    Well,
    /// With an error object of this code whose message or details have these words.
    In(u64, &'static str),
    /// With status 0 and nothing but words on standard error.
    InAbout,
}

pub(crate) use Ends::{In, InAbout, Well};

type Change = dyn Fn(&Stage<'_>, &mut Given) + Send + Sync;

/// One requirement on one plugin.
#[derive(Clone)]
pub(crate) struct Case {
    /// The id of the requirement.
    id: &'static str,
    plugin: &'static str,
    change: Arc<Change>,
    ours: Ends,
    /// What the reference's plugin does; `None` where it has none of the name, or of the version.
    reference: Option<Ends>,
    /// Why one ends well and the other does not: a decision.
    because: &'static str,
}

/// Where the call is made.
pub(crate) struct Stage<'a> {
    pub(crate) node: &'a Node,
}

/// A call to be made: an ADD of a pod that works, unless it is changed.
pub(crate) struct Given {
    pub(crate) vars: BTreeMap<String, String>,
    pub(crate) conf: Value,
    /// Standard input, where it is not the configuration.
    pub(crate) text: Option<Vec<u8>>,
}

impl Given {
    pub(crate) fn var(&mut self, name: &str, value: &str) {
        self.vars.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn without(&mut self, names: &[&str]) {
        for name in names {
            self.vars.remove(*name);
        }
    }
}

/// A case in which the reference does the same.
pub(crate) fn case(
    id: &'static str,
    plugin: &'static str,
    ends: Ends,
    change: impl Fn(&Stage<'_>, &mut Given) + Send + Sync + 'static,
) -> Case {
    Case {
        id,
        plugin,
        change: Arc::new(change),
        ours: ends,
        reference: Some(ends),
        because: "",
    }
}

impl Case {
    /// The reference fails as well, but with another code or other words.
    pub(crate) fn reference_ends(mut self, ends: Ends) -> Self {
        self.reference = Some(ends);
        self
    }

    /// The reference ends otherwise, for this reason.
    pub(crate) fn unlike(mut self, ends: Ends, because: &'static str) -> Self {
        self.reference = Some(ends);
        self.because = because;
        self
    }

    /// The reference has no such plugin or version.
    pub(crate) fn ours_only(mut self) -> Self {
        self.reference = None;
        self
    }
}

/// Runs every case on a node and with a pod of its own, ours and the reference's, and reports all failures. After a
/// failed ADD of ours nothing may be left.
pub(crate) fn check(cases: &[Case]) {
    let failures = Arc::new(Mutex::new(Vec::new()));
    for case in cases {
        let is_well = |ends: Ends| !matches!(ends, In(..));
        let alike = case
            .reference
            .is_none_or(|reference| is_well(reference) == is_well(case.ours));
        assert_eq!(
            alike,
            case.because.is_empty(),
            "{}: a difference needs a reason",
            case.id
        );
        let ours = (Side::Ours, case.ours);
        for (side, ends) in [ours]
            .into_iter()
            .chain(case.reference.map(|ends| (Side::Reference, ends)))
        {
            let (case, failures) = (case.clone(), failures.clone());
            on_a_node(move |node| {
                let found = outcome(&node, &case, side, ends);
                failures.lock().unwrap().extend(found);
            });
        }
    }
    let failures = failures.lock().unwrap();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    Reference,
}

fn outcome(node: &Node, case: &Case, side: Side, expected: Ends) -> Option<String> {
    let pod = Pod::new("pod-1");
    let mut given = given(node, &pod, case.plugin);
    (case.change)(&Stage { node }, &mut given);
    let verb = given.vars.get("CNI_COMMAND").cloned().unwrap_or_default();
    let answer = run(&program(node, side, case.plugin), &given);
    let found = ended(&answer, &verb, expected, side);
    let left = match (side, expected, verb.as_str()) {
        (Side::Ours, In(..), "ADD") if node.leases().len() + node.state_files().len() > 0 => {
            Some(format!("left {:?} {:?}", node.leases(), node.state_files()))
        }
        (Side::Ours, In(..), "ADD") if node.links().iter().any(|name| name.starts_with("veth")) => {
            Some(format!("left {:?}", node.links()))
        }
        _ => None,
    };
    let why = found.or(left)?;
    Some(format!(
        "{} {:?} {side:?}: {why}: {answer:?}",
        case.id, case.plugin
    ))
}

fn ended(answer: &Answer, verb: &str, expected: Ends, side: Side) -> Option<String> {
    let document: Option<Value> = serde_json::from_str(&answer.stdout).ok();
    let silent = answer.stdout.is_empty();
    if side == Side::Ours && expected != InAbout && !answer.stderr.is_empty() {
        return Some("words on standard error".to_owned());
    }
    match expected {
        InAbout if answer.status == 0 && silent && answer.stderr.contains("protocol versions") => None,
        Well if answer.status == 0 && matches!(verb, "ADD" | "VERSION") && document.is_some() => None,
        Well if answer.status == 0 && !matches!(verb, "ADD" | "VERSION") && silent => None,
        In(code, words) if answer.status == 1 => {
            let error = document.unwrap_or_default();
            let text = format!("{} {}", error["msg"], error["details"]).replace("\\\"", "\"");
            (error["code"] != code || !text.contains(words)).then(|| format!("not {expected:?}"))
        }
        Well | In(..) | InAbout => Some(format!("not {expected:?}")),
    }
}

fn given(node: &Node, pod: &Pod, plugin: &str) -> Given {
    let mut conf = match plugin {
        "flannel" => node.conf("1.0.0"),
        _ => node.bridge_conf("1.0.0"),
    };
    conf["type"] = plugin.into();
    let call = node.call("ADD", pod, &conf);
    Given {
        vars: call.vars,
        conf,
        text: None,
    }
}

/// What a program printed, and its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub(crate) fn ok(&self) -> &Self {
        assert_eq!(self.status, 0, "{self:?}");
        self
    }
}

pub(crate) fn run(program: &Path, given: &Given) -> Answer {
    let mut command = Command::new(program);
    command.env_clear().envs(&given.vars);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let text = given
        .text
        .clone()
        .unwrap_or_else(|| given.conf.to_string().into_bytes());
    // Who answers without reading it closes it.
    child.stdin.take().unwrap().write_all(&text).ok();
    let output = child.wait_with_output().unwrap();
    Answer {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The program of a plugin.
pub(crate) fn program(node: &Node, side: Side, plugin: &str) -> PathBuf {
    if side == Side::Reference {
        let path = Path::new(REFERENCE).join(plugin);
        assert!(path.exists(), "install containernetworking-plugins");
        return path;
    }
    let dir = node.path("ours");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(plugin);
    if !path.exists() {
        symlink(BINARY, &path).unwrap();
    }
    path
}
