use std::net::Ipv4Addr;

use net_types::MacAddr;
use netstate::{
    AdminState, ErrorClass, Link, LinkKind, LinkScope, Neigh, NeighKey, Nexthop, Route, RouteKey, RouteKind,
};

use super::*;

mod refused_route;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_difference_is_applied_verified_and_then_left_alone() {
    let mut engine = with_goal(&["10.0.0.1"]);

    assert!(matches!(engine.next_work(ms(0)), Some(Work::Observe(_))));
    engine.observed(ms(1), Ok(holding(&[])));
    let Some(Work::Apply(ops)) = engine.next_work(ms(1)) else {
        panic!("nothing to apply")
    };
    assert_eq!(ops.len(), 1);
    assert!(!engine.is_settled());
    engine.applied(vec![Ok(())]);
    let spots = spots(&["10.0.0.1"]);
    assert_eq!(
        engine.next_work(ms(2)),
        Some(Work::ObserveAt(goal(&[]).scope, spots.clone()))
    );
    engine.observed(ms(3), Ok(holding(&["10.0.0.1"]).at(&spots)));

    assert!(engine.is_settled());
    assert_eq!(engine.next_work(ms(4)), None);
    assert_eq!(engine.wake_at(ms(4)), Some(ms(1) + AUDIT_INTERVAL));
    assert_eq!(engine.take_reports(), []);
}

#[test]
fn an_audit_looks_again_although_nothing_was_noticed() {
    let mut engine = settled(&["10.0.0.1"]);
    assert!(matches!(
        engine.next_work(AUDIT_INTERVAL + SECOND),
        Some(Work::Observe(_))
    ));
}

#[test]
fn large_tables_are_audited_less_often() {
    let ips: Vec<_> = (0_u32..)
        .take(AUDITED_PER_INTERVAL)
        .map(|n| Ipv4Addr::from_bits(n).to_string())
        .collect();
    let ips: Vec<_> = ips.iter().map(String::as_str).collect();
    for (objects, intervals) in [(AUDITED_PER_INTERVAL - 1, 1), (AUDITED_PER_INTERVAL, 2)] {
        let engine = settled(&ips[..objects]);
        assert_eq!(
            engine.wake_at(ms(0)),
            Some(AUDIT_INTERVAL * intervals),
            "{objects}"
        );
    }
}

#[test]
fn a_refused_change_is_retried_with_doubling_delay_while_others_go_on() {
    let mut engine = with_goal(&["10.0.0.1", "10.0.0.2"]);
    let mut attempts = Vec::new();
    let mut others = 0;

    drive(
        &mut engine,
        ms(0),
        20 * SECOND,
        &mut holding(&[]),
        |now, op, state| {
            if op.object() == object("10.0.0.1") {
                attempts.push(now.as_millis());
                return Err(refusal(ErrorClass::Denied));
            }
            others += 1;
            *state = holding(&["10.0.0.2"]);
            Ok(())
        },
    );

    assert_eq!(others, 1);
    let gaps: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] >= pair[0]), "{gaps:?}");
    assert!((7..=10).contains(&attempts.len()), "{attempts:?}");
    assert_eq!(engine.failures().count(), 1);
    assert_eq!(engine.take_reports().len(), 1);
}

#[test]
fn a_notice_lets_a_refused_change_be_tried_at_once() {
    let mut engine = with_goal(&["10.0.0.1"]);
    drive(&mut engine, ms(0), 20 * SECOND, &mut holding(&[]), |_, _, _| {
        Err(refusal(ErrorClass::Exists))
    });
    let mut attempts = 0;

    engine.look_again();
    drive(
        &mut engine,
        20 * SECOND,
        20 * SECOND + ms(10),
        &mut holding(&[]),
        |_, _, state| {
            attempts += 1;
            *state = holding(&["10.0.0.1"]);
            Ok(())
        },
    );

    assert_eq!(attempts, 1);
    assert!(matches!(
        engine.take_reports().as_slice(),
        [Report::Failed(..), Report::Recovered(_)]
    ));
}

