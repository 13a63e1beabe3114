//! How ours stands to each peer of the same run: a row for each figure, a dot for each peer.

use std::fmt::Write as _;

use super::axis::Axis;
use super::chart::{colour, grid_line};
use crate::bench::report::{Figure, Peer};
use crate::report::markup::escaped;

const WIDTH: f64 = 940.0;
/// Where the field of dots begins, after the figures' names, and where it ends.
const LEFT: f64 = 330.0;
const RIGHT: f64 = 925.0;
const TOP: f64 = 44.0;
const ROW: f64 = 18.0;

/// A figure's name and, by the peers' names, its ratios.
struct Row<'a> {
    name: &'a str,
    ratios: Vec<(String, f64)>,
}

/// The plot of all figures of a unit; nothing where none has a ratio.
pub(super) fn svg(figures: &[&Figure], unit: &str) -> String {
    let rows: Vec<_> = figures.iter().map(|figure| row(figure)).collect();
    let rows: Vec<_> = rows.into_iter().filter(|row| !row.ratios.is_empty()).collect();
    let of_all = rows.iter().flat_map(|row| &row.ratios);
    // One is where ours and the peer are the same: it is always in sight.
    let values: Vec<_> = of_all.map(|(_, ratio)| *ratio).chain([1.0]).collect();
    let Some(axis) = Axis::fitting(&values).filter(|_| !rows.is_empty()) else {
        return String::new();
    };
    let count = f64::from(u16::try_from(rows.len()).unwrap_or(u16::MAX));
    let (floor, height) = (TOP + count * ROW, TOP + count * ROW + 24.0);
    let title = escaped(&format!("{unit}: ours to the peers, above 1 ours is better"));
    let mut text = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>{title}</title>\n<text x=\"0\" y=\"16\" class=\"head\">{title}</text>\n"
    );
    legend(&mut text, &rows);
    for tick in axis.ticks() {
        grid_line(&mut text, x(&axis, *tick), *tick, (TOP, floor, floor + 15.0));
    }
    // Writing to a string cannot fail.
    writeln!(
        text,
        "<path class=\"line\" d=\"M{:.1} {TOP}V{floor}\"/>",
        x(&axis, 1.0)
    )
    .ok();
    let mut y = TOP + ROW / 2.0;
    for row in &rows {
        let name = escaped(row.name);
        writeln!(
            text,
            "<path class=\"grid\" d=\"M{LEFT} {y}H{RIGHT}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{name}</text>",
            LEFT - 8.0,
            y + 4.0
        )
        .ok();
        for (peer, ratio) in &row.ratios {
            let (class, x, said) = (colour(peer), x(&axis, *ratio), escaped(peer));
            writeln!(
                text,
                "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y}\" r=\"4.5\"><title>{said}: {ratio:.3}</title></circle>"
            )
            .ok();
        }
        y += ROW;
    }
    text.push_str("</svg>\n");
    text
}

fn x(axis: &Axis, ratio: f64) -> f64 {
    LEFT + axis.place(ratio) * (RIGHT - LEFT)
}

fn row(figure: &Figure) -> Row<'_> {
    let ratios = figure.peers.iter().filter_map(|peer| match peer {
        Peer::Paired { name, .. } => Some((name.clone(), figure.ratio(peer)?)),
        Peer::Baseline { .. } => None,
    });
    Row {
        name: &figure.name,
        ratios: ratios.collect(),
    }
}

fn legend(text: &mut String, rows: &[Row<'_>]) {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.ratios) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut x = LEFT;
    for name in names {
        let (class, label) = (colour(name), escaped(name));
        writeln!(
            text,
            "<circle class=\"{class}\" cx=\"{x}\" cy=\"30\" r=\"4.5\"/><text x=\"{}\" y=\"34\">{label}</text>",
            x + 9.0
        )
        .ok();
        x += 150.0;
    }
}
