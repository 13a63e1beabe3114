//! What a change means to the data plane.

use netstate::{ObjectKey, Op};

use super::insight::Difference;

/// What an object lacks that a change would mend.
pub(super) fn difference(op: &Op) -> (ObjectKey, Difference) {
    let difference = if adds(op) {
        Difference::Missing
    } else {
        Difference::Harmless
    };
    (op.object(), difference)
}

/// Whether a change may flush one of the large tables.
pub(super) fn flushes(op: &Op) -> bool {
    matches!(op.object(), ObjectKey::Link(_) | ObjectKey::Addr(_))
}

/// Whether a change brings something that is desired, and without which the data plane does not work.
pub(super) const fn adds(op: &Op) -> bool {
    match op {
        Op::AddLink(..)
        | Op::ReplaceLink(..)
        | Op::SetLink(..)
        | Op::AddAddr(..)
        | Op::AddRoute(..)
        | Op::ReplaceRoute(..)
        | Op::SetNeigh(..)
        | Op::SetFdb(_)
        | Op::SetWireguard(..)
        | Op::SetWgPeer(..)
        | Op::SetNftTable(..)
        | Op::SetIptables(..) => true,
        Op::DelLink(_)
        | Op::DelAddr(_)
        | Op::DelRoute(..)
        | Op::DelNeigh(_)
        | Op::DelFdb(_)
        | Op::DelWgPeer(_)
        | Op::SetSysctl(..)
        | Op::DelNftTable(_) => false,
    }
}
