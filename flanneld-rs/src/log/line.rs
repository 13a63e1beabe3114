use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::{Map, Value, json};
use tracing::Level;

use crate::config::LogFormat;

/// One line of the log, as data.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) at: SystemTime,
    pub(super) level: Level,
    /// The module that speaks.
    pub(super) target: &'static str,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Field)>,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Field {
    /// A number or a boolean.
    Plain(Value),
    /// A text, printed in quotes.
    Text(String),
    /// What a value displays, printed as it is.
    Shown(String),
}

impl Line {
    /// What makes two lines equal: everything but their time.
    pub(super) fn identity(&self) -> String {
        let mut text = format!("{} {}: ", self.level, self.target);
        self.push_body(&mut text);
        text
    }

    /// The line that says how many like this one were held back.
    pub(super) fn held_back(mut self, at: SystemTime, name: &'static str, times: u64) -> Self {
        self.at = at;
        self.fields.push((name, Field::Plain(json!(times))));
        self
    }

    /// The line with its end.
    pub(super) fn render(&self, format: LogFormat) -> String {
        match format {
            LogFormat::Text => self.text(),
            LogFormat::Json => self.json(),
        }
    }

    fn text(&self) -> String {
        let at = humantime::format_rfc3339_micros(self.at);
        let mut text = format!("{at} {:>5} {}: ", self.level.as_str(), self.target);
        self.push_body(&mut text);
        text.push('\n');
        text
    }

    fn json(&self) -> String {
        let fields: Map<_, _> = self
            .fields
            .iter()
            .map(|(name, field)| ((*name).to_owned(), field.json()))
            .collect();
        let mut line = json!({
            "time": humantime::format_rfc3339_micros(self.at).to_string(),
            "level": self.level.as_str(),
            "target": self.target,
            "message": self.message,
        });
        if !fields.is_empty()
            && let Some(line) = line.as_object_mut()
        {
            line.insert("fields".to_owned(), Value::Object(fields));
        }
        format!("{line}\n")
    }

    fn push_body(&self, text: &mut String) {
        push_escaped(text, &self.message);
        for (name, field) in &self.fields {
            if !text.ends_with(' ') {
                text.push(' ');
            }
            text.push_str(name);
            text.push('=');
            match field {
                Field::Plain(value) => push_escaped(text, &value.to_string()),
                Field::Text(value) => push_escaped(text, &format!("{value:?}")),
                Field::Shown(value) => push_escaped(text, value),
            }
        }
    }
}

impl Field {
    fn json(&self) -> Value {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Text(text) | Self::Shown(text) => Value::String(text.clone()),
        }
    }
}

/// What others wrote, such as a lease, shall not be able to begin a line of its own or to steer a terminal.
fn push_escaped(text: &mut String, part: &str) {
    for character in part.chars() {
        if character.is_control() {
            // Writing into a string cannot fail.
            let _infallible = write!(text, "{}", character.escape_default());
        } else {
            text.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_text_form_has_time_level_module_message_and_fields() {
        assert_eq!(
            line().render(LogFormat::Text),
            "2023-11-14T22:13:20.000005Z  WARN flanneld_rs::node: out of reach peers=3 reason=\"no \\\"route\\\"\" \
             lease=10.244.1.0-24\n"
        );
    }

    #[test]
    fn the_json_form_is_one_object_a_line_with_typed_fields() {
        let text = line().render(LogFormat::Json);
        assert_eq!(text.lines().count(), 1);
        let parsed: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            parsed,
            json!({
                "time": "2023-11-14T22:13:20.000005Z", "level": "WARN", "target": "flanneld_rs::node",
                "message": "out of reach",
                "fields": {"peers": 3, "reason": "no \"route\"", "lease": "10.244.1.0-24"},
            })
        );
    }

    #[test]
    fn what_others_wrote_begins_no_line_of_its_own() {
        let hostile = "x\n2030-01-01T00:00:00Z ERROR fake: \u{1b}[2J";
        let mut line = line();
        line.message = hostile.to_owned();
        line.fields = vec![("lease", Field::Shown(hostile.to_owned()))];
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = line.render(format);
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }

    #[test]
    fn lines_are_equal_whatever_their_time() {
        let later = Line {
            at: SystemTime::UNIX_EPOCH,
            ..line()
        };
        assert_eq!(later.identity(), line().identity());
        let other = line().held_back(SystemTime::UNIX_EPOCH, "repeated", 3);
        assert_ne!(other.identity(), line().identity());
    }

    fn line() -> Line {
        Line {
            at: SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_005),
            level: Level::WARN,
            target: "flanneld_rs::node",
            message: "out of reach".to_owned(),
            fields: vec![
                ("peers", Field::Plain(json!(3))),
                ("reason", Field::Text("no \"route\"".to_owned())),
                ("lease", Field::Shown("10.244.1.0-24".to_owned())),
            ],
        }
    }
}
