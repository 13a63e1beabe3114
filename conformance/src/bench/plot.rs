//! The plots of a report, as elements of HTML in SVG: what an engineer wants to see at a glance.

mod axis;
mod chart;
mod ratios;

use axis::Axis;
use chart::{Chart, Series, Shape};

use super::aim;
use super::report::{Figure, Peer, Plot, Section};
use super::stats::Summary;

/// The names of what is ours and of what it is meant to reach, in legends.
const OURS: &str = "ours";
const AIM: &str = "aim";

/// A distribution is drawn with no more steps than this: a screen has no more.
const MOST_STEPS: usize = 200;

/// The plots of one section, but for those by the number of peers.
pub(super) fn of_section(section: &Section) -> String {
    let figures = &section.figures;
    match section.plot {
        Plot::None | Plot::Size(_) => String::new(),
        Plot::Distributions => figures
            .iter()
            .filter_map(|figure| distribution(figure, section.tail))
            .map(|chart| chart.svg())
            .collect(),
        Plot::Course => figures
            .iter()
            .filter_map(course)
            .map(|chart| chart.svg())
            .collect(),
        Plot::Ratios => {
            let mut units: Vec<_> = figures.iter().map(|figure| figure.unit).collect();
            units.sort_unstable();
            units.dedup();
            let of_unit = |unit: &&str| {
                let of_unit: Vec<_> = figures.iter().filter(|figure| figure.unit == *unit).collect();
                ratios::svg(&of_unit, unit)
            };
            units.iter().map(of_unit).collect()
        }
    }
}

/// Each figure by the number of peers, from the sections that are of so many peers each; nothing for less than two.
pub(super) fn by_size(sections: &[Section]) -> String {
    let mut sizes: Vec<_> = sections
        .iter()
        .filter_map(|section| match section.plot {
            Plot::Size(size) => Some((f64::from(size), section)),
            Plot::None | Plot::Distributions | Plot::Course | Plot::Ratios => None,
        })
        .collect();
    sizes.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let Some((_, first)) = sizes.first().filter(|_| sizes.len() > 1) else {
        return String::new();
    };
    let charts = first.figures.iter().filter_map(|figure| {
        let at = |(size, section): &(f64, &'_ Section)| {
            let mut all = section.figures.iter();
            all.find(|other| other.name == figure.name)
                .map(|found| (*size, found.clone()))
        };
        growth(&sizes.iter().filter_map(at).collect::<Vec<_>>())
    });
    charts.map(|chart| chart.svg()).collect()
}

/// Which part of the samples is no more than a value: ours, and each peer's.
fn distribution(figure: &Figure, percent: u8) -> Option<Chart> {
    if figure.ours.samples().len() < 2 {
        return None;
    }
    let mut series = Vec::new();
    for peer in &figure.peers {
        let points = match peer {
            Peer::Paired { summary, .. } => steps(summary),
            Peer::Baseline { p50, tail, .. } => {
                let tail = tail.map(|tail| (tail, f64::from(percent)));
                [(*p50, 50.0)].into_iter().chain(tail).collect()
            }
        };
        let shape = match peer {
            Peer::Paired { .. } => Shape::Steps,
            Peer::Baseline { .. } => Shape::Dots,
        };
        let name = peer.name();
        series.push(Series { name, shape, points });
    }
    series.extend(bounds(figure).into_iter().map(|bound| Series {
        name: AIM.to_owned(),
        shape: Shape::Line,
        points: vec![(bound, 0.0), (bound, 50.0)],
    }));
    // Last, so that nothing lies over it.
    series.push(Series {
        name: OURS.to_owned(),
        shape: Shape::Steps,
        points: steps(&figure.ours),
    });
    Some(Chart {
        title: format!("{}, % of the samples", figure.name),
        x: Axis::fitting(&values(&series, |(x, _)| *x))?,
        x_label: figure.unit.to_owned(),
        y: Axis::percent(),
        series,
    })
}

/// A staircase from no sample to all of them.
fn steps(summary: &Summary) -> Vec<(f64, f64)> {
    let mut sorted = summary.samples().to_vec();
    sorted.sort_by(f64::total_cmp);
    let part = 100.0 / count(sorted.len());
    let every = sorted.len().div_ceil(MOST_STEPS).max(1);
    let all = sorted.iter().enumerate();
    let shown = all.filter(|(index, _)| (index + 1) % every == 0 || index + 1 == sorted.len());
    let steps = shown.map(|(index, value)| (*value, count(index + 1) * part));
    let start = sorted.first().map(|lowest| (*lowest, 0.0));
    start.into_iter().chain(steps).collect()
}

/// The samples of a figure, one after another.
fn course(figure: &Figure) -> Option<Chart> {
    let samples = figure.ours.samples();
    if samples.len() < 2 {
        return None;
    }
    let points = samples.iter().enumerate();
    let series = vec![Series {
        name: OURS.to_owned(),
        shape: Shape::Line,
        points: points.map(|(index, value)| (count(index + 1), *value)).collect(),
    }];
    Some(Chart {
        title: format!("{}, {}", figure.name, figure.unit),
        x: Axis::from_zero(&values(&series, |(x, _)| *x))?,
        x_label: "sample".to_owned(),
        y: Axis::from_zero(&values(&series, |(_, y)| *y))?,
        series,
    })
}

/// One figure at each size: its medians and its samples, the peers' medians, and what is aimed at.
fn growth(at: &[(f64, Figure)]) -> Option<Chart> {
    let (_, first) = at.first()?;
    let mut series: Vec<Series> = Vec::new();
    for (size, figure) in at {
        for peer in &figure.peers {
            let shape = match peer {
                Peer::Paired { .. } => Shape::Line,
                Peer::Baseline { .. } => Shape::Dots,
            };
            add(&mut series, peer.name(), shape, *size, peer.median());
        }
        for bound in bounds(figure) {
            add(&mut series, AIM.to_owned(), Shape::Dots, *size, Some(bound));
        }
    }
    let name = || OURS.to_owned();
    for (size, figure) in at {
        add(&mut series, name(), Shape::Line, *size, figure.ours.median());
        for sample in figure.ours.samples() {
            add(&mut series, name(), Shape::Dots, *size, Some(*sample));
        }
    }
    Some(Chart {
        title: format!("{}, {}", first.name, first.unit),
        x: Axis::at(at.iter().map(|(size, _)| *size).collect())?,
        x_label: "peers".to_owned(),
        y: Axis::from_zero(&values(&series, |(_, y)| *y))?,
        series,
    })
}

/// Adds a point to the series of that name and shape.
fn add(series: &mut Vec<Series>, name: String, shape: Shape, x: f64, y: Option<f64>) {
    let Some(y) = y else { return };
    let same = series
        .iter_mut()
        .find(|one| one.name == name && one.shape == shape);
    if let Some(same) = same {
        same.points.push((x, y));
    } else {
        let points = vec![(x, y)];
        series.push(Series { name, shape, points });
    }
}

fn bounds(figure: &Figure) -> Vec<f64> {
    let aims = figure.aims.iter();
    aims.filter_map(|aim| aim::bound(figure, aim)).collect()
}

fn values(series: &[Series], part: fn(&(f64, f64)) -> f64) -> Vec<f64> {
    let points = series.iter().flat_map(|series| &series.points);
    points.map(part).collect()
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
