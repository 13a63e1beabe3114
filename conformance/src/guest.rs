//! A laboratory of real kernels: nodes that are QEMU guests with Debian's own kernel, joined by a virtual Ethernet.
//!
//! A [`GuestLab`] stands in a [`Lab`](crate::lab::Lab), whose end is the end of every guest, and whose etcd server the
//! guests reach. The kernel comes from Debian's package, unpacked into the build directory; the host's own kernel,
//! files and links are not touched. Start at [`GuestLab::start`], then [`Guest::sh`].

mod accelerator;
mod archive;
mod image;
mod kernel;
mod lab;
mod machine;
mod node;
mod wire;

pub use accelerator::Accelerator;
pub use image::Image;
pub use kernel::KernelPackage;
pub use lab::GuestLab;
pub use machine::{Answer, Guest};
pub use node::POD_CONF;
pub use wire::{Capture, Wire};
