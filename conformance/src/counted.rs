use std::fmt::Display;

/// Says how many there are of something whose plural ends in `s`: `1 round`, `2 rounds`, `0 rounds`.
pub(crate) fn counted(count: impl Display + Copy + PartialEq + From<u8>, singular: &str) -> String {
    let ending = if count == 1.into() { "" } else { "s" };
    format!("{count} {singular}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_has_no_plural() {
        for (count, text) in [(0_usize, "0 rounds"), (1, "1 round"), (21, "21 rounds")] {
            assert_eq!(counted(count, "round"), text);
        }
    }
}
