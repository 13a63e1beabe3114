use anyhow::Result;

use super::remote::Remote;
use crate::report::Checked;

/// Where nodes come from, and how an agent is started on each. All else is the agent's.
pub(super) trait Inventory {
    /// What is judged, in a few words.
    fn title(&self) -> String;

    /// Starts an agent on every node, in the order of the nodes.
    ///
    /// # Errors
    /// Fails when one cannot be started.
    fn start_agents(&self) -> Result<Vec<Remote>>;

    /// Restarts the node daemon of a node, and returns when it is ready again.
    ///
    /// # Errors
    /// Skips the case when the inventory does not know how to.
    fn restart_daemon(&self, node: usize, agent: &Remote) -> Checked<()>;

    /// Whether these are all nodes of their network.
    fn is_whole(&self) -> bool;

    /// Whether things may be broken on the nodes to see them repaired.
    fn may_break(&self) -> bool;
}
