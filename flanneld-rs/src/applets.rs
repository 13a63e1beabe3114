//! What the daemon's program also is, under other names or behind a word: `install-conf` and `cp`, which images without
//! any other program need (upstream's manifest calls them), and `mk-docker-opts`.
//!
//! Start at [`named`]. Nothing here touches network or leases.

mod copy;
mod docker_opts;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// A small program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applet {
    /// `install-conf SRC DST`.
    InstallConf,
    /// `cp [-f] SRC DST`.
    Copy,
    /// `mk-docker-opts.sh`.
    DockerOpts,
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
    /// Does what it is called for; the exit status is 1 if it cannot.
    pub(crate) fn run(self, args: impl IntoIterator<Item = OsString>) -> ExitCode {
        let done = match self {
            Self::InstallConf => copy::install_conf(args),
            Self::Copy => copy::cp(args),
            Self::DockerOpts => docker_opts::run(args, std::env::vars_os()),
        };
        let Err(text) = done else {
            return ExitCode::SUCCESS;
        };
        // Without a reader there is nobody to tell.
        let _unread = writeln!(io::stderr(), "{text}");
        ExitCode::FAILURE
    }
}
