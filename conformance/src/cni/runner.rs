//! Runs the cases, many at a time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::case::{About, Candidate, Case};
use super::groups;
use super::requirement::{self, Requirement, VERSIONS, Versions};
use super::stage::{Stage, Target};
use super::subject::{Subject, usual_conf};
use crate::parallel::in_parallel;
use crate::refused::Refused;
use crate::report::{Checked, Known, Outcome, Report, Row, Suite};

/// How the report calls what it judges.
const SUITE: Suite = Suite {
    name: "cni",
    title: "CNI conformance",
    subject: "plugin",
    column: "Plugin",
};

/// What is to be run.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) plugin_dir: PathBuf,
    pub(super) conf: Option<PathBuf>,
    pub(super) known: Option<PathBuf>,
    /// Beginnings of ids: only cases of these; all if there is none.
    pub(super) only: Vec<String>,
    /// How many cases at a time; by the number of processors if it is not given.
    pub(super) jobs: Option<u8>,
}

/// Runs every case that was asked for.
///
/// # Errors
/// Fails without root, or when the plugins or their configuration cannot be read.
pub(super) fn run(config: &Config) -> Result<Report> {
    let start = Instant::now();
    if !nix::unistd::geteuid().is_root() {
        bail!(Refused(
            "judging plugins needs root, to make network namespaces".to_owned()
        ));
    }
    let subject = Subject::load(&config.plugin_dir, config.conf.as_deref()).map_err(Refused::from)?;
    let all = groups::cases();
    let names: Vec<_> = all.iter().map(|case| (case.id, case.name)).collect();
    let known = Known::load(config.known.as_deref(), &names).map_err(Refused::from)?;
    let wanted = |id: &str| config.only.is_empty() || config.only.iter().any(|start| id.starts_with(start));
    let cases: Vec<_> = all.into_iter().filter(|case| wanted(case.id)).collect();
    let requirements = requirement::all()?;
    let supported = supported_versions(&subject, &cases);
    let jobs = plan(&subject, &cases, &requirements, &supported)?;
    let rows = in_parallel(jobs.len(), config.jobs, |index| {
        let job = jobs.get(index).context("a job that there is not")?;
        Ok(job.run(&subject, &known))
    })?;
    Ok(Report {
        suite: SUITE,
        headline: format!(
            "network {}, programs in {}",
            subject.network,
            subject.dir.display()
        ),
        parts: supported
            .iter()
            .map(|(plugin, versions)| (plugin.clone(), versions.join(" ")))
            .collect(),
        facts: facts(&subject, &supported),
        of: subject.network,
        rows,
        not_covered: Vec::new(),
        took: start.elapsed(),
    })
}

fn facts(subject: &Subject, supported: &BTreeMap<String, Vec<String>>) -> Map<String, Value> {
    let plugins = supported
        .iter()
        .map(|(name, versions)| json!({"type": name, "versions": versions}));
    Map::from_iter([
        ("pluginDir".to_owned(), json!(subject.dir)),
        ("network".to_owned(), json!(subject.network)),
        ("plugins".to_owned(), plugins.collect()),
    ])
}

/// One case with the plugin and the version that it is run on, or with the reason why it is not run.
#[derive(Debug)]
struct Job {
    case: Case,
    requirement: Requirement,
    shown: String,
    target: Result<Target, String>,
}

impl Job {
    fn run(&self, subject: &Subject, known: &Known) -> Row {
        let start = Instant::now();
        let listed = known.reason(self.case.id, self.case.name, &self.shown);
        let outcome = match &self.target {
            Ok(target) => {
                let is_known = listed.is_some();
                let target = Target {
                    is_known,
                    ..target.clone()
                };
                Outcome::of(Stage::with(subject, &target, self.case.run))
            }
            Err(reason) => Outcome::Skipped {
                reason: reason.clone(),
            },
        };
        Row {
            asked: self.requirement.asked(),
            case: self.case.name,
            subject: self.shown.clone(),
            version: Some(
                self.target
                    .as_ref()
                    .map(|target| target.version.clone())
                    .unwrap_or_default(),
            ),
            measured: Vec::new(),
            outcome: outcome.known(listed),
            took: if self.target.is_ok() {
                start.elapsed()
            } else {
                Duration::ZERO
            },
        }
    }
}

