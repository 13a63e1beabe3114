//! The node's state as Prometheus reads it (text format 0.0.4).
//!
//! A pure function of the status: counters live where things are counted, and nothing is registered anywhere. Each name
//! is explained in `docs/metrics.md`.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use crate::reconciler::insight::{Bucket, Histogram};
use crate::status::{KernelStatus, Status};

#[cfg(test)]
mod tests;

/// The media type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes all metrics.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut page = Page(String::new());
    let node = &status.node;
    page.metric("flanneld_build_info", "gauge", "Version of the daemon.");
    page.sample("flanneld_build_info", &[("version", &status.version)], 1);
    page.gauge(
        "flanneld_uptime_seconds",
        "Time since the daemon started.",
        status.uptime_secs,
    );
    page.gauge(
        "flanneld_ready",
        "Whether the data plane is what it should be.",
        u8::from(node.ready),
    );
    if let Some(backend) = &node.backend {
        page.metric(
            "flanneld_backend_info",
            "gauge",
            "What carries packets to the peers.",
        );
        page.sample("flanneld_backend_info", &[("backend", &backend.name)], 1);
        if !backend.direct_peers.is_empty() {
            page.metric(
                "flanneld_direct_peers",
                "gauge",
                "Peers with plain routes instead of tunnels, by family.",
            );
        }
        for (family, peers) in &backend.direct_peers {
            page.sample("flanneld_direct_peers", &[("family", family)], peers);
        }
    }
    leases(&mut page, status);
    page.metric("flanneld_peers", "gauge", "Peers by state.");
    let peers = node.peers;
    for (state, number) in [
        ("programmed", peers.programmed),
        ("pending", peers.pending),
        ("failing", peers.failing),
        ("refused", peers.refused),
    ] {
        page.sample("flanneld_peers", &[("state", state)], number);
    }
    kernel(&mut page, status);
    commands(&mut page, status);
    page.counter(
        "flanneld_log_lines_dropped_total",
        "Log lines lost because nobody read them fast enough.",
        status.log.dropped,
    );
    page.counter(
        "flanneld_log_lines_held_back_total",
        "Log lines held back because they repeated others.",
        status.log.held_back,
    );
    page.0
}

fn leases(page: &mut Page, status: &Status) {
    let node = &status.node;
    page.gauge(
        "flanneld_leases",
        "Leases known, this node's own included.",
        node.store.leases,
    );
    page.gauge(
        "flanneld_leases_held",
        "Leases that vanished in a mass and are held for the grace time.",
        node.store.held,
    );
    page.gauge(
        "flanneld_store_connected",
        "Whether the lease store answered last time.",
        u8::from(node.store.connected),
    );
    page.counter(
        "flanneld_store_errors_total",
        "How often the lease store failed.",
        node.store.errors,
    );
    if let Some(lease) = &node.lease {
        if let Some(expires) = lease.expires {
            page.gauge(
                "flanneld_lease_expiry_timestamp_seconds",
                "When the own lease ends, in seconds since 1970.",
                expires,
            );
        }
        page.metric(
            "flanneld_lease_renewals_total",
            "counter",
            "Renewals of the own lease by result.",
        );
        let renewals = "flanneld_lease_renewals_total";
        page.sample(renewals, &[("result", "ok")], lease.renewals);
        page.sample(renewals, &[("result", "error")], lease.renewals_failed);
    }
}

fn kernel(page: &mut Page, status: &Status) {
    let network = &status.node.kernel;
    let rules = status.node.rules.as_ref().map(|rules| &rules.kernel);
    let parts: Vec<_> = [("network", Some(network)), ("rules", rules)]
        .into_iter()
        .filter_map(|(name, part)| Some((name, part?)))
        .collect();
    let name = "flanneld_reconcile_duration_seconds";
    page.metric(
        name,
        "histogram",
        "How long rounds of observing and changing the kernel took.",
    );
    for (part, kernel) in &parts {
        page.histogram(name, part, &kernel.counts.rounds);
    }
    type Samples = fn(&KernelStatus) -> &BTreeMap<String, u64>;
    let families: [(_, _, _, _, Samples); 4] = [
        (
            "flanneld_kernel_changes_total",
            "counter",
            "Changes that the kernel acknowledged, by kind of object.",
            "kind",
            |kernel| &kernel.counts.changes,
        ),
        (
            "flanneld_drift_repaired_total",
            "counter",
            "Objects brought back after somebody else had changed them, by kind.",
            "kind",
            |kernel| &kernel.counts.repaired,
        ),
        (
            "flanneld_kernel_errors_total",
            "counter",
            "What the kernel refused, by part and class of error.",
            "class",
            |kernel| &kernel.counts.refusals,
        ),
        (
            "flanneld_kernel_differing",
            "gauge",
            "Objects that are not as desired, by kind.",
            "kind",
            |kernel| &kernel.differing,
        ),
    ];
    for (name, form, help, label, samples) in families {
        page.metric(name, form, help);
        for (part, kernel) in &parts {
            for (value, number) in samples(kernel) {
                page.sample(name, &[("part", part), (label, value)], number);
            }
        }
    }
}

fn commands(page: &mut Page, status: &Status) {
    let Some(commands) = &status.node.commands else {
        return;
    };
    let name = "flanneld_commands_total";
    page.metric(
        name,
        "counter",
        "Commands of the backend extension that ended, by name and result.",
    );
    for (command, tally) in [
        ("SubnetAddCommand", commands.added),
        ("SubnetRemoveCommand", commands.removed),
    ] {
        for (result, number) in [("ok", tally.ok), ("error", tally.failed)] {
            page.sample(name, &[("command", command), ("result", result)], number);
        }
    }
    page.gauge(
        "flanneld_commands_waiting",
        "Leases whose command of the backend extension is yet to do its work.",
        commands.waiting,
    );
}

struct Page(String);

/// Writing into a string cannot fail.
impl Page {
    fn metric(&mut self, name: &str, form: &str, help: &str) {
        let _infallible = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {form}\n");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// Label values are our own words; a version holds nothing to escape either.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        if !labels.is_empty() {
            let labels: Vec<_> = labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{value}\""))
                .collect();
            let _infallible = write!(self.0, "{{{}}}", labels.join(","));
        }
        let _infallible = writeln!(self.0, " {value}");
    }

    fn histogram(&mut self, name: &str, part: &str, histogram: &Histogram) {
        let part = ("part", part);
        let bucket = format!("{name}_bucket");
        for Bucket { le_micros, count } in &histogram.buckets {
            self.sample(&bucket, &[part, ("le", &seconds(*le_micros))], count);
        }
        self.sample(&bucket, &[part, ("le", "+Inf")], histogram.count);
        self.sample(&format!("{name}_sum"), &[part], seconds(histogram.sum_micros));
        self.sample(&format!("{name}_count"), &[part], histogram.count);
    }
}

/// Microseconds as a decimal number of seconds, without the zeros at its end.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
