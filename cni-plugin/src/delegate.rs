//! Running another plugin: in this process when it is one of ours, as a program from `CNI_PATH` otherwise.

use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::{scope, sleep};
use std::time::Duration;

use cni_types::{AddResult, Code, ErrorObject, NetConf, Object, ResultError, Version};

use crate::context::Context;
use crate::error::{CniError, Failure};

/// How often, and after which pause, a program is tried again whose file is being written (libcni waits 5 s as well).
const BUSY_ATTEMPTS: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Longest answer of a plugin that is read.
const ANSWER_MAX_BYTES: u64 = 4 << 20;

/// An operation that is handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Status,
    Gc,
    Version,
}

/// Whether a program knows an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Yes,
    No,
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }
}

/// Why a plugin that is a program did not do its work.
#[derive(Debug, thiserror::Error)]
enum DelegateError {
    #[error("plugin type {0:?} is not a file name")]
    Name(String),
    #[error("failed to find plugin {name:?} in path {path:?}")]
    NotFound { name: String, path: Vec<PathBuf> },
    #[error("cannot run plugin {}", program.display())]
    Run {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("plugin {name:?} failed ({status}) and printed no error object: {printed:?}")]
    NoErrorObject {
        name: String,
        status: String,
        printed: String,
    },
    #[error("plugin {name:?} printed no result that can be read: {reason}")]
    NoResult { name: String, reason: String },
    #[error("plugin {name:?} does not support CNI version {version}, so no ADD can succeed; it supports {}", supported.join(", "))]
    Version {
        name: String,
        version: Version,
        supported: Vec<String>,
    },
}

impl CniError for DelegateError {
    fn code(&self) -> Code {
        match self {
            Self::Name(_) | Self::NotFound { .. } => Code::BAD_CONFIG,
            Self::Run { .. } | Self::NoErrorObject { .. } | Self::NoResult { .. } => Code::DELEGATE,
            Self::Version { .. } => Code::NOT_AVAILABLE,
        }
    }
}

/// Runs a program's ADD and reads its result; where that fails, it runs its DEL (CNI SPEC 1.1.0 §Delegated plugin
/// execution procedure).
pub(crate) fn exec_add(context: &Context<'_>, name: &str, conf: &NetConf) -> Result<AddResult, Failure> {
    result_of_add(context, name, conf).map_err(|mut failure| {
        if let Err(e) = exec(context, name, Verb::Del, conf) {
            failure.append_details(&e.msg);
        }
        failure
    })
}

fn result_of_add(context: &Context<'_>, name: &str, conf: &NetConf) -> Result<AddResult, Failure> {
    let printed = exec(context, name, Verb::Add, conf)?;
    let unreadable = |reason: String| DelegateError::NoResult {
        name: name.to_owned(),
        reason,
    };
    let value = serde_json::from_slice(&printed).map_err(|e| unreadable(e.to_string()))?;
    let result = AddResult::parse(&value).map_err(|e: ResultError| unreadable(e.to_string()))?;
    Ok(result)
}

/// Asks a program whether it could serve an ADD. One that is older than this question says nothing of its readiness,
/// which is no failure, but it must know the version in which it would be asked to ADD.
pub(crate) fn exec_status(context: &Context<'_>, name: &str, conf: &NetConf) -> Result<(), Failure> {
    match exec_if_known(context, name, Verb::Status, conf)? {
        Known::Yes => Ok(()),
        Known::No => {
            let supported = versions(context, name, conf)?;
            if supported.iter().any(|version| version == conf.version.as_str()) {
                return Ok(());
            }
            Err(DelegateError::Version {
                name: name.to_owned(),
                version: conf.version,
                supported,
            }
            .into())
        }
    }
}

