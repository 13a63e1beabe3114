//! JSON objects read by the rules of Go's `encoding/json`, which every Flannel file was written for ([`Members`]).
//!
//! Unknown keys are ignored, and a value of the wrong type is an error that names its key. Members keep their text, so
//! that what is only passed on (backend data) stays as it was written.

use go_json::Members;
use serde::de::Deserialize;
use serde_json::value::RawValue;

/// A JSON object with its members in the order of the text.
#[derive(Debug)]
pub struct Object<'a> {
    what: &'static str,
    members: Members<&'a RawValue>,
}

/// Why a text, or a member of it, cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The text is not one JSON object.
    #[error("{what} is not a JSON object: {why}")]
    Syntax {
        /// What the text should be.
        what: &'static str,
        /// The parser's own words, with line and column.
        why: String,
    },
    /// A member has another type than its key demands.
    #[error("{key} of {what} must be {expected}, not {found}")]
    WrongType {
        /// The object.
        what: &'static str,
        /// The member's key.
        key: &'static str,
        /// The type that the key demands.
        expected: &'static str,
        /// The type found.
        found: &'static str,
    },
    /// A number is larger than its key allows.
    #[error("{key} of {what} is {value}, which is more than {max}")]
    TooLarge {
        /// The object.
        what: &'static str,
        /// The member's key.
        key: &'static str,
        /// The number found.
        value: u64,
        /// The largest number allowed.
        max: u64,
    },
}

impl<'a> Object<'a> {
    /// Reads a text as an object; `what` names it in errors. The text `null` is an object without members, as in Go.
    ///
    /// # Errors
    /// The text is not JSON, or not an object.
    pub fn parse(what: &'static str, text: &'a str) -> Result<Self, JsonError> {
        match serde_json::from_str(text) {
            Ok(members) => Ok(Self { what, members }),
            Err(err) => Err(JsonError::Syntax {
                what,
                why: err.to_string(),
            }),
        }
    }

    /// The text of a member, whatever its type.
    #[must_use]
    pub fn raw(&self, key: &str) -> Option<&'a str> {
        self.members.get(key).map(|value| value.get())
    }

    /// A member that must be a string.
    ///
    /// # Errors
    /// The member has another type.
    pub fn string(&self, key: &'static str) -> Result<Option<String>, JsonError> {
        self.typed(key, "a string")
    }

    /// A member that must be `true` or `false`.
    ///
    /// # Errors
    /// The member has another type.
    pub fn boolean(&self, key: &'static str) -> Result<Option<bool>, JsonError> {
        self.typed(key, "true or false")
    }

    /// A member that must be a whole number of at least zero, written without fraction or exponent.
    ///
    /// # Errors
    /// The member has another type, or is negative.
    pub fn unsigned(&self, key: &'static str) -> Result<Option<u64>, JsonError> {
        self.typed(key, "a whole number of at least 0")
    }

    /// A number as [`Self::unsigned`] reads it that must not exceed `max`.
    ///
    /// # Errors
    /// The member has another type, is negative, or exceeds `max`.
    pub fn at_most<T>(&self, key: &'static str, max: T) -> Result<Option<T>, JsonError>
    where
        T: TryFrom<u64> + Into<u64> + Copy + Ord,
    {
        let Some(value) = self.unsigned(key)? else {
            return Ok(None);
        };
        match T::try_from(value) {
            Ok(number) if number <= max => Ok(Some(number)),
            _ => Err(JsonError::TooLarge {
                what: self.what,
                key,
                value,
                max: max.into(),
            }),
        }
    }

    fn typed<'b, T: Deserialize<'b>>(
        &self,
        key: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, JsonError>
    where
        'a: 'b,
    {
        let Some(text) = self.raw(key) else {
            return Ok(None);
        };
        match serde_json::from_str(text) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(JsonError::WrongType {
                what: self.what,
                key,
                expected,
                found: kind(text),
            }),
        }
    }
}

/// Names the type of a JSON value after its first byte.
fn kind(text: &str) -> &'static str {
    match text.bytes().next() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "a truth value",
        Some(b'-') => "a negative number",
        _ => "such a number",
    }
}

/// Removes the white space between the tokens of a valid JSON text.
#[must_use]
pub fn compact(text: &str) -> String {
    let mut in_string = false;
    let mut escaped = false;
    let mut keep = |c: char| {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            return true;
        }
        in_string = c == '"';
        !c.is_ascii_whitespace()
    };
    text.chars().filter(|c| keep(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_in_any_case_and_the_last_one_wins() {
        let object = Object::parse("test", r#"{"network":"a","NETWORK":"b","other":1}"#).unwrap();
        assert_eq!(object.string("Network").unwrap().as_deref(), Some("b"));
        assert_eq!(object.string("Absent"), Ok(None));
    }

    #[test]
    fn null_counts_as_absent() {
        let object = Object::parse("test", r#"{"A":1,"a":null,"B":null}"#).unwrap();
        assert_eq!(object.unsigned("A"), Ok(Some(1)));
        assert_eq!(object.boolean("B"), Ok(None));
        assert_eq!(Object::parse("test", " null\n").unwrap().raw("A"), None);
    }

    #[test]
    fn wrong_types_are_named_with_key_and_object() {
        let object = Object::parse("net-conf", r#"{"L":"24","M":-1,"N":2.0,"O":{},"P":70000}"#).unwrap();
        let texts = [
            object.unsigned("L").unwrap_err().to_string(),
            object.unsigned("M").unwrap_err().to_string(),
            object.unsigned("N").unwrap_err().to_string(),
            object.string("O").unwrap_err().to_string(),
            object.at_most("P", u16::MAX).unwrap_err().to_string(),
        ];
        assert_eq!(
            texts,
            [
                "L of net-conf must be a whole number of at least 0, not a string",
                "M of net-conf must be a whole number of at least 0, not a negative number",
                "N of net-conf must be a whole number of at least 0, not such a number",
                "O of net-conf must be a string, not an object",
                "P of net-conf is 70000, which is more than 65535",
            ]
        );
    }

    #[test]
    fn texts_that_are_no_object_are_refused() {
        for text in ["", "[]", "1", "{", "{}x", "{\"a\":}", "\"a\""] {
            assert!(Object::parse("test", text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn compacting_keeps_strings_whole() {
        let text = "{ \"a b\" : \"c \\\" d\\\\\" ,\n \"e\": [ 1 , 2 ] }";
        assert_eq!(compact(text), r#"{"a b":"c \" d\\","e":[1,2]}"#);
    }
}
