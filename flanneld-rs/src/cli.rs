//! From the command line to a running daemon, and from its end to an exit status.

use net_types::sentence;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::applets::{self, Applet};
use crate::config::{self, Config, ConfigError, Invocation, StoreChoice};
use crate::daemon;
use crate::heap;
use crate::log::Log;
use crate::replay::replay;
use crate::status;
use crate::{check, cleanup};
use lease_store::{EtcdStore, FileStore, KubeStore};

/// Does what the command line, with the program's own name first, asks for: a subcommand's work, or the daemon's.
///
/// 0 after a signal or a revoked lease, 1 when the daemon cannot do its work, 2 for a bad flag.
pub fn main(args: impl IntoIterator<Item = OsString>, env: &dyn Fn(&str) -> Option<OsString>) -> ExitCode {
    let mut args = args.into_iter();
    if let Some(applet) = args.next().and_then(|program| applets::named(&program)) {
        return applet.run(args);
    }
    let mut args = args.peekable();
    match args.peek().and_then(|arg| arg.to_str()) {
        Some("cleanup") => cleanup::command::main(args.skip(1), env),
        Some("status") => status::command::main(args.skip(1), env),
        Some("check") => check::command::main(args.skip(1), env),
        Some("install-conf") => Applet::InstallConf.run(args.skip(1)),
        Some("mk-docker-opts") => Applet::DockerOpts.run(args.skip(1)),
        Some("pause") => Applet::Pause.run(args.skip(1)),
        Some(_) | None => daemon_main(args, env),
    }
}

fn daemon_main(args: impl Iterator<Item = OsString>, env: &dyn Fn(&str) -> Option<OsString>) -> ExitCode {
    match config::parse(args, env) {
        Ok(Invocation::PrintVersion) => print(&mut io::stderr(), env!("CARGO_PKG_VERSION")),
        Ok(Invocation::PrintHelp(text)) => print(&mut io::stdout(), text.trim_end()),
        Ok(Invocation::Replay(record)) => match replay(&record, &mut io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(err) => fail(&sentence(&err)),
        },
        Ok(Invocation::Run(config)) => run(&config),
        Err(err) => {
            let text = if let ConfigError::Usage { message, usage } = &err {
                format!("error: {message}\n{usage}")
            } else {
                format!("error: {err}")
            };
            print(&mut io::stderr(), &text);
            ExitCode::from(err.exit_code())
        }
    }
}

fn run(config: &Config) -> ExitCode {
    heap::share_arena();
    let log = match Log::start(config.log_level, config.log_format) {
        Ok(log) => log,
        Err(err) => {
            print(
                &mut io::stderr(),
                &format!("error: cannot start the log's thread: {err}"),
            );
            return ExitCode::FAILURE;
        }
    };
    let result = start_runtime().and_then(|runtime| {
        let result = match &config.store {
            StoreChoice::Directory(dir) => runtime.block_on(daemon::run(config, &FileStore::open(dir))),
            StoreChoice::Etcd(choice) => {
                let store = EtcdStore::new(choice.options.clone(), &choice.prefix);
                runtime.block_on(daemon::run(config, &store))
            }
            StoreChoice::Kube(options) => {
                let store = KubeStore::new(options.as_ref().clone());
                runtime.block_on(daemon::run(config, &store))
            }
        };
        // A call to the store that hangs must not hold up the exit.
        runtime.shutdown_background();
        result.map_err(|err| sentence(&err))
    });
    log.flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            print(&mut io::stderr(), &format!("error: {sentence}"));
            ExitCode::FAILURE
        }
    }
}

/// Answers a subcommand's command line that asks for help, or that cannot be understood.
pub(crate) fn usage(err: &clap::Error) -> ExitCode {
    let text = err.render().to_string();
    if err.use_stderr() {
        print(&mut io::stderr(), text.trim_end());
        return ExitCode::from(2);
    }
    print(&mut io::stdout(), text.trim_end())
}

/// Ends with one sentence.
pub(crate) fn fail(sentence: &str) -> ExitCode {
    print(&mut io::stderr(), &format!("error: {sentence}"));
    ExitCode::FAILURE
}

fn start_runtime() -> Result<tokio::runtime::Runtime, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|err| format!("cannot start the event loop: {err}"))
}

/// Prints a line. When nobody reads it there is nobody to tell either.
fn print(out: &mut dyn Write, text: &str) -> ExitCode {
    match writeln!(out, "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
