use std::collections::BTreeSet;

use crate::{Op, Scope, Spot, State};

/// Something that holds kernel networking of one namespace: the real kernel, or the one in memory for tests.
pub trait Kernel {
    /// Reads what is there within a scope.
    ///
    /// # Errors
    /// The read as a whole failed; nothing is known.
    fn observe(&mut self, scope: &Scope) -> Result<State, KernelError>;

    /// Reads what stands at some spots, as far as it is within a scope; everything else is left out.
    ///
    /// # Errors
    /// The read as a whole failed; nothing is known.
    fn observe_at(&mut self, scope: &Scope, spots: &BTreeSet<Spot>) -> Result<State, KernelError> {
        Ok(self.observe(scope)?.at(spots))
    }

    /// Applies changes in order. One failure does not stop the others; the answer has one result for each change.
    ///
    /// A result `Ok` is the kernel's acknowledgement and proves little: observe again.
    fn apply(&mut self, ops: &[Op]) -> Vec<Result<(), KernelError>>;
}

/// Why the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct KernelError {
    /// What it means for whoever asked.
    pub class: ErrorClass,
    /// The kernel's own words or the name of its error number, or what stands in the way and what to do about it.
    pub message: String,
}

/// What a refusal means, by error number (measured on 6.18, see netlink/tests/fake_parity.rs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorClass {
    /// `EEXIST`: an equal object exists.
    Exists,
    /// `ESRCH`, `ENOENT`, `EADDRNOTAVAIL`: no such route, neighbour, forwarding entry, address, parameter.
    NotFound,
    /// `ENODEV`: no such link.
    NoDevice,
    /// `ENETDOWN`: the link is down.
    LinkDown,
    /// `ENETUNREACH`: the gateway is not reachable through the link.
    Unreachable,
    /// `EBUSY`, `EINTR`, `ENOBUFS`, `EAGAIN`, `ERESTART`: try again.
    Busy,
    /// `EPERM`, `EACCES`: not allowed.
    Denied,
    /// `EOPNOTSUPP`, `EAFNOSUPPORT`: this kernel cannot.
    Unsupported,
    /// Any other error number; 0 when it was no error of the kernel's.
    Other(i32),
}