fn plan(
    subject: &Subject,
    cases: &[Case],
    requirements: &[Requirement],
    supported: &BTreeMap<String, Vec<String>>,
) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for case in cases {
        let requirement = *requirements
            .iter()
            .find(|requirement| requirement.id == case.id)
            .with_context(|| format!("there is no requirement {}", case.id))?;
        let job = |shown: String, target| Job {
            case: *case,
            requirement,
            shown,
            target,
        };
        match case.about.candidates(subject) {
            Err(reason) => jobs.push(job(case.about.shown().to_owned(), Err(reason))),
            Ok(candidates) => jobs.extend(candidates.into_iter().map(|candidate| {
                let shown = candidate.shown.clone();
                job(shown, target(candidate, requirement.versions, subject, supported))
            })),
        }
    }
    Ok(jobs)
}

/// Chooses the version that a plugin is called with: the configuration's own, or else the newest that it supports.
fn target(
    candidate: Candidate,
    asked: Versions,
    subject: &Subject,
    supported: &BTreeMap<String, Vec<String>>,
) -> Result<Target, String> {
    let has = |version: &&str| {
        let lists = candidate
            .programs
            .iter()
            .filter_map(|program| supported.get(program));
        lists
            .clone()
            .all(|list| list.iter().any(|known| known == version))
    };
    let common: Vec<_> = VERSIONS.iter().copied().filter(has).collect();
    let of_range = || common.iter().copied().filter(|version| asked.has(version));
    let own = of_range().find(|version| *version == subject.version);
    match own.or_else(|| of_range().next_back()) {
        Some(version) => Ok(Target {
            plugin: candidate.plugin,
            conf: candidate.conf,
            version: version.to_owned(),
            supported: common.iter().map(|&version| version.to_owned()).collect(),
            before: candidate.before,
            is_known: false,
        }),
        None => {
            let who = candidate.programs.join(" and ");
            Err(format!(
                "asked of versions {}, and {who} supports {}",
                asked.text(),
                common.join(", ")
            ))
        }
    }
}

/// What each program answers to VERSION; the configuration's own version where it does not answer, which a case tells.
fn supported_versions(subject: &Subject, cases: &[Case]) -> BTreeMap<String, Vec<String>> {
    let types = cases.iter().filter_map(|case| match case.about {
        About::Type(kind) => Some(kind.to_owned()),
        About::First | About::Each | About::Chained | About::Ipam | About::List => None,
    });
    let programs = subject
        .programs()
        .into_iter()
        .chain(types.filter(|kind| subject.has(kind)));
    let mut supported = BTreeMap::new();
    for program in programs {
        supported.entry(program).or_insert_with_key(|program| {
            ask(subject, program).unwrap_or_else(|_| vec![subject.version.clone()])
        });
    }
    supported
}

fn ask(subject: &Subject, program: &str) -> Checked<Vec<String>> {
    let target = Target {
        plugin: program.to_owned(),
        conf: usual_conf(program),
        version: subject.version.clone(),
        supported: Vec::new(),
        before: 0,
        is_known: false,
    };
    let answer = Stage::with(subject, &target, |stage| {
        stage.host_call("VERSION").run()?.result()
    })?;
    let list = answer
        .get("supportedVersions")
        .and_then(Value::as_array)
        .context("no versions")?;
    Ok(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_configurations_own_or_else_the_newest_that_is_asked() {
        let subject = Subject {
            dir: PathBuf::new(),
            network: "n".to_owned(),
            version: "0.4.0".to_owned(),
            plugins: Vec::new(),
        };
        let supported = [
            ("a".to_owned(), VERSIONS.map(str::to_owned).to_vec()),
            (
                "b".to_owned(),
                VERSIONS
                    .iter()
                    .take(6)
                    .map(|&version| version.to_owned())
                    .collect(),
            ),
        ];
        let supported = supported.into();
        let of = |id: &str, programs: &[&str]| {
            let requirement = requirement::all()
                .unwrap()
                .into_iter()
                .find(|one| one.id == id)
                .unwrap();
            let candidate = Candidate {
                shown: "a".to_owned(),
                programs: programs.iter().map(|&program| program.to_owned()).collect(),
                plugin: "a".to_owned(),
                conf: Value::Null,
                before: 0,
            };
            target(candidate, requirement.versions, &subject, &supported).map(|target| target.version)
        };
        assert_eq!(of("ENV-01", &["a"]).unwrap(), "0.4.0");
        assert_eq!(of("ADD-10", &["a"]).unwrap(), "1.1.0");
        assert_eq!(of("ADD-10", &["a", "b"]).unwrap(), "1.0.0");
        assert_eq!(of("RES-01", &["a"]).unwrap(), "0.2.0");
        let reason = of("GC-01", &["b"]).unwrap_err();
        assert!(
            reason.contains("1.1.0") && reason.contains("b supports"),
            "{reason}"
        );
    }
}
