//! The rules by which Go's `encoding/json` reads an object, for every format that was written for it: the CNI
//! specification's and Flannel's.
//!
//! Keys match whatever their case (ASCII; Go also folds two letters of other scripts, which no key has), the last of
//! several equal keys wins, and `null` counts as absent, so that it does not undo an earlier value. The document `null`
//! is an object without members.
//!
//! It holds these rules and nothing else: it knows no format and does no I/O. Start at [`Members`].

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The members of an object in the order of the text, all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members<V>(Vec<(String, V)>);

/// A value that may be `null`.
pub trait MaybeNull {
    /// Whether it is.
    fn is_null(&self) -> bool;
}

impl MaybeNull for Value {
    fn is_null(&self) -> bool {
        Self::is_null(self)
    }
}

impl MaybeNull for &RawValue {
    fn is_null(&self) -> bool {
        self.get() == "null"
    }
}

/// Whether two keys mean the same member.
#[must_use]
pub const fn is_same_key(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

impl<V: MaybeNull> Members<V> {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&V> {
        let mut latest = self.0.iter().rev();
        let found = latest.find(|(name, value)| is_same_key(name, key) && !value.is_null());
        found.map(|(_, value)| value)
    }

    /// One member of each key that has a value, spelled as where it got it.
    #[must_use]
    pub fn into_effective(self) -> Vec<(String, V)> {
        let mut seen = BTreeSet::new();
        let latest_first = self.0.into_iter().rev().filter(|(_, value)| !value.is_null());
        let mut effective: Vec<_> = latest_first
            .filter(|(key, _)| seen.insert(key.to_ascii_lowercase()))
            .collect();
        effective.reverse();
        effective
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Members<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MembersVisitor(PhantomData))
    }
}

struct MembersVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for MembersVisitor<V> {
    type Value = Members<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E: Error>(self) -> Result<Members<V>, E> {
        Ok(Members(Vec::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<V>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Members<Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_last_value_of_a_key_in_any_case_counts() {
        let members = values(r#"{"name":"a","mtu":1,"NAME":"b","Mtu":null}"#);
        assert_eq!(members.get("Name"), Some(&Value::from("b")));
        assert_eq!(members.get("MTU"), Some(&Value::from(1)));
        assert_eq!(members.get("absent"), None);
        let effective = members.into_effective();
        assert_eq!(
            effective,
            [
                ("mtu".to_owned(), Value::from(1)),
                ("NAME".to_owned(), Value::from("b"))
            ]
        );
    }

    #[test]
    fn values_can_keep_their_text() {
        let members: Members<&RawValue> = serde_json::from_str(r#"{"a": { "b" : 1 },"A": null }"#).unwrap();
        assert_eq!(members.get("a").map(|text| text.get()), Some(r#"{ "b" : 1 }"#));
    }

    #[test]
    fn null_is_an_empty_object_and_nothing_else_is_one() {
        assert_eq!(values(" null\n"), Members(Vec::new()));
        for text in ["", "[]", "1", "{", "{}x", "\"a\"", "{\"a\":}"] {
            assert!(serde_json::from_str::<Members<Value>>(text).is_err(), "{text:?}");
        }
    }
}
