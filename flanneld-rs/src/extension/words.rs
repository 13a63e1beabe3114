//! The words of a command: how they are read, and what of its output is shown.

/// Of what a command printed, so many characters are shown.
const SHOWN: usize = 300;

/// What the administrator may have meant for a shell, which there is none of.
const SHELL_SYNTAX: [&str; 10] = ["\"", "'", "`", "$(", "|", ";", "&&", ">", "<", "\\"];

/// A command that is not there if it is blank.
#[must_use]
pub fn blank_as_none(line: &str) -> Option<String> {
    (!line.trim().is_empty()).then(|| line.to_owned())
}

/// What in a command only a shell would understand, if anything.
#[must_use]
pub fn shell_syntax(line: &str) -> Option<&'static str> {
    SHELL_SYNTAX.into_iter().find(|syntax| line.contains(syntax))
}

/// Puts values in the place of `$NAME` and `${NAME}`, as Go's `os.Expand` does: a name that has none is empty, `${` and
/// `${}` vanish, and a `$` before something else stays.
#[must_use]
pub fn expand(word: &str, value: impl Fn(&str) -> String) -> String {
    let mut expanded = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, behind) = name(after);
        match name {
            Some(name) => expanded.push_str(&value(name)),
            None if after.len() == behind.len() => expanded.push('$'),
            None => {}
        }
        rest = behind;
    }
    expanded.push_str(rest);
    expanded
}

/// The name at the beginning of a text, if there is one, and what is behind it; less is left where something is no name but
/// vanishes all the same.
fn name(text: &str) -> (Option<&str>, &str) {
    /// Shells have parameters of these names (Go `os/env.go`).
    const SPECIAL: &str = "*#$@!?-0123456789";
    if let Some(inside) = text.strip_prefix('{') {
        return match inside.split_once('}') {
            Some(("", behind)) => (None, behind),
            Some((name, behind)) => (Some(name), behind),
            None => (None, inside),
        };
    }
    let is_special = text.starts_with(|first| SPECIAL.contains(first));
    let is_in_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let length = if is_special {
        1
    } else {
        text.bytes().take_while(is_in_name).count()
    };
    match text.split_at_checked(length) {
        Some((name, behind)) if length > 0 => (Some(name), behind),
        Some(_) | None => (None, text),
    }
}

/// The end of what a command printed, on one line and without control characters.
#[must_use]
pub fn last_words(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.collect::<Vec<_>>().join("; ");
    let line: String = line.chars().filter(|character| !character.is_control()).collect();
    let excess = line.chars().count().saturating_sub(SHOWN);
    if excess == 0 {
        return line;
    }
    let end: String = line.chars().skip(excess).collect();
    format!("…{end}")
}
