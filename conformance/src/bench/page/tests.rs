use super::*;
use crate::bench::aim::{Aim, FLOOR, PEER};
use crate::bench::stats::Summary;
use crate::report::markup::check::{elements, is_well_formed};

/// A text with everything that must not be taken for markup.
const HOSTILE: &str = "</td><script>alert('\"&\u{1b}')</script>";

fn some(count: u8, factor: f64) -> Summary {
    Summary::of((1..=count).map(|number| f64::from(number) * factor).collect())
}

fn add() -> Figure {
    let peers = vec![
        Peer::paired(PEER, some(200, 5.0)),
        Peer::paired(FLOOR, some(100, 0.5)),
        Peer::Baseline {
            name: "reference",
            p50: 300.0,
            tail: Some(400.0),
        },
    ];
    Figure::low("ADD time", "ms", some(200, 1.0), peers).with(vec![
        Aim::times_peer(4.0),
        Aim::times_floor(1.3),
        Aim::TailMost(1000.0),
    ])
}

fn section(title: &str, plot: Plot, figures: Vec<Figure>) -> Section {
    Section {
        title: title.to_owned(),
        short: "short",
        notes: vec![HOSTILE.to_owned()],
        tail: 95,
        plot,
        figures,
    }
}

fn at_size(size: u16) -> Section {
    let time = f64::from(size) / 100.0;
    let peers = vec![Peer::paired(FLOOR, Summary::single(time / 2.0))];
    let figure = Figure::low("all programmed", "ms", some(5, time), peers).with(vec![Aim::Most(140.0)]);
    section(&format!("{size} peers"), Plot::Size(size), vec![figure])
}

/// Every kind of section, with full, single and missing samples.
fn sections() -> Vec<Section> {
    let none = Summary::of(Vec::new());
    let throughput = |name: &str, peers| Figure::high(name, "Gbit/s", some(3, 1.0), peers);
    let plain = Peer::paired("plain commands", some(3, 1.1));
    vec![
        section(HOSTILE, Plot::Distributions, vec![add()]),
        section(
            "Footprint",
            Plot::None,
            vec![Figure::low(
                "flannel on disk",
                "MiB",
                Summary::single(2.6),
                Vec::new(),
            )],
        ),
        at_size(3),
        at_size(1000),
        section(
            "Changes",
            Plot::Course,
            vec![
                Figure::low("RSS", "MiB", some(10, 1.0), Vec::new()),
                Figure::low("log", "KiB", Summary::single(0.0), Vec::new()),
            ],
        ),
        section(
            "Data plane",
            Plot::Ratios,
            vec![
                throughput("vxlan", vec![plain]),
                throughput("host-gw", Vec::new()),
                Figure::low(HOSTILE, "", none.clone(), Vec::new()),
            ],
        ),
        section(
            "Few",
            Plot::Distributions,
            vec![
                Figure::low("nothing", "ms", none.clone(), vec![Peer::paired(PEER, none)]),
                Figure::low("zero", "ms", Summary::of(vec![0.0; 20]), Vec::new()),
                Figure::low("once", "ms", Summary::single(1.0), Vec::new()).with(vec![Aim::times_floor(1.1)]),
            ],
        ),
        section("Empty", Plot::Distributions, Vec::new()),
    ]
}

fn page() -> String {
    html(&Machine::of(HOSTILE), &sections())
}

#[test]
fn the_page_is_well_formed_whatever_is_in_it() {
    for sections in [sections(), vec![at_size(3)], Vec::new()] {
        let text = html(&Machine::of(HOSTILE), &sections);
        assert_eq!(is_well_formed(&text), Ok(()), "{text}");
    }
}

#[test]
fn texts_stay_texts() {
    let text = page();
    assert!(!text.contains("<script>") && !text.contains('\u{1b}'), "{text}");
    // The machine's line and versions, a title, a figure's name and a note of each section.
    assert!(
        text.matches("&lt;script&gt;").count() >= 5 + 2 + 1 + 1 + 8,
        "{text}"
    );
}

