//! Runs the commands of the backend `extension`, and keeps in files what was run.
//!
//! A command is not given to a shell: its line is split at white space, and values are put in the place of variables. It
//! runs with the daemon's environment, secrets left out. What a peer's command is about to do is written down before it
//! starts, so that a daemon that is killed knows of it after its restart: a file a lease, beside the subnet file. It is
//! worth nothing after a boot, which undoes everything in the kernel, and says which boot it is of.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process;

use net_types::{SubnetKey, sentence};
use serde::{Deserialize, Serialize};
use statefile::Durability;
use subprocess::{Limits, Outcome};
use tracing::warn;

use crate::desired::MAX_DATA_BYTES;
use crate::extension::{Command, Facts, Job, Ran, Said, Stage, expand, last_words};

#[cfg(test)]
mod tests;

/// The records are here, in the subnet file's directory.
const DIR_NAME: &str = "extension";
const DIR_MODE: u32 = 0o700;
/// The subnet file's directory is everybody's to read.
const PARENT_MODE: u32 = 0o755;
/// What nodes tell each other may be secret.
const FILE_MODE: u32 = 0o600;
const FILE_ENDING: &str = ".json";
/// The kernel makes it anew at each boot (linux `drivers/char/random.c`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Of each output of a command, so much is kept: as much as a lease may announce.
const OUTPUT_BYTES: usize = MAX_DATA_BYTES;
/// What children have no use for: passwords, and the socket by which the daemon itself talks to its service manager.
const WITHHELD: [&str; 2] = ["FLANNELD_ETCD_PASSWORD", "NOTIFY_SOCKET"];

/// Where what was run is kept.
#[derive(Debug, Clone)]
pub struct Records {
    dir: PathBuf,
    boot: String,
}

/// What was run for a lease, in a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Of which boot it is.
    boot: String,
    /// The line that was run.
    subnet_add: String,
    /// Whether its work is there for sure.
    done: bool,
    facts: Facts,
}

