use super::*;

mod words;

/// A step of a table: what happens, and what is to run next.
#[derive(Clone, Copy)]
enum Step {
    /// These are the leases to be reached: their number, and what they announce.
    Wish(&'static [(u8, &'static str)]),
    /// The command that runs ends well.
    Ok,
    /// It fails.
    Fails,
    /// So much time passes.
    Wait(u64),
    /// Nothing may be undone, or it may again.
    Prune(Prune),
    /// This is to run, or nothing.
    Runs(&'static str),
    /// The lease is as it should be, or not.
    Is(u8, Is),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Done,
    Open,
    Failing,
}

use Is::{Done, Failing, Open};
use Step::{Fails, Is as Stands, Prune as May, Runs, Wait, Wish};

/// Runs a table on a queue that knows what ran before, with what the commands are told as the data of their lease.
#[track_caller]
fn check(ran: &[(u8, &str, Stage)], steps: &[Step]) {
    let ran = ran.iter().map(|(n, data, stage)| {
        let facts = facts(*n, data);
        (key(*n), Ran { facts, stage: *stage })
    });
    let settings = ExtensionSettings {
        subnet_add: "add".to_owned(),
        subnet_remove: "remove".to_owned(),
        ran: ran.collect(),
        ..ExtensionSettings::default()
    };
    let mut queue = Queue::new(&settings);
    let (mut now, mut prune) = (Duration::ZERO, Prune::Remove);
    for (number, step) in steps.iter().enumerate() {
        match step {
            Wish(wishes) => queue.wish(
                wishes
                    .iter()
                    .map(|(n, data)| (key(*n), facts(*n, data)))
                    .collect(),
            ),
            Step::Ok => drop(queue.done(now, Ok(())).unwrap()),
            Fails => drop(queue.done(now, Err("no".to_owned())).unwrap()),
            Wait(ms) => now += Duration::from_millis(*ms),
            May(new) => prune = *new,
            Runs(expected) => {
                let before = queue.wake_at(prune);
                let next = queue.next(now, prune);
                let due = before.is_some_and(|at| at <= now);
                assert_eq!(due, next.is_some(), "step {number}: wakes at {before:?}");
                let shown = next.map_or_else(String::new, |command| shown(&command));
                assert_eq!(shown, *expected, "step {number}");
            }
            Stands(n, expected) => {
                let (is_done, failure) = queue.standing(key(*n));
                let is = match failure {
                    Some(_) => Failing,
                    None if is_done => Done,
                    None => Open,
                };
                assert_eq!(is, *expected, "step {number}");
            }
        }
    }
}

#[test]
fn each_lease_has_its_command_one_at_a_time() {
    check(
        &[],
        &[
            Runs(""),
            Wish(&[(1, "a"), (2, "b")]),
            Stands(1, Open),
            Runs("add 1 a"),
            Runs(""),
            Step::Ok,
            Stands(1, Done),
            Stands(2, Open),
            Runs("add 2 b"),
            Step::Ok,
            Runs(""),
            Wish(&[(1, "a"), (2, "b")]),
            Runs(""),
            Wish(&[(2, "b")]),
            Runs("remove 1 a"),
            Step::Ok,
            Runs(""),
        ],
    );
}

#[test]
fn a_failed_command_is_run_again_later_and_does_not_hold_up_the_others() {
    check(
        &[],
        &[
            Wish(&[(1, "a"), (2, "b")]),
            Runs("add 1 a"),
            Fails,
            Stands(1, Failing),
            Runs("add 2 b"),
            Step::Ok,
            Runs(""),
            Wait(499),
            Runs(""),
            Wait(1),
            // Somebody else may have done it before.
            Runs("remove 1 a"),
            Fails,
            Runs("add 1 a"),
            Fails,
            Wait(999),
            Runs(""),
            Wait(1),
            Runs("add 1 a"),
            Step::Ok,
            Stands(1, Done),
            Runs(""),
        ],
    );
}

