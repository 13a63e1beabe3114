use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::bed::{Bed, Family};
use super::case::{Case, Harm, Look};
use super::inventory::Inventory;
use super::settle::settle;
use super::{groups, requirement};
use crate::counted::counted;
use crate::refused::Refused;
use crate::report::{Asked, Known, Outcome, Report, Row, Suite};

/// How the report calls what it judges.
const SUITE: Suite = Suite {
    name: "nodes",
    title: "Pod network conformance",
    subject: "family",
    column: "Family",
};

/// What is to be run.
#[derive(Debug, Clone)]
pub(super) struct Config {
    /// How many pods are made on each node.
    pub(super) pods: u8,
    /// A list of known differences.
    pub(super) known: Option<PathBuf>,
    /// Beginnings of ids: only cases of these; all if there is none.
    pub(super) only: Vec<String>,
}

/// The cases that were asked for.
pub(super) struct Plan {
    pods: u8,
    cases: Vec<Case>,
    known: Known,
    requirements: Vec<Asked>,
}

impl Plan {
    /// Chooses the cases.
    ///
    /// # Errors
    /// Fails when nothing is left to run, or when the list of known differences cannot be read.
    pub(super) fn of(config: &Config) -> Result<Self> {
        let wanted =
            |id: &str| config.only.is_empty() || config.only.iter().any(|start| id.starts_with(start));
        let all = groups::cases();
        let names: Vec<_> = all.iter().map(|case| (case.id, case.name)).collect();
        let known = Known::load(config.known.as_deref(), &names)?;
        let cases: Vec<_> = all.into_iter().filter(|case| wanted(case.id)).collect();
        if cases.is_empty() {
            bail!(Refused::without_case(&config.only));
        }
        Ok(Self {
            pods: config.pods,
            cases,
            known,
            requirements: requirement::all()?,
        })
    }
}

/// A report, and whether all pods could be detached after the last case.
pub(super) struct Judged {
    pub(super) report: Report,
    pub(super) ended: Result<()>,
}

/// Runs every case of a plan on the nodes of an inventory, one after another; the function does something when
/// all pods are there, before the first case.
///
/// # Errors
/// Fails when a host cannot be reached, or a pod not be attached.
pub(super) fn run(
    inventory: &dyn Inventory,
    plan: &Plan,
    before: impl FnOnce() -> Result<()>,
) -> Result<Judged> {
    let start = Instant::now();
    let bed = Bed::make(inventory, plan.pods)?;
    settle(&bed, inventory.slowdown());
    before()?;
    let mut rows = Vec::new();
    for case in &plan.cases {
        let asked = plan.requirements.iter().find(|asked| asked.id == case.id);
        let asked = asked.with_context(|| format!("there is no requirement {}", case.id))?;
        rows.extend(rows_of(case, asked, &plan.known, &bed, inventory));
    }
    let (parts, facts) = (parts(&bed), facts(&bed));
    let ended = bed.end();
    let report = Report {
        suite: SUITE,
        of: inventory.title(),
        headline: headline(inventory, plan.pods),
        parts,
        facts,
        rows,
        not_covered: groups::not_covered(&plan.requirements),
        took: start.elapsed(),
    };
    Ok(Judged { report, ended })
}

fn headline(inventory: &dyn Inventory, pods: u8) -> String {
    let what = format!("{}, {} on each node", inventory.title(), counted(pods, "pod"));
    match inventory.slowdown() {
        0 | 1 => what,
        times => format!(
            "{what}; as these are slow, limits are {times} times the usual ones, and flows and streams a {times}th"
        ),
    }
}

fn rows_of(case: &Case, asked: &Asked, known: &Known, bed: &Bed, inventory: &dyn Inventory) -> Vec<Row> {
    let there = bed.families();
    let row = |family: Family| {
        let start = Instant::now();
        let skipped = if !there.contains(&family) {
            Some(format!("the pods have no address of {}", family.name()))
        } else if case.harm == Harm::Breaks && !inventory.may_break() {
            Some("it breaks something for a moment; allow it with --disruptive".to_owned())
        } else {
            None
        };
        let look = Look::new(bed, inventory, family);
        let outcome = match &skipped {
            Some(reason) => Outcome::Skipped {
                reason: reason.clone(),
            },
            None => Outcome::of((case.run)(&look)),
        };
        Row {
            asked: asked.clone(),
            case: case.name,
            subject: family.name().to_owned(),
            version: None,
            measured: look.into_measured(),
            outcome: outcome.known(known.reason(case.id, case.name, family.name())),
            took: if skipped.is_some() {
                Duration::ZERO
            } else {
                start.elapsed()
            },
        }
    };
    Family::BOTH.into_iter().map(row).collect()
}

/// The nodes, each with its pods.
fn parts(bed: &Bed) -> Vec<(String, String)> {
    let of = |(index, node): (usize, &super::bed::Node)| {
        let pods = bed.pods.iter().filter(|pod| pod.node == index);
        let texts = pods.map(|pod| {
            let ips: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
            format!("{} {}", pod.name, ips.join(" "))
        });
        (node.name.to_owned(), texts.collect::<Vec<_>>().join(", "))
    };
    bed.nodes.iter().enumerate().map(of).collect()
}

fn facts(bed: &Bed) -> Map<String, Value> {
    let nodes = bed
        .nodes
        .iter()
        .map(|node| json!({"name": node.name, "addresses": node.outward}));
    let pods = bed
        .pods
        .iter()
        .map(|pod| json!({"name": pod.name, "addresses": pod.addresses}));
    Map::from_iter([
        ("nodes".to_owned(), nodes.collect()),
        ("pods".to_owned(), pods.collect()),
    ])
}