/// Why a command did not do its work, or it is not known what commands did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It cannot be told from which boot a record is.
    #[error("cannot read {BOOT_ID}")]
    BootId(#[source] io::Error),
    /// The directory of the records cannot be read.
    #[error("cannot read what the commands of the backend \"extension\" did, in {}", dir.display())]
    ReadDir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record cannot be read or written.
    #[error("cannot keep what the commands of the backend \"extension\" did")]
    File(#[from] statefile::Error),
    /// A record cannot be put into words.
    #[error("cannot write down what is to be run")]
    Encode(#[source] serde_json::Error),
    /// There is no such program, or it cannot be run.
    #[error("cannot run {program:?}")]
    Run {
        /// Its name.
        program: OsString,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("it did not end within {0} s, or something that it started held its output; both were killed")]
    TimedOut(u64),
    /// It failed.
    #[error("{status}: {words}")]
    Failed {
        /// How it ended.
        status: process::ExitStatus,
        /// What it said last.
        words: String,
    },
    /// What is to go into the lease is too long.
    #[error("it printed more than {OUTPUT_BYTES} bytes, which no lease can hold")]
    TooMuch,
}

impl Records {
    /// The records beside a subnet file.
    ///
    /// # Errors
    /// It cannot be told which boot this is.
    pub fn beside(subnet_file: &Path) -> Result<Self, CommandError> {
        let boot = fs::read_to_string(BOOT_ID).map_err(CommandError::BootId)?;
        Ok(Self {
            dir: subnet_file.with_file_name(DIR_NAME),
            boot: boot.trim().to_owned(),
        })
    }

    /// Reads what was run since this machine booted, as it counts for a daemon whose command is this one; `is_remade` tells
    /// that something may have undone it since. What is of another boot is removed.
    ///
    /// # Errors
    /// The directory or a file cannot be read, or an old one not be removed.
    pub fn recall(
        &self,
        subnet_add: &str,
        is_remade: bool,
    ) -> Result<BTreeMap<SubnetKey, Ran>, CommandError> {
        statefile::remove_abandoned(&self.dir)?;
        let mut ran = BTreeMap::new();
        for (lease, record) in self.read()? {
            if record.boot != self.boot {
                self.forget(lease)?;
                continue;
            }
            let is_there = record.done && !is_remade && record.subnet_add == subnet_add;
            let stage = if is_there { Stage::Done } else { Stage::Inherited };
            let facts = record.facts;
            ran.insert(lease, Ran { facts, stage });
        }
        Ok(ran)
    }

    /// The leases for which something was run since this machine booted, and was not undone.
    ///
    /// # Errors
    /// The directory or a file cannot be read.
    pub fn leases(&self) -> Result<Vec<SubnetKey>, CommandError> {
        let records = self.read()?.into_iter();
        let of_this_boot = records.filter(|(_, record)| record.boot == self.boot);
        Ok(of_this_boot.map(|(lease, _)| lease).collect())
    }

    /// All records that can be understood; the others are told.
    fn read(&self) -> Result<Vec<(SubnetKey, Record)>, CommandError> {
        let failed = |source| CommandError::ReadDir {
            dir: self.dir.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(err) => return Err(failed(err)),
        };
        let mut records = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(lease) = name.to_str().and_then(|name| name.strip_suffix(FILE_ENDING)) else {
                continue;
            };
            // One that is too large, or no file, would keep the daemon from starting.
            let text = statefile::read_text(&entry.path()).ok().flatten();
            let record = text.and_then(|text| serde_json::from_str(&text).ok());
            match (lease.parse(), record) {
                (Ok(lease), Some(record)) => records.push((lease, record)),
                (Err(_), _) | (_, None) => {
                    warn!(path = %entry.path().display(), "this is no record of flanneld's, it is not used: remove it");
                }
            }
        }
        Ok(records)
    }

    /// Notes that what was run may be undone by somebody else: it is looked after again by a daemon that is started later.
    ///
    /// # Errors
    /// The directory or a file cannot be read or written.
    pub fn distrust(&self) -> Result<(), CommandError> {
        for (lease, record) in self.read()? {
            let done = false;
            self.write(lease, &Record { done, ..record })?;
        }
        Ok(())
    }

    fn write(&self, lease: SubnetKey, record: &Record) -> Result<(), CommandError> {
        if let Some(parent) = self.dir.parent() {
            statefile::ensure_dir(parent, PARENT_MODE)?;
        }
        statefile::ensure_dir(&self.dir, DIR_MODE)?;
        let text = serde_json::to_string(record).map_err(CommandError::Encode)?;
        let path = self.path(lease);
        Ok(statefile::replace(
            &path,
            text.as_bytes(),
            FILE_MODE,
            Durability::Crash,
        )?)
    }

    fn forget(&self, lease: SubnetKey) -> Result<(), CommandError> {
        statefile::remove(&self.path(lease), Durability::Crash)?;
        Ok(())
    }

    fn path(&self, lease: SubnetKey) -> PathBuf {
        self.dir.join(format!("{lease}{FILE_ENDING}"))
    }

    fn record(&self, line: &str, facts: &Facts, done: bool) -> Record {
        Record {
            boot: self.boot.clone(),
            subnet_add: line.to_owned(),
            done,
            facts: facts.clone(),
        }
    }

    /// Runs a command to its end, and keeps what it is about to do and what came of it. It blocks.
    ///
    /// # Errors
    /// It did not do its work, or what it does could not be written down; then it was not run.
    pub fn run(&self, command: &Command) -> Result<Said, CommandError> {
        match &command.job {
            Job::PreStartup | Job::PostStartup(_) => run(command),
            Job::SubnetAdd { lease, facts } => {
                self.write(*lease, &self.record(&command.line, facts, false))?;
                let said = run(command)?;
                if let Err(err) = self.write(*lease, &self.record(&command.line, facts, true)) {
                    // After a restart it is run again; what it did is there.
                    warn!(err = sentence(&err), %lease, "what was run is not kept");
                }
                Ok(said)
            }
            Job::SubnetRemove {
                lease,
                facts,
                is_last,
            } => {
                // Half of what it undoes may be gone from here on.
                self.write(*lease, &self.record("", facts, false))?;
                let said = run(command);
                if (said.is_ok() || *is_last)
                    && let Err(err) = self.forget(*lease)
                {
                    // After a restart it is run again, on what is gone.
                    warn!(err = sentence(&err), %lease, "what was undone is still noted");
                }
                said
            }
        }
    }
}

fn run(command: &Command) -> Result<Said, CommandError> {
    let own = env::vars_os().filter(|(name, _)| !WITHHELD.iter().any(|withheld| name == withheld));
    let mut environment: BTreeMap<OsString, OsString> = own.collect();
    let variables = command.job.variables();
    environment.extend(variables.iter().map(|(name, value)| (name.into(), value.into())));
    let value = |name: &str| {
        let value = environment.get(&OsString::from(name));
        value.map_or_else(String::new, |value| value.to_string_lossy().into_owned())
    };
    let mut words = command
        .line
        .split_whitespace()
        .map(|word| OsString::from(expand(word, value)));
    let Some(program) = words.next() else {
        return Ok(Said::default());
    };
    let mut process = process::Command::new(&program);
    process.args(words).env_clear().envs(&environment);
    let limits = Limits {
        time: command.job.limit(),
        output_bytes: OUTPUT_BYTES,
    };
    let outcome = subprocess::run(&mut process, &command.job.input(), limits);
    let ended = match outcome.map_err(|source| CommandError::Run { program, source })? {
        Outcome::Ended(ended) => ended,
        Outcome::TimedOut => return Err(CommandError::TimedOut(limits.time.as_secs())),
    };
    // What goes into the lease may be secret.
    let shown = if command.job == Job::PreStartup {
        ""
    } else {
        &ended.stdout.text
    };
    let words = last_words(&format!("{shown}\n{}", ended.stderr.text));
    if !ended.status.success() {
        let words = if words.is_empty() {
            "it said nothing".to_owned()
        } else {
            words
        };
        let status = ended.status;
        return Err(CommandError::Failed { status, words });
    }
    if ended.stdout.is_cut && command.job == Job::PreStartup {
        return Err(CommandError::TooMuch);
    }
    let output = ended.stdout.text.trim().to_owned();
    Ok(Said { output, words })
}
