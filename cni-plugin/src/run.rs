use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use cni_types::{
    Call, Code, ConfError, DecodeError, Environment, ErrorObject, NetConf, RenderError, Version,
    VersionError, asked_version, version_answer,
};
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::cli::{about, file_name, plugin_of};
use crate::context::{Attachments, Context};
use crate::error::{CniError, Failure};
use crate::plugins::Builtin;

/// Longest configuration that is read.
const STDIN_MAX_BYTES: u64 = 4 << 20;

/// How a call begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Input {
    /// The path that the program was called by, or a plugin's name; its file name says which plugin is meant.
    pub program: String,
    /// The environment.
    pub vars: BTreeMap<String, String>,
    /// Names of the variables whose values are not UTF-8; `vars` lacks them.
    pub not_text: BTreeSet<String>,
}

/// What a call needs from outside beside the kernel and its files.
pub struct Edges<'a> {
    /// Standard input; read only when the variables are valid.
    pub stdin: &'a mut dyn Read,
    /// Random bits, for names that must be nobody else's.
    pub random: u64,
}

/// How a call ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// What goes to standard output: one JSON document or nothing.
    pub stdout: String,
    /// What goes to standard error.
    pub stderr: String,
    /// The exit status.
    pub code: u8,
}

/// Runs one call of the plugin: reads, checks in the reference's order, acts, answers.
#[must_use]
pub fn run(input: &Input, edges: &mut Edges<'_>) -> Output {
    let env = match Environment::from_vars(&input.vars, &input.not_text) {
        Ok(Some(env)) => env,
        Ok(None) => return about(&input.program),
        Err(error) => return failed(error.into(), Version::NEWEST),
    };
    let mut text = Vec::new();
    let read = read_stdin(edges.stdin, &mut text);
    if matches!(read, Err(RunError::TooLarge)) {
        // Parsed, it would take many times its size.
        text = Vec::new();
    }
    if env.call == Call::Version {
        // The answer must not depend on a configuration.
        let oldest = plugin_of(&input.program).map_or(Version::V0_1_0, Builtin::oldest_version);
        return answered(&version_answer(asked_version(&text).as_deref(), oldest));
    }
    let asked = asked_version(&text).and_then(|asked| Version::parse(&asked).ok());
    let version = asked.unwrap_or(Version::NEWEST);
    let context = Context {
        env: &env,
        vars: &input.vars,
        random: edges.random,
    };
    let result = read
        .map_err(Failure::from)
        .and_then(|()| act(&context, &input.program, &text));
    match result {
        Ok(None) => Output::default(),
        Ok(Some(value)) => answered(&value),
        Err(failure) => failed(failure, version),
    }
}

/// Reads a configuration, unless it is larger than any.
fn read_stdin(stdin: &mut dyn Read, text: &mut Vec<u8>) -> Result<(), RunError> {
    let mut stdin = stdin.take(STDIN_MAX_BYTES + 1);
    let count = stdin.read_to_end(text).map_err(RunError::Stdin)?;
    match u64::try_from(count) {
        Ok(count) if count <= STDIN_MAX_BYTES => Ok(()),
        Ok(_) | Err(_) => Err(RunError::TooLarge),
    }
}

/// Undoes a successful ADD whose result could not be handed over, given the same input again.
pub fn take_back(input: &Input, output: &Output, edges: &mut Edges<'_>) {
    let command = "CNI_COMMAND".to_owned();
    if output.code != 0 || input.vars.get(&command).map(String::as_str) != Some("ADD") {
        return;
    }
    let mut undo = input.clone();
    undo.vars.insert(command, "DEL".to_owned());
    // Its errors have no reader either; what it cannot remove, the runtime's own DEL meets again.
    let _unread = run(&undo, edges);
}

