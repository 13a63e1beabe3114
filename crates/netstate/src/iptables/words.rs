use std::fmt::Write as _;

/// A word as `iptables-save` prints it: in quotes unless it is of letters, digits, `-` and `_` only (iptables
/// `xtables.c`, `xtables_save_string`). Comments need it.
#[must_use]
pub fn save_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        let escape = if matches!(c, '"' | '\\' | '\'') { "\\" } else { "" };
        // Writing to a text cannot fail.
        let _written = write!(quoted, "{escape}{c}");
    }
    quoted.push('"');
    quoted
}
