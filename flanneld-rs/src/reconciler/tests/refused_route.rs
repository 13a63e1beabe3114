use netstate::FdbKey;

use super::*;

const GATEWAY: &str = "10.0.0.1";

#[test]
fn what_a_route_needs_outlasts_its_refused_replacement() {
    let mut engine = on_the_tunnel();
    engine.change_goal(&tunnelled(), plain());
    let mut kernel = whole(&tunnelled());
    let mut refusals = 3;
    let mut done = Vec::new();
    drive(&mut engine, ms(10), 20 * SECOND, &mut kernel, |_, op, state| {
        if matches!(op, Op::ReplaceRoute(..)) && refusals > 0 {
            assert_eq!(state, &whole(&tunnelled()));
            refusals -= 1;
            return Err(refusal(ErrorClass::Unreachable));
        }
        carry_out(op, state);
        done.push(op.object());
        Ok(())
    });
    assert_eq!(kernel, whole(&plain()));
    assert!(matches!(done.as_slice(), [ObjectKey::Route(_), _, _]), "{done:?}");
    assert!(engine.is_clean());
}

#[test]
fn a_refusal_of_what_was_wanted_before_neither_counts_nor_delays() {
    for whole_goal in [false, true] {
        let mut engine = with_routes(&[]);
        engine.set_goal(route_goal_of(&whole(&tunnelled())));
        let mut kernel = holding(&[]);
        drive(&mut engine, ms(0), 10 * SECOND, &mut kernel, |_, op, state| {
            if matches!(op, Op::AddRoute(..)) {
                return Err(refusal(ErrorClass::Denied));
            }
            carry_out(op, state);
            Ok(())
        });
        let route = ObjectKey::Route(route_key());
        assert!(engine.failure(&route).unwrap().attempts > 3);
        engine.take_reports();

        if whole_goal {
            engine.set_goal(route_goal_of(&whole(&plain())));
        } else {
            engine.change_goal(&tunnelled(), plain());
        }
        assert_eq!(engine.failure(&route).unwrap().refusal, None);
        let start = 10 * SECOND + ms(1);
        let mut tries = Vec::new();
        drive(
            &mut engine,
            start,
            start + SECOND,
            &mut kernel,
            |now, op, state| {
                if matches!(op, Op::AddRoute(..)) {
                    tries.push(now);
                }
                carry_out(op, state);
                Ok(())
            },
        );
        assert_eq!(tries.len(), 1, "{tries:?}");
        assert!(tries[0] < start + ms(100), "{tries:?}");
        assert_eq!(engine.take_reports(), [Report::Recovered(route)]);
    }
}

#[test]
fn a_refusal_under_way_when_something_else_is_wanted_does_not_count() {
    for whole_goal in [false, true] {
        let mut engine = with_routes(&[]);
        engine.set_goal(route_goal_of(&whole(&tunnelled())));
        assert!(matches!(engine.next_work(ms(0)), Some(Work::Observe(_))));
        engine.observed(ms(0), Ok(holding(&[])));
        let Some(Work::Apply(ops)) = engine.next_work(ms(0)) else {
            panic!("nothing to apply");
        };
        if whole_goal {
            engine.set_goal(route_goal_of(&whole(&plain())));
        } else {
            engine.change_goal(&tunnelled(), plain());
        }
        engine.applied(ops.iter().map(|_| Err(refusal(ErrorClass::LinkDown))).collect());
        let mut tries = 0;
        drive(&mut engine, ms(1), ms(50), &mut holding(&[]), |_, op, state| {
            tries += 1;
            carry_out(op, state);
            Ok(())
        });
        assert_eq!((tries, engine.failures().count()), (1, 0));
        assert_eq!(engine.take_reports(), []);
    }
}

fn carry_out(op: &Op, state: &mut State) {
    if let Op::AddRoute(key, route) | Op::ReplaceRoute(key, route) = op {
        state.routes.insert(key.clone(), route.clone());
    } else if let Op::SetNeigh(key, neigh) = op {
        state.neighs.insert(key.clone(), *neigh);
    } else if let Op::SetFdb(key) = op {
        state.fdb.insert(key.clone());
    } else if let Op::DelNeigh(key) = op {
        state.neighs.remove(key);
    } else if let Op::DelFdb(key) = op {
        state.fdb.remove(key);
    } else {
        panic!("{op}");
    }
}

fn on_the_tunnel() -> Reconciler {
    let mut engine = Reconciler::default();
    engine.set_goal(route_goal_of(&whole(&tunnelled())));
    assert!(matches!(engine.next_work(ms(0)), Some(Work::Observe(_))));
    engine.observed(ms(0), Ok(whole(&tunnelled())));
    assert!(engine.is_clean());
    engine
}

fn route_goal_of(desired: &State) -> Goal {
    let mut goal = goal(&[]);
    goal.desired = desired.clone();
    goal
}

/// With the link.
fn whole(part: &State) -> State {
    let mut state = holding(&[]);
    state.absorb(part.clone());
    state
}

fn route_key() -> RouteKey {
    RouteKey {
        table: 254,
        dst: "10.0.0.0/24".parse().unwrap(),
        metric: 0,
    }
}

/// A route to a gateway on the link, with its neighbour and that one's forwarding entry.
fn tunnelled() -> State {
    let mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
    let mut state = holding(&[GATEWAY]).at(&spots(&[GATEWAY]));
    state.fdb.insert(FdbKey {
        link: link(),
        mac,
        remote: "192.168.0.1".parse().unwrap(),
    });
    state.routes.insert(route_key(), route(link(), GATEWAY));
    state
}

/// The same route through another link.
fn plain() -> State {
    let mut state = State::default();
    state
        .routes
        .insert(route_key(), route("eth0".parse().unwrap(), "192.168.0.1"));
    state
}

fn route(link: IfName, gateway: &str) -> Route {
    let hop = Nexthop {
        link,
        gateway: Some(gateway.parse().unwrap()),
        onlink: true,
    };
    Route {
        kind: RouteKind::Unicast(hop),
        protocol: 3,
        source: None,
        mtu_bytes: None,
        advmss_bytes: None,
        scope: None,
    }
}
