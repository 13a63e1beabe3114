//! The report as one page of HTML, which needs no other file.

use std::fmt::Write as _;

use super::aim::{self, Judged};
use super::machine::Machine;
use super::plot;
use super::report::{Figure, Peer, Plot, Section};
use super::table::{digits, number};
use crate::report::markup::{escaped, page};

const STYLE: &str = "
body { max-width: 80rem; }
table { font-variant-numeric: tabular-nums; margin: .5rem 0 1rem; }
.number { text-align: right; white-space: nowrap; }
svg { max-width: 100%; height: auto; margin: .3rem .6rem .3rem 0; font: 11px system-ui, sans-serif; }
svg text { fill: currentColor; } svg .head { font-weight: 600; font-size: 12.5px; }
svg .mid { text-anchor: middle; } svg .end { text-anchor: end; }
svg .grid { stroke: #8885; stroke-width: 1; fill: none; }
svg .line { fill: none; stroke-width: 1.8; stroke: currentColor; }
svg circle { fill: currentColor; stroke: none; }
svg .line.ours { stroke: #1a73e8; } svg circle.ours { fill: #1a73e8; fill-opacity: .6; }
svg .line.peer { stroke: #d93025; } svg circle.peer { fill: #d93025; }
svg .line.floor { stroke: #188038; } svg circle.floor { fill: #188038; }
svg .line.other { stroke: #9334e6; } svg circle.other { fill: #9334e6; }
svg circle.elsewhere { fill: #80868b; }
svg .line.aim { stroke: #e37400; stroke-dasharray: 4 3; } svg circle.aim { fill: #e37400; }
";

/// The head of a section's table.
const HEAD: &str = "<tr><th class=\"number\">Ratio</th><th>Figure</th><th>Unit</th><th class=\"number\">Median</th>\
                    <th class=\"number\">p95</th><th class=\"number\">p99</th><th class=\"number\">n</th><th>Peer</th>\
                    <th class=\"number\">Median</th><th class=\"number\">p95</th><th class=\"number\">p99</th>\
                    <th class=\"number\">n</th><th>Aim</th></tr>";

/// Draws the report.
pub(super) fn html(machine: &Machine, sections: &[Section]) -> String {
    let mut text = format!("<p>{}</p>\n<ul>\n", escaped(&machine.line()));
    // Writing to a string cannot fail.
    for (name, version) in machine.versions() {
        writeln!(
            text,
            "<li><code>{}</code> {}</li>",
            escaped(name),
            escaped(version)
        )
        .ok();
    }
    text.push_str(
        "</ul>\n<p>Ratio: how many times better ours is than the peer, by the medians. Percentiles stand where a sample \
         lies above them. Peers without * took turns with ours in this run; those with * are from another sitting.</p>\n",
    );
    aims(&mut text, sections);
    let mut by_size = Some(plot::by_size(sections)).filter(|charts| !charts.is_empty());
    for section in sections {
        if matches!(section.plot, Plot::Size(_))
            && let Some(charts) = by_size.take()
        {
            write!(text, "<h2>Scale: by the number of peers</h2>\n{charts}").ok();
        }
        draw(&mut text, section);
    }
    page("Benchmark", STYLE, &text)
}

/// Every aim, and whether it is met; nothing where there are none.
fn aims(text: &mut String, sections: &[Section]) {
    let mut rows = String::new();
    for section in sections {
        for figure in &section.figures {
            for judged in aim::judge(figure, section.tail) {
                let name = escaped(&format!("{}, {}", figure.name, section.short));
                let (class, verdict, now) = verdict(&judged);
                writeln!(
                    rows,
                    "<tr><td class=\"{class}\">{verdict}</td><td class=\"number\">{}</td><td>{}</td><td>{name}</td></tr>",
                    escaped(now),
                    escaped(&judged.wanted)
                )
                .ok();
            }
        }
    }
    if !rows.is_empty() {
        write!(
            text,
            "<h2>Aims</h2>\n<table>\n<thead><tr><th>Verdict</th><th class=\"number\">Reached</th><th>Aim</th><th>Figure</th></tr></thead>\n\
             <tbody>\n{rows}</tbody>\n</table>\n"
        )
        .ok();
    }
}

fn verdict(judged: &Judged) -> (&'static str, &'static str, &str) {
    match &judged.reached {
        Some((now, true)) => ("pass", "met", now),
        Some((now, false)) => ("bad", "not met", now),
        None => ("skip", "not measured", ""),
    }
}

fn draw(text: &mut String, section: &Section) {
    write!(
        text,
        "<h2>{}</h2>\n<ul class=\"small\">\n",
        escaped(&section.title)
    )
    .ok();
    for note in &section.notes {
        writeln!(text, "<li>{}</li>", escaped(note)).ok();
    }
    write!(text, "</ul>\n<table>\n<thead>{HEAD}</thead>\n<tbody>\n").ok();
    for figure in &section.figures {
        row(text, figure, section.tail);
    }
    text.push_str("</tbody>\n</table>\n");
    text.push_str(&plot::of_section(section));
}

/// A figure, with a line for each of its peers.
fn row(text: &mut String, figure: &Figure, percent: u8) {
    let lines = figure.peers.len().max(1);
    let first = figure.peers.first();
    let ours = [figure.ours.median(), figure.ours.tail(95), figure.ours.tail(99)];
    let span = format!("rowspan=\"{lines}\"");
    let cells = ours.map(|value| format!("<td {span} class=\"number\">{}</td>", number(value)));
    let mut aims = String::new();
    for judged in aim::judge(figure, percent) {
        let (class, verdict, now) = verdict(&judged);
        let (now, wanted) = (escaped(now), escaped(&judged.wanted));
        write!(aims, "<div class=\"{class}\">{verdict}: {now} ({wanted})</div>").ok();
    }
    writeln!(
        text,
        "<tr>{}<td {span}>{}</td><td {span}>{}</td>{}<td {span} class=\"number\">{}</td>{}<td {span}>{aims}</td></tr>",
        ratio(figure, first),
        escaped(&figure.name),
        escaped(figure.unit),
        cells.concat(),
        figure.ours.samples().len(),
        theirs(first, percent),
    )
    .ok();
    for peer in figure.peers.iter().skip(1) {
        let (ratio, theirs) = (ratio(figure, Some(peer)), theirs(Some(peer), percent));
        writeln!(text, "<tr>{ratio}{theirs}</tr>").ok();
    }
}

fn ratio(figure: &Figure, peer: Option<&Peer>) -> String {
    let ratio = peer.and_then(|peer| figure.ratio(peer));
    let told = ratio.map(|ratio| format!("×{}", digits(ratio)));
    format!("<td class=\"number\">{}</td>", told.unwrap_or_default())
}

/// The cells of a peer: its name, median, percentiles, and the number of its samples where it has any.
fn theirs(peer: Option<&Peer>, percent: u8) -> String {
    let Some(peer) = peer else {
        return "<td></td>".repeat(5);
    };
    let tail = |wanted: u8| match peer {
        Peer::Paired { summary, .. } => summary.tail(wanted),
        // Its one percentile is the section's.
        Peer::Baseline { tail, .. } => tail.filter(|_| wanted == percent),
    };
    let count = match peer {
        Peer::Paired { summary, .. } => summary.samples().len().to_string(),
        Peer::Baseline { .. } => String::new(),
    };
    let numbers = [peer.median(), tail(95), tail(99)].map(number).into_iter();
    let cells: String = numbers
        .chain([count])
        .map(|cell| format!("<td class=\"number\">{cell}</td>"))
        .collect();
    format!("<td>{}</td>{cells}", escaped(&peer.name()))
}

#[cfg(test)]
mod tests;
