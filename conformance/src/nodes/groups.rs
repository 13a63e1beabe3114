//! The cases, a file for each group of requirements.

mod daemon;
mod failover;
mod kube;
mod newcomer;
mod pairs;
mod paths;
mod peers;
mod principles;
mod repair;
mod sizes;
mod subnets;
mod tables;
mod tools;
mod traffic;

pub(super) use peers::device;

use super::case::Case;
use crate::report::Asked;

/// Requirements without a case, and why.
const NOT_COVERED: [(&str, &str); 1] = [(
    "TAB-07",
    "a pod of the runner's has no files of its own: the container runtime writes this one, as the kubelet says",
)];

/// All cases, group by group.
pub(super) fn cases() -> Vec<Case> {
    [
        principles::CASES,
        sizes::CASES,
        paths::CASES,
        tables::CASES,
        kube::CASES,
        repair::CASES,
        failover::CASES,
    ]
    .concat()
}

/// The requirements without a case, each with the reason.
pub(super) fn not_covered(requirements: &[Asked]) -> Vec<(Asked, &'static str)> {
    let reason = |id: &str| NOT_COVERED.iter().find(|(other, _)| *other == id);
    requirements
        .iter()
        .filter_map(|asked| Some((asked.clone(), reason(asked.id)?.1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::nodes::requirement;

    #[test]
    fn every_requirement_has_a_case_or_a_reason_why_not() {
        let known = requirement::all().unwrap();
        let ids: BTreeSet<_> = known.iter().map(|one| one.id).collect();
        assert_eq!(ids.len(), known.len());
        let covered: BTreeSet<_> = cases().iter().map(|case| case.id).collect();
        let excused: BTreeSet<_> = NOT_COVERED.iter().map(|(id, _)| *id).collect();
        assert!(covered.is_disjoint(&excused));
        let both: BTreeSet<_> = covered.union(&excused).copied().collect();
        assert_eq!(both, ids);
    }

    #[test]
    fn a_case_is_told_by_its_requirement_and_its_name() {
        let cases = cases();
        let names: BTreeSet<_> = cases.iter().map(|case| (case.id, case.name)).collect();
        assert_eq!(names.len(), cases.len());
    }
}
