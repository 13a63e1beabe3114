use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::absence::{Absence, Commands, Part, not_told, of_daemon};
use super::carry::{self, carry};
use super::connection::Connection;
use super::inventory::{Host, Inventory};
use super::protocol::{Output, Place, Request};
use super::remote::{Remote, side_by_side};
use crate::report::{Checked, Stop};

/// How long a connection to a host may take to be made, in seconds (ssh_config(5), `ConnectTimeout`).
const CONNECT_SECS: u8 = 15;
/// How long a daemon may take to restart.
const RESTART_LIMIT: Duration = Duration::from_secs(120);

/// Real hosts, reached by the program `ssh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hosts {
    /// As `ssh` takes them.
    pub(super) destinations: Vec<String>,
    /// A configuration file of `ssh`'s instead of the user's own.
    pub(super) ssh_config: Option<PathBuf>,
    /// The directory of the plugins on the hosts, and where their configuration is; the agent's defaults otherwise.
    pub(super) plugin_dir: Option<String>,
    pub(super) conf: Option<String>,
    /// The program and arguments that restart a host's daemon.
    pub(super) restart: Vec<String>,
    /// What stops and starts the lease store, here, and the daemon, on a host.
    pub(super) store: Option<Commands>,
    pub(super) daemon: Option<Commands>,
    pub(super) may_break: bool,
}

/// Reads `a,b,…`, or a file that has a destination a line, with comments after `#`.
///
/// # Errors
/// Fails when nothing is named, a host twice, or something that `ssh` would take for an option.
pub(super) fn destinations(text: &str) -> Result<Vec<String>> {
    let listed = if Path::new(text).is_file() {
        let text = fs::read_to_string(text).with_context(|| format!("reading {text}"))?;
        let lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim().to_owned());
        lines.collect::<Vec<_>>()
    } else {
        text.split(',').map(|one| one.trim().to_owned()).collect()
    };
    let found: Vec<_> = listed.into_iter().filter(|one| !one.is_empty()).collect();
    if let Some(wrong) = found
        .iter()
        .find(|one| one.starts_with('-') || one.contains(char::is_whitespace))
    {
        bail!("{wrong:?} is no host: name one as in `ssh user@host`");
    }
    if found.is_empty() {
        bail!("{text} names no host");
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = found.iter().find(|one| !seen.insert(*one)) {
        bail!("{twice} is named twice: name each host once");
    }
    Ok(found)
}

impl Hosts {
    fn ssh(&self, destination: &str, remote_command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        if let Some(file) = &self.ssh_config {
            ssh.arg("-F").arg(file);
        }
        let options = [
            "BatchMode=yes".to_owned(),
            format!("ConnectTimeout={CONNECT_SECS}"),
            "ServerAliveInterval=15".to_owned(),
        ];
        for option in options {
            ssh.arg("-o").arg(option);
        }
        ssh.args(["-T", "--", destination, remote_command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        ssh
    }

    /// The agent's arguments on a host.
    fn arguments(&self) -> Vec<&str> {
        let mut arguments = vec!["agent"];
        for (flag, value) in [("--plugin-dir", &self.plugin_dir), ("--conf", &self.conf)] {
            arguments.extend(value.iter().flat_map(|value| [flag, value.as_str()]));
        }
        arguments
    }
}

/// Restarts a host's daemon as its administrator does.
///
/// # Errors
/// Skips the case when nobody told how.
pub(super) fn restart_by(argv: &[String], agent: &Remote) -> Checked<()> {
    if argv.is_empty() {
        return Err(Stop::Skip(
            "how to restart the daemon was not told (--restart)".to_owned(),
        ));
    }
    let output: Output = agent.ask(Request::Run {
        place: Place::Node,
        argv: argv.to_vec(),
        limit: RESTART_LIMIT,
    })?;
    if output.status != Some(0) {
        return Err(anyhow::anyhow!("`{}` failed: {}", argv.join(" "), output.stderr.trim()).into());
    }
    Ok(())
}

impl Inventory for Hosts {
    fn title(&self) -> String {
        match self.destinations.as_slice() {
            [one] => one.clone(),
            many => format!("{} hosts", many.len()),
        }
    }

    fn start(&self, _pods_per_node: u8) -> Result<Vec<Host>> {
        let program = carry::program()?;
        let remote_command = carry::as_one_word(&carry(program.len(), &self.arguments()));
        side_by_side(&self.destinations, |destination| {
            let ssh = self.ssh(destination, &remote_command).spawn();
            let ssh = Connection::of_child(ssh.context("starting ssh")?)?;
            Remote::start(destination, ssh, &program).map(Host::with_agent)
        })
    }

    fn restart_daemon(&self, _node: usize, agent: &Remote) -> Checked<()> {
        restart_by(&self.restart, agent)
    }

    fn away<'a>(&'a self, part: Part, agent: &'a Remote, time: Duration) -> Checked<Absence<'a>> {
        match (part, &self.store, &self.daemon) {
            (Part::Store, Some(store), _) => Ok(Box::new(move || store.run(time))),
            (Part::Store, None, _) => Err(not_told("the lease store", "--stop-store, --start-store")),
            (Part::Daemon(_), _, Some(daemon)) => Ok(Box::new(move || of_daemon(agent, daemon, time))),
            (Part::Daemon(_), _, None) => Err(not_told("the daemon", "--stop, --start")),
            (Part::Link(_), _, _) => Err(Stop::Skip(
                "the host is reached over this link, and a host that does not bring it up again is lost"
                    .to_owned(),
            )),
        }
    }

    fn is_whole(&self) -> bool {
        false
    }

    fn may_break(&self) -> bool {
        self.may_break
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_listed_on_the_command_line_or_in_a_file() {
        assert_eq!(destinations("a, root@b,").unwrap(), ["a", "root@b"]);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        fs::write(&file, "# mine\nroot@a # the first\n\nb\n").unwrap();
        assert_eq!(destinations(file.to_str().unwrap()).unwrap(), ["root@a", "b"]);
        for wrong in ["", ",", "-oProxyCommand=reboot", "a b", "a,b,a"] {
            assert!(destinations(wrong).is_err(), "{wrong:?}");
        }
    }
}
