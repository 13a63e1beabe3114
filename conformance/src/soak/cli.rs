use std::io::Write;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::builder::RangedU64ValueParser;
use clap::{Arg, ArgMatches, Command};

use super::action::Action;
use super::invariants::violations;
use super::random::Random;
use super::world::World;
use crate::cli;
use crate::counted::counted;

/// How long everything may take to be as it must be: a daemon that distrusts its store holds removals for a minute, and
/// all namespaces of a machine share the kernel's locks.
const SETTLE_SECONDS: &str = "120";
/// What takes longer than this is told with what it waited for.
const SLOW: Duration = Duration::from_secs(3);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// As many things happen in a round at most before it is looked.
const MAX_ACTIONS: u64 = 3;

/// The subcommand `soak`.
pub(crate) fn command() -> Command {
    let number = |name: &'static str, max: u64| {
        let number = Arg::new(name).long(name).value_name("N");
        number.value_parser(RangedU64ValueParser::<u64>::new().range(0..=max))
    };
    Command::new("soak")
        .about("Lets random things happen to a lab of nodes, and looks that all is as it must be after each round")
        .arg(number("seconds", 30 * 24 * 3600).default_value("60").help("How long"))
        .arg(
            number("settle-seconds", 3600)
                .default_value(SETTLE_SECONDS)
                .help("How long everything may take after a round until it is as it must be"),
        )
        .arg(number("seed", u64::MAX).help("What decides what happens [default: the time]"))
        .arg(
            Arg::new("nodes")
                .long("nodes")
                .value_name("N")
                .default_value("4")
                .value_parser(RangedU64ValueParser::<u8>::new().range(2..=20))
                .help("Number of nodes"),
        )
        .args(cli::lab_arguments())
}

/// Runs the subcommand; true when everything held after every round.
///
/// # Errors
/// Fails with the seed, what happened, and what does not hold.
pub(crate) fn run(arguments: &ArgMatches) -> Result<bool> {
    let number = |name: &str| arguments.get_one::<u64>(name).copied();
    let seed = number("seed").unwrap_or_else(now);
    let limit = Duration::from_secs(number("seconds").unwrap_or_default());
    let settling = Duration::from_secs(number("settle-seconds").unwrap_or_default());
    let nodes = arguments.get_one::<u8>("nodes").copied().unwrap_or(2);
    say(&format!("seed {seed}"))?;
    let start = Instant::now();
    let mut world = World::start(
        nodes,
        cli::store(arguments),
        arguments.get_one("bin-dir").cloned(),
    )?;
    settle(&mut world, settling).with_context(|| format!("seed {seed}, before anything happened"))?;
    let (mut random, mut rounds, mut actions, mut slowest) = (Random::new(seed), 0_u64, 0, Duration::ZERO);
    while start.elapsed() < limit || rounds == 0 {
        rounds += 1;
        let (told, took) = round(&mut world, &mut random, settling, &mut actions)
            .with_context(|| format!("seed {seed}, round {rounds}"))?;
        slowest = slowest.max(took);
        let (elapsed, took) = (start.elapsed().as_secs_f64(), took.as_secs_f64());
        say(&format!(
            "{elapsed:7.1} s  round {rounds}: {told}: right after {took:.2} s"
        ))?;
    }
    let slowest = slowest.as_secs_f64();
    say(&format!(
        "{}, {}, everything held; slowest after {slowest:.2} s",
        counted(rounds, "round"),
        counted(actions, "action")
    ))?;
    Ok(true)
}

/// Lets some things happen, and waits until all is as it must be; returns what happened, and how long that took.
fn round(
    world: &mut World,
    random: &mut Random,
    settling: Duration,
    actions: &mut u64,
) -> Result<(String, Duration)> {
    let (mut told, mut since_rest): (Vec<String>, Vec<Action>) = Default::default();
    for _ in 0..=random.below(MAX_ACTIONS) {
        let action = Action::draw(world, random)?;
        if action.waits_for_rest(&since_rest) {
            settle(world, settling).with_context(|| told.join("; "))?;
            since_rest.clear();
        }
        told.push(action.to_string());
        since_rest.push(action);
        *actions += 1;
        action.happen(world).with_context(|| told.join("; "))?;
    }
    let told = told.join("; ");
    let took = settle(world, settling).with_context(|| told.clone())?;
    Ok((told, took))
}

/// Waits until everything holds that must.
fn settle(world: &mut World, limit: Duration) -> Result<Duration> {
    let start = Instant::now();
    let mut told = false;
    loop {
        // What cannot be looked at just now may be about to be made.
        let found = violations(world).unwrap_or_else(|error| vec![format!("{error:#}")]);
        if found.is_empty() {
            return Ok(start.elapsed());
        }
        if start.elapsed() > limit {
            bail!("after {} s:\n{}", limit.as_secs(), found.join("\n"));
        }
        if start.elapsed() > SLOW && !told {
            told = true;
            say(&format!(
                "  slow: after {} s: {}",
                SLOW.as_secs(),
                found.join("; ")
            ))?;
        }
        thread::sleep(PAUSE);
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("writing")
}

/// A seed that differs from run to run.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() ^ u64::from(since.subsec_nanos())
}
