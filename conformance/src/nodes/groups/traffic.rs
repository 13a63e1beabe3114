//! A stream of packets between pods while something happens: what is lost is counted.

use std::time::Duration;

use crate::nodes::bed::{End, Pod};
use crate::nodes::case::Look;
use crate::nodes::protocol::{Counted, Request};
use crate::report::{Checked, expect};

/// Between two packets of a stream.
const INTERVAL: Duration = Duration::from_millis(1);
/// How long traffic is watched after a restart: what a daemon gets wrong at its start may show later.
pub(super) const AFTERWARDS: Duration = Duration::from_secs(1);

/// What became of a stream.
pub(super) struct Traffic {
    pub(super) counted: Counted,
    /// As many packets were dropped by processors that were too busy to take them, of whatever traffic.
    pub(super) dropped: u64,
}

impl Traffic {
    pub(super) fn lost(&self) -> u64 {
        self.counted.sent.saturating_sub(self.counted.answered)
    }

    /// Ends the case when a packet was lost for which no busy processor is to blame.
    ///
    /// # Errors
    /// As it says, naming the node to which it happened.
    pub(super) fn nothing_lost(&self, name: &str) -> Checked<()> {
        expect(
            self.lost() <= self.dropped,
            "no packet is lost but by busy processors",
            format!("{name}: {} of {} lost", self.lost(), self.counted.sent),
        )
    }
}

/// Sends a packet each millisecond, on slow nodes as much more seldom, from a pod to another and back while something
/// happens. What was counted is told, however that ends.
///
/// # Errors
/// Fails when no first packet comes back, or as what happens does.
pub(super) fn counted<T>(
    look: &Look<'_>,
    from: &Pod,
    to: &Pod,
    action: impl FnOnce() -> Checked<T>,
) -> Checked<(T, Traffic)> {
    let end = End::Pod(from);
    let agent = look.bed.agent(end)?;
    let before = dropped_when_busy(look)?;
    let stream: u64 = agent.ask(Request::StartStream {
        place: end.place(),
        target: look.bed.server(End::Pod(to), look.family)?,
        interval: INTERVAL * look.inventory.slowdown(),
    })?;
    let done = action();
    let counted: Counted = agent.ask(Request::StopStream { stream })?;
    let traffic = Traffic {
        counted,
        dropped: dropped_when_busy(look)?.saturating_sub(before),
    };
    look.measured(format!(
        "{} → {} and back: {} of {} packets lost, longest gap {:.0} ms",
        from.name,
        to.name,
        traffic.lost(),
        counted.sent,
        counted.longest_gap.as_secs_f64() * 1e3
    ));
    if traffic.dropped > 0 {
        look.measured(format!("{} packets dropped by busy processors", traffic.dropped));
    }
    Ok((done?, traffic))
}

/// How many packets the nodes have dropped because their processors were too busy to take them from their queues: the
/// second number of each line (linux `net/core/net-procfs.c`, `softnet_seq_show`). Nodes of a lab are one machine, whose
/// count is each one's: of all nodes the largest counts.
fn dropped_when_busy(look: &Look<'_>) -> Checked<u64> {
    let mut largest = 0;
    for node in &look.bed.nodes {
        let path = "/proc/net/softnet_stat".to_owned();
        let text: Option<String> = node.agent()?.ask(Request::Read { path })?;
        let text = text.unwrap_or_default();
        let numbers = text.lines().filter_map(|line| line.split_whitespace().nth(1));
        let dropped = numbers.filter_map(|number| u64::from_str_radix(number, 16).ok());
        largest = dropped.sum::<u64>().max(largest);
    }
    Ok(largest)
}
