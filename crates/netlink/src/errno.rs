use std::io;

use net_types::IfName;
use netstate::{ErrorClass, KernelError};
use nix::errno::Errno;

use crate::NetnsError;

/// Describes a refusal by its (positive) error number and the kernel's own words, if it gave any.
pub(crate) fn refusal(errno: i32, words: Option<&str>) -> KernelError {
    let name = Errno::from_raw(errno);
    let message = match words {
        Some(words) => format!("{name:?}: {words}"),
        None => name.to_string(),
    };
    KernelError {
        class: class_of(name, errno),
        message,
    }
}

/// Describes the failure of a system call that was to do `what`.
pub(crate) fn failed_call(what: &str, error: &io::Error) -> KernelError {
    let errno = error.raw_os_error().unwrap_or(0);
    KernelError {
        class: class_of(Errno::from_raw(errno), errno),
        message: format!("cannot {what}: {error}"),
    }
}

/// Whether the kernel takes a request for impossible.
pub(crate) fn is_invalid(error: &KernelError) -> bool {
    error.class == ErrorClass::Other(Errno::EINVAL as i32)
}

/// An error that the kernel did not report by a number.
pub(crate) fn other(message: impl Into<String>) -> KernelError {
    KernelError {
        class: ErrorClass::Other(0),
        message: message.into(),
    }
}

/// There is no link of a name.
pub(crate) fn no_link(name: &IfName) -> KernelError {
    KernelError {
        class: ErrorClass::NoDevice,
        message: format!("there is no link {:?}", name.as_str()),
    }
}

/// The answer was lost or late: trying again may help.
pub(crate) fn busy(message: impl Into<String>) -> KernelError {
    KernelError {
        class: ErrorClass::Busy,
        message: message.into(),
    }
}

fn class_of(name: Errno, errno: i32) -> ErrorClass {
    let classes = [
        (ErrorClass::Exists, &[Errno::EEXIST][..]),
        (
            ErrorClass::NotFound,
            &[Errno::ESRCH, Errno::ENOENT, Errno::EADDRNOTAVAIL],
        ),
        (ErrorClass::NoDevice, &[Errno::ENODEV]),
        (ErrorClass::LinkDown, &[Errno::ENETDOWN]),
        (ErrorClass::Unreachable, &[Errno::ENETUNREACH]),
        (
            ErrorClass::Busy,
            &[
                Errno::EBUSY,
                Errno::EINTR,
                Errno::ENOBUFS,
                Errno::EAGAIN,
                Errno::ERESTART,
            ],
        ),
        (ErrorClass::Denied, &[Errno::EPERM, Errno::EACCES]),
        (ErrorClass::Unsupported, &[Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT]),
    ];
    let found = classes.iter().find(|(_, names)| names.contains(&name));
    found.map_or(ErrorClass::Other(errno), |(class, _)| *class)
}

/// A namespace that work was to be done in cannot be entered.
pub(crate) fn unusable_netns(error: &NetnsError) -> KernelError {
    let cause = match error {
        NetnsError::Enter { source, .. } | NetnsError::Open { source, .. } | NetnsError::Return(source) => {
            Some(source)
        }
        NetnsError::NotFound(_) | NetnsError::NotNetns(_) => None,
    };
    let errno = cause.and_then(io::Error::raw_os_error).unwrap_or(0);
    let reason = cause.map(|e| format!(": {e}")).unwrap_or_default();
    KernelError {
        class: class_of(Errno::from_raw(errno), errno),
        message: format!("{error}{reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_number_of_the_table_has_its_class() {
        let table = [
            (Errno::EEXIST, ErrorClass::Exists),
            (Errno::ESRCH, ErrorClass::NotFound),
            (Errno::ENOENT, ErrorClass::NotFound),
            (Errno::EADDRNOTAVAIL, ErrorClass::NotFound),
            (Errno::ENODEV, ErrorClass::NoDevice),
            (Errno::ENETDOWN, ErrorClass::LinkDown),
            (Errno::ENETUNREACH, ErrorClass::Unreachable),
            (Errno::EBUSY, ErrorClass::Busy),
            (Errno::EINTR, ErrorClass::Busy),
            (Errno::ENOBUFS, ErrorClass::Busy),
            (Errno::EAGAIN, ErrorClass::Busy),
            (Errno::ERESTART, ErrorClass::Busy),
            (Errno::EPERM, ErrorClass::Denied),
            (Errno::EACCES, ErrorClass::Denied),
            (Errno::EOPNOTSUPP, ErrorClass::Unsupported),
            (Errno::EAFNOSUPPORT, ErrorClass::Unsupported),
            (Errno::EINVAL, ErrorClass::Other(22)),
        ];
        for (errno, class) in table {
            assert_eq!(refusal(errno as i32, None).class, class, "{errno}");
        }
    }

    #[test]
    fn the_kernels_words_follow_the_name_of_the_number() {
        assert_eq!(
            refusal(22, Some("bad attribute")).message,
            "EINVAL: bad attribute"
        );
        assert_eq!(refusal(22, None).message, "EINVAL: Invalid argument");
        assert_eq!(refusal(4000, None).class, ErrorClass::Other(4000));
    }
}
