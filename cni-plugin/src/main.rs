//! The CNI plugin binary flannel.

fn main() {}
