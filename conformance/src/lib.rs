//! Proves any CNI plugin and any node network.
//!
//! The judge shares no code with the judged: it drives the programs `flanneld` and `flannel` as black boxes and looks
//! at the kernel through iproute2; where time counts, the bench listens with a few lines of its own. Everything it makes lives in namespaces that end with the process that made
//! them; it never touches the host's links, mounts or files, except for the one record file of a lab that the user
//! asked to keep.
//!
//! Start at [`lab::Lab`], or at [`guest::GuestLab`] for real kernels; [`cli::run`] is the program, whose
//! subcommand `cni` judges plugins one call at a time.

pub mod bench;
pub mod captures;
pub mod cli;
mod cni;
mod counted;
pub mod demo;
pub mod guest;
mod interop;
pub mod lab;
mod nodes;
mod parallel;
mod refused;
mod report;
mod soak;
