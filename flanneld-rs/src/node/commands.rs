//! What a node has the commands of the backend `extension` do, and what it tells of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use flannel_types::{ExtensionData, Lease, LeaseAttrs};
use ipnetwork::IpNetwork;
use net_types::SubnetKey;
use tracing::{error, info, warn};

use super::found::Found;
use super::holding::{Holding, SubnetFile};
use super::standing::{MAX_TROUBLES, READINESS_GRACE};
use super::{Action, Node, NotReady, Now, Stage, StopReason};
use crate::extension::{Command, Facts, Failure, Job, OwnFacts, Said, Verdict};
use crate::status::{CommandTrouble, CommandsStatus, PeerState, PeerStatus};

/// A command that runs before the node goes on.
#[derive(Debug)]
pub(super) enum StartCommand {
    /// What it prints goes into the lease, of which these are the attributes.
    Pre { found: Found, attrs: LeaseAttrs },
    /// The lease is acquired.
    Post { found: Found, lease: Lease },
}

impl Node {
    /// The command to run before a lease is asked for.
    pub(super) fn pre_startup(&self) -> Option<Command> {
        let line = self.settings.extension.as_ref()?.pre_startup.clone()?;
        Some(Command {
            line,
            job: Job::PreStartup,
        })
    }

    /// The command to run once this lease is acquired.
    pub(super) fn post_startup(&self, lease: &Lease) -> Option<Command> {
        let line = self.settings.extension.as_ref()?.post_startup.clone()?;
        let mut own = OwnFacts::default();
        for side in &self.settings.sides {
            match side.network {
                IpNetwork::V4(network) => own.network = network.to_string(),
                IpNetwork::V6(_) => {}
            }
            match side.public_ip {
                IpAddr::V4(ip) => own.public_ip = ip.to_string(),
                IpAddr::V6(ip) => own.public_ipv6 = ip.to_string(),
            }
        }
        for subnet in lease.key.subnets() {
            match subnet {
                IpNetwork::V4(subnet) => own.subnet = subnet.to_string(),
                IpNetwork::V6(subnet) => own.ipv6_subnet = subnet.to_string(),
            }
        }
        Some(Command {
            line,
            job: Job::PostStartup(own),
        })
    }

    /// Takes the end of the command that ran.
    pub(super) fn command_done(&mut self, now: Now, result: Result<Said, String>) -> Option<Action> {
        if let Stage::Holding(holding) = &mut self.stage {
            holding.command_done(now.monotonic, result);
            return None;
        }
        match std::mem::replace(&mut self.stage, Stage::Stopped) {
            Stage::StartCommand(command) => Some(self.start_command_done(now, command, result)),
            stage @ (Stage::LookingForDevice
            | Stage::LookingForLease(_)
            | Stage::AcquiringLease { .. }
            | Stage::Holding(_)
            | Stage::Stopped) => {
                self.stage = stage;
                None
            }
        }
    }

    fn start_command_done(&mut self, now: Now, start: StartCommand, result: Result<Said, String>) -> Action {
        let command = match &start {
            StartCommand::Pre { .. } => "PreStartupCommand",
            StartCommand::Post { .. } => "PostStartupCommand",
        };
        let said = match result {
            Ok(said) => said,
            Err(reason) => return self.stop(StopReason::Command { command, reason }),
        };
        info!(command, words = said.words, "ran a command");
        match start {
            StartCommand::Pre { found, mut attrs } => {
                attrs.backend_data = Some(ExtensionData(said.output).to_json());
                let ask = Action::AcquireLease(attrs.clone());
                let macs = BTreeMap::new();
                self.stage = Stage::AcquiringLease { found, macs, attrs };
                ask
            }
            StartCommand::Post { found, lease } => self.hold(now, lease, found, &BTreeMap::new()),
        }
    }

    /// A peer's status, where a command is what carries packets to it.
    pub(super) fn by_command(&self, status: PeerStatus, lease: SubnetKey) -> PeerStatus {
        let commands = self.holding().and_then(|holding| holding.commands.as_ref());
        let Some(commands) = commands else {
            return status;
        };
        let (is_done, failure) = commands.standing(lease);
        PeerStatus {
            state: match failure {
                Some(_) => PeerState::Failing,
                None if is_done => PeerState::Programmed,
                None => PeerState::Pending,
            },
            error: failure.map(|failure| format!("{}: {}", failure.command, failure.words)),
            attempts: failure.map_or(0, |failure| failure.attempts),
            ..status
        }
    }
}