#[test]
fn the_page_needs_no_other_file() {
    let text = page();
    for part in ["http:", "https:", "src=", "href=", "<link", "@import", "url("] {
        assert!(!text.contains(part), "{part}");
    }
}

#[test]
fn every_figure_has_its_row_with_the_ratio_first() {
    let text = page();
    for section in sections() {
        assert!(text.contains(&format!("<h2>{}</h2>", escaped(&section.title))));
        for figure in section.figures {
            let name = format!("\">{}</td>", escaped(&figure.name));
            assert!(text.contains(&name), "no row of {}", figure.name);
        }
    }
    // Ratio, figure, unit, median, p95, p99 and number; of the peer the same; the aims.
    let number = |value: &str| format!("<td class=\"number\">{value}</td>");
    let ours = |value: &str| format!("<td rowspan=\"3\" class=\"number\">{value}</td>");
    let row = [
        &format!("<tr>{}", number("×5.00")),
        "<td rowspan=\"3\">ADD time</td><td rowspan=\"3\">ms</td>",
        &ours("100"),
        &ours("190"),
        &ours("198"),
        &ours("200"),
        "<td>peer</td>",
        &number("502"),
        &number("950"),
        &number("990"),
        &number("200"),
        "<td rowspan=\"3\"><div class=\"pass\">met: ×5.0 (≥ ×4 peer)</div>",
        "<div class=\"bad\">not met: 3.98 (≤ 1.3 × floor)</div>",
        "<div class=\"pass\">met: 190.0 (≤ 1000 ms, p95)</div></td></tr>\n",
        &format!("<tr>{}<td>floor</td>{}", number("×0.25"), number("25.2")),
    ]
    .concat();
    assert!(text.contains(&row), "{row}\nis not in\n{text}");
    let reference = [
        &number("×2.99"),
        "<td>reference *</td>",
        &number("300"),
        &number("400"),
        &number("–"),
        &number(""),
    ]
    .concat();
    assert!(text.contains(&reference), "{reference}\nis not in\n{text}");
}

#[test]
fn what_was_not_measured_is_no_aim_met() {
    let text = page();
    let row = "<tr><td class=\"skip\">not measured</td><td class=\"number\"></td><td>≤ 1.1 × floor</td><td>once, short</td></tr>";
    assert!(text.contains(row), "{text}");
}

#[test]
fn each_kind_of_section_has_its_plots() {
    let text = page();
    let titles: Vec<_> = elements(&text, "svg")
        .into_iter()
        .map(|svg| {
            elements(svg, "title")
                .first()
                .copied()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert_eq!(
        titles,
        [
            "ADD time, % of the samples",
            "all programmed, ms",
            "RSS, MiB",
            "Gbit/s: ours to the peers, above 1 ours is better",
            "zero, % of the samples",
        ]
    );
    assert!(text.find("by the number of peers").unwrap() < text.find("<h2>3 peers</h2>").unwrap());
}

#[test]
fn plots_show_ours_beside_each_peer_and_the_aim() {
    let text = page();
    let plots = elements(&text, "svg");
    for (plot, marks) in [
        (
            0,
            &[
                "line ours",
                "line peer",
                "line floor",
                "circle class=\"elsewhere\"",
                "line aim",
            ][..],
        ),
        (
            1,
            &[
                "line ours",
                "line floor",
                "circle class=\"ours\"",
                "circle class=\"aim\"",
            ],
        ),
        (3, &["circle class=\"peer\"", "plain commands: 0.909"]),
    ] {
        for mark in marks {
            assert!(plots[plot].contains(mark), "{mark} is not in {}", plots[plot]);
        }
    }
    // Every sample of few is drawn; of a backend without peers there is nothing to tell.
    assert_eq!(plots[1].matches("<circle class=\"ours\"").count(), 10 + 1);
    assert!(!plots[3].contains("host-gw"), "{}", plots[3]);
    // Two hundred samples are two hundred steps.
    let ours = plots[0].rsplit("line ours").next().unwrap();
    let steps = ours.split('>').next().unwrap().matches('V').count();
    assert_eq!(steps, 200);
}
