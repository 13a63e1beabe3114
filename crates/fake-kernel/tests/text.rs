//! The text form of `netstate` with random values.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use fake_kernel::strategy::{any_object, any_op, any_state, world_ops};
use netstate::{ObjectKey, Op, State};
use proptest::prelude::*;

proptest! {
    #[test]
    fn every_state_reads_back_as_it_prints(state in any_state()) {
        prop_assert_eq!(state.to_string().parse::<State>(), Ok(state));
    }

    #[test]
    fn every_change_reads_back_as_it_prints(op in any_op()) {
        prop_assert_eq!(op.to_string().parse::<Op>(), Ok(op));
    }

    #[test]
    fn every_object_reads_back_as_it_prints(object in any_object()) {
        prop_assert_eq!(object.to_string().parse::<ObjectKey>(), Ok(object));
    }

    #[test]
    fn a_change_is_one_line(op in any_op()) {
        prop_assert_eq!(op.to_string().lines().count(), 1);
    }

    #[test]
    fn changes_of_the_small_world_read_back_as_they_print(ops in world_ops(0..20)) {
        for op in ops {
            prop_assert_eq!(op.to_string().parse::<Op>(), Ok(op));
        }
    }

    #[test]
    fn a_text_is_refused_or_means_what_it_prints(text in "((add|set|del) )?(link|addr|neigh) \\PC*") {
        if let Ok(op) = text.parse::<Op>() {
            prop_assert_eq!(op.to_string().parse::<Op>(), Ok(op));
        }
        if let Ok(state) = text.parse::<State>() {
            prop_assert_eq!(state.to_string().parse::<State>(), Ok(state));
        }
    }
}
