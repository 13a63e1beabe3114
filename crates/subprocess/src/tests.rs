use super::*;

const LIMITS: Limits = Limits {
    time: Duration::from_secs(30),
    output_bytes: usize::MAX,
};

#[test]
fn output_comes_back_and_large_input_is_taken() {
    let input = "line\n".repeat(200_000);
    let ended = ended(&mut Command::new("/bin/cat"), &input, LIMITS);
    assert!(ended.status.success());
    assert_eq!(ended.stdout.text, input);
    assert!(!ended.stdout.is_cut);
}

#[test]
fn of_much_output_the_end_is_kept_and_all_of_it_is_read() {
    let print = |lines: usize| format!("yes 0123456 | head -n {lines}; echo last");
    for (lines, is_cut) in [(1, false), (10, true), (100_000, true)] {
        let limits = Limits {
            output_bytes: 21,
            ..LIMITS
        };
        let ended = ended(&mut shell(&print(lines)), "", limits);
        assert!(ended.status.success(), "{lines}: {ended:?}");
        assert!(
            ended.stdout.text.ends_with("0123456\nlast\n"),
            "{lines}: {ended:?}"
        );
        assert_eq!(
            (ended.stdout.is_cut, ended.stdout.text.len() <= 21),
            (is_cut, true),
            "{lines}"
        );
    }
}

#[test]
fn a_process_that_reads_nothing_has_its_own_words() {
    let input = "x".repeat(1 << 20);
    let ended = ended(&mut shell("echo no >&2; exit 3"), &input, LIMITS);
    assert_eq!(
        (ended.status.code(), ended.stderr.text.as_str()),
        (Some(3), "no\n")
    );
}

#[test]
fn a_process_that_does_not_end_is_ended_with_what_it_started() {
    let start = Instant::now();
    let limits = Limits {
        time: Duration::from_millis(100),
        ..LIMITS
    };
    for script in [
        "exec sleep 600",
        "exec >&- 2>&- <&-; exec sleep 600",
        "sleep 600 & wait",
        "sleep 600 & exit 0",
    ] {
        let outcome = run(&mut shell(script), "x", limits).unwrap();
        assert!(matches!(outcome, Outcome::TimedOut), "{script}: {outcome:?}");
    }
    assert!(start.elapsed() < LIMITS.time);
}

#[test]
fn nothing_is_held_for_one_that_left_the_group_with_its_output_open() {
    const RUNS: usize = 30;
    let limits = Limits {
        time: Duration::from_millis(50),
        ..LIMITS
    };
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let before = [count("fd"), count("task")];
    for _ in 0..RUNS {
        // What is left ends by itself.
        let outcome = run(&mut shell("setsid sleep 5 & sleep 1"), "", limits).unwrap();
        assert!(matches!(outcome, Outcome::TimedOut), "{outcome:?}");
    }
    // The other tests have some open as well, at the same time.
    let after = [count("fd"), count("task")];
    assert!(
        after[0] < before[0] + RUNS && after[1] < before[1] + RUNS,
        "{before:?} {after:?}"
    );
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let err = run(&mut Command::new("/nowhere/program"), "", LIMITS).unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::NotFound);
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

fn ended(command: &mut Command, input: &str, limits: Limits) -> Ended {
    match run(command, input, limits).unwrap() {
        Outcome::Ended(ended) => ended,
        Outcome::TimedOut => panic!("timed out"),
    }
}
