//! Kernel networking as plain data: state, scope, diff, plan.
