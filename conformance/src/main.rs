//! Proves any CNI plugin and any node network.

fn main() {}
