//! A call of a plugin: environment and standard input, and what came back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Map, Value};

use crate::lab::command;
use crate::report::{Checked, differs};

/// A plugin that has not answered by then is killed with all that it started.
const LIMIT: Duration = Duration::from_secs(60);

/// So much of what a plugin prints is shown.
const SHOWN_CHARS: usize = 700;

/// What a plugin reads.
#[derive(Debug, Clone)]
enum Input {
    /// The configuration.
    Conf,
    Text(Vec<u8>),
    /// Something that can be opened but not read.
    Unreadable,
}

/// A call to be made: complete and valid until it is changed. Each change is told where the call's answer differs.
#[derive(Debug, Clone)]
pub(super) struct Call {
    program: PathBuf,
    pub(super) vars: BTreeMap<String, String>,
    pub(super) conf: Value,
    what: String,
    input: Input,
}

impl Call {
    pub(super) fn new(plugin: &str, program: PathBuf, vars: BTreeMap<String, String>, conf: Value) -> Self {
        let verb = vars.get("CNI_COMMAND").cloned().unwrap_or_default();
        let what = format!("{verb} of {plugin}");
        Self {
            program,
            vars,
            conf,
            what,
            input: Input::Conf,
        }
    }

    /// Sets a variable.
    pub(super) fn var(mut self, name: &str, value: &str) -> Self {
        self.note(&format!("{name}={value:?}"));
        self.vars.insert(name.to_owned(), value.to_owned());
        self
    }

    /// As [`Call::var`], without a word about it.
    pub(super) fn with_var(mut self, name: &str, value: &str) -> Self {
        self.vars.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Takes variables away.
    pub(super) fn without(mut self, names: &[&str]) -> Self {
        self.note(&format!("without {}", names.join(", ")));
        self.vars.retain(|name, _| !names.contains(&name.as_str()));
        self
    }

    /// Takes all variables away but these.
    pub(super) fn only(mut self, names: &[&str]) -> Self {
        self.note(&format!("with no variables but {}", names.join(", ")));
        self.vars.retain(|name, _| names.contains(&name.as_str()));
        self
    }

    /// Sets a member of the configuration, named by its path (`/ipam/type`); objects on the way are made.
    pub(super) fn set(mut self, path: &str, value: Value) -> Self {
        self.note(&format!("{path}={value}"));
        set_member(&mut self.conf, path, value);
        self
    }

    /// As [`Call::set`], without a word about it: for what every call of the kind has.
    pub(super) fn with(mut self, path: &str, value: Value) -> Self {
        set_member(&mut self.conf, path, value);
        self
    }

    /// Takes a member of the configuration away.
    pub(super) fn unset(mut self, key: &str) -> Self {
        self.note(&format!("without the key {key:?}"));
        self.conf.as_object_mut().and_then(|members| members.remove(key));
        self
    }

    /// Gives another text than the configuration.
    pub(super) fn text(mut self, text: impl Into<Vec<u8>>) -> Self {
        let text = text.into();
        self.note(&format!("standard input {:?}", shown(&text)));
        self.input = Input::Text(text);
        self
    }

    /// Gives a standard input that cannot be read.
    pub(super) fn unreadable(mut self) -> Self {
        self.note("standard input that cannot be read");
        self.input = Input::Unreadable;
        self
    }

    fn note(&mut self, text: &str) {
        let first = !self.what.contains(": ");
        self.what.push_str(if first { ": " } else { ", " });
        self.what.push_str(text);
    }

    /// Makes the call and waits for its end.
    ///
    /// # Errors
    /// Fails when the program cannot be run, or has not ended in a minute.
    pub(super) fn run(&self) -> Checked<Answer> {
        let mut child = self.spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            let text = match &self.input {
                Input::Text(text) => text.clone(),
                Input::Conf | Input::Unreadable => self.conf.to_string().into_bytes(),
            };
            // A plugin that ends before it has read everything closes the pipe; its answer says why.
            pipe.write_all(&text).ok();
        }
        let output = wait(child)?;
        if output.status.signal() == Some(Signal::SIGKILL as i32) {
            return differs(
                format!("an answer within {} s [{}]", LIMIT.as_secs(), self.what),
                "none; it was killed",
            );
        }
        Ok(Answer::new(self.what.clone(), &output))
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let program = self.program.to_string_lossy();
        let mut process = command(&[program.as_ref()])?;
        process
            .envs(&self.vars)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match self.input {
            Input::Conf | Input::Text(_) => process.stdin(Stdio::piped()),
            Input::Unreadable => process.stdin(File::open("/").context("opening a directory")?),
        };
        process.spawn().with_context(|| format!("starting {program}"))
    }
}

/// Makes calls at the same time; the answers are in the calls' order.
///
/// # Errors
/// As [`Call::run`].
pub(super) fn at_once(calls: &[Call]) -> Checked<Vec<Answer>> {
    thread::scope(|scope| {
        let threads: Vec<_> = calls.iter().map(|call| scope.spawn(|| call.run())).collect();
        let answers = threads.into_iter().map(|thread| {
            thread
                .join()
                .map_err(|_| anyhow!("a thread that makes a call panicked"))?
        });
        answers.collect()
    })
}

