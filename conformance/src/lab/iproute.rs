use std::io::Write;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::namespaces::{Namespaces, command};

/// Runs iproute2 in a set of namespaces.
pub trait Ip {
    /// Runs `ip` and returns what it prints.
    ///
    /// # Errors
    /// Fails when `ip` exits non-zero, with its own words.
    fn ip(&self, arguments: &[&str]) -> Result<String>;

    /// Runs `ip -j` (or another program of iproute2) and returns the objects that it prints.
    ///
    /// # Errors
    /// Fails when the program exits non-zero or prints no JSON list.
    fn json(&self, argv: &[&str]) -> Result<Vec<Value>>;
}

impl Ip for Namespaces {
    fn ip(&self, arguments: &[&str]) -> Result<String> {
        let argv: Vec<_> = ["ip"].into_iter().chain(arguments.iter().copied()).collect();
        printed(&argv.join(" "), self.output(&argv)?)
    }

    fn json(&self, argv: &[&str]) -> Result<Vec<Value>> {
        let line = argv.join(" ");
        let text = printed(&line, self.output(argv)?)?;
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let objects: Vec<Value> =
            serde_json::from_str(&text).with_context(|| format!("reading what `{line}` printed"))?;
        // iproute2 prints an empty object for what a filter left out.
        Ok(objects
            .into_iter()
            .filter(|object| object.as_object().is_none_or(|map| !map.is_empty()))
            .collect())
    }
}

/// Runs many `ip` commands in one process.
///
/// # Errors
/// Fails when any of the commands does, with `ip`'s own words.
pub(super) fn batch(namespaces: &Namespaces, lines: &[String]) -> Result<()> {
    let text = lines.join("\n");
    let output = namespaces.run(|| {
        let mut ip = command(&["ip", "-batch", "-"])?;
        ip.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = ip.spawn().context("starting `ip`")?;
        let written = child
            .stdin
            .take()
            .map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
        let output = child.wait_with_output().context("waiting for `ip`")?;
        written.context("writing to `ip`")?;
        Ok(output)
    })?;
    printed(&format!("ip -batch: {}", lines.join("; ")), output).map(drop)
}

/// The standard output of a program that must have succeeded.
///
/// # Errors
/// Fails with the program's standard error when it exited non-zero.
pub(crate) fn printed(line: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "`{line}` failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("reading what `{line}` printed"))
}

/// A text member of an object, or the empty text.
#[must_use]
pub fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}
