//! Rules print and read in nft's syntax without losing anything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use fake_kernel::strategy::{any_family, any_rule};
use netstate::nft::{Rule, RuleIn};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_rule_reads_back_as_it_prints(rule in any_rule(), family in any_family()) {
        let rule = rule.canonical(family);
        let text = RuleIn(family, &rule).to_string();
        prop_assert_eq!(text.parse::<Rule>(), Ok(rule), "{}", text);
    }

    #[test]
    fn the_canonical_form_of_a_canonical_rule_is_itself(rule in any_rule(), family in any_family()) {
        let once = rule.canonical(family);
        prop_assert_eq!(once.canonical(family), once);
    }

    #[test]
    fn any_text_is_refused_or_read_for_good(text in words()) {
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule), "{}", text);
        }
    }
}

/// Words of the grammar in any order, and others.
fn words() -> impl Strategy<Value = String> {
    let known = select(vec![
        "ip",
        "ip6",
        "saddr",
        "daddr",
        "tcp",
        "th",
        "dport",
        "!=",
        "==",
        "meta",
        "l4proto",
        "mark",
        "set",
        "&",
        "|",
        "1",
        "0x10",
        "1.1.1.1",
        "::1/64",
        "ct",
        "state",
        "new",
        "new,invalid",
        "counter",
        "dnat",
        "to",
        "[::1]:5",
        "1.1.1.1:5",
        "iifname",
        "\"eth0\"",
        "eth*",
        "accept",
        "jump",
        "comment",
        "\"a\"",
        "fib",
        "type",
        "local",
    ]);
    let word = prop_oneof![8 => known.prop_map(str::to_owned), 1 => "[ -~]{0,6}"];
    vec(word, 0..8).prop_map(|words| words.join(" "))
}
