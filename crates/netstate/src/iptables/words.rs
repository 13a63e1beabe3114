use std::fmt::Write as _;
use std::iter::Peekable;
use std::net::IpAddr;
use std::str::Chars;

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

/// Whether two rules, less `-A CHAIN `, are the same but for how they are written: quotes where none are needed, an
/// address without its `/32` or `/128`, a network's other spelling.
///
/// It compares words in order; `iptables-save` prints the source before the destination, `-j` last, and numbers as in
/// `--set-xmark 0x2000/0x2000`, so write rules in that way.
#[must_use]
pub fn same_rule(a: &str, b: &str) -> bool {
    canonical_words(a) == canonical_words(b)
}

fn canonical_words(rule: &str) -> Vec<String> {
    let mut words = words(rule);
    let mut after_address_option = false;
    for word in &mut words {
        if after_address_option && let Some(network) = network(word) {
            *word = network;
        }
        let canonical = match word.as_str() {
            "--source" | "--src" => "-s",
            "--destination" | "--dst" => "-d",
            "--protocol" => "-p",
            "--jump" => "-j",
            "--in-interface" => "-i",
            "--out-interface" => "-o",
            "--match" => "-m",
            other => other,
        };
        if canonical != word {
            *word = canonical.to_owned();
        }
        after_address_option = matches!(word.as_str(), "-s" | "-d");
    }
    words
}

/// A network with its length.
fn network(word: &str) -> Option<String> {
    match word.split_once('/') {
        None => {
            let addr: IpAddr = word.parse().ok()?;
            let len = if addr.is_ipv4() { 32 } else { 128 };
            Some(format!("{addr}/{len}"))
        }
        Some((addr, len)) => {
            let addr: IpAddr = addr.parse().ok()?;
            Some(format!("{addr}/{len}"))
        }
    }
}

/// The words of a rule without their quotes (iptables `xshared.c`, `add_param_to_argv`).
pub(super) fn words(rule: &str) -> Vec<String> {
    let mut chars = rule.chars().peekable();
    let mut words = Vec::new();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return words;
        }
        words.push(word(&mut chars));
    }
}

fn word(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut word = String::new();
    let mut quoted = false;
    while let Some(c) = chars.next_if(|c| quoted || !c.is_whitespace()) {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => word.extend(chars.next()),
            c => word.push(c),
        }
    }
    word
}