#[test]
fn the_newest_wish_replaces_those_before_it() {
    check(
        &[],
        &[
            Wish(&[(1, "a")]),
            Wish(&[(1, "b")]),
            Wish(&[]),
            Runs(""),
            Wish(&[(1, "c")]),
            Runs("add 1 c"),
            // It runs on, and what it does is undone.
            Wish(&[(1, "d")]),
            Wish(&[(1, "e")]),
            Runs(""),
            Step::Ok,
            Stands(1, Open),
            Runs("remove 1 c"),
            Wish(&[]),
            Wish(&[(1, "f")]),
            Step::Ok,
            Runs("add 1 f"),
            Wish(&[]),
            Fails,
            Wait(500),
            Runs("remove 1 f"),
            Step::Ok,
            Runs(""),
        ],
    );
}

#[test]
fn a_lease_that_comes_back_while_it_is_undone_has_its_command_again() {
    let before: &[Step] = &[
        Wish(&[(1, "a")]),
        Runs("add 1 a"),
        Step::Ok,
        Wish(&[]),
        Runs("remove 1 a"),
        Wish(&[(1, "a")]),
    ];
    for (end, after) in [(Step::Ok, "add 1 a"), (Fails, "add 1 a")] {
        let steps = [end, Runs(after), Step::Ok, Stands(1, Done), Runs("")];
        check(&[], &[before, &steps].concat());
    }
    // It may be undone in part.
    check(
        &[],
        &[
            Wish(&[(1, "a")]),
            Runs("add 1 a"),
            Step::Ok,
            Wish(&[]),
            Runs("remove 1 a"),
            Fails,
            Wish(&[(1, "a")]),
            Runs("add 1 a"),
            Fails,
            Runs(""),
            Wait(500),
            Runs("remove 1 a"),
            Step::Ok,
            Runs("add 1 a"),
        ],
    );
}

#[test]
fn what_is_in_the_place_of_a_new_way_is_undone_in_some_attempts_before_that() {
    let changed: &[Step] = &[
        Wish(&[(1, "a")]),
        Runs("add 1 a"),
        Step::Ok,
        Wish(&[(1, "b")]),
        Runs("remove 1 a"),
        Fails,
        Stands(1, Failing),
        Runs(""),
        Wait(500),
        Runs("remove 1 a"),
    ];
    let undone: &[Step] = &[Step::Ok, Runs("add 1 b"), Step::Ok, Stands(1, Done)];
    check(&[], &[changed, undone].concat());
    let passed: &[Step] = &[
        Fails,
        Wait(1000),
        Runs("remove 1 a"),
        Fails,
        Runs("add 1 b"),
        Step::Ok,
        Stands(1, Done),
    ];
    check(&[], &[changed, passed].concat());
}

#[test]
fn what_is_gone_is_undone_before_its_subnet_is_another_leases_whatever_may_be_undone() {
    let dual: SubnetKey = "10.244.1.0-24&fd00:10:244:1::-64".parse().unwrap();
    for prune in [Prune::Remove, Prune::Addrs] {
        let ran = |lease| {
            let facts = facts(1, "a");
            (
                lease,
                Ran {
                    facts,
                    stage: Stage::Done,
                },
            )
        };
        let mut queue = Queue::new(&ExtensionSettings {
            subnet_add: "add".to_owned(),
            subnet_remove: "remove".to_owned(),
            ran: [ran(dual), ran(key(2))].into(),
            ..ExtensionSettings::default()
        });
        queue.wish([(key(1), facts(1, "a"))].into());
        let mut order = Vec::new();
        while let Some(command) = queue.next(Duration::ZERO, prune) {
            order.push(format!("{} {}", command.line, command.job.lease().unwrap()));
            queue.done(Duration::ZERO, Ok(())).unwrap();
        }
        let mut expected = vec![format!("remove {dual}"), format!("add {}", key(1))];
        if prune == Prune::Remove {
            expected.insert(1, format!("remove {}", key(2)));
        }
        assert_eq!(order, expected);
    }
}

