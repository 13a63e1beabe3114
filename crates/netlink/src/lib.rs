//! Synchronous netlink: observes and applies netstate on the real kernel.
