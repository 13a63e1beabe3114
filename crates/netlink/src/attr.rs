/// Finds the value of the first attribute of one kind, such as `find!(list, LinkAttribute::Mtu)`.
///
/// The attribute enums of `netlink-packet-route` have dozens of variants and may grow; a reader names those it needs.
macro_rules! find {
    ($attributes:expr, $variant:path) => {
        $attributes
            .iter()
            .find_map(|attribute| $crate::attr::only!(attribute, $variant))
    };
}

/// Narrows a value to one variant, such as `only!(message, RouteNetlinkMessage::NewLink)`: `None` for every other.
macro_rules! only {
    ($value:expr, $variant:path) => {
        if let $variant(inner) = $value {
            Some(inner)
        } else {
            None
        }
    };
}

pub(crate) use {find, only};