/// Why a call fails before any plugin is at work.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("cannot read the configuration from standard input")]
    Stdin(#[source] io::Error),
    #[error("the configuration on standard input is larger than {} MiB", STDIN_MAX_BYTES >> 20)]
    TooLarge,
    #[error("this program is no plugin {0:?}; it is {names}", names = Builtin::names())]
    Program(String),
    #[error("{0}")]
    Version(VersionError),
    #[error("config version does not allow {0}")]
    NotAllowed(&'static str),
    #[error("{0}")]
    Render(RenderError),
    #[error("{0}")]
    Decode(DecodeError),
}

impl CniError for RunError {
    fn code(&self) -> Code {
        match self {
            Self::Stdin(_) => Code::IO,
            Self::Program(_) => Code::BAD_ENVIRONMENT,
            Self::NotAllowed(_) | Self::Version(_) => Code::INCOMPATIBLE_VERSION,
            Self::Render(_) => Code::BAD_CONFIG,
            Self::TooLarge | Self::Decode(_) => Code::DECODING,
        }
    }

    fn details(&self) -> String {
        match self {
            Self::Version(error) => error.details(),
            Self::Stdin(_)
            | Self::TooLarge
            | Self::Program(_)
            | Self::NotAllowed(_)
            | Self::Render(_)
            | Self::Decode(_) => String::new(),
        }
    }
}

fn act(context: &Context<'_>, program: &str, text: &[u8]) -> Result<Option<Value>, Failure> {
    let plugin = plugin_of(program).ok_or_else(|| RunError::Program(file_name(program).to_owned()))?;
    let mut conf = read_conf(plugin, text)?;
    match &context.env.call {
        Call::Add { target, netns } => {
            let result = plugin.add(context, &conf, target, netns)?;
            result.render(conf.version).map(Some).map_err(|error| {
                // Nobody can be told what was made.
                let mut failure = Failure::from(RunError::Render(error));
                if let Err(e) = plugin.del(context, &conf, target, Some(netns)) {
                    failure.append_details(&e.msg);
                }
                failure
            })
        }
        Call::Del { target, netns } => {
            let done = plugin.del(context, &conf, target, netns.as_deref());
            done.map(|()| None)
        }
        Call::Check { target, netns } => {
            require(&conf, Version::V0_4_0, "CHECK")?;
            plugin.check(context, &conf, target, netns).map(|()| None)
        }
        Call::Status => {
            require(&conf, Version::V1_1_0, "STATUS")?;
            plugin.status(context, &conf).map(|()| None)
        }
        Call::Gc => {
            require(&conf, Version::V1_1_0, "GC")?;
            let given: Value = serde_json::from_slice(text).unwrap_or_default();
            Attachments::fill_in_null(&mut conf, &given);
            match Attachments::parse(&conf).map_err(RunError::Decode)? {
                Some(valid) => plugin.gc(context, &conf, &valid).map(|()| None),
                None => Ok(None),
            }
        }
        Call::Version => Ok(None),
    }
}

/// Reads a configuration in one of the versions that the plugin works in.
fn read_conf(plugin: Builtin, text: &[u8]) -> Result<NetConf, Failure> {
    let unsupported = |asked: String| {
        let oldest = plugin.oldest_version();
        Failure::from(RunError::Version(VersionError { asked, oldest }))
    };
    match NetConf::parse(text) {
        Ok(conf) if conf.version < plugin.oldest_version() => {
            Err(unsupported(conf.version.as_str().to_owned()))
        }
        Ok(conf) => Ok(conf),
        Err(ConfError::Version(error)) => Err(unsupported(error.asked)),
        Err(error) => Err(error.into()),
    }
}

fn require(conf: &NetConf, since: Version, verb: &'static str) -> Result<(), RunError> {
    if conf.version >= since {
        Ok(())
    } else {
        Err(RunError::NotAllowed(verb))
    }
}

fn answered(value: &Value) -> Output {
    Output {
        stdout: pretty(value),
        ..Output::default()
    }
}

fn failed(failure: Failure, version: Version) -> Output {
    let Failure { code, msg, details } = failure;
    let object = ErrorObject {
        version,
        code,
        msg,
        details,
    };
    Output {
        stdout: pretty(&object.to_value()),
        code: 1,
        ..Output::default()
    }
}

/// JSON with the reference's indentation, and a line end.
fn pretty(value: &Value) -> String {
    let mut text = Vec::new();
    let format = PrettyFormatter::with_indent(b"    ");
    let written = value.serialize(&mut Serializer::with_formatter(&mut text, format));
    let indented = written.ok().and_then(|()| String::from_utf8(text).ok());
    indented.unwrap_or_else(|| value.to_string()) + "\n"
}