#[test]
fn nothing_is_undone_for_a_lost_lease_while_that_is_not_allowed() {
    check(
        &[(1, "a", Stage::Done), (2, "b", Stage::Done)],
        &[
            May(Prune::Addrs),
            Runs(""),
            Wish(&[(2, "c")]),
            // What is in the place of something is another matter.
            Runs("remove 2 b"),
            Step::Ok,
            Runs("add 2 c"),
            Step::Ok,
            Runs(""),
            May(Prune::Remove),
            Runs("remove 1 a"),
        ],
    );
}

#[test]
fn what_an_earlier_run_did_is_not_done_again_and_what_it_may_have_done_is_with_care() {
    check(
        &[
            (1, "a", Stage::Done),
            (2, "b", Stage::Inherited),
            (3, "c", Stage::Inherited),
        ],
        &[
            Wish(&[(1, "a"), (2, "b"), (3, "c")]),
            Stands(1, Done),
            Stands(2, Open),
            Runs("add 2 b"),
            Step::Ok,
            Stands(2, Done),
            Runs("add 3 c"),
            Fails,
            Wait(500),
            // What it did before is in the way.
            Runs("remove 3 c"),
            Step::Ok,
            Runs("add 3 c"),
            Fails,
            Runs(""),
            Wait(1000),
            Runs("add 3 c"),
            Step::Ok,
            Stands(3, Done),
        ],
    );
}

#[test]
fn what_cannot_be_undone_is_given_up_after_some_attempts() {
    let mut queue = Queue::new(&ExtensionSettings {
        subnet_remove: "remove".to_owned(),
        ran: [(
            key(1),
            Ran {
                facts: facts(1, "a"),
                stage: Stage::Done,
            },
        )]
        .into(),
        ..ExtensionSettings::default()
    });
    queue.wish(BTreeMap::new());
    let mut now = Duration::ZERO;
    for attempt in 1..=MAX_REMOVALS {
        let command = queue.next(now, Prune::Remove).unwrap();
        let is_marked = matches!(command.job, Job::SubnetRemove { is_last: true, .. });
        assert_eq!(is_marked, attempt == MAX_REMOVALS, "{attempt}");
        let (_, verdict) = queue.done(now, Err("no".to_owned())).unwrap();
        match queue.wake_at(Prune::Remove) {
            Some(at) => {
                assert_eq!(verdict, Verdict::Again(at - now), "{attempt}");
                assert!(at - now <= MAX_DELAY, "{attempt}");
                now = at;
            }
            None => assert_eq!((verdict, attempt), (Verdict::GivenUp, MAX_REMOVALS)),
        }
    }
    assert_eq!((queue.waiting(), queue.failures().count()), (0, 0));
    assert_eq!(queue.tallies().1, Tally { ok: 0, failed: 10 });
    assert!(
        now > Duration::from_secs(60) && now < Duration::from_secs(180),
        "{now:?}"
    );
}

fn key(n: u8) -> SubnetKey {
    format!("10.244.{n}.0-24").parse().unwrap()
}

fn facts(n: u8, data: &str) -> Facts {
    Facts {
        subnet: format!("10.244.{n}.0/24"),
        data: data.to_owned(),
        ..Facts::default()
    }
}

fn shown(command: &Command) -> String {
    match &command.job {
        Job::SubnetAdd { lease, facts } | Job::SubnetRemove { lease, facts, .. } => {
            let number = facts.subnet.split('.').nth(2).unwrap();
            assert_eq!(*lease, key(number.parse().unwrap()));
            format!("{} {number} {}", command.line, facts.data)
        }
        Job::PreStartup | Job::PostStartup(_) => command.job.to_string(),
    }
}
