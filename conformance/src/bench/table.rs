//! The report as a table that a person reads.

use std::fmt::Write as _;

use super::report::{Figure, Peer, Section};

/// Shown where there is no figure.
const NONE: &str = "–";

/// Draws a section: the ratio first, then ours, then the peer.
pub(super) fn draw(section: &Section) -> String {
    let width = section
        .figures
        .iter()
        .map(|figure| figure.name.chars().count())
        .max()
        .unwrap_or(0);
    let tail = format!("p{}", section.tail);
    let mut text = format!("\n{}\n", section.title);
    for note in &section.notes {
        text.push_str(&format!("  {note}\n"));
    }
    line(
        &mut text,
        width,
        ["ratio", "", "", "ours p50", &tail, "n", "peer p50", &tail, "peer"],
    );
    for figure in &section.figures {
        draw_figure(&mut text, width, section.tail, figure);
    }
    text
}

fn draw_figure(text: &mut String, width: usize, percent: u8, figure: &Figure) {
    let (p50, tail) = (number(figure.ours.median()), number(figure.ours.tail(percent)));
    let count = figure.ours.samples().len().to_string();
    let Some((first, rest)) = figure.peers.split_first() else {
        let cells = ["", &figure.name, figure.unit, &p50, &tail, &count, "", "", ""];
        return line(text, width, cells);
    };
    let (ratio, theirs) = peer_cells(figure, first, percent);
    let [peer_p50, peer_tail, name] = &theirs;
    let cells = [
        &ratio,
        &figure.name,
        figure.unit,
        &p50,
        &tail,
        &count,
        peer_p50,
        peer_tail,
        name,
    ];
    line(text, width, cells);
    for peer in rest {
        let (ratio, [peer_p50, peer_tail, name]) = peer_cells(figure, peer, percent);
        line(
            text,
            width,
            [&ratio, "", "", "", "", "", &peer_p50, &peer_tail, &name],
        );
    }
}

fn peer_cells(figure: &Figure, peer: &Peer, percent: u8) -> (String, [String; 3]) {
    let ratio = figure
        .ratio(peer)
        .map_or_else(|| NONE.to_owned(), |ratio| format!("×{}", digits(ratio)));
    (
        ratio,
        [number(peer.median()), number(peer.tail(percent)), peer.name()],
    )
}

fn line(text: &mut String, width: usize, cells: [&str; 9]) {
    let [ratio, name, unit, p50, tail, count, peer_p50, peer_tail, peer] = cells;
    let drawn = format!(
        "{ratio:>7}  {name:<width$}  {unit:<6} {p50:>8} {tail:>8} {count:>4} {peer_p50:>9} {peer_tail:>8}  {peer}"
    );
    // Writing to a string cannot fail.
    writeln!(text, "{}", drawn.trim_end()).ok();
}

/// A figure, or that there is none.
pub(super) fn number(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), digits)
}

/// Three digits or so, whatever the size.
pub(super) fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Plot;
    use crate::bench::stats::Summary;

    #[test]
    fn a_section_shows_each_peer_on_a_line_with_the_ratio_first() {
        let peers = vec![
            Peer::paired("other", Summary::single(5.0)),
            Peer::Baseline {
                name: "reference",
                p50: 250.0,
                tail: Some(300.0),
            },
        ];
        let section = Section {
            title: "Times".to_owned(),
            short: "times",
            notes: vec!["of day".to_owned()],
            tail: 95,
            plot: Plot::None,
            figures: vec![
                Figure::low("ADD", "ms", Summary::single(2.5), peers),
                Figure::low("alone", "MiB", Summary::of(vec![0.0; 20]), Vec::new()),
            ],
        };
        let expected = "
Times
  of day
  ratio                ours p50      p95    n  peer p50      p95  peer
  ×2.00  ADD    ms         2.50        –    1      5.00        –  other
   ×100                                             250      300  reference *
         alone  MiB        0.00     0.00   20
";
        assert_eq!(draw(&section), expected);
    }

    #[test]
    fn digits_follow_the_size() {
        for (value, text) in [
            (0.004, "0.00"),
            (9.994, "9.99"),
            (10.04, "10.0"),
            (123.4, "123"),
            (-1.5, "-1.50"),
        ] {
            assert_eq!(digits(value), text);
        }
    }
}
