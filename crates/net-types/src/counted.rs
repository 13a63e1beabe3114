use std::fmt::Display;

/// Says how many there are of something whose plural ends in `s`: `1 lease`, `2 leases`, `0 leases`.
#[must_use]
pub fn counted(count: impl Display + Copy + PartialEq + From<u8>, singular: &str) -> String {
    let ending = if count == 1.into() { "" } else { "s" };
    format!("{count} {singular}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_has_no_plural() {
        for (count, text) in [
            (0_usize, "0 leases"),
            (1, "1 lease"),
            (2, "2 leases"),
            (11, "11 leases"),
        ] {
            assert_eq!(counted(count, "lease"), text);
        }
    }
}