#[test]
fn an_acknowledged_change_without_effect_counts_as_failed_and_is_tried_every_second() {
    let mut engine = with_goal(&["10.0.0.1"]);
    let mut attempts = 0;
    drive(&mut engine, ms(0), 20 * SECOND, &mut holding(&[]), |_, _, _| {
        attempts += 1;
        Ok(())
    });
    assert!((20..=24).contains(&attempts), "{attempts}");
    let (_, failure) = engine.failures().next().unwrap();
    assert_eq!(failure.refusal, None);
}

#[test]
fn a_storm_of_notices_costs_five_rounds_a_second() {
    let mut engine = settled(&["10.0.0.1"]);
    let mut observations = 0;
    for now in (1000..11_000).map(ms) {
        engine.look_again();
        if let Some(Work::Observe(_)) = engine.next_work(now) {
            observations += 1;
            engine.observed(now, Ok(holding(&["10.0.0.1"])));
        }
    }
    assert!((50..=55).contains(&observations), "{observations}");
}

#[test]
fn a_link_that_cannot_be_made_holds_back_what_stands_on_it() {
    let mut engine = with_goal(&["10.0.0.1", "10.0.0.2"]);
    let (mut makings, mut others) = (0, 0);
    drive(
        &mut engine,
        ms(0),
        10 * SECOND,
        &mut State::default(),
        |_, op, _| {
            if matches!(op, Op::AddLink(..)) {
                makings += 1;
                return Err(refusal(ErrorClass::Exists));
            }
            others += 1;
            Err(refusal(ErrorClass::NoDevice))
        },
    );
    assert!((6..=8).contains(&makings), "{makings}");
    assert!(
        others <= 3 * makings,
        "{others} attempts on a link that was tried {makings} times"
    );
}

#[test]
fn what_stands_on_a_link_that_cannot_be_made_waits_for_the_link() {
    let mut engine = with_goal(&["10.0.0.1"]);
    // Acknowledged once and gone again, so that both have failed; then the link is refused.
    let mut makings = 0;
    drive(
        &mut engine,
        ms(0),
        60 * SECOND,
        &mut State::default(),
        |_, op, _| {
            let is_making = matches!(op, Op::AddLink(..));
            makings += u32::from(is_making);
            match is_making {
                true if makings == 1 => Ok(()),
                true => Err(refusal(ErrorClass::Denied)),
                false => Err(refusal(ErrorClass::NoDevice)),
            }
        },
    );
    assert_eq!(engine.failures().count(), 2);

    let mut rounds = 0;
    for now in (60_000..80_000).map(ms) {
        if let Some(Work::Observe(_) | Work::ObserveAt(..)) = engine.next_work(now) {
            rounds += 1;
            engine.observed(now, Ok(State::default()));
        }
    }
    assert!(rounds <= 4, "{rounds}");

    let mut made = Vec::new();
    drive(
        &mut engine,
        80 * SECOND,
        120 * SECOND,
        &mut State::default(),
        |now, op, state| {
            made.push(now);
            *state = holding(if matches!(op, Op::AddLink(..)) {
                &[]
            } else {
                &["10.0.0.1"]
            });
            Ok(())
        },
    );
    assert!(made.iter().all(|at| *at == made[0]), "{made:?}");
    assert!(engine.is_settled());
}

#[test]
fn a_failed_observation_is_repeated() {
    let mut engine = with_goal(&["10.0.0.1"]);
    assert!(engine.next_work(ms(0)).is_some());
    engine.observed(ms(0), Err(refusal(ErrorClass::Busy)));
    assert_eq!(engine.next_work(ms(1)), None);
    assert_eq!(engine.wake_at(ms(1)), Some(OBSERVE_RETRY));
    assert!(matches!(engine.next_work(OBSERVE_RETRY), Some(Work::Observe(_))));
}

#[test]
fn a_lasting_failure_to_observe_is_told_once() {
    let mut engine = with_goal(&["10.0.0.1"]);
    for round in 0..5 {
        let now = OBSERVE_RETRY * round;
        assert!(engine.next_work(now).is_some());
        engine.observed(now, Err(refusal(ErrorClass::Busy)));
    }
    assert_eq!(engine.take_reports().len(), 1);
}

#[test]
fn what_is_too_many_does_not_keep_a_goal_from_being_settled() {
    let mut engine = with_goal(&["10.0.0.1"]);
    assert!(engine.next_work(ms(0)).is_some());
    engine.observed(ms(0), Ok(holding(&["10.0.0.1", "10.0.0.9"])));
    assert!(engine.is_settled());
}

