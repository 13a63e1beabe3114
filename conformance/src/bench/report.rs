use serde_json::{Value, json};

use super::aim::{self, Aim};
use super::machine::Machine;
use super::stats::Summary;

/// Which way a figure should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    Lower,
    Higher,
}

/// What a figure is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Peer {
    /// Measured in the same run, taking turns with ours.
    Paired { name: String, summary: Summary },
    /// The reference's figures, from another sitting and perhaps another machine.
    Baseline {
        name: &'static str,
        p50: f64,
        tail: Option<f64>,
    },
}

impl Peer {
    pub(super) fn paired(name: &str, summary: Summary) -> Self {
        Self::Paired {
            name: name.to_owned(),
            summary,
        }
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Paired { name, .. } => name.clone(),
            Self::Baseline { name, .. } => format!("{name} *"),
        }
    }

    pub(super) fn median(&self) -> Option<f64> {
        match self {
            Self::Paired { summary, .. } => summary.median(),
            Self::Baseline { p50, .. } => Some(*p50),
        }
    }

    /// The percentile of the section that this stands in.
    pub(super) fn tail(&self, percent: u8) -> Option<f64> {
        match self {
            Self::Paired { summary, .. } => summary.tail(percent),
            Self::Baseline { tail, .. } => *tail,
        }
    }
}

/// One measured quantity of ours, and everything that it is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) unit: &'static str,
    pub(super) better: Better,
    pub(super) ours: Summary,
    pub(super) peers: Vec<Peer>,
    /// What it is meant to reach.
    pub(super) aims: Vec<Aim>,
}

impl Figure {
    /// A figure that should be low, such as a time.
    pub(super) fn low(name: impl Into<String>, unit: &'static str, ours: Summary, peers: Vec<Peer>) -> Self {
        Self {
            name: name.into(),
            unit,
            better: Better::Lower,
            ours,
            peers,
            aims: Vec::new(),
        }
    }

    /// The same, meant to reach something.
    pub(super) fn with(mut self, aims: Vec<Aim>) -> Self {
        self.aims = aims;
        self
    }

    /// A figure that should be high, such as a rate.
    pub(super) fn high(name: impl Into<String>, unit: &'static str, ours: Summary, peers: Vec<Peer>) -> Self {
        Self {
            better: Better::Higher,
            ..Self::low(name, unit, ours, peers)
        }
    }

    /// How many times better ours is than a peer, by the medians; below one it is worse. `None` where one of them is
    /// zero or missing.
    pub(super) fn ratio(&self, peer: &Peer) -> Option<f64> {
        let (ours, theirs) = (self.ours.median()?, peer.median()?);
        let (above, below) = match self.better {
            Better::Lower => (theirs, ours),
            Better::Higher => (ours, theirs),
        };
        (above > 0.0 && below > 0.0).then(|| above / below)
    }
}

/// How the figures of a section are drawn, beside the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plot {
    /// The table tells all.
    None,
    /// How the samples of each figure are distributed, ours beside the peers'.
    Distributions,
    /// The samples of each figure in the order in which they were taken.
    Course,
    /// The section is of so many peers, one of several sizes: each figure by the number of peers.
    Size(u16),
    /// The ratios to the peers of the same run.
    Ratios,
}

/// Figures that belong together, with what a reader has to know about them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Section {
    pub(super) title: String,
    /// What it is about, in a few words.
    pub(super) short: &'static str,
    pub(super) notes: Vec<String>,
    /// The high percentile that is told beside the medians.
    pub(super) tail: u8,
    pub(super) plot: Plot,
    pub(super) figures: Vec<Figure>,
}

/// The whole report as JSON: every sample in the order in which it was taken.
pub(super) fn as_json(machine: &Machine, sections: &[Section]) -> Value {
    let sections: Vec<_> = sections
        .iter()
        .map(|section| {
            let figures: Vec<_> = section.figures.iter().map(|figure| figure_json(figure, section.tail)).collect();
            json!({"title": section.title, "notes": section.notes, "tail_percent": section.tail, "figures": figures})
        })
        .collect();
    json!({"machine": machine.as_json(), "sections": sections})
}

fn figure_json(figure: &Figure, percent: u8) -> Value {
    let peers: Vec<_> = figure
        .peers
        .iter()
        .map(|peer| {
            let (sitting, summary) = match peer {
                Peer::Paired { summary, .. } => ("same", summary_json(summary)),
                Peer::Baseline { p50, tail, .. } => ("other", json!({"median": p50, "tail": tail})),
            };
            json!({"name": peer.name(), "sitting": sitting, "ratio": figure.ratio(peer), "figures": summary})
        })
        .collect();
    let better = match figure.better {
        Better::Lower => "lower",
        Better::Higher => "higher",
    };
    json!({
        "name": figure.name, "unit": figure.unit, "better": better,
        "ours": summary_json(&figure.ours), "peers": peers, "aims": aim::as_json(figure, percent),
    })
}

fn summary_json(summary: &Summary) -> Value {
    json!({
        "median": summary.median(), "p95": summary.tail(95), "p99": summary.tail(99),
        "samples": summary.samples(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_means_ours_is_better_whichever_way_the_figure_goes() {
        let peer = |value| Peer::paired("peer", Summary::single(value));
        let low = Figure::low("time", "ms", Summary::single(2.0), Vec::new());
        let high = Figure::high("rate", "/s", Summary::single(2.0), Vec::new());
        assert_eq!(low.ratio(&peer(8.0)), Some(4.0));
        assert_eq!(low.ratio(&peer(1.0)), Some(0.5));
        assert_eq!(high.ratio(&peer(8.0)), Some(0.25));
        assert_eq!(high.ratio(&peer(1.0)), Some(2.0));
        assert_eq!(low.ratio(&peer(0.0)), None);
        assert_eq!(low.ratio(&Peer::paired("peer", Summary::of(Vec::new()))), None);
    }
}
