//! The text form of [`State`](crate::State), [`Op`](crate::Op) and [`ObjectKey`](crate::ObjectKey).
//!
//! One object a line, in words close to iproute2's; a change is its verb before the object:
//!
//! ```text
//! link flannel.1 vxlan vni 1 port 8472 local 192.168.77.11 parent eth0 nolearning mac e6:2c:26:5a:4c:4a mtu 1450 up
//! link flannel.ipip ipip local 192.168.77.11 mtu 1480 up
//! link veth1 veth peer eth0 netns pod mac 0a:58:0a:f4:04:02 mtu 1450 up master cni0 hairpin
//! link eth0 physical mac 02:00:00:00:00:01 mtu 1500 up
//! addr flannel.1 10.244.4.0/32
//! route 10.244.84.0/24 via 10.244.84.0 dev flannel.1 onlink proto 3
//! route 10.244.0.0/16 blackhole proto 3 metric 100
//! neigh flannel.1 10.244.84.0 mac 72:e5:67:00:44:8c
//! fdb flannel.1 72:e5:67:00:44:8c remote 192.168.77.13
//! sysctl net/ipv6/conf/flannel.1/accept_ra 0
//! set link flannel.1 mtu 1450
//! del addr flannel.1 10.244.4.0/32
//! ```
//!
//! WireGuard's settings and peers (`wireguard`, `wgpeer`) and packet filter rules are only printed: the first without
//! their keys, the second by their names.
//!
//! Printing is canonical: equal values print equally, a state in the order of its maps. Reading takes the attributes
//! of an object in any order, skips blank lines and lines that begin with `#`, and reads back whatever was printed.
//! A word that is empty, or holds white space, a quote or a backslash, stands in double quotes.

mod parse;
mod print;
#[cfg(test)]
mod tests;
mod words;

/// Why a text is not the text form of a state, change or object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A word stands where the grammar has no place for it.
    #[error("{word:?} stands where {expected} is expected")]
    Unexpected {
        /// The word.
        word: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// The text ends too early.
    #[error("the text ends where {expected} is expected")]
    Ends {
        /// What should follow.
        expected: &'static str,
    },
    /// An attribute that the object needs is not given.
    #[error("{object:?} needs {missing}")]
    Needs {
        /// The kind of the object.
        object: &'static str,
        /// The attribute.
        missing: &'static str,
    },
    /// An attribute or an object is given twice.
    #[error("{0:?} is given twice")]
    Twice(String),
    /// A double quote is not closed, is not followed by white space, or holds an unknown escape.
    #[error("{0:?} is not a properly quoted word")]
    Quote(String),
    /// One line of several is not understood.
    #[error("line {number} is not understood")]
    Line {
        /// Its number; the first is 1.
        number: usize,
        /// Why.
        #[source]
        source: Box<Self>,
    },
}