#[test]
fn a_notice_during_an_observation_leads_to_another_one() {
    let mut engine = with_goal(&[]);
    assert!(engine.next_work(ms(0)).is_some());
    engine.look_again();
    engine.observed(ms(1), Ok(holding(&[])));
    assert!(matches!(engine.next_work(ms(1)), Some(Work::Observe(_))));
}

#[test]
fn a_new_goal_takes_effect_at_once_and_an_equal_one_does_nothing() {
    let mut engine = settled(&["10.0.0.1"]);
    engine.set_goal(goal(&["10.0.0.1"]));
    assert_eq!(engine.next_work(SECOND), None);
    engine.set_goal(goal(&["10.0.0.2"]));
    assert!(!engine.is_settled());
    assert!(matches!(engine.next_work(SECOND), Some(Work::Observe(_))));
}

#[test]
fn a_goal_that_changes_in_one_spot_is_applied_without_a_look_at_the_others() {
    let mut engine = settled(&["10.0.0.1", "10.0.0.2"]);
    engine.change_goal(&large(&["10.0.0.1"]), large(&["10.0.0.3"]));
    assert!(!engine.is_settled());
    let Some(Work::Apply(ops)) = engine.next_work(SECOND) else {
        panic!("something else than the change comes first")
    };
    let ops: Vec<_> = ops.iter().map(Op::to_string).collect();
    assert_eq!(
        ops,
        [
            "set neigh flannel.1 10.0.0.3 mac 02:00:00:00:00:01",
            "del neigh flannel.1 10.0.0.1"
        ]
    );
    engine.applied(vec![Ok(()); 2]);
    let Some(Work::ObserveAt(_, seen)) = engine.next_work(SECOND) else {
        panic!("the change is not verified")
    };
    assert_eq!(seen, spots(&["10.0.0.1", "10.0.0.3"]));
    engine.observed(SECOND, Ok(large(&["10.0.0.3"])));
    assert!(engine.is_settled());
    assert_eq!(engine.seen(), Some(holding(&["10.0.0.2", "10.0.0.3"])));
    assert_eq!(engine.insight().counts().repaired.len(), 0);
}

#[test]
fn a_notice_leads_to_a_look_at_its_spots_only() {
    let mut engine = settled(&["10.0.0.1", "10.0.0.2"]);
    engine.look_at(spots(&["10.0.0.2"]));
    assert_eq!(engine.seen(), None);
    assert!(
        matches!(engine.next_work(SECOND), Some(Work::ObserveAt(_, seen)) if seen == spots(&["10.0.0.2"]))
    );
    engine.observed(SECOND, Ok(State::default()));
    assert!(matches!(engine.next_work(SECOND), Some(Work::Apply(ops)) if ops.len() == 1));
}

#[test]
fn a_goal_that_is_set_during_a_look_at_spots_is_compared_with_all_there_is() {
    let mut engine = settled(&["10.0.0.1"]);
    engine.look_at(spots(&["10.0.0.1"]));
    assert!(engine.next_work(SECOND).is_some());
    engine.set_goal(goal(&["10.0.0.1", "10.0.0.2"]));
    engine.observed(SECOND, Ok(large(&["10.0.0.1"])));
    assert!(!engine.is_settled());
    assert!(matches!(engine.next_work(SECOND), Some(Work::Observe(_))));
}

#[test]
fn changes_at_very_many_spots_are_verified_by_a_look_at_everything() {
    let all: Vec<_> = (0..2000)
        .map(|n| format!("10.1.{}.{}", n / 250, n % 250))
        .collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let mut engine = with_goal(&all);
    assert!(engine.next_work(ms(0)).is_some());
    engine.observed(ms(0), Ok(holding(&[])));
    assert!(matches!(engine.next_work(ms(0)), Some(Work::Apply(ops)) if ops.len() == all.len()));
    engine.applied(vec![Ok(()); all.len()]);
    assert!(matches!(engine.next_work(ms(0)), Some(Work::Observe(_))));
}

