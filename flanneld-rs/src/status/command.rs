//! `flanneld status`: asks the daemon of this host how its node stands, and prints that.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;

use super::{PeerQuery, PeerStatus, Status, text, wireguard};
use crate::config::{self, STATUS_SOCKET_NAME};
use net_types::sentence;

/// The daemon answers within milliseconds; one that does not is in trouble.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// An answer for 65,536 peers is smaller.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// How often the table is printed anew.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Puts the cursor into the corner and erases the screen (ECMA-48 CUP, ED).
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Why the daemon's status is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody listens, or not to this user.
    #[error("flanneld does not answer on {path} ({meaning})")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What that means most likely.
        meaning: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The daemon began to answer and did not end.
    #[error("flanneld broke off its answer on {path}")]
    BrokenOff {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon is of another version, perhaps.
    #[error("the answer of flanneld on {path} cannot be read")]
    Unreadable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Does what `flanneld status` is called for, with the arguments behind that word.
pub fn main(args: impl IntoIterator<Item = OsString>, env: &dyn Fn(&str) -> Option<OsString>) -> ExitCode {
    let program = OsString::from("flanneld status");
    let matches = match command().try_get_matches_from(std::iter::once(program).chain(args)) {
        Ok(matches) => matches,
        Err(err) => return crate::cli::usage(&err),
    };
    let socket = socket(&matches, env);
    let query = PeerQuery {
        peer: matches.get_one::<String>("peer").cloned(),
    };
    loop {
        let watch = matches.get_flag("watch");
        let printed = match ask(&socket, &query) {
            Ok((status, mut peers)) => {
                wireguard::look(&status.node, &mut peers);
                print(&matches, &status, peers)
            }
            Err(err) if watch => show(&matches, &format!("{}\n", sentence(&err))),
            Err(err) => return crate::cli::fail(&sentence(&err)),
        };
        match printed {
            Ok(()) if watch => std::thread::sleep(WATCH_INTERVAL),
            Ok(()) => return ExitCode::SUCCESS,
            // Nobody reads any more.
            Err(_) => return ExitCode::FAILURE,
        }
    }
}

fn command() -> Command {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
    };
    Command::new("flanneld status")
        .about(
            "Prints how this host's node stands: lease, store, device, and each peer's state in the kernel.",
        )
        .arg(switch("json", "Print one JSON object, with all peers"))
        .arg(switch("watch", "Print anew every second until interrupted"))
        .arg(switch(
            "all",
            "List all peers, not only 20 beyond those in trouble",
        ))
        .arg(
            Arg::new("peer")
                .long("peer")
                .value_name("TEXT")
                .help("List the peers whose subnet, public address or hardware address holds this text"),
        )
        .arg(path_arg("status-socket", SOCKET_HELP))
        .arg(path_arg("subnet-file", SUBNET_FILE_HELP))
}

/// What is said of the arguments that lead to the daemon, which [`subnet_file`] and [`socket`] read.
pub(crate) const SUBNET_FILE_HELP: &str =
    "Subnet file of the daemon, if it was given one [default: /run/flannel/subnet.env]";
/// See [`SUBNET_FILE_HELP`].
pub(crate) const SOCKET_HELP: &str =
    "Socket of the daemon, if it was given one [default: flanneld.sock beside the subnet file]";

/// An argument that names a file as the daemon's flag of this name does.
pub(crate) fn path_arg(name: &'static str, help: &'static str) -> Arg {
    let parser = clap::value_parser!(PathBuf);
    Arg::new(name)
        .long(name)
        .value_name("FILE")
        .value_parser(parser)
        .help(help)
}

/// A path as the daemon would take it: from the flag, or else from the variable.
pub(crate) fn path(
    matches: &ArgMatches,
    env: &dyn Fn(&str) -> Option<OsString>,
    flag: &str,
    variable: &str,
) -> Option<PathBuf> {
    let given = matches.get_one::<PathBuf>(flag).cloned();
    given.or_else(|| env(variable).filter(|value| !value.is_empty()).map(PathBuf::from))
}

/// The subnet file, as the daemon would find it.
pub(crate) fn subnet_file(matches: &ArgMatches, env: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    path(matches, env, "subnet-file", "FLANNELD_SUBNET_FILE")
        .unwrap_or_else(|| config::DEFAULT_SUBNET_FILE.into())
}

/// The socket of the daemon, as the daemon would place it.
pub(crate) fn socket(matches: &ArgMatches, env: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    path(matches, env, "status-socket", "FLANNELD_STATUS_SOCKET")
        .unwrap_or_else(|| subnet_file(matches, env).with_file_name(STATUS_SOCKET_NAME))
}

/// Asks a daemon for its status and the peers that the query names.
///
/// # Errors
/// It does not answer, or not in full.
pub fn ask(path: &Path, query: &PeerQuery) -> Result<(Status, Vec<PeerStatus>), AskError> {
    let unreachable = |source: io::Error| AskError::Unreachable {
        meaning: if source.kind() == io::ErrorKind::PermissionDenied {
            "only root and its own user may ask"
        } else {
            "it does not run, or has another --status-socket"
        },
        path: path.to_owned(),
        source,
    };
    let broken_off = |source| AskError::BrokenOff {
        path: path.to_owned(),
        source,
    };
    let unreadable = |source| AskError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(path).map_err(unreachable)?;
    stream
        .set_read_timeout(Some(ANSWER_LIMIT))
        .and_then(|()| stream.set_write_timeout(Some(ANSWER_LIMIT)))
        .map_err(unreachable)?;
    let request = serde_json::to_string(query).map_err(unreadable)?;
    writeln!(stream, "{request}").map_err(broken_off)?;
    let mut lines = BufReader::new(stream.take(MAX_ANSWER_BYTES)).lines();
    let head = lines
        .next()
        .unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
        .map_err(broken_off)?;
    let status = serde_json::from_str(&head).map_err(unreadable)?;
    let mut peers = Vec::new();
    for line in lines {
        peers.push(serde_json::from_str(&line.map_err(broken_off)?).map_err(unreadable)?);
    }
    Ok((status, peers))
}

fn print(matches: &ArgMatches, status: &Status, peers: Vec<PeerStatus>) -> io::Result<()> {
    if matches.get_flag("json") {
        let document = json!({"status": status, "peers": peers});
        return writeln!(io::stdout(), "{document}");
    }
    let all = matches.get_flag("all");
    show(matches, &text::render(status, peers, all, SystemTime::now()))
}

fn show(matches: &ArgMatches, text: &str) -> io::Result<()> {
    let clear = if matches.get_flag("watch") { CLEAR } else { "" };
    let mut out = io::stdout().lock();
    write!(out, "{clear}{text}")?;
    out.flush()
}
