use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use conformance::lab::faults::{Fault, keep_deleting_route};
use conformance::lab::observe::Dump;
use conformance::lab::ping::{Patience, ping_all};
use conformance::lab::{Pod, wait_until};

use crate::support::{AT_ONCE, Bed, LONG, best_of_three, running};

/// How long the processor time is watched.
const WATCHED: Duration = Duration::from_secs(5);

#[test]
fn whatever_is_broken_behind_the_daemons_back_is_mended_at_once_towards_every_peer() {
    let mut bed = running(3, 1);
    let mut missed = Vec::new();
    println!(
        "{:<36} {:>17} {:>15} {:>6}",
        "fault", "state as before", "traffic back", "aim"
    );
    for fault in Fault::ALL {
        let before = bed.tunnel(1);
        match best_of_three(|| mend(&bed, fault, &before)) {
            Ok(best) if best < AT_ONCE => (),
            Ok(best) => missed.push(format!("{}: after {best:?} at best", fault.name())),
            Err(unmended) => {
                missed.push(unmended);
                // A fresh start, so that the other faults can be looked at too.
                let (subnet, length) = bed.node(2).subnet().unwrap();
                bed.node(1)
                    .ip(&["route", "flush", "exact", &format!("{subnet}/{length}")])
                    .unwrap();
                bed.daemons[0].stop(LONG).unwrap();
                bed.daemons[0] = bed.node(1).start_flanneld(&[]).unwrap();
                wait_until("the tunnel to be as before", LONG, || Ok(before == bed.tunnel(1))).unwrap();
            }
        }
    }
    assert!(missed.is_empty(), "not mended at once:\n{}", missed.join("\n"));
    bed.assert_all_ping();
}

/// Lets a fault happen, and returns how long the daemon took to have everything as before; or what was not. Traffic may
/// wait for neighbours' own caches.
fn mend(bed: &Bed, fault: Fault, before: &Dump) -> Result<Duration, String> {
    let injected = fault.inject(bed.node(1), bed.node(2));
    injected.map_err(|err| format!("{}: {err:#}", fault.name()))?;
    let start = Instant::now();
    let state = wait_until(
        "the tunnel to be as before",
        LONG,
        || Ok(*before == bed.tunnel(1)),
    );
    let took = start.elapsed();
    let traffic = wait_until("traffic", LONG, || Ok(all_reach_the_first_node(bed)));
    let (traffic_after, aim) = (start.elapsed().as_millis(), fault.aim().as_secs());
    println!(
        "{:<36} {:>14} ms {traffic_after:>12} ms {aim:>4} s",
        fault.name(),
        took.as_millis()
    );
    if traffic.is_err() || state.is_err() {
        let changes = before.changes_to(&bed.tunnel(1)).join("\n");
        return Err(format!("{}: traffic {traffic:?}\n{changes}", fault.name()));
    }
    Ok(took)
}

/// Whether the first node's pod and the pods of all peers reach each other, both ways.
fn all_reach_the_first_node(bed: &Bed) -> bool {
    let (own, others) = (bed.pod_on(1).address(), bed.pods_beyond(1));
    let mut peers = bed.pods.iter().filter(|pod| pod.node_number() != 1);
    reaches(bed.pod_on(1), &others) && peers.all(|pod| reaches(pod, &[own]))
}

fn reaches(from: &Pod, targets: &[Ipv4Addr]) -> bool {
    let answers = from
        .namespaces()
        .run(|| ping_all(targets, Patience::PROBE))
        .unwrap();
    answers.iter().all(Option::is_some)
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
    let back = || Ok(reaches(bed.pod_on(1), &bed.pods_beyond(1)));
    wait_until("traffic after the deleting ended", LONG, back).unwrap();
}