#[test]
fn a_link_that_is_amiss_makes_a_changed_goal_look_at_everything_once() {
    let mut engine = with_goal(&["10.0.0.1"]);
    assert!(engine.next_work(ms(0)).is_some());
    engine.observed(ms(0), Ok(State::default()));
    let Some(Work::Apply(ops)) = engine.next_work(ms(0)) else {
        panic!("nothing is planned")
    };
    engine.applied(vec![Err(refusal(ErrorClass::Exists)); ops.len()]);
    assert!(matches!(engine.next_work(ms(0)), Some(Work::Observe(_))));
    engine.observed(ms(0), Ok(State::default()));
    engine.change_goal(&State::default(), large(&["10.0.0.2"]));
    assert!(matches!(engine.next_work(ms(1)), Some(Work::Observe(_))));
    engine.observed(ms(1), Ok(State::default()));
    assert_eq!(engine.next_work(ms(1)), None);
}

#[test]
fn what_was_acknowledged_while_the_goal_changed_has_not_failed() {
    let mut engine = with_goal(&["10.0.0.1"]);
    assert!(engine.next_work(ms(0)).is_some());
    engine.observed(ms(0), Ok(holding(&[])));
    assert!(engine.next_work(ms(0)).is_some());
    engine.change_goal(&large(&["10.0.0.1"]), State::default());
    engine.applied(vec![Ok(())]);
    assert!(engine.next_work(ms(0)).is_some());
    engine.observed(ms(0), Ok(large(&["10.0.0.1"])));
    assert_eq!(engine.failures().count(), 0);
    assert!(matches!(engine.next_work(ms(0)), Some(Work::Apply(ops)) if ops.len() == 1));
}

#[test]
fn a_route_that_this_run_held_is_put_back_by_replacing() {
    let mut engine = with_routes(&["10.2.0.0/16", "10.3.0.0/16"]);
    let both = routes(&["10.2.0.0/16", "10.3.0.0/16"]);
    assert!(planned(&mut engine, ms(0), both).is_empty());

    let one = routes(&["10.3.0.0/16"]);
    assert_eq!(
        planned(&mut engine, SECOND, one),
        ["replace route 10.2.0.0/16 dev flannel.1 proto 3"]
    );
}

#[test]
fn a_route_that_was_never_seen_as_desired_is_made_exclusively() {
    let mut engine = with_routes(&["10.2.0.0/16"]);
    let add = ["add route 10.2.0.0/16 dev flannel.1 proto 3"];
    assert_eq!(planned(&mut engine, ms(0), routes(&[])), add);
    engine.applied(vec![Err(refusal(ErrorClass::Exists))]);
    assert_eq!(planned(&mut engine, SECOND, routes(&[])), add);

    // An acknowledgement proves nothing.
    engine.applied(vec![Ok(())]);
    assert!(planned(&mut engine, 2 * SECOND, routes(&[])).is_empty());
    assert_eq!(planned(&mut engine, 4 * SECOND, routes(&[])), add);
    engine.applied(vec![Err(refusal(ErrorClass::Exists))]);

    // Nor is one that leads elsewhere, on our own link, what was desired.
    let mut altered = routes(&["10.2.0.0/16"]);
    altered.routes.values_mut().for_each(|route| route.protocol = 4);
    let replace = ["replace route 10.2.0.0/16 dev flannel.1 proto 3"];
    assert_eq!(planned(&mut engine, 5 * SECOND, altered), replace);
    engine.applied(vec![Err(refusal(ErrorClass::Denied))]);
    assert_eq!(planned(&mut engine, 6 * SECOND, routes(&[])), add);
}

