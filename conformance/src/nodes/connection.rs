//! The pipes that an agent is spoken to through, and what is at their other end.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::process::Child;

use anyhow::{Context, Result, bail};

/// What carries an agent: a child of ours, such as `ssh`, or an exec in a cluster.
pub(super) trait Carrier: Debug + Send + Sync {
    /// Whether the agent ended well, once it has ended.
    ///
    /// # Errors
    /// Fails when that cannot be found out.
    fn ended(&mut self) -> Result<Option<bool>>;

    /// Ends it where it is.
    ///
    /// # Errors
    /// Fails when that is not possible.
    fn kill(&mut self) -> Result<()>;
}

/// An agent's standard input, output and error, and what carries it.
pub(super) struct Connection {
    pub(super) stdin: Box<dyn Write + Send>,
    pub(super) stdout: Box<dyn Read + Send>,
    pub(super) stderr: Box<dyn Read + Send>,
    pub(super) carrier: Box<dyn Carrier>,
}

impl Connection {
    /// The pipes of a child, which was started with all three.
    ///
    /// # Errors
    /// Fails when one is missing.
    pub(super) fn of_child(mut child: Child) -> Result<Self> {
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            bail!("an agent without pipes");
        };
        Ok(Self {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            carrier: Box::new(child),
        })
    }
}

impl Carrier for Child {
    fn ended(&mut self) -> Result<Option<bool>> {
        let status = self.try_wait().context("waiting for an agent")?;
        Ok(status.map(|status| status.success()))
    }

    fn kill(&mut self) -> Result<()> {
        Self::kill(self).context("ending an agent")?;
        self.wait().context("waiting for an agent").map(drop)
    }
}
