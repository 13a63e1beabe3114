//! Parts of a network that are away for a while, and come back by themselves, whatever becomes of the run meanwhile.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::carry::quoted;
use super::protocol::{Output, Place, Request};
use super::remote::Remote;
use crate::report::{Checked, Stop};

/// A part of a network without which the packets of pods are to go on, or to come back soon after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Where the leases are.
    Store,
    /// The link to the underlay of a node, which is told by its place among all.
    Link(usize),
    /// A node's daemon.
    Daemon(usize),
}

/// An absence that is about to begin: it returns when the part is back, or when who brings it back was told.
pub(super) type Absence<'a> = Box<dyn FnOnce() -> Checked<()> + Send + 'a>;

/// How long what takes a part away, or brings it back, may take itself.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// Sets a link down and up again, with its addresses of IPv6 and its default routes, which the kernel removes meanwhile, as a
/// host's network manager does.
const LINK: &str = r#"set -e
link=$1
six=$(ip -6 -o address show dev "$link" scope global | while read -r _ _ _ address _; do echo "$address"; done)
ip -4 route show default dev "$link" >/run/link-ways.4
ip -6 route show default dev "$link" >/run/link-ways.6
ip link set dev "$link" down
sleep "$2"
ip link set dev "$link" up
for address in $six; do ip -6 address replace "$address" dev "$link" nodad; done
for family in 4 6; do
    while read -r way; do ip -$family route replace $way dev "$link"; done </run/link-ways.$family
    rm /run/link-ways.$family
done
"#;

/// The same for a shell that is given a script alone.
pub(super) fn of_link_in_words(link: &str, time: Duration) -> String {
    format!("(set -- {link} {}\n{LINK})", time.as_secs())
}

/// Has the agent set a node's link down and up again. The agent must not be spoken to over that link.
///
/// # Errors
/// Fails when iproute2 does.
pub(super) fn of_link(agent: &Remote, link: &str, time: Duration) -> Checked<()> {
    let secs = time.as_secs().to_string();
    on_node(agent, &["sh", "-c", LINK, "sh", link, &secs], time)
}

/// Waits for a script in a session of its own, which goes on where the waiting ends. What it says goes to a file without a name:
/// to write to a pipe that nobody reads any more would end it, and nobody is left to remove a file that has one.
const DETACHED: &str = r#"said=$(mktemp) || exit
exec 3>"$said" 4<"$said"
rm "$said"
setsid sh -c "$1" </dev/null >/dev/null 2>&3 3>&- 4<&- &
wait $!
status=$?
cat <&4 >&2
exit $status
"#;

/// Has the agent take the daemon of its node away by the commands that were told for that. They go on by themselves, so that
/// the daemon comes back whatever becomes of the agent.
///
/// # Errors
/// Fails when a command does, with its own words, or where there is no `setsid`.
pub(super) fn of_daemon(agent: &Remote, commands: &Commands, time: Duration) -> Checked<()> {
    on_node(agent, &["sh", "-c", DETACHED, "sh", &commands.script(time)], time)
}

fn on_node(agent: &Remote, argv: &[&str], time: Duration) -> Checked<()> {
    let output: Output = agent.ask(Request::Run {
        place: Place::Node,
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        limit: COMMAND_LIMIT + time,
    })?;
    if output.status == Some(0) {
        return Ok(());
    }
    let (name, words) = (agent.name(), output.stderr.trim());
    let ended = output.status.map_or_else(
        || "did not end in time".to_owned(),
        |status| format!("ended with status {status}"),
    );
    Err(anyhow::anyhow!("{name}: what takes a part away and brings it back {ended}: {words}").into())
}

/// What takes a part away and what brings it back, each a program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commands {
    pub(super) stop: Vec<String>,
    pub(super) start: Vec<String>,
}

impl Commands {
    /// Takes the part away from here, by a shell that goes on where this program ends.
    ///
    /// # Errors
    /// Fails when a command does, with what it said on its standard error.
    pub(super) fn run(&self, time: Duration) -> Checked<()> {
        use std::os::unix::process::CommandExt;
        let script = self.script(time);
        let mut shell = Command::new("sh");
        shell.args(["-c", DETACHED, "sh", &script]).stdin(Stdio::null());
        // Ctrl-C reaches only us.
        shell.process_group(0);
        let output = shell.output().context("starting a shell")?;
        let done = || {
            if !output.status.success() {
                let words = String::from_utf8_lossy(&output.stderr);
                bail!("`{script}` failed ({}): {}", output.status, words.trim());
            }
            Ok(())
        };
        Ok(done()?)
    }

    /// The status is that of the first command that fails; it is started again all the same.
    fn script(&self, time: Duration) -> String {
        let line = |words: &[String]| {
            words
                .iter()
                .map(|word| quoted(word))
                .collect::<Vec<_>>()
                .join(" ")
        };
        format!(
            "{}; stopped=$?; sleep {}; {} || exit; exit $stopped",
            line(&self.stop),
            time.as_secs(),
            line(&self.start)
        )
    }
}

/// What an inventory says that was not told how to take a part away.
pub(super) fn not_told(what: &str, flags: &str) -> Stop {
    Stop::Skip(format!("how to stop and start {what} was not told ({flags})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stopped_is_started_whatever_became_of_the_stop() {
        let dir = tempfile::tempdir().unwrap();
        let started = dir.path().join("started it's");
        let touch = ["touch", started.to_str().unwrap()].map(str::to_owned).to_vec();
        let commands = |stop: &str| Commands {
            stop: vec![stop.to_owned()],
            start: touch.clone(),
        };
        commands("true").run(Duration::ZERO).unwrap();
        std::fs::remove_file(&started).unwrap();
        let failed = commands("false").run(Duration::ZERO).unwrap_err();
        assert!(matches!(failed, Stop::Broken(_)), "{failed:?}");
        assert!(started.exists());
    }

    fn in_shells(stop: &str, start: &str) -> Commands {
        let shell = |script: &str| ["sh", "-c", script].map(str::to_owned).to_vec();
        Commands {
            stop: shell(stop),
            start: shell(start),
        }
    }

    #[test]
    fn what_commands_say_is_told_when_one_fails() {
        for (stop, start, told) in [
            (
                "echo a; echo b >&2; exit 3",
                "echo c >&2",
                "failed (exit status: 3): b\nc",
            ),
            ("true", "echo no >&2; exit 4", "failed (exit status: 4): no"),
        ] {
            let Err(Stop::Broken(error)) = in_shells(stop, start).run(Duration::ZERO) else {
                panic!("it did not fail");
            };
            assert!(error.to_string().ends_with(told), "{error}");
        }
    }

    #[test]
    fn what_a_start_leaves_running_is_not_waited_for() {
        let begin = std::time::Instant::now();
        in_shells("true", "sleep 30 &").run(Duration::ZERO).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
}
