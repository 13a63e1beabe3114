use go_json::{Members, is_same_key};
use serde_json::{Map, Value};

/// A JSON object whose keys match without regard to case, and where a `null` equals an absent key.
///
/// This is how the reference library's decoder (Go `encoding/json`) reads, and runtimes depend on it: containerd
/// sends `HostPort` where the specification says `hostPort`. Of keys that differ in case only, the last wins when the
/// object was read by [`Object::parse`]; below its first level an exact match comes before any other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Object(Map<String, Value>);

/// A JSON document, or a value in it, that is not of the type it must be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The document is not JSON, or no object.
    #[error("configuration is not one JSON object: {0}")]
    Document(serde_json::Error),
    /// A value has another type.
    #[error("key {key:?} must be {expected}, not {found}")]
    Type {
        /// The key.
        key: String,
        /// What the value should be.
        expected: &'static str,
        /// The value.
        found: String,
    },
}

impl Object {
    /// Reads a document; `null` is an empty object.
    ///
    /// # Errors
    /// The text is not exactly one JSON object.
    pub fn parse(text: &[u8]) -> Result<Self, DecodeError> {
        let members: Members<Value> = serde_json::from_slice(text).map_err(DecodeError::Document)?;
        Ok(Self(members.into_effective().into_iter().collect()))
    }

    /// The value of a key, if present and not `null`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        let folded = || {
            let mut entries = self.0.iter().rev();
            entries.find_map(|(name, value)| is_same_key(name, key).then_some(value))
        };
        self.0.get(key).or_else(folded).filter(|v| !v.is_null())
    }

    /// A string.
    ///
    /// # Errors
    /// The value is something else.
    pub fn string(&self, key: &str) -> Result<Option<&str>, DecodeError> {
        self.typed(key, "a string", Value::as_str)
    }

    /// A truth value; absent is `None`.
    ///
    /// # Errors
    /// The value is something else.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, DecodeError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A whole number of either sign.
    ///
    /// # Errors
    /// The value is something else.
    pub fn int(&self, key: &str) -> Result<Option<i64>, DecodeError> {
        self.typed(key, "a whole number", Value::as_i64)
    }

    /// An object.
    ///
    /// # Errors
    /// The value is something else.
    pub fn object(&self, key: &str) -> Result<Option<Self>, DecodeError> {
        self.typed(key, "an object", |value| {
            value.as_object().map(|map| Self(map.clone()))
        })
    }

    /// The elements of an array; absent is empty.
    ///
    /// # Errors
    /// The value is something else.
    pub fn array(&self, key: &str) -> Result<&[Value], DecodeError> {
        let found = self.typed(key, "an array", |value| value.as_array().map(Vec::as_slice))?;
        Ok(found.unwrap_or_default())
    }

    /// An array of objects; absent is empty, a `null` element an empty object.
    ///
    /// # Errors
    /// The value or one of its elements is something else.
    pub fn objects(&self, key: &str) -> Result<Vec<Self>, DecodeError> {
        let elements = self.array(key)?.iter();
        elements.map(|value| Self::from_value(key, value)).collect()
    }

    /// An array of strings; absent is empty.
    ///
    /// # Errors
    /// The value or one of its elements is something else.
    pub fn strings(&self, key: &str) -> Result<Vec<String>, DecodeError> {
        let strings = self.array(key)?.iter().map(|value| match value.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(wrong_type(key, "an array of strings", value)),
        });
        strings.collect()
    }

    /// Takes a value of an array or object as an object; `key` names it in the error.
    ///
    /// # Errors
    /// The value is something else.
    pub fn from_value(key: &str, value: &Value) -> Result<Self, DecodeError> {
        match value {
            Value::Null => Ok(Self::default()),
            Value::Object(map) => Ok(Self(map.clone())),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(wrong_type(key, "an object", value))
            }
        }
    }

    /// What is left when these keys are taken out, in any case.
    #[must_use]
    pub fn without(&self, keys: &[&str]) -> Map<String, Value> {
        let others = self
            .0
            .iter()
            .filter(|(name, _)| !keys.iter().any(|key| is_same_key(name, key)));
        others.map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Sets a key, in place of one that differs in case only.
    pub fn set(&mut self, key: &str, value: Value) {
        self.0.retain(|name, _| !is_same_key(name, key));
        self.0.insert(key.to_owned(), value);
    }

    /// The object as it was given.
    #[must_use]
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The object as it was given.
    #[must_use]
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, DecodeError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match read(value) {
            Some(typed) => Ok(Some(typed)),
            None => Err(wrong_type(key, expected, value)),
        }
    }
}

impl From<Map<String, Value>> for Object {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

/// Longest piece of a wrong value that an error repeats, in characters.
const SHOWN_CHARS: usize = 60;

fn wrong_type(key: &str, expected: &'static str, value: &Value) -> DecodeError {
    let text = value.to_string();
    let found: String = text.chars().take(SHOWN_CHARS).collect();
    DecodeError::Type {
        key: key.to_owned(),
        expected,
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn keys_match_without_regard_to_case() {
        let conf = object(r#"{"CNIVersion":"1.0.0","runtimeconfig":{"HostPort":1}}"#);
        assert_eq!(conf.string("cniVersion").unwrap(), Some("1.0.0"));
        let runtime = conf.object("runtimeConfig").unwrap().unwrap();
        assert_eq!(runtime.int("hostPort").unwrap(), Some(1));
    }

    #[test]
    fn the_last_of_duplicate_keys_wins_whatever_its_case() {
        assert_eq!(
            object(r#"{"name":"a","NAME":"b"}"#).string("name").unwrap(),
            Some("b")
        );
        assert_eq!(
            object(r#"{"NAME":"b","name":"a"}"#).string("name").unwrap(),
            Some("a")
        );
        assert_eq!(
            object(r#"{"name":"a","name":"b"}"#).string("name").unwrap(),
            Some("b")
        );
    }

    #[test]
    fn null_is_an_absent_key() {
        let conf = object(r#"{"name":null,"mtu":null,"list":null}"#);
        assert_eq!(conf.string("name").unwrap(), None);
        assert_eq!(conf.int("mtu").unwrap(), None);
        assert!(conf.array("list").unwrap().is_empty());
        assert_eq!(object("null"), Object::default());
    }

    #[test]
    fn a_value_of_a_wrong_type_names_its_key() {
        let conf = object(r#"{"name":5,"mtu":"x","list":{},"big":18446744073709551615}"#);
        assert_eq!(
            conf.string("name").unwrap_err().to_string(),
            "key \"name\" must be a string, not 5"
        );
        assert!(conf.int("mtu").is_err());
        assert!(conf.int("big").is_err());
        assert!(conf.array("list").is_err());
        assert!(conf.object("name").is_err());
        assert!(conf.bool("name").is_err());
    }

    #[test]
    fn only_one_object_is_a_document() {
        for text in ["", " ", "[]", "5", "\"a\"", "{", "{} x", "{}{}", "\u{feff}{}"] {
            assert!(Object::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
