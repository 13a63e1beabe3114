use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use conformance::lab::{Binaries, wait_until};
use tempfile::TempDir;

use crate::{LONG, PROJECT};

/// A system of its own, which systemd runs, on a copy of this one.
pub(crate) struct Machine {
    boot: Child,
    dir: TempDir,
}

impl Machine {
    /// Boots it.
    pub(crate) fn boot() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let binaries = Binaries::find().unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let boot = Command::new("unshare")
            .args([
                "--mount",
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/boot.sh"),
            ])
            .args([dir.path(), Path::new(PROJECT), binaries.dir()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let machine = Self { boot, dir };
        let booted = wait_until("systemd to have booted", LONG, || {
            if machine.first_process().is_none() {
                return Ok(false);
            }
            let output = machine.command("systemctl is-system-running --wait").output()?;
            Ok(output.stdout == b"running\n")
        });
        let log = || fs::read_to_string(machine.dir.path().join("log")).unwrap();
        booted.unwrap_or_else(|err| panic!("{err}\n{}", log()));
        machine
    }

    /// The number of its systemd.
    fn first_process(&self) -> Option<String> {
        let number = fs::read_to_string(self.dir.path().join("pid")).ok()?;
        number.ends_with('\n').then(|| number.trim().to_owned())
    }

    pub(crate) fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--all", "--target", &self.first_process().unwrap()])
            .args(["bash", "-euc", script]);
        command
    }

    /// Runs a script there, which must succeed, and returns what it prints.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.command(script).output().unwrap();
        let [said, wrote] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let journal = || {
            let journal = self.command("journalctl --no-pager -n 50").output().unwrap();
            String::from_utf8_lossy(&journal.stdout).into_owned()
        };
        assert!(output.status.success(), "{script}: {said}{wrote}\n{}", journal());
        said.into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // All others there end with the first, and then the script.
        let ended = match self.first_process() {
            Some(number) => Command::new("kill").args(["-KILL", &number]).status().map(drop),
            None => self.boot.kill(),
        };
        if let Err(err) = ended.and_then(|()| self.boot.wait().map(drop)) {
            eprintln!("systemd in its namespaces may go on: {err}");
        }
    }
}
