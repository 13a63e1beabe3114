use serde_json::{Value, json};

use super::program::Content;

/// What is installed in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Record {
    /// The version that was installed last; empty if none was.
    pub(super) version: String,
    /// The names of the installed files.
    pub(super) names: Vec<String>,
    /// What these may contain: while an installation is under way, or after a crash, the old and the new program.
    pub(super) contents: Vec<Content>,
}

impl Record {
    /// Reads what [`Record::to_text`] wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let text_of = |value: &Value| value.as_str().map(str::to_owned);
        let content = |value: &Value| {
            Some(Content {
                len_bytes: value.get("bytes")?.as_u64()?,
                sha512: text_of(value.get("sha512")?)?,
            })
        };
        let names = value.get("names")?.as_array()?.iter().map(text_of);
        let names = names.collect::<Option<Vec<_>>>()?;
        // A name that leaves the directory is nobody's plugin.
        if names
            .iter()
            .any(|name| name.is_empty() || name.contains('/') || name.starts_with('.'))
        {
            return None;
        }
        Some(Self {
            version: text_of(value.get("version")?)?,
            names,
            contents: value
                .get("contents")?
                .as_array()?
                .iter()
                .map(content)
                .collect::<Option<_>>()?,
        })
    }

    pub(super) fn to_text(&self) -> String {
        let contents = self.contents.iter();
        let contents: Vec<_> = contents
            .map(|content| json!({"bytes": content.len_bytes, "sha512": content.sha512}))
            .collect();
        let value = json!({"version": self.version, "names": self.names, "contents": contents});
        format!("{value:#}\n")
    }

    /// Whether a later version than this is installed. What is no version counts as none.
    pub(super) fn is_newer_than(&self, version: &str) -> bool {
        match (numbers(&self.version), numbers(version)) {
            (Some(installed), Some(other)) => installed > other,
            _ => false,
        }
    }
}

/// The numbers of a version such as `1.2.3` or `1.2.3-rc1`.
fn numbers(version: &str) -> Option<[u64; 3]> {
    let release = version.split(['-', '+']).next()?;
    let numbers = release.split('.').map(|part| part.parse().ok());
    let numbers = numbers.collect::<Option<Vec<u64>>>()?;
    <[u64; 3]>::try_from(numbers).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_what_it_writes() {
        let record = Record {
            version: "1.2.3".to_owned(),
            names: vec!["bridge".to_owned()],
            contents: vec![Content::of(b"a"), Content::of(b"b")],
        };
        assert_eq!(Record::parse(&record.to_text()), Some(record));
    }

    #[test]
    fn what_is_no_record_or_leaves_the_directory_is_refused() {
        for text in [
            "",
            "{}",
            r#"{"version":"1","names":["../x"],"contents":[]}"#,
            r#"{"version":"1","names":[".flannel"],"contents":[]}"#,
            r#"{"version":"1","names":[5],"contents":[]}"#,
            r#"{"version":"1","names":[],"contents":[{}]}"#,
        ] {
            assert_eq!(Record::parse(text), None, "{text}");
        }
    }

    #[test]
    fn versions_compare_by_their_numbers() {
        let newer = |installed: &str, version| {
            let record = Record {
                version: installed.to_owned(),
                ..Record::default()
            };
            record.is_newer_than(version)
        };
        assert!(newer("0.10.0", "0.9.9") && newer("1.0.0-rc1", "0.9.9"));
        assert!(
            !newer("0.9.9", "0.10.0")
                && !newer("1.0.0", "1.0.0")
                && !newer("", "1.0.0")
                && !newer("x.y.z", "1.0.0")
        );
    }
}
