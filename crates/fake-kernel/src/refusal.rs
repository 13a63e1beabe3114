use net_types::IfName;
use netstate::{ErrorClass, KernelError, Vxlan};

/// Linux `EINVAL`.
const EINVAL: i32 = 22;
/// Linux `ELOOP`.
const ELOOP: i32 = 40;
/// Linux `EHOSTUNREACH`.
const EHOSTUNREACH: i32 = 113;

/// The answer to one change.
pub(crate) type Answer = Result<(), KernelError>;

pub(crate) fn refusal(class: ErrorClass, message: impl Into<String>) -> KernelError {
    KernelError {
        class,
        message: message.into(),
    }
}

pub(crate) fn no_device(link: &IfName) -> KernelError {
    refusal(ErrorClass::NoDevice, format!("ENODEV: there is no link {link}"))
}

pub(crate) fn exists(what: &str) -> KernelError {
    refusal(ErrorClass::Exists, format!("EEXIST: {what}"))
}

/// In the words of the crate `netlink`, which looks for the link that stands in the way.
pub(crate) fn vni_taken(holder: &IfName, vxlan: &Vxlan) -> KernelError {
    let (holder, vni, port) = (holder.as_str(), vxlan.vni, vxlan.port);
    refusal(
        ErrorClass::Exists,
        format!(
            "the link {holder:?} already has VNI {vni} on UDP port {port}: remove it, or choose another VNI or port"
        ),
    )
}

pub(crate) fn not_found(what: &str) -> KernelError {
    refusal(ErrorClass::NotFound, what)
}

pub(crate) fn unsupported(what: &str) -> KernelError {
    refusal(ErrorClass::Unsupported, format!("EOPNOTSUPP: {what}"))
}

pub(crate) fn invalid(what: &str) -> KernelError {
    refusal(ErrorClass::Other(EINVAL), format!("EINVAL: {what}"))
}

pub(crate) fn is_invalid(refusal: &KernelError) -> bool {
    refusal.class == ErrorClass::Other(EINVAL)
}

pub(crate) fn enslaves_itself() -> KernelError {
    refusal(
        ErrorClass::Other(ELOOP),
        "ELOOP: can not enslave a bridge to a bridge",
    )
}

pub(crate) fn link_down(what: &str) -> KernelError {
    refusal(ErrorClass::LinkDown, format!("ENETDOWN: {what}"))
}

pub(crate) fn unreachable_v4() -> KernelError {
    refusal(
        ErrorClass::Unreachable,
        "ENETUNREACH: nexthop has invalid gateway",
    )
}

pub(crate) fn unreachable_v6() -> KernelError {
    refusal(ErrorClass::Other(EHOSTUNREACH), "EHOSTUNREACH: no route to host")
}

pub(crate) fn denied(what: &str) -> KernelError {
    refusal(ErrorClass::Denied, format!("EACCES: {what}"))
}
