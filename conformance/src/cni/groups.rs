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
mod peers;
mod results;
mod status;
mod version;

use super::case::Case;

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
        peers::CASES,
        results::CASES,
        errors::CASES,
        delegation::CASES,
        capabilities::CASES,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cni::requirement;

    #[test]
    fn every_requirement_has_a_case() {
        let known: BTreeSet<_> = requirement::all().unwrap().iter().map(|one| one.id).collect();
        let covered: BTreeSet<_> = cases().iter().map(|case| case.id).collect();
        assert_eq!(covered, known);
    }

    #[test]
    fn a_case_is_told_by_its_requirement_and_its_name() {
        let cases = cases();
        let names: BTreeSet<_> = cases.iter().map(|case| (case.id, case.name)).collect();
        assert_eq!(names.len(), cases.len());
        assert!(cases.iter().all(|case| !case.name.contains('|')));
    }
}
