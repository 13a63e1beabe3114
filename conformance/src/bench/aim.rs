//! What figures are meant to reach, and whether they do.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::report::{Better, Figure, Peer, Section};

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

/// How a figure stands to one of its aims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judged {
    /// What is aimed at, in words.
    pub(super) wanted: String,
    /// What was reached and whether that is enough; `None` where what it needs wasn't measured.
    pub(super) reached: Option<(String, bool)>,
}

/// Judges a figure by each of its aims; `percent` is the section's high percentile.
pub(super) fn judge(figure: &Figure, percent: u8) -> Vec<Judged> {
    let judged = figure.aims.iter().map(|aim| Judged {
        wanted: wanted(figure, aim, percent),
        reached: reached(figure, aim, percent).map(|value| (words(aim, value), is_met(aim, value))),
    });
    judged.collect()
}

/// The value that a figure's median must not miss, by an aim at the median.
pub(super) fn bound(figure: &Figure, aim: &Aim) -> Option<f64> {
    match aim {
        Aim::Most(most) => Some(*most),
        Aim::Ratio { peer, least } => {
            let theirs = paired(figure, peer)?.median()?;
            Some(match figure.better {
                Better::Lower => theirs / least,
                Better::Higher => theirs * least,
            })
        }
        Aim::TailRatio { .. } | Aim::TailMost(_) => None,
    }
}

fn paired<'a>(figure: &'a Figure, name: &str) -> Option<&'a Peer> {
    figure.peers.iter().find(|peer| peer.name() == name)
}

fn reached(figure: &Figure, aim: &Aim, percent: u8) -> Option<f64> {
    match aim {
        Aim::Ratio { peer, .. } => figure.ratio(paired(figure, peer)?),
        Aim::TailRatio { peer, .. } => {
            Some(paired(figure, peer)?.tail(percent)? / figure.ours.tail(percent)?)
        }
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

/// The reached value; a multiple of the floor is told as such.
fn words(aim: &Aim, value: f64) -> String {
    match aim {
        Aim::Ratio { peer, .. } if *peer == FLOOR => format!("{:.2}", 1.0 / value),
        Aim::Ratio { .. } | Aim::TailRatio { .. } => format!("×{value:.1}"),
        Aim::Most(_) => format!("{value:.2}"),
        Aim::TailMost(_) => format!("{value:.1}"),
    }
}

fn wanted(figure: &Figure, aim: &Aim, percent: u8) -> String {
    match aim {
        Aim::Ratio { peer, least } if *peer == FLOOR => format!("≤ {:.1} × {FLOOR}", 1.0 / least),
        Aim::Ratio { peer, least } => format!("≥ ×{} {peer}", shortest(*least)),
        Aim::TailRatio { peer, least } => format!("≥ ×{least:.0} {peer}, p{percent}"),
        Aim::Most(most) => format!("≤ {most} {}", figure.unit),
        Aim::TailMost(most) => format!("≤ {most} {}, p{percent}", figure.unit),
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
            for Judged { wanted, reached } in judge(figure, section.tail) {
                let Some((now, met)) = reached else {
                    continue;
                };
                let verdict = if met { "met" } else { "NOT MET" };
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
    let aims = judge(figure, percent)
        .into_iter()
        .map(|Judged { wanted, reached }| {
            let (now, met) = reached.map_or((None, None), |(now, met)| (Some(now), Some(met)));
            json!({"aim": wanted, "reached": now, "met": met})
        });
    Value::Array(aims.collect())
}

#[cfg(test)]
mod tests {
    use super::super::report::Plot;
    use super::super::stats::Summary;
    use super::*;

    fn section(figure: Figure) -> Section {
        Section {
            title: String::new(),
            short: "alone",
            notes: Vec::new(),
            tail: 95,
            plot: Plot::None,
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
