//! The node daemon flanneld.

fn main() {}
