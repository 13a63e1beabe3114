//! What runs the instructions of guests: the processor, by KVM, where it can, else a program.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::{Process, command};

/// Chooses it.
const VARIABLE: &str = "CONFORMANCE_ACCEL";
/// What offers KVM to programs.
const KVM_DEVICE: &str = "/dev/kvm";
/// How long a kernel may take under KVM until it looks for its file system; it takes a second where KVM works. Where it
/// half works it hangs, or is so slow that guests by it would need the patience that emulated ones get.
const TRIAL_LIMIT: Duration = Duration::from_secs(5);
/// What a kernel without any file system says at the end of its boot (linux `init/do_mounts.c`, `mount_block_root`).
const BOOTED: &str = "Unable to mount root fs";
/// The file beside the kernel that keeps the outcome of the trial.
const OUTCOME_FILE: &str = "accelerator";
/// Tells one boot of this machine from another; what a trial found counts for one.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What runs a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU itself, ten times as slow and more.
    Tcg,
}

impl Accelerator {
    /// What `CONFORMANCE_ACCEL` tells; else KVM if a trial boots a kernel by it, which is made once after each boot of this
    /// machine and takes five seconds at most.
    ///
    /// # Errors
    /// Fails for another value of the variable, or when the outcome cannot be kept.
    pub fn choose(kernel: &Path) -> Result<Self> {
        match std::env::var(VARIABLE) {
            Ok(name) => Self::parse(&name),
            Err(_) => Self::tried(kernel),
        }
    }

    /// Its name, as QEMU has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// The processor that a guest sees, as QEMU has it.
    pub(super) const fn processor(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        match name {
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => bail!("{VARIABLE} is {name:?}: set it to kvm or tcg, or leave it unset to have KVM tried"),
        }
    }

    fn tried(kernel: &Path) -> Result<Self> {
        if File::options().read(true).write(true).open(KVM_DEVICE).is_err() {
            return Ok(Self::Tcg);
        }
        let boot = fs::read_to_string(BOOT_ID).with_context(|| format!("reading {BOOT_ID}"))?;
        let file = kernel.with_file_name(OUTCOME_FILE);
        if let Some(known) = kept(&file, &boot) {
            return Ok(known);
        }
        let found = if boots_by_kvm(kernel)? {
            Self::Kvm
        } else {
            Self::Tcg
        };
        let outcome = format!("{} {}\n", boot.trim(), found.name());
        fs::write(&file, outcome).with_context(|| format!("writing {}", file.display()))?;
        Ok(found)
    }
}

/// What an earlier trial found, if it was made since this machine's boot.
fn kept(file: &Path, boot: &str) -> Option<Accelerator> {
    let text = fs::read_to_string(file).ok()?;
    let (of_boot, name) = text.trim().split_once(' ')?;
    (of_boot == boot.trim())
        .then(|| Accelerator::parse(name).ok())
        .flatten()
}

/// Whether a kernel comes to the end of its boot under KVM in time.
fn boots_by_kvm(kernel: &Path) -> Result<bool> {
    let kernel = kernel.to_string_lossy();
    let options =
        "-M pc -accel kvm -cpu host -smp 1 -m 256 -nodefaults -display none -no-reboot -serial stdio";
    let mut words: Vec<_> = ["qemu-system-x86_64"]
        .into_iter()
        .chain(options.split(' '))
        .collect();
    words.extend(["-append", "console=ttyS0 panic=-1", "-kernel", &kernel]);
    boots(command(&words)?)
}

fn boots(mut machine: Command) -> Result<bool> {
    machine
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = machine
        .spawn()
        .context("starting a guest (Debian's package qemu-system-x86)")?;
    let console = child.stdout.take().context("QEMU has no output")?;
    let (sender, receiver) = channel();
    // It ends when the machine does, which is at the end of this function.
    let reader = thread::spawn(move || sender.send(says_that_it_booted(console)).ok());
    let machine = Process::new(child);
    let booted = receiver.recv_timeout(TRIAL_LIMIT).unwrap_or(false);
    drop(machine);
    // A reader that panicked has seen nothing.
    reader.join().ok();
    Ok(booted)
}

/// Reads until a kernel has booted, or the console ends.
fn says_that_it_booted(mut console: ChildStdout) -> bool {
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let Ok(len @ 1..) = console.read(&mut buffer) else {
            return false;
        };
        said.extend_from_slice(buffer.get(..len).unwrap_or_default());
        if said.windows(BOOTED.len()).any(|part| part == BOOTED.as_bytes()) {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_counts_until_the_machine_boots_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(OUTCOME_FILE);
        assert_eq!(kept(&file, "a\n"), None);
        for (text, expected) in [
            ("a kvm\n", Some(Accelerator::Kvm)),
            ("a tcg\n", Some(Accelerator::Tcg)),
            ("b kvm\n", None),
            ("a", None),
            ("a xen\n", None),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(kept(&file, "a\n"), expected, "{text}");
        }
    }

    #[test]
    fn a_machine_has_booted_when_its_kernel_looks_for_its_files() {
        let shell = |script: &str| boots(command(&["sh", "-c", script]).unwrap()).unwrap();
        assert!(shell(
            "echo Linux version; echo VFS: Unable to mount root fs on unknown-block; exec sleep 100"
        ));
        assert!(!shell("echo Linux version"));
    }

    #[test]
    fn what_runs_a_guest_is_told_by_its_name() {
        for known in [Accelerator::Kvm, Accelerator::Tcg] {
            assert_eq!(Accelerator::parse(known.name()).unwrap(), known);
        }
        let error = Accelerator::parse("yes").unwrap_err().to_string();
        assert!(error.contains("set it to kvm or tcg"), "{error}");
    }
}
