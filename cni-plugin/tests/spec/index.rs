//! Where each requirement is checked: in this table, by a test of another file, or by a plugin of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const TABLES: [&str; 6] = [
    include_str!("environment.rs"),
    include_str!("arguments.rs"),
    include_str!("chains.rs"),
    include_str!("configuration.rs"),
    include_str!("results.rs"),
    include_str!("verbs.rs"),
];

/// How many requirements each area has.
const AREAS: [(&str, usize); 15] = [
    ("ENV", 13),
    ("ARG", 6),
    ("CFG", 13),
    ("VER", 4),
    ("ADD", 12),
    ("DEL", 11),
    ("CHK", 7),
    ("STA", 6),
    ("GC", 8),
    ("PRV", 6),
    ("CHN", 4),
    ("RES", 8),
    ("ERR", 5),
    ("DLG", 5),
    ("CAP", 9),
];

const ATTACH: &str = include_str!("../attach.rs");
const CHECK: &str = include_str!("../check.rs");
const CONCURRENCY: &str = include_str!("../concurrency.rs");
const DELEGATION: &str = include_str!("../delegation.rs");
const DETACH: &str = include_str!("../detach.rs");
const FAILURES: &str = include_str!("../failures.rs");
const FORMS: &str = include_str!("../../../crates/cni-types/tests/forms.rs");
const LOOPBACK: &str = include_str!("../loopback.rs");
const PORTMAP: &str = include_str!("../portmap_verbs.rs");
const REFERENCE: &str = include_str!("../reference.rs");
const KEYS: &str = include_str!("../bridge_keys.rs");

/// Requirements that tests of other files check.
const ELSEWHERE: [(&str, &str, &str); 25] = [
    ("ADD-03", ATTACH, "every_version_gets_its_own_result_form"),
    (
        "ADD-04",
        PORTMAP,
        "without_mappings_the_result_passes_through_and_nothing_is_made",
    ),
    (
        "ADD-06",
        FAILURES,
        "a_delegate_that_fails_is_asked_to_clean_up_and_its_error_is_passed_on",
    ),
    (
        "ADD-08",
        KEYS,
        "routes_of_a_result_are_made_with_all_their_attributes",
    ),
    ("ADD-09", DETACH, "two_networks_of_one_container_are_kept_apart"),
    (
        "ADD-10",
        CONCURRENCY,
        "twenty_first_pods_at_once_all_get_their_own_address",
    ),
    (
        "ADD-11",
        ATTACH,
        "an_added_pod_has_the_references_result_and_state_and_answers_pings",
    ),
    (
        "DEL-05",
        DETACH,
        "del_without_a_usable_namespace_still_removes_everything",
    ),
    (
        "DEL-06",
        DETACH,
        "a_failed_del_keeps_the_state_file_so_that_it_can_be_repeated",
    ),
    ("CHK-04", CHECK, "each_difference_is_found_and_named"),
    ("CHK-05", CHECK, "what_later_plugins_do_is_no_difference"),
    (
        "CHK-07",
        DELEGATION,
        "ptp_attaches_checks_and_detaches_as_flannels_delegate",
    ),
    (
        "GC-07",
        DETACH,
        "gc_frees_no_address_whose_interface_cannot_be_named",
    ),
    ("GC-08", REFERENCE, "one_store_serves_both_at_the_same_time"),
    (
        "PRV-04",
        FORMS,
        "members_of_one_one_zero_appear_only_there_and_unknown_ones_stay",
    ),
    ("PRV-06", CHECK, "each_difference_is_found_and_named"),
    (
        "CHN-01",
        PORTMAP,
        "add_and_check_need_a_result_and_the_others_do_not",
    ),
    (
        "CHN-02",
        CHECK,
        "a_previous_result_that_cannot_be_used_is_an_error",
    ),
    ("CHN-03", PORTMAP, "bad_input_changes_nothing"),
    (
        "CHN-04",
        ATTACH,
        "an_added_pod_has_the_references_result_and_state_and_answers_pings",
    ),
    ("RES-07", LOOPBACK, "the_result_has_the_form_of_its_version"),
    ("DLG-01", DELEGATION, "a_delegate_gets_the_complete_call"),
    ("DLG-03", DELEGATION, "a_delegate_gets_the_complete_call"),
    (
        "DLG-04",
        DELEGATION,
        "a_delegate_whose_file_is_being_written_is_tried_again",
    ),
    (
        "DLG-05",
        DELEGATION,
        "a_delegate_older_than_status_and_gc_is_asked_for_its_versions",
    ),
];

#[test]
fn every_requirement_is_checked_somewhere() {
    let mut missing = BTreeSet::new();
    for (area, count) in AREAS {
        for number in 1..=count {
            let id = format!("{area}-{number:02}");
            let in_table = TABLES.iter().any(|table| names(table, area, number));
            let elsewhere = ELSEWHERE.iter().any(|(named, ..)| *named == id);
            if !in_table && !elsewhere {
                missing.insert(id);
            }
        }
    }
    assert_eq!(missing, BTreeSet::new());
    for (id, file, test) in ELSEWHERE {
        assert!(file.contains(&format!("fn {test}(")), "{id}: no test {test}");
    }
}

/// What is told to people of the differences from the reference is shown by tests.
#[test]
fn every_difference_in_the_documentation_is_argued_and_names_its_test() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(own.join("../docs/cni.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let rows: Vec<_> = rows.filter(|row| !row.starts_with("| the reference |")).collect();
    assert!(rows.len() > 20);
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(
            cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty()),
            "{row}"
        );
        let mut names = cells[3].split('`').filter(|part| !part.trim().is_empty());
        let (file, test) = (names.next().unwrap(), names.next().unwrap());
        let tests = fs::read_to_string(own.join("tests").join(file)).unwrap();
        assert!(tests.contains(&format!("fn {test}(")), "{row}");
    }
}

/// Whether a table names a requirement, by itself or in a range `XXX-01 to XXX-04`.
fn names(table: &str, area: &str, number: usize) -> bool {
    let start = format!("{area}-");
    let numbers = |text: &str| text.get(..2).and_then(|digits| digits.parse::<usize>().ok());
    table.match_indices(&start).any(|(at, _)| {
        let rest = table.get(at + start.len()..).unwrap_or_default();
        let Some(first) = numbers(rest) else { return false };
        let tail = rest
            .get(2..)
            .and_then(|tail| tail.strip_prefix(&format!(" to {start}")));
        let last = tail.and_then(numbers);
        (first..=last.unwrap_or(first)).contains(&number)
    })
}
