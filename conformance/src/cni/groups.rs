//! The cases, a file for each group of requirements.

mod add;
mod add_failures;
mod arguments;
mod capabilities;
mod chain;
mod check;
mod configuration;
mod del;
mod delegation;
mod environment;
mod errors;
mod gc;
mod results;
mod status;
mod version;

use super::case::Case;
use super::requirement::Requirement;

/// Requirements without a case, and why.
const NOT_COVERED: [(&str, &str); 6] = [
    (
        "ADD-12",
        "the specification allows code 11 here, but does not ask for it",
    ),
    (
        "DLG-04",
        "the kernel refuses a file that is being written only for a moment that a runner cannot choose",
    ),
    (
        "ERR-03",
        "no input makes a plugin answer code 3; the cases of ADD-07 show that nothing is left in any case",
    ),
    (
        "GC-08",
        "a lock that is held cannot be seen from outside; ADD-10 shows the effect for ADD and DEL",
    ),
    (
        "PRV-06",
        "what happens inside a process cannot be seen; DEL-05 shows the effect",
    ),
    (
        "CHN-02",
        "it is how a plugin finds an interface; CHK-06 and ADD-04 show the effect",
    ),
];

/// All cases, group by group.
pub(super) fn cases() -> Vec<Case> {
    [
        environment::CASES,
        arguments::CASES,
        configuration::CASES,
        version::CASES,
        add::CASES,
        add_failures::CASES,
        del::CASES,
        check::CASES,
        status::CASES,
        gc::CASES,
        chain::CASES,
        results::CASES,
        errors::CASES,
        delegation::CASES,
        capabilities::CASES,
    ]
    .concat()
}

/// The requirements without a case, each with the reason.
pub(super) fn not_covered(requirements: &[Requirement]) -> Vec<(Requirement, &'static str)> {
    let reason = |id: &str| {
        NOT_COVERED
            .iter()
            .find(|(other, _)| *other == id)
            .map(|(_, reason)| *reason)
    };
    requirements
        .iter()
        .filter_map(|&requirement| Some((requirement, reason(requirement.id)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cni::requirement;

    #[test]
    fn every_requirement_has_a_case_or_a_reason_why_not() {
        let known: BTreeSet<_> = requirement::all().unwrap().iter().map(|one| one.id).collect();
        let covered: BTreeSet<_> = cases().iter().map(|case| case.id).collect();
        let excused: BTreeSet<_> = NOT_COVERED.iter().map(|(id, _)| *id).collect();
        assert_eq!(
            covered.difference(&known).collect::<Vec<_>>(),
            Vec::<&&str>::new()
        );
        assert_eq!(
            covered.intersection(&excused).collect::<Vec<_>>(),
            Vec::<&&str>::new()
        );
        let both: BTreeSet<_> = covered.union(&excused).copied().collect();
        assert_eq!(both, known);
    }

    #[test]
    fn a_case_is_told_by_its_requirement_and_its_name() {
        let cases = cases();
        let names: BTreeSet<_> = cases.iter().map(|case| (case.id, case.name)).collect();
        assert_eq!(names.len(), cases.len());
        assert!(cases.iter().all(|case| !case.name.contains('|')));
    }
}