impl Holding {
    /// Tells the commands which leases are to be reached.
    pub(super) fn wish_for_commands(&mut self) {
        let wish = |lease: &Lease| Some((lease.key, self.facts(lease)?));
        let wishes = self
            .commands
            .is_some()
            .then(|| self.view.peers().filter_map(wish).collect());
        if let (Some(commands), Some(wishes)) = (&mut self.commands, wishes) {
            commands.wish(wishes);
        }
    }

    /// What a lease's commands are told; `None` if it is a peer in no family.
    fn facts(&self, lease: &Lease) -> Option<Facts> {
        let mut facts = Facts::default();
        let mut is_peer = false;
        for held in &self.sides {
            let subnet = held.side.subnet_of(lease.key);
            let accepted = subnet.and_then(|subnet| Some((subnet, held.peers.accepted.get(&subnet)?)));
            let Some((subnet, peer)) = accepted.filter(|(_, peer)| peer.lease == lease.key) else {
                continue;
            };
            is_peer = true;
            let (subnet, public_ip) = (subnet.to_string(), peer.public_ip.to_string());
            if held.side.is_ipv6() {
                (facts.ipv6_subnet, facts.public_ipv6) = (subnet, public_ip);
            } else {
                (facts.subnet, facts.public_ip) = (subnet, public_ip);
            }
        }
        let data = ExtensionData::parse(lease.attrs.backend_data.as_deref()).ok()?;
        facts.data = data.0;
        is_peer.then_some(facts)
    }

    /// The command to run now, if any. Pods of this node wait for the subnet file: it comes first.
    pub(super) fn next_command(&mut self, now: Duration) -> Option<Command> {
        if self.file == SubnetFile::NotReady {
            return None;
        }
        let prune = self.view.prune(now);
        self.commands.as_mut()?.next(now, prune)
    }

    /// When that may be the case next, by time alone.
    pub(super) fn command_at(&self, now: Duration) -> Option<Duration> {
        if self.file == SubnetFile::NotReady {
            return None;
        }
        self.commands.as_ref()?.wake_at(self.view.prune(now))
    }

    fn command_done(&mut self, now: Duration, result: Result<Said, String>) {
        let words = match &result {
            Ok(said) => said.words.clone(),
            Err(words) => words.clone(),
        };
        let done = self
            .commands
            .as_mut()
            .and_then(|commands| commands.done(now, result.map(drop)));
        let Some((command, verdict)) = done.filter(|(command, _)| !command.is_blank()) else {
            return;
        };
        let (lease, command) = (command.job.lease(), command.job.name());
        let lease = lease.map(|lease| lease.to_string());
        match verdict {
            Verdict::Done => info!(command, lease, words, "ran a command"),
            Verdict::Again(wait) => {
                let again_secs = wait.as_secs_f32();
                warn!(
                    command,
                    lease, words, again_secs, "a command failed, will try again"
                );
            }
            Verdict::Passed => warn!(
                command,
                lease, words, "a command failed; the new one follows all the same"
            ),
            Verdict::GivenUp => error!(
                command,
                lease,
                words,
                "a command failed too often, it is not run again: undo by hand what may be left of this lease"
            ),
        }
    }

    /// Why the node is not ready by its commands.
    pub(super) fn failing_command(&self, now: Duration) -> Option<NotReady> {
        let (lease, failure) = self.failures().min_by_key(|(_, failure)| failure.since)?;
        let lasts = now.saturating_sub(failure.since);
        (lasts > READINESS_GRACE).then(|| NotReady::Command {
            command: failure.command,
            lease,
            secs: lasts.as_secs(),
            words: failure.words.clone(),
        })
    }

    /// What is told of the commands, where there are any.
    pub(super) fn commands_status(&self, now: Duration) -> Option<CommandsStatus> {
        let commands = self.commands.as_ref()?;
        let trouble = |(lease, failure): (SubnetKey, &Failure)| CommandTrouble {
            command: failure.command.to_owned(),
            lease: lease.to_string(),
            error: failure.words.clone(),
            attempts: failure.attempts,
            secs: now.saturating_sub(failure.since).as_secs(),
            again_secs: failure.again_at.saturating_sub(now).as_secs(),
        };
        let (added, removed) = commands.tallies();
        Some(CommandsStatus {
            added,
            removed,
            waiting: commands.waiting(),
            running: commands.running().map(ToString::to_string),
            troubles: self.failures().take(MAX_TROUBLES).map(trouble).collect(),
        })
    }

    fn failures(&self) -> impl Iterator<Item = (SubnetKey, &Failure)> {
        self.commands.iter().flat_map(|commands| commands.failures())
    }
}
