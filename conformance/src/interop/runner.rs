use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Map, json};

use super::compare::Findings;
use super::deviation::{Deviations, OF_THIS_PROJECT};
use super::golden::{self, CONFIGURATIONS, Configuration};
use super::mixed::{self, Terms};
use crate::captures::Captures;
use crate::lab::Binaries;
use crate::parallel::in_parallel;
use crate::refused::Refused;
use crate::report::{self, Asked, Outcome, Report, Row, Suite};

/// How the report calls what it judges.
const SUITE: Suite = Suite {
    name: "interop",
    title: "Interoperability with the reference",
    subject: "configuration",
    column: "Configuration",
};
/// The table of what is asked.
pub(super) const REQUIREMENTS: &str = include_str!("requirements.txt");
/// So many labs at a time; each has three nodes and a server.
const AT_A_TIME: u8 = 6;

/// What is to be run.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) bin_dir: Option<PathBuf>,
    pub(super) captures: Option<PathBuf>,
    pub(super) deviations: Option<PathBuf>,
    /// Names of configurations, as in [`golden::names`]; all if there is none.
    pub(super) configurations: Vec<String>,
    /// Beginnings of ids: only comparisons of these; all if there is none.
    pub(super) only: Vec<String>,
    /// What the programs are mixed with.
    pub(super) terms: Terms,
}

/// Runs the programs in every configuration that was asked for, and compares.
///
/// # Errors
/// Fails when nothing is left to run, or when programs or lists are not there.
pub(super) fn run(config: &Config) -> Result<Report> {
    let start = Instant::now();
    let plan = Plan::of(config).map_err(Refused::from)?;
    let rows = in_parallel(plan.configurations.len(), Some(AT_A_TIME), |index| {
        let configuration = plan.configurations.get(index);
        let configuration = configuration.context("a configuration without a place")?;
        Ok(plan.rows_of(configuration))
    })?;
    let mut rows: Vec<_> = rows.into_iter().flatten().collect();
    // Apart, because lost packets count.
    if plan.is_mixed {
        rows.extend(mixed::rows(
            &config.terms,
            &plan.binaries,
            &plan.deviations,
            &plan.asked,
        ));
    }
    let dir = plan.binaries.dir().display().to_string();
    Ok(Report {
        suite: SUITE,
        of: dir.clone(),
        headline: format!("the programs of {dir}, by what flannel v0.28.9 and its plugins v1.9.1 wrote"),
        parts: if plan.is_mixed {
            config.terms.parts()
        } else {
            Vec::new()
        },
        facts: Map::from_iter([("programs".to_owned(), json!(dir))]),
        rows,
        not_covered: if plan.is_mixed {
            Vec::new()
        } else {
            not_covered(&plan.asked, &config.terms)
        },
        took: start.elapsed(),
    })
}

struct Plan {
    binaries: Binaries,
    captures: Captures,
    deviations: Deviations,
    configurations: Vec<Configuration>,
    is_mixed: bool,
    asked: Vec<Asked>,
}

impl Plan {
    fn of(config: &Config) -> Result<Self> {
        let deviations = match &config.deviations {
            Some(file) => {
                let reading = || format!("reading {}", file.display());
                Deviations::parse(&fs::read_to_string(file).with_context(reading)?).with_context(reading)?
            }
            None => Deviations::parse(OF_THIS_PROJECT)?,
        };
        let names = &config.configurations;
        let wanted =
            |id: &str| config.only.is_empty() || config.only.iter().any(|start| id.starts_with(start));
        let mut asked = report::requirements(REQUIREMENTS)?;
        asked.retain(|asked| wanted(asked.id));
        let mut configurations = if names.is_empty() {
            CONFIGURATIONS.to_vec()
        } else {
            let captured = names.iter().filter(|name| *name != mixed::NAME);
            captured.filter_map(|name| golden::named(name)).collect()
        };
        configurations.retain(|one| one.ids.iter().any(|id| wanted(id)));
        let names_mixed = names.iter().any(|name| name == mixed::NAME);
        if names_mixed && !config.terms.has_other() {
            bail!("the configuration mixed needs other programs: give --other-flanneld or --other-plugins");
        }
        let is_mixed = config.terms.has_other()
            && (names.is_empty() || names_mixed)
            && mixed::IDS.iter().any(|id| wanted(id));
        if configurations.is_empty() && !is_mixed {
            bail!(
                "nothing to compare: no configuration is about what was asked for, or there are no other programs to mix with"
            );
        }
        let captures = config.captures.as_deref();
        let captures = captures.map_or_else(|| Ok(Captures::built_in()), Captures::in_dir)?;
        if let Some(missing) = configurations.iter().find(|one| !captures.has(one.name)) {
            bail!(
                "there are no captures of {}: choose others with --configuration",
                missing.name
            );
        }
        config.terms.check()?;
        let bin_dir = config.bin_dir.as_deref();
        Ok(Self {
            binaries: bin_dir.map_or_else(Binaries::find, Binaries::in_dir)?,
            captures,
            deviations,
            configurations,
            is_mixed,
            asked,
        })
    }

