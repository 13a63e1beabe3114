use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::flags::{Flag, Form};

/// Why arguments are not flags in Go's syntax.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SyntaxError {
    /// Dashes without a name behind them.
    #[error("argument {0:?} is not a flag: a name must follow its one or two dashes")]
    Malformed(String),
    /// No flag has this name.
    #[error("unknown flag --{0}")]
    Unknown(String),
    /// The last argument is a flag that needs a value.
    #[error("flag --{0} needs a value, as in --{0}=VALUE")]
    NoValue(&'static str),
    /// An argument that belongs to no flag.
    #[error(
        "argument {0:?} belongs to no flag: flanneld takes flags only, or first of all status, check or cleanup"
    )]
    Positional(String),
    /// The value of a boolean flag as an argument of its own.
    #[error(
        "argument {value:?} belongs to no flag: a boolean takes its value after =, as in --{flag}={value}"
    )]
    DetachedBoolean {
        /// The boolean flag before it.
        flag: &'static str,
        /// The argument.
        value: String,
    },
}

/// Rewrites Go's flag syntax (go `flag` package, "Command line flag syntax") to the one form that clap reads alike:
/// `--name=value`, or `--name` for a bare boolean.
pub(super) fn normalise(args: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, SyntaxError> {
    let mut args = args.into_iter();
    let mut normal = Vec::new();
    let mut last = None;
    while let Some(arg) = args.next() {
        if arg == "--" {
            return args.next().map_or(Ok(normal), |arg| Err(stray(&arg, None)));
        }
        let Some(body) = flag_body(&arg) else {
            return Err(stray(&arg, last));
        };
        if matches!(body, b"h" | b"help") {
            normal.push("--help".into());
            continue;
        }
        let (flag, value) = named(&arg, body)?;
        normal.push(joined(flag, value, &mut args)?);
        last = Some(flag).filter(|flag| flag.form == Form::Switch && value.is_none());
    }
    Ok(normal)
}

/// What follows the dashes; `None` for an argument at which Go stops reading flags.
fn flag_body(arg: &OsString) -> Option<&[u8]> {
    let one = arg.as_bytes().strip_prefix(b"-")?;
    let body = one.strip_prefix(b"-").unwrap_or(one);
    (!body.is_empty()).then_some(body)
}

fn named<'a>(arg: &OsString, body: &'a [u8]) -> Result<(&'static Flag, Option<&'a [u8]>), SyntaxError> {
    let mut parts = body.splitn(2, |byte| *byte == b'=');
    // What follows an unknown name may be a secret with a misspelt flag: errors show the name alone.
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    if name.is_empty() || name.starts_with('-') {
        let shown = arg.to_string_lossy();
        let shown = shown.split('=').next().unwrap_or_default();
        return Err(SyntaxError::Malformed(shown.to_owned()));
    }
    let flag = Flag::find(&name).ok_or(SyntaxError::Unknown(name))?;
    Ok((flag, parts.next()))
}

/// The flag with its value in one argument, taken from the next one where it is not attached.
fn joined(
    flag: &'static Flag,
    value: Option<&[u8]>,
    args: &mut impl Iterator<Item = OsString>,
) -> Result<OsString, SyntaxError> {
    let mut normal = OsString::from(format!("--{}", flag.name));
    let value = match (value, flag.form) {
        (Some(value), _) => OsString::from_vec(value.to_vec()),
        (None, Form::Switch) => return Ok(normal),
        (None, Form::Number(_) | Form::Text(_) | Form::List(_)) => {
            args.next().ok_or(SyntaxError::NoValue(flag.name))?
        }
    };
    normal.push("=");
    normal.push(value);
    Ok(normal)
}

fn stray(arg: &OsString, bare_switch: Option<&Flag>) -> SyntaxError {
    let shown = arg.to_string_lossy().into_owned();
    match bare_switch {
        Some(flag) if go_bool(&shown).is_some() => SyntaxError::DetachedBoolean {
            flag: flag.name,
            value: shown,
        },
        Some(_) | None => SyntaxError::Positional(shown),
    }
}

/// A boolean as Go reads it (go `strconv.ParseBool`).
pub(super) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A whole number as Go's flags read it (go `strconv.ParseInt` with base 0): decimal, or hexadecimal, octal and
/// binary by prefix, a leading 0 meaning octal. Underscores between digits are not taken.
pub(super) fn go_int(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2), ("0", 8)]
        .into_iter()
        .find_map(|(prefix, radix)| Some((lower.strip_prefix(prefix)?, radix)))
        .filter(|(digits, _)| !digits.is_empty());
    let (digits, radix) = prefixed.unwrap_or((lower.as_str(), 10));
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_as_go_reads_them() {
        let read = [
            ("0", 0),
            ("60", 60),
            ("+60", 60),
            ("-60", -60),
            ("060", 48),
            ("0x3C", 60),
            ("0o17", 15),
            ("0b11", 3),
            ("-0x1", -1),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, number) in read {
            assert_eq!(go_int(text), Some(number), "{text}");
        }
        for text in [
            "",
            "-",
            "+",
            "--1",
            "-+1",
            "1.5",
            "1 ",
            "0x",
            "0x-1",
            "09",
            "1h",
            "9223372036854775808",
        ] {
            assert_eq!(go_int(text), None, "{text}");
        }
    }
}