#[test]
fn a_route_stays_held_while_the_goal_names_it_and_is_forgotten_when_it_does_not() {
    let mut engine = with_routes(&["10.2.0.0/16", "10.3.0.0/16"]);
    let both = routes(&["10.2.0.0/16", "10.3.0.0/16"]);
    assert!(planned(&mut engine, ms(0), both).is_empty());

    engine.set_goal(route_goal(&["10.3.0.0/16"]));
    engine.set_goal(route_goal(&["10.2.0.0/16", "10.3.0.0/16"]));

    assert_eq!(
        planned(&mut engine, SECOND, routes(&[])),
        [
            "add route 10.2.0.0/16 dev flannel.1 proto 3",
            "replace route 10.3.0.0/16 dev flannel.1 proto 3"
        ]
    );
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn link() -> IfName {
    IfName::new("flannel.1").unwrap()
}

fn key(ip: &str) -> NeighKey {
    NeighKey {
        link: link(),
        ip: ip.parse().unwrap(),
    }
}

fn object(ip: &str) -> ObjectKey {
    ObjectKey::Neigh(key(ip))
}

/// Neighbours alone.
fn large(neighs: &[&str]) -> State {
    holding(neighs).at(&spots(neighs))
}

fn spots(neighs: &[&str]) -> BTreeSet<Spot> {
    neighs.iter().map(|ip| Spot::Neigh(key(ip))).collect()
}

fn refusal(class: ErrorClass) -> KernelError {
    KernelError {
        class,
        message: "refused".to_owned(),
    }
}

/// A state of one link and its neighbours.
fn holding(neighs: &[&str]) -> State {
    let mut state = State::default();
    let link_state = Link {
        kind: LinkKind::Bridge,
        mac: None,
        mtu_bytes: None,
        admin: AdminState::Up,
        port: None,
    };
    state.links.insert(link(), link_state);
    for ip in neighs {
        state.neighs.insert(
            key(ip),
            Neigh {
                mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
            },
        );
    }
    state
}

fn goal(neighs: &[&str]) -> Goal {
    let mut scope = Scope::default();
    scope.links.insert(
        link(),
        LinkScope {
            neighs: true,
            ..LinkScope::default()
        },
    );
    Goal {
        desired: holding(neighs),
        scope,
        prune: Prune::Remove,
    }
}

/// A state of one link and the routes through it.
fn routes(dsts: &[&str]) -> State {
    let mut state = holding(&[]);
    for dst in dsts {
        let key = RouteKey {
            table: 254,
            dst: dst.parse().unwrap(),
            metric: 0,
        };
        let hop = Nexthop {
            link: link(),
            gateway: None,
            onlink: false,
        };
        let route = Route {
            kind: RouteKind::Unicast(hop),
            protocol: 3,
            source: None,
            mtu_bytes: None,
            advmss_bytes: None,
            scope: None,
        };
        state.routes.insert(key, route);
    }
    state
}

fn route_goal(dsts: &[&str]) -> Goal {
    Goal {
        desired: routes(dsts),
        ..goal(&[])
    }
}

fn with_routes(dsts: &[&str]) -> Reconciler {
    let mut engine = Reconciler::default();
    engine.set_goal(route_goal(dsts));
    engine
}

/// The changes, as text, that follow a notice when this is observed.
fn planned(engine: &mut Reconciler, now: Duration, observation: State) -> Vec<String> {
    engine.look_again();
    assert!(matches!(engine.next_work(now), Some(Work::Observe(_))));
    engine.observed(now, Ok(observation));
    match engine.next_work(now) {
        Some(Work::Apply(ops)) => ops.iter().map(Op::to_string).collect(),
        Some(Work::Observe(_) | Work::ObserveAt(..)) | None => Vec::new(),
    }
}

fn with_goal(neighs: &[&str]) -> Reconciler {
    let mut engine = Reconciler::default();
    engine.set_goal(goal(neighs));
    engine
}

fn settled(neighs: &[&str]) -> Reconciler {
    let mut engine = with_goal(neighs);
    assert!(engine.next_work(ms(0)).is_some());
    engine.observed(ms(0), Ok(holding(neighs)));
    assert!(engine.is_settled());
    engine
}

/// Runs the engine from one moment to another against a kernel whose `apply` is given.
fn drive(
    engine: &mut Reconciler,
    from: Duration,
    to: Duration,
    state: &mut State,
    mut apply: impl FnMut(Duration, &Op, &mut State) -> Result<(), KernelError>,
) {
    let mut now = from;
    for _ in 0..10_000 {
        while let Some(work) = engine.next_work(now) {
            match work {
                Work::Observe(_) => engine.observed(now, Ok(state.clone())),
                Work::ObserveAt(_, spots) => engine.observed(now, Ok(state.at(&spots))),
                Work::Apply(ops) => {
                    let results = ops.iter().map(|op| apply(now, op, state)).collect();
                    engine.applied(results);
                }
            }
        }
        match engine.wake_at(now) {
            Some(wake) if wake <= to => now = wake.max(now + ms(1)),
            Some(_) | None => return,
        }
    }
    panic!("the engine never came to rest");
}