    fn rows_of(&self, configuration: &Configuration) -> Vec<Row> {
        let start = Instant::now();
        let ended = configuration.run(&self.captures, &self.binaries);
        let took = start.elapsed();
        let findings = ended.map_err(|stop| Outcome::of(Err(stop)));
        let asked = self
            .asked
            .iter()
            .filter(|asked| configuration.ids.contains(&asked.id));
        asked
            .enumerate()
            .map(|(index, asked)| Row {
                asked: asked.clone(),
                case: asked.text,
                subject: configuration.name.to_owned(),
                version: None,
                measured: Vec::new(),
                outcome: self.outcome(asked.id, configuration.name, &findings),
                // A configuration is run once for all.
                took: if index == 0 { took } else { Duration::ZERO },
            })
            .collect()
    }

    fn outcome(&self, id: &str, configuration: &str, findings: &Result<Findings, Outcome>) -> Outcome {
        match findings {
            Err(outcome) => outcome.clone(),
            Ok(findings) => match findings.get(id) {
                Some(compared) => self.deviations.judge(id, configuration, compared),
                None => Outcome::Skipped {
                    reason: "the capture has nothing of it".to_owned(),
                },
            },
        }
    }
}

/// What is asked of a mixed network, where there is none, and why there is none.
fn not_covered(asked: &[Asked], terms: &Terms) -> Vec<(Asked, &'static str)> {
    let reason = if terms.has_other() {
        "needs the configuration mixed, which is not among the ones asked for"
    } else {
        "needs other programs: --other-flanneld or --other-plugins"
    };
    let of_mixed = asked.iter().filter(|asked| mixed::IDS.contains(&asked.id));
    of_mixed.map(|asked| (asked.clone(), reason)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_requirement_is_compared_and_every_comparison_is_required() {
        let asked = report::requirements(REQUIREMENTS).unwrap();
        let ids: BTreeSet<_> = asked.iter().map(|asked| asked.id).collect();
        assert_eq!(ids.len(), asked.len());
        let compared: BTreeSet<_> = CONFIGURATIONS
            .iter()
            .flat_map(|one| one.ids)
            .chain(&mixed::IDS)
            .copied()
            .collect();
        assert_eq!(ids, compared);
    }

    fn terms(flanneld: Option<PathBuf>) -> Terms {
        Terms {
            flanneld,
            plugins: None,
            net_conf: None,
            nodes: 2,
            max_lost: 0,
        }
    }

    #[test]
    fn mixed_is_refused_without_other_programs_whatever_else_is_named() {
        for names in [&["mixed"][..], &["host-gw", "mixed"]] {
            let config = Config {
                bin_dir: None,
                captures: None,
                deviations: None,
                configurations: names.iter().map(|&name| name.to_owned()).collect(),
                only: Vec::new(),
                terms: terms(None),
            };
            let error = Plan::of(&config).err().unwrap().to_string();
            assert!(error.contains("--other-flanneld"), "{error}");
        }
    }

    #[test]
    fn what_is_not_mixed_is_told_with_the_reason() {
        let asked = report::requirements(REQUIREMENTS).unwrap();
        for (flanneld, part) in [
            (None, "--other-plugins"),
            (Some("/other".into()), "configuration mixed"),
        ] {
            let left = not_covered(&asked, &terms(flanneld));
            let ids: Vec<_> = left.iter().map(|(asked, _)| asked.id).collect();
            assert_eq!(ids, mixed::IDS);
            assert!(left.iter().all(|(_, reason)| reason.contains(part)), "{part}");
        }
    }
}