/// Waits for the end of a program, and kills its process group when it takes too long.
fn wait(child: Child) -> anyhow::Result<Output> {
    let group = Pid::from_raw(i32::try_from(child.id()).context("a process id too large")?);
    let (ended, end) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if end.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                // It fails only when the program ended at this moment.
                killpg(group, Signal::SIGKILL).ok();
            }
        });
        let output = child.wait_with_output().context("waiting for a plugin");
        drop(ended);
        output
    })
}

fn set_member(conf: &mut Value, path: &str, value: Value) {
    let mut place = conf;
    for key in path.split('/').skip(1) {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Some(members) = place.as_object_mut() else {
            return;
        };
        place = members.entry(key).or_insert(Value::Null);
    }
    *place = value;
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// What a call ended with.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    what: String,
    status: Option<i32>,
    stdout: Vec<u8>,
    pub(super) stderr: String,
}

/// An error object (CNI SPEC 1.1.0 §5 Error).
#[derive(Debug, Clone)]
pub(super) struct ErrorObject {
    pub(super) code: u64,
    /// Message and details.
    pub(super) text: String,
    pub(super) value: Value,
}

impl Answer {
    fn new(what: String, output: &Output) -> Self {
        Self {
            what,
            status: output.status.code(),
            stdout: output.stdout.clone(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The result: status 0 and one JSON object on standard output.
    ///
    /// # Errors
    /// Fails when there is anything else.
    pub(super) fn result(&self) -> Checked<Value> {
        match (self.status, self.document()) {
            (Some(0), Some(result)) => Ok(result),
            _ => self.not("exit 0 and one JSON object on standard output"),
        }
    }

    /// Checks that the call succeeded with nothing on standard output.
    ///
    /// # Errors
    /// Fails when it did not.
    pub(super) fn silent(&self) -> Checked<()> {
        if self.status == Some(0) && self.stdout.is_empty() {
            return Ok(());
        }
        self.not("exit 0 and nothing on standard output")
    }

    /// The error object of a call that must fail.
    ///
    /// # Errors
    /// Fails when the call succeeded, or did not print one error object.
    pub(super) fn error(&self) -> Checked<ErrorObject> {
        let wanted = "a non-zero exit status and one error object with code and msg on standard output";
        let document = self
            .document()
            .filter(|_| self.status.is_some_and(|status| status != 0));
        let Some(value) = document else {
            return self.not(wanted);
        };
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let (Some(code), Some(msg)) = (value.get("code").and_then(Value::as_u64), text("msg")) else {
            return self.not(wanted);
        };
        let details = text("details").unwrap_or_default();
        Ok(ErrorObject {
            code,
            text: format!("{msg} {details}"),
            value,
        })
    }

    /// The error object of a call that must fail with one of these codes.
    ///
    /// # Errors
    /// Fails as [`Answer::error`], and with another code.
    pub(super) fn fails_in(&self, codes: &[u64]) -> Checked<ErrorObject> {
        let error = self.error()?;
        if codes.contains(&error.code) {
            return Ok(error);
        }
        let codes: Vec<_> = codes.iter().map(u64::to_string).collect();
        self.not(&format!("an error of code {}", codes.join(" or ")))
    }

    /// As [`Answer::fails_in`], and with each of these words in message or details.
    ///
    /// # Errors
    /// Fails as [`Answer::fails_in`], and when a word is missing.
    pub(super) fn fails_naming(&self, codes: &[u64], words: &[&str]) -> Checked<ErrorObject> {
        let error = self.fails_in(codes)?;
        match words.iter().find(|word| !error.text.contains(*word)) {
            None => Ok(error),
            Some(word) => self.not(&format!("an error that names {word}")),
        }
    }

    /// Whether it ended with status 0.
    pub(super) fn succeeded(&self) -> bool {
        self.status == Some(0)
    }

    /// Whether nothing is on standard output.
    pub(super) fn is_empty(&self) -> bool {
        self.stdout.is_empty()
    }

    /// Ends the case: the answer is not what was wanted.
    ///
    /// # Errors
    /// Always.
    pub(super) fn not<T>(&self, wanted: &str) -> Checked<T> {
        differs(format!("{wanted} [{}]", self.what), self.told())
    }

    /// What came back, in words.
    pub(super) fn told(&self) -> String {
        let status = self
            .status
            .map_or_else(|| "a signal".to_owned(), |status| format!("exit {status}"));
        let part = |name: &str, text: String| {
            if text.is_empty() {
                String::new()
            } else {
                format!("; {name}: {text}")
            }
        };
        let compact = self
            .document()
            .map_or_else(|| shown(&self.stdout), |document| document.to_string());
        let stdout = part("standard output", shown(compact.as_bytes()));
        format!(
            "{status}{stdout}{}",
            part("standard error", shown(self.stderr.as_bytes()))
        )
    }

    /// The one JSON object on standard output, if it is that.
    fn document(&self) -> Option<Value> {
        serde_json::from_slice(&self.stdout).ok().filter(Value::is_object)
    }
}
