//! What the daemon's program also is, under other names or behind a word: `install-conf` and `cp`, which images without
//! any other program need (upstream's manifest calls them), `pause`, with which a pod of a DaemonSet runs on when its work
//! is done, and `mk-docker-opts`.
//!
//! Start at [`named`]. Nothing here touches network or leases.

mod copy;
mod docker_opts;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::signals::Signals;

const PAUSE_USAGE: &str = "usage: pause";

/// A small program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applet {
    /// `install-conf SRC DST`.
    InstallConf,
    /// `cp [-f] SRC DST`.
    Copy,
    /// `mk-docker-opts.sh`.
    DockerOpts,
    /// `pause`.
    Pause,
}

/// The small program that is meant by the program's own name.
pub(crate) fn named(program: &OsStr) -> Option<Applet> {
    match Path::new(program).file_name()?.to_str()? {
        "install-conf" => Some(Applet::InstallConf),
        "cp" => Some(Applet::Copy),
        "mk-docker-opts.sh" | "mk-docker-opts" => Some(Applet::DockerOpts),
        _ => None,
    }
}

impl Applet {
    /// Does what it is called for, or prints its usage if that is asked for; the exit status is 1 if it cannot.
    pub(crate) fn run(self, args: impl IntoIterator<Item = OsString>) -> ExitCode {
        let args: Vec<_> = args.into_iter().collect();
        if let [arg] = args.as_slice()
            && (arg == "--help" || arg == "-h")
        {
            return match writeln!(io::stdout(), "{}", self.usage()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        let done = match self {
            Self::InstallConf => copy::install_conf(args),
            Self::Copy => copy::cp(args),
            Self::DockerOpts => docker_opts::run(args, std::env::vars_os()),
            Self::Pause => pause(args),
        };
        let Err(text) = done else {
            return ExitCode::SUCCESS;
        };
        // Without a reader there is nobody to tell.
        let _unread = writeln!(io::stderr(), "{text}");
        ExitCode::FAILURE
    }

    const fn usage(self) -> &'static str {
        match self {
            Self::InstallConf => copy::INSTALL_CONF_USAGE,
            Self::Copy => copy::CP_USAGE,
            Self::DockerOpts => docker_opts::USAGE,
            Self::Pause => PAUSE_USAGE,
        }
    }
}

/// Does nothing until it is asked to end.
fn pause(args: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    if args.into_iter().next().is_some() {
        return Err(PAUSE_USAGE.to_owned());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|err| format!("cannot start the event loop: {err}"))?;
    runtime.block_on(async {
        let signals = Signals::open();
        let mut signals = signals.map_err(|err| format!("cannot receive signals: {err}"))?;
        signals.end().await;
        Ok(())
    })
}
