//! A program of the runner's own that a plugin is made to run: it notes how it is called and answers as it is told.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::requirement::place;
use crate::lab::command;
use crate::report::{Checked, Stop, expect};

const SCRIPT: &str = r#"#!/bin/sh
cd /run/stage/probe || exit 99
echo "$CNI_COMMAND" >>calls
cat >"$CNI_COMMAND.stdin"
env >"$CNI_COMMAND.env"
echo "the probe was called" >&2
if [ -e "$CNI_COMMAND.error" ]; then
    cat "$CNI_COMMAND.error"
    exit 1
fi
case "$CNI_COMMAND" in
    ADD) cat answer ;;
    VERSION) cat versions ;;
esac
"#;

const DECOY: &str = r#"#!/bin/sh
echo '{"cniVersion": "1.0.0", "code": 118, "msg": "another program was to be run"}'
exit 1
"#;

/// The program, installed on a stage.
#[derive(Debug)]
pub(super) struct Probe;

impl Probe {
    /// The type by which a configuration names it.
    pub(super) const NAME: &'static str = "conformance-probe";
    /// Where it is.
    pub(super) const DIR: &'static str = "/run/stage/probe";
    /// The address that it gives.
    pub(super) const ADDRESS: &'static str = "10.88.9.9/16";
    /// The gateway that it tells with it.
    pub(super) const GATEWAY: &'static str = "10.88.0.1";

    /// Writes the program, which answers ADD with one address in a version's form.
    ///
    /// # Errors
    /// Fails when a file cannot be written.
    pub(super) fn install(version: &str) -> Result<Self> {
        let versions = json!({"cniVersion": "1.1.0", "supportedVersions": super::requirement::VERSIONS});
        fs::create_dir_all(Self::DIR).with_context(|| format!("making {}", Self::DIR))?;
        write("versions", &versions.to_string())?;
        write_program(&format!("{}/{}", Self::DIR, Self::NAME), SCRIPT)?;
        Self.answers(&json!({"cniVersion": version, "ips": [Self::address(version)]}))?;
        Ok(Self)
    }

    /// The address that it gives, in a version's form.
    pub(super) fn address(version: &str) -> Value {
        let (address, gateway) = (Self::ADDRESS, Self::GATEWAY);
        if place(version).ok() < place("1.0.0").ok() {
            return json!({"version": "4", "address": address, "gateway": gateway});
        }
        json!({"address": address, "gateway": gateway})
    }

    /// Makes a program of the same name that always fails, and tells the directory that it is in.
    ///
    /// # Errors
    /// Fails when it cannot be written.
    pub(super) fn decoy(&self) -> Result<String> {
        let dir = "/run/stage/decoy";
        fs::create_dir_all(dir).with_context(|| format!("making {dir}"))?;
        write_program(&format!("{dir}/{}", Self::NAME), DECOY)?;
        Ok(dir.to_owned())
    }

    /// Opens its file for writing, as somebody has who has not finished to write it: the kernel runs it only once that is
    /// closed.
    ///
    /// # Errors
    /// Fails when it cannot be opened; skips the case where the kernel runs it all the same (Linux 6.11 and 6.12).
    pub(super) fn being_written(&self) -> Checked<File> {
        let path = format!("{}/{}", Self::DIR, Self::NAME);
        let file = File::options().write(true).open(&path);
        let file = file.with_context(|| format!("opening {path}"))?;
        let mut program = command(&[&path])?;
        program.env("CNI_COMMAND", "VERSION");
        let tried = program
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match tried.status() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => Ok(file),
            Err(error) => Err(error).with_context(|| format!("starting {path}"))?,
            Ok(_) => Err(Stop::Skip(
                "this kernel runs a program while it is being written".to_owned(),
            )),
        }
    }

    /// Lets ADD answer this.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub(super) fn answers(&self, answer: &Value) -> Result<()> {
        write("answer", &answer.to_string())
    }

    /// Lets ADD answer one address and this route, in the form of a version from 0.3.0 on.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub(super) fn answers_with_route(&self, version: &str, route: Value) -> Result<()> {
        self.answers(&json!({"cniVersion": version, "ips": [Self::address(version)], "routes": [route]}))
    }

    /// Lets a verb fail with this code and message.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub(super) fn fails(&self, verb: &str, code: u64, msg: &str) -> Result<()> {
        let error = json!({"cniVersion": "1.0.0", "code": code, "msg": msg});
        write(&format!("{verb}.error"), &error.to_string())
    }

    /// The verbs that it was called with, but for VERSION, in their order.
    pub(super) fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(format!("{}/calls", Self::DIR)).unwrap_or_default();
        text.lines()
            .filter(|verb| *verb != "VERSION")
            .map(str::to_owned)
            .collect()
    }

    /// Checks that a verb reached it.
    ///
    /// # Errors
    /// Fails when it did not.
    pub(super) fn got(&self, verb: &str) -> Checked<()> {
        let calls = self.calls();
        let observed = format!("the calls {calls:?}");
        expect(
            calls.iter().any(|call| call == verb),
            format!("the delegate is called with {verb}"),
            observed,
        )
    }

    /// The configuration that it got with a verb.
    ///
    /// # Errors
    /// Fails when it got none that is JSON.
    pub(super) fn conf(&self, verb: &str) -> Result<Value> {
        let text = read(&format!("{verb}.stdin"))?;
        serde_json::from_str(&text).context("reading the delegate's configuration")
    }

    /// Its environment with a verb, a line a variable.
    ///
    /// # Errors
    /// Fails when it was not called with it.
    pub(super) fn env(&self, verb: &str) -> Result<String> {
        read(&format!("{verb}.env"))
    }
}

fn write_program(path: &str, script: &str) -> Result<()> {
    fs::write(path, script).with_context(|| format!("writing {path}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("making {path} executable"))
}

fn write(name: &str, text: &str) -> Result<()> {
    let path = format!("{}/{name}", Probe::DIR);
    fs::write(&path, text).with_context(|| format!("writing {path}"))
}

fn read(name: &str) -> Result<String> {
    let path = format!("{}/{name}", Probe::DIR);
    fs::read_to_string(&path).with_context(|| format!("reading {path}"))
}
