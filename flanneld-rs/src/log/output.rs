use std::fmt::Debug;
use std::time::SystemTime;

use serde_json::json;
use tracing::field::{Field as Name, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::line::{Field, Line};
use super::{Log, Message};

/// The crates whose lines are printed at every level; a crate's modules follow after `::`.
const OURS: &[&str] = &[
    "flanneld_rs",
    "flannel_types",
    "lease_store",
    "net_types",
    "netlink",
    "netlink_monitor",
    "netstate",
    "nftables",
    "statefile",
];

/// Turns events into lines. There are no spans: one loop does one thing at a time.
pub(super) struct Output {
    level: LevelFilter,
    log: Log,
}

impl Output {
    pub(super) const fn new(level: LevelFilter, log: Log) -> Self {
        Self { level, log }
    }
}

fn is_ours(target: &str) -> bool {
    let name = target.split("::").next().unwrap_or_default();
    OURS.contains(&name)
}

impl Subscriber for Output {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = *metadata.level();
        metadata.is_event() && level <= self.level && (level <= Level::WARN || is_ours(metadata.target()))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line {
            at: SystemTime::now(),
            level: *metadata.level(),
            target: metadata.target(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut Reader(&mut line));
        self.log.send(Message::Line(line));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Reader<'a>(&'a mut Line);

impl Reader<'_> {
    fn take(&mut self, name: &Name, field: Field) {
        match (name.name(), field) {
            ("message", Field::Text(text) | Field::Shown(text)) => self.0.message = text,
            (name, field) => self.0.fields.push((name, field)),
        }
    }
}

impl Visit for Reader<'_> {
    fn record_i64(&mut self, name: &Name, value: i64) {
        self.take(name, Field::Plain(json!(value)));
    }

    fn record_u64(&mut self, name: &Name, value: u64) {
        self.take(name, Field::Plain(json!(value)));
    }

    fn record_bool(&mut self, name: &Name, value: bool) {
        self.take(name, Field::Plain(json!(value)));
    }

    fn record_str(&mut self, name: &Name, value: &str) {
        self.take(name, Field::Text(value.to_owned()));
    }

    fn record_debug(&mut self, name: &Name, value: &dyn Debug) {
        self.take(name, Field::Shown(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_crates_are_heard_below_warnings() {
        assert!(is_ours("flanneld_rs::node::telling") && is_ours("lease_store"));
        for other in ["h2::codec", "hyper", "rustls", "netlinkish", "flanneld_rs_fake"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
