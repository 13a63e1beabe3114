use std::io::Write;
use std::sync::{Arc, Mutex};

use super::*;
use crate::lab::matrix::Place;

#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .map_err(|_| std::io::Error::other("poisoned"))?
            .write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn matrix(nodes: u8, pods: u8, lost: &[(usize, usize)]) -> Matrix {
    let pod = |node: u8, number: u8| Place {
        name: format!("n{node}-p{number}"),
        node_number: node,
        is_pod: true,
    };
    let host = |node: u8| Place {
        name: format!("node{node}"),
        node_number: node,
        is_pod: false,
    };
    let targets: Vec<_> = (1..=nodes)
        .flat_map(|node| (1..=pods).map(move |number| pod(node, number)))
        .collect();
    let own = |node: u8| {
        [host(node)]
            .into_iter()
            .chain((1..=pods).map(move |number| pod(node, number)))
    };
    let sources: Vec<_> = (1..=nodes).flat_map(own).collect();
    let cell = |row, column| (!lost.contains(&(row, column))).then_some(Duration::from_micros(123));
    let row = |row| (0..targets.len()).map(|column| cell(row, column)).collect();
    let round_trips = (0..sources.len()).map(row).collect();
    Matrix {
        sources,
        targets,
        round_trips,
    }
}

fn shown(matrix: &Matrix) -> String {
    let paper = Paper::default();
    let mut screen = Screen::plain(Box::new(paper.clone()));
    show(&mut screen, matrix).unwrap();
    closing(&mut screen, matrix.total(), &matrix.failures()).unwrap();
    String::from_utf8(paper.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn a_small_matrix_shows_every_time() {
    let text = shown(&matrix(2, 1, &[]));
    let expected = "\nPing matrix: round-trip times in ms, from the row to the column\n            n1-p1  n2-p1\n  \
                    node1     0.123  0.123\n  n1-p1     0.123  0.123\n  node2     0.123  0.123\n  \
                    n2-p1     0.123  0.123\n\n8 pings, 0 failed\n";
    assert_eq!(text, expected);
}

#[test]
fn a_lost_ping_is_marked_and_its_pair_is_named() {
    let text = shown(&matrix(2, 1, &[(1, 1)]));
    assert!(text.contains("  n1-p1     0.123   FAIL\n"), "{text}");
    assert!(
        text.ends_with("no answer: n1-p1 → n2-p1\n8 pings, 1 failed\n"),
        "{text}"
    );
}

#[test]
fn a_large_matrix_is_summarised_by_nodes_and_still_counts_what_was_lost() {
    let text = shown(&matrix(20, 10, &[(0, 10), (0, 11)]));
    assert!(
        text.contains("  node1     0.123/0.12      2 FAIL  0.123/0.12"),
        "{text}"
    );
    assert!(text.ends_with("44000 pings, 2 failed\n"), "{text}");
}

#[test]
fn long_times_lose_decimals_and_stay_apart() {
    for (micros, small, large) in [
        (9_999, "9.999", "9.999/10.00"),
        (99_996, "100.0", "100.0/100.0"),
        (412_180, "412.2", "412.2/412.2"),
        (2_999_700, "3000", "3000/3000"),
        (123_456_000, "123456", "123456/123456"),
    ] {
        for (pods, expected) in [(1, small), (7, large)] {
            let mut slow = matrix(2, pods, &[]);
            let times = slow.round_trips.iter_mut().flatten();
            times.for_each(|time| *time = Some(Duration::from_micros(micros)));
            let text = shown(&slow);
            let line = text.lines().find(|line| line.starts_with("  node1 ")).unwrap();
            let cells: Vec<_> = line.split_whitespace().skip(1).collect();
            assert_eq!(cells, [expected; 2], "{line}");
        }
    }
}

#[test]
fn no_line_is_wider_than_100_columns() {
    for (nodes, pods) in [(1, 1), (3, 2), (12, 1), (3, 4), (20, 10), (240, 1)] {
        let text = shown(&matrix(nodes, pods, &[(0, 0)]));
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 100, "{nodes} nodes with {pods} pods: {widest} columns");
    }
}
