//! How the kernel answers where a part of netfilter is not there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use common::*;
use netlink::netfilter::{header, is_absent};
use netlink::raw::{Protocol, RawSocket};
use netstate::{ErrorClass, KernelError};

/// Asks for a list of what a part of netfilter of this number holds.
fn list(subsystem: u8) -> Result<Vec<()>, KernelError> {
    let kind = u16::from_be_bytes([subsystem, 1]);
    RawSocket::open(Protocol::Netfilter)?.dump(kind, &header(0, 0), |_| Ok(None))
}

#[test]
fn a_part_of_netfilter_that_the_kernel_lacks_is_told_from_a_refusal() {
    in_netns(|| {
        let nf_tables = 10;
        assert_eq!(list(nf_tables), Ok(Vec::new()));
        // No kernel has this one (linux `uapi/linux/netfilter/nfnetlink.h`, `NFNL_SUBSYS_COUNT`).
        let absent = list(200).unwrap_err();
        assert!(is_absent(absent.class), "{absent:?}");
        assert!(!is_absent(ErrorClass::Denied) && !is_absent(ErrorClass::Busy));
    });
}
