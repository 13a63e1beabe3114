//! What figures are meant to reach, and whether they do.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::report::{Figure, Section};

/// What a figure is meant to reach.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Aim {
    /// So many times better than a peer of the same run, by the medians.
    Ratio { peer: &'static str, least: f64 },
    /// The same, by the section's high percentiles.
    TailRatio { peer: &'static str, least: f64 },
    /// The median is no more than this.
    Most(f64),
    /// The section's high percentile is no more than this.
    TailMost(f64),
}

impl Aim {
    /// An aim told as a multiple of the kernel floor.
    pub(super) fn times_floor(most: f64) -> Self {
        Self::Ratio {
            peer: FLOOR,
            least: 1.0 / most,
        }
    }

    /// An aim told as a multiple of the other plugins.
    pub(super) const fn times_peer(least: f64) -> Self {
        Self::Ratio { peer: PEER, least }
    }
}

/// The names of the peers in the tables.
pub(super) const FLOOR: &str = "floor";
pub(super) const PEER: &str = "peer";

/// How a figure stands to one of its aims; `None` where what it needs wasn't measured.
fn reached(figure: &Figure, aim: &Aim, percent: u8) -> Option<f64> {
    let paired = |name: &str| figure.peers.iter().find(|peer| peer.name() == name);
    match aim {
        Aim::Ratio { peer, .. } => figure.ratio(paired(peer)?),
        Aim::TailRatio { peer, .. } => Some(paired(peer)?.tail(percent)? / figure.ours.tail(percent)?),
        Aim::Most(_) => figure.ours.median(),
        Aim::TailMost(_) => figure.ours.tail(percent),
    }
}

fn is_met(aim: &Aim, value: f64) -> bool {
    match aim {
        Aim::Ratio { least, .. } | Aim::TailRatio { least, .. } => value >= *least,
        Aim::Most(most) | Aim::TailMost(most) => value <= *most,
    }
}

/// The reached value and the aim, in words; a multiple of the floor is told as such.
fn words(figure: &Figure, aim: &Aim, value: f64, percent: u8) -> (String, String) {
    match aim {
        Aim::Ratio { peer, least } if *peer == FLOOR => (
            format!("{:.2}", 1.0 / value),
            format!("≤ {:.1} × {FLOOR}", 1.0 / least),
        ),
        Aim::Ratio { peer, least } => (format!("×{value:.1}"), format!("≥ ×{} {peer}", shortest(*least))),
        Aim::TailRatio { peer, least } => (
            format!("×{value:.1}"),
            format!("≥ ×{least:.0} {peer}, p{percent}"),
        ),
        Aim::Most(most) => (format!("{value:.2}"), format!("≤ {most} {}", figure.unit)),
        Aim::TailMost(most) => (
            format!("{value:.1}"),
            format!("≤ {most} {}, p{percent}", figure.unit),
        ),
    }
}

/// A whole number without decimals.
fn shortest(number: f64) -> String {
    if number.fract() == 0.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.1}")
    }
}

/// All aims of a report, the figures first; nothing where there are none.
pub(super) fn draw(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        for figure in &section.figures {
            for aim in &figure.aims {
                let Some(value) = reached(figure, aim, section.tail) else {
                    continue;
                };
                let verdict = if is_met(aim, value) { "met" } else { "NOT MET" };
                let (now, wanted) = words(figure, aim, value, section.tail);
                let name = format!("{}, {}", figure.name, section.short);
                // Writing to a string cannot fail.
                writeln!(text, "{verdict:>8} {now:>7}  {wanted:<20}  {name}").ok();
            }
        }
    }
    if text.is_empty() {
        return text;
    }
    format!("\nAims, by the medians of this run\n{text}\n")
}

/// A figure's aims as JSON.
pub(super) fn as_json(figure: &Figure, percent: u8) -> Value {
    let aims = figure.aims.iter().map(|aim| {
        let value = reached(figure, aim, percent);
        let (now, wanted) = value.map_or_else(Default::default, |value| words(figure, aim, value, percent));
        json!({"aim": wanted, "reached": now, "met": value.map(|value| is_met(aim, value))})
    });
    Value::Array(aims.collect())
}

#[cfg(test)]
mod tests {
    use super::super::report::Peer;
    use super::super::stats::Summary;
    use super::*;

    fn section(figure: Figure) -> Section {
        Section {
            title: String::new(),
            short: "alone",
            notes: Vec::new(),
            tail: 95,
            figures: vec![figure],
        }
    }

    #[test]
    fn aims_are_met_or_not_and_unmeasured_ones_left_out() {
        let peers = vec![
            Peer::paired(PEER, Summary::single(10.0)),
            Peer::paired(FLOOR, Summary::single(1.0)),
        ];
        let aims = vec![
            Aim::times_peer(4.0),
            Aim::times_peer(6.0),
            Aim::times_floor(1.3),
            Aim::Most(2.0),
            Aim::TailMost(1.0),
        ];
        let figure = Figure::low("ADD time", "ms", Summary::single(2.0), peers).with(aims);
        let text = draw(&[section(figure)]);
        let lines: Vec<_> = text.lines().skip(2).filter(|line| !line.is_empty()).collect();
        assert_eq!(
            lines,
            [
                "     met    ×5.0  ≥ ×4 peer             ADD time, alone",
                " NOT MET    ×5.0  ≥ ×6 peer             ADD time, alone",
                " NOT MET    2.00  ≤ 1.3 × floor         ADD time, alone",
                "     met    2.00  ≤ 2 ms                ADD time, alone",
            ]
        );
        assert_eq!(draw(&[]), "");
    }
}
