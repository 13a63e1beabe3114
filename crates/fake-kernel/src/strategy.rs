//! Generators for property tests: values of every shape, and changes of a small world that often meet.

mod any;
mod rules;
mod world;

pub use any::{any_object, any_op, any_state};
pub use rules::{any_family, any_rule};
pub use world::{world_op, world_ops, world_scope};
