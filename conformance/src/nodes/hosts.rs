use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::inventory::Inventory;
use super::protocol::{Place, Request};
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

/// The command that takes a program of this size from its standard input into a directory of its own, runs it with the
/// rest of the input, as root, and removes the directory whatever becomes of it. The program is whole before the agent
/// greets, and only then is more sent, so that `head` cannot take what is the agent's. What plugins make on the host has the
/// usual mode, not the directory's.
fn carry(size: usize, arguments: &[&str]) -> String {
    let arguments: Vec<_> = arguments.iter().map(|argument| quoted(argument)).collect();
    let script = format!(
        "umask 077; dir=$(mktemp -d) || exit 1; head -c {size} >\"$dir/conformance\" && chmod 700 \"$dir/conformance\" || \
         {{ rm -rf \"$dir\"; exit 1; }}; umask 022; sudo=; [ \"$(id -u)\" = 0 ] || sudo=\"sudo -n\"; \
         $sudo \"$dir/conformance\" {}; status=$?; rm -rf \"$dir\"; exit $status",
        arguments.join(" ")
    );
    // The user's own shell may be any; it only has to hand this on.
    format!("sh -c {}", quoted(&script))
}

/// A text as one word of a POSIX shell (XCU §2.2.2).
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

impl Inventory for Hosts {
    fn title(&self) -> String {
        match self.destinations.as_slice() {
            [one] => one.clone(),
            many => format!("{} hosts", many.len()),
        }
    }

    fn start_agents(&self) -> Result<Vec<Remote>> {
        let this = std::env::current_exe().context("finding the running program's own path")?;
        let program = fs::read(&this).with_context(|| format!("reading {}", this.display()))?;
        let remote_command = carry(program.len(), &self.arguments());
        side_by_side(&self.destinations, |destination| {
            let ssh = self.ssh(destination, &remote_command).spawn();
            Remote::start(destination, ssh.context("starting ssh")?, &program)
        })
    }

    fn restart_daemon(&self, _node: usize, agent: &Remote) -> Checked<()> {
        if self.restart.is_empty() {
            return Err(Stop::Skip(
                "how to restart the daemon was not told (--restart)".to_owned(),
            ));
        }
        let output: super::protocol::Output = agent.ask(Request::Run {
            place: Place::Node,
            argv: self.restart.clone(),
            limit: RESTART_LIMIT,
        })?;
        if output.status != Some(0) {
            return Err(
                anyhow::anyhow!("`{}` failed: {}", self.restart.join(" "), output.stderr.trim()).into(),
            );
        }
        Ok(())
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
    fn a_shell_reads_a_quoted_text_as_it_was_written() {
        for text in [
            "",
            "a b",
            "it's",
            "$(reboot) `x` \\ \" ; & | * ~ #",
            "'",
            "a\nb\tc",
            "größe",
        ] {
            let script = format!("printf %s {}", quoted(text));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }

    #[test]
    fn a_program_is_carried_run_with_its_arguments_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let program =
            b"#!/bin/sh\nprintf '%s\\n' \"$@\" \"$0\"; read -r rest; echo \"$rest\"; umask; exit 7\n";
        let script = carry(program.len(), &["agent", "--conf", "it's a $HOME"]);
        // As sshd does: the user's shell gets one text.
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).env("TMPDIR", dir.path());
        let mut child = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, program).unwrap();
        std::io::Write::write_all(&mut stdin, b"the rest\n").unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(7));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("agent\n--conf\nit's a $HOME\n/"), "{text}");
        assert!(text.ends_with("the rest\n0022\n"), "{text}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

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