/// Runs an operation that older programs do not know.
///
/// They say so by a bad `CNI_COMMAND`, or by the version; some miss first what the operation does not have, a container
/// id, or fail in another way. One that fails is asked for its versions.
pub(crate) fn exec_if_known(
    context: &Context<'_>,
    name: &str,
    verb: Verb,
    conf: &NetConf,
) -> Result<Known, Failure> {
    match exec(context, name, verb, conf) {
        Ok(_) => Ok(Known::Yes),
        Err(failure) if failure.code == Code::INCOMPATIBLE_VERSION => Ok(Known::No),
        Err(failure) if failure.code == Code::BAD_ENVIRONMENT && failure.msg.contains("CNI_COMMAND") => {
            Ok(Known::No)
        }
        Err(failure) => match versions(context, name, conf) {
            Ok(supported)
                if !supported
                    .iter()
                    .any(|version| version == Version::V1_1_0.as_str()) =>
            {
                Ok(Known::No)
            }
            Ok(_) | Err(_) => Err(failure),
        },
    }
}

/// The versions that a program supports.
fn versions(context: &Context<'_>, name: &str, conf: &NetConf) -> Result<Vec<String>, Failure> {
    let printed = exec(context, name, Verb::Version, conf)?;
    let unreadable = |reason: String| DelegateError::NoResult {
        name: name.to_owned(),
        reason,
    };
    let answer = Object::parse(&printed).map_err(|e| unreadable(e.to_string()))?;
    let supported = answer.strings("supportedVersions");
    Ok(supported.map_err(|e| unreadable(e.to_string()))?)
}

/// Runs a program and returns what it printed. Its standard error is ours.
pub(crate) fn exec(
    context: &Context<'_>,
    name: &str,
    verb: Verb,
    conf: &NetConf,
) -> Result<Vec<u8>, Failure> {
    let program = find(context, name)?;
    let failed = |source| DelegateError::Run {
        program: program.clone(),
        source,
    };
    let mut command = Command::new(&program);
    command
        .env_clear()
        .envs(context.vars)
        .env("CNI_COMMAND", verb.as_str());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = spawn(&mut command).map_err(failed)?;
    let text = serde_json::Value::Object(conf.object.as_map().clone()).to_string();
    let printed = talk(&mut child, text.as_bytes());
    let status = child.wait().map_err(failed)?;
    let printed = printed.map_err(failed)?;
    if status.success() {
        return Ok(printed);
    }
    match ErrorObject::parse(&printed, conf.version) {
        Some(error) => Err(Failure {
            code: error.code,
            msg: error.msg,
            details: error.details,
        }),
        None => Err(DelegateError::NoErrorObject {
            name: name.to_owned(),
            status: status.to_string(),
            printed: String::from_utf8_lossy(&printed).chars().take(200).collect(),
        }
        .into()),
    }
}

fn find(context: &Context<'_>, name: &str) -> Result<PathBuf, DelegateError> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(DelegateError::Name(name.to_owned()));
    }
    let mut candidates = context.env.path.iter().map(|dir| dir.join(name));
    let found = candidates.find(|path| path.is_file());
    found.ok_or_else(|| DelegateError::NotFound {
        name: name.to_owned(),
        path: context.env.path.clone(),
    })
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 1..BUSY_ATTEMPTS {
        match command.spawn() {
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy => sleep(BUSY_PAUSE),
            other => return other,
        }
    }
    command.spawn()
}

/// Writes the configuration and reads the answer, side by side, so that neither side waits for a full pipe.
fn talk(child: &mut Child, text: &[u8]) -> io::Result<Vec<u8>> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    scope(|scope| {
        let writer = stdin.map(|mut stdin| {
            scope.spawn(move || match stdin.write_all(text) {
                // A plugin need not read its configuration.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
                other => other,
            })
        });
        let mut printed = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(ANSWER_MAX_BYTES).read_to_end(&mut printed)?;
        }
        match writer.map(std::thread::ScopedJoinHandle::join) {
            Some(Ok(Err(e))) => Err(e),
            Some(Err(_)) => Err(ErrorKind::Other.into()),
            Some(Ok(Ok(()))) | None => Ok(printed),
        }
    })
}
