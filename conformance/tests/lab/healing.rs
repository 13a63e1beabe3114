use std::time::{Duration, Instant};

use conformance::lab::faults::{Fault, keep_deleting_route};
use conformance::lab::ping::{Patience, ping_all};
use conformance::lab::wait_until;

use crate::support::{Bed, LONG, running};

/// How long the processor time is watched.
const WATCHED: Duration = Duration::from_secs(5);

#[test]
fn whatever_is_broken_behind_the_daemons_back_is_mended_towards_every_peer() {
    let bed = running(3, 1);
    let mut missed = Vec::new();
    println!(
        "{:<40} {:>14} {:>14} {:>8}",
        "fault", "traffic back", "state as before", "aim"
    );
    for fault in Fault::ALL {
        let before = bed.tunnel(1);
        fault.inject(bed.node(1), bed.node(2)).unwrap();
        let start = Instant::now();
        traffic_is_back(&bed, fault);
        let traffic = start.elapsed();
        let same = wait_until("the tunnel to be as before", LONG, || Ok(before == bed.tunnel(1)));
        let state = start.elapsed();
        println!(
            "{:<40} {:>11} ms {:>12} ms {:>5} s",
            fault.name(),
            traffic.as_millis(),
            state.as_millis(),
            fault.aim().as_secs()
        );
        if same.is_err() {
            missed.push(format!(
                "{}:\n{}",
                fault.name(),
                before.changes_to(&bed.tunnel(1)).join("\n")
            ));
        }
    }
    assert!(missed.is_empty(), "never as before after {}", missed.join("\n"));
    bed.assert_all_ping();
}

/// Waits until the first node's pod and the pods of all peers reach each other, both ways.
fn traffic_is_back(bed: &Bed, fault: Fault) {
    let (own, others) = (bed.pod_on(1).address(), bed.pods_beyond(1));
    let answered = |from: &conformance::lab::Pod, targets: &[std::net::Ipv4Addr]| {
        let answers = from
            .namespaces()
            .run(|| ping_all(targets, Patience::PROBE))
            .unwrap();
        answers.iter().all(Option::is_some)
    };
    let back = || {
        let out = answered(bed.pod_on(1), &others);
        Ok(out
            && bed
                .pods
                .iter()
                .filter(|pod| pod.node_number() != 1)
                .all(|pod| answered(pod, &[own])))
    };
    wait_until(&format!("traffic after {}", fault.name()), LONG, back).unwrap();
}

#[test]
fn a_route_that_somebody_keeps_deleting_costs_less_than_a_tenth_of_a_core() {
    let bed = running(2, 1);
    let deleter = keep_deleting_route(bed.node(1), bed.node(2)).unwrap();
    let (before, start) = (bed.daemons[0].cpu_time().unwrap(), Instant::now());
    std::thread::sleep(WATCHED);
    let used = bed.daemons[0].cpu_time().unwrap() - before;
    let share = used.as_secs_f64() / start.elapsed().as_secs_f64();
    println!("the daemon used {:.1} % of a core", share * 100.0);
    assert!(share < 0.1, "the daemon used {:.1} % of a core", share * 100.0);
    drop(deleter);
    let reached = || {
        let answers = bed
            .pod_on(1)
            .namespaces()
            .run(|| ping_all(&bed.pods_beyond(1), Patience::PROBE))?;
        Ok(answers.iter().all(Option::is_some))
    };
    wait_until("traffic after the deleting ended", LONG, reached).unwrap();
}
