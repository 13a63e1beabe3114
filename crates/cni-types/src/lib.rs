//! The CNI specification as data.
