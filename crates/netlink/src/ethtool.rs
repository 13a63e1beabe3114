//! What a link leaves to its hardware (linux `include/uapi/linux/ethtool.h`).
//!
//! By `ioctl`, not by netlink: the kernels that have to be told are older than ethtool's netlink (Linux 5.8).
#![allow(
    unsafe_code,
    reason = "an ioctl that no crate wraps, with a pointer in its argument"
)]

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr;

use net_types::IfName;
use netstate::KernelError;
use rustix::io::Errno;
use rustix::ioctl::{self, Opcode, Updater};

use crate::errno::failed_call;

/// The request (linux `include/uapi/linux/sockios.h`); any socket takes it, and it is about the socket's namespace.
const SIOCETHTOOL: Opcode = 0x8946;

/// Whether checksums of sent packets are left to the hardware: read and set.
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;

/// Length of an interface's name with its terminator (`IFNAMSIZ`).
const NAME_LEN: usize = 16;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ifreq` with the member `ifr_data`; the union that this one is in has up to 24 bytes.
#[repr(C)]
struct Request {
    name: [u8; NAME_LEN],
    data: *mut c_void,
    rest: [u8; 16],
}

/// Whether a link may leave checksums to its hardware; `None` if it has no such choice, or this cannot be asked: what else
/// a link holds does not depend on it.
pub(crate) fn tx_checksum(socket: BorrowedFd<'_>, link: &IfName) -> Result<Option<bool>, KernelError> {
    match call(socket, link, ETHTOOL_GTXCSUM, 0) {
        Ok(on) => Ok(Some(on != 0)),
        Err(Errno::NODEV) => Err(failed("read", link, Errno::NODEV)),
        Err(_) => Ok(None),
    }
}

/// Sets whether a link may leave checksums to its hardware.
pub(crate) fn set_tx_checksum(socket: BorrowedFd<'_>, link: &IfName, on: bool) -> Result<(), KernelError> {
    call(socket, link, ETHTOOL_STXCSUM, u32::from(on))
        .map(|_| ())
        .map_err(|errno| failed("set", link, errno))
}

fn call(socket: BorrowedFd<'_>, link: &IfName, command: u32, data: u32) -> Result<u32, Errno> {
    let mut value = Value { command, data };
    let mut request = Request {
        name: [0; NAME_LEN],
        data: ptr::from_mut(&mut value).cast(),
        rest: [0; 16],
    };
    // A name is shorter than the field, which thus ends with a zero.
    for (field, byte) in request.name.iter_mut().zip(link.as_str().bytes()) {
        *field = byte;
    }
    // SAFETY: SIOCETHTOOL takes a `struct ifreq`, which `Request` is laid out as and not shorter than; its pointer leads
    // to a `struct ethtool_value`, which both commands take and at most write (linux `net/ethtool/ioctl.c`), and which
    // outlives the call.
    unsafe { ioctl::ioctl(socket, Updater::<SIOCETHTOOL, Request>::new(&mut request)) }?;
    Ok(value.data)
}

fn failed(verb: &str, link: &IfName, errno: Errno) -> KernelError {
    failed_call(&format!("{verb} the checksum offload of {link}"), &errno.into())
}
