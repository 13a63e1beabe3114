use std::fmt::Write as _;

use super::axis::{Axis, number};
use crate::report::markup::escaped;

/// The size of a chart, and how far its field is from the edges, in pixels.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 284.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 76.0;
/// The place that a letter and a line take in the legend, which has room for two lines.
const LETTER: f64 = 6.2;
const LINE: f64 = 14.0;

/// How the points of a series are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Line,
    /// A staircase, as distributions have.
    Steps,
    Dots,
}

/// Points of one origin.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    /// What the legend calls it; several may share a name.
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) points: Vec<(f64, f64)>,
}

/// A field with two axes and what is drawn on it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) x_label: String,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
}

impl Chart {
    /// The chart as an element of HTML.
    pub(super) fn svg(&self) -> String {
        let title = escaped(&self.title);
        let mut text = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n\
             <title>{title}</title>\n<text x=\"{LEFT}\" y=\"16\" class=\"head\">{title}</text>\n"
        );
        self.grid(&mut text);
        for series in &self.series {
            self.draw(&mut text, series);
        }
        self.legend(&mut text);
        text.push_str("</svg>\n");
        text
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn grid(&self, text: &mut String) {
        let (right, floor) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in self.x.ticks() {
            grid_line(text, self.x(*tick), *tick, (TOP, floor, floor + 14.0));
        }
        // Writing to a string cannot fail.
        for tick in self.y.ticks() {
            let (y, number) = (self.y(*tick), number(*tick));
            writeln!(
                text,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{number}</text>",
                LEFT - 5.0,
                y + 4.0
            )
            .ok();
        }
        let (middle, label) = (f64::midpoint(LEFT, right), escaped(&self.x_label));
        writeln!(
            text,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" class=\"mid\">{label}</text>",
            floor + 30.0
        )
        .ok();
    }

    fn draw(&self, text: &mut String, series: &Series) {
        let class = colour(&series.name);
        let places = || series.points.iter().map(|(x, y)| (self.x(*x), self.y(*y)));
        if series.shape == Shape::Dots || series.points.len() < 2 {
            for (x, y) in places() {
                writeln!(
                    text,
                    "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"
                )
                .ok();
            }
            return;
        }
        let mut path = String::new();
        for (x, y) in places() {
            match (path.is_empty(), series.shape) {
                (true, _) => write!(path, "M{x:.1} {y:.1}"),
                (false, Shape::Steps) => write!(path, "H{x:.1}V{y:.1}"),
                (false, Shape::Line | Shape::Dots) => write!(path, "L{x:.1} {y:.1}"),
            }
            .ok();
        }
        if !path.is_empty() {
            writeln!(text, "<path class=\"line {class}\" d=\"{path}\"/>").ok();
        }
    }

    fn legend(&self, text: &mut String) {
        let mut names: Vec<&str> = Vec::new();
        for series in &self.series {
            if !names.contains(&series.name.as_str()) && !series.points.is_empty() {
                names.push(&series.name);
            }
        }
        let (mut x, mut y) = (LEFT, HEIGHT - 10.0 - LINE);
        for name in names {
            let letters = f64::from(u16::try_from(name.chars().count()).unwrap_or(u16::MAX));
            let width = 24.0 + letters * LETTER;
            if x + width > WIDTH && x > LEFT {
                (x, y) = (LEFT, y + LINE);
            }
            let (class, label) = (colour(name), escaped(name));
            writeln!(
                text,
                "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"4\"/>\
                 <text x=\"{:.1}\" y=\"{y:.1}\">{label}</text>",
                y - 4.0,
                x + 8.0
            )
            .ok();
            x += width;
        }
    }
}

/// The line of a value of the horizontal axis at `x`, from the top to the floor, and its number at a height of its own.
pub(super) fn grid_line(text: &mut String, x: f64, value: f64, (top, floor, label): (f64, f64, f64)) {
    let number = number(value);
    // Writing to a string cannot fail.
    writeln!(
        text,
        "<path class=\"grid\" d=\"M{x:.1} {top}V{floor}\"/>\
         <text x=\"{x:.1}\" y=\"{label:.1}\" class=\"mid\">{number}</text>"
    )
    .ok();
}

/// The class that a series' colour hangs on: the same wherever it is drawn.
pub(super) fn colour(name: &str) -> &'static str {
    match name {
        super::OURS => "ours",
        super::AIM => "aim",
        "floor" | "underlay" => "floor",
        "peer" | "plain commands" => "peer",
        // Figures of another sitting are marked so.
        marked if marked.ends_with('*') => "elsewhere",
        _ => "other",
    }
}
