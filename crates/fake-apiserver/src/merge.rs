//! Patches, by the rules of the Node's schema.

use serde_json::{Map, Value};

/// Lists whose items are told apart by this member (Kubernetes `core/v1/types.go`, `patchMergeKey`).
const MERGE_KEYS: [(&str, &str); 2] = [("conditions", "type"), ("addresses", "type")];
/// Lists of plain values to which a patch adds; nothing is ever replaced (measured).
const SETS: [&str; 1] = ["podCIDRs"];

/// How lists are patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/merge-patch+json` (RFC 7386): they are replaced.
    Plain,
}

/// Carries out a patch; null removes a member.
pub(crate) fn merge(target: &mut Value, patch: &Value, strategy: Strategy) {
    let Value::Object(patch) = patch else {
        patch.clone_into(target);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(members) = target.as_object_mut() else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
            continue;
        }
        let member = members.entry(name.clone()).or_insert(Value::Null);
        match (strategy, value) {
            (Strategy::Strategic, Value::Array(items)) if is_merged(name) => merge_list(name, member, items),
            _ => merge(member, value, strategy),
        }
    }
}

fn is_merged(name: &str) -> bool {
    SETS.contains(&name) || MERGE_KEYS.iter().any(|(list, _)| *list == name)
}

fn merge_list(name: &str, target: &mut Value, items: &[Value]) {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Some(list) = target.as_array_mut() else {
        return;
    };
    let key = MERGE_KEYS
        .iter()
        .find(|(list, _)| *list == name)
        .map(|(_, key)| *key);
    for item in items {
        let is_same = |other: &&mut Value| match key {
            Some(key) => other.get(key) == item.get(key),
            None => **other == *item,
        };
        match list.iter_mut().find(is_same) {
            Some(found) => merge(found, item, Strategy::Strategic),
            None => list.push(item.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(target: Value, patch: &Value, strategy: Strategy) -> Value {
        let mut target = target;
        merge(&mut target, patch, strategy);
        target
    }

    #[test]
    fn members_are_merged_and_null_removes() {
        for strategy in [Strategy::Strategic, Strategy::Plain] {
            let target = json!({"metadata":{"annotations":{"a":"1","b":"2"}},"x":[1,2]});
            let patch = json!({"metadata":{"annotations":{"a":null,"c":"3"}},"x":[3]});
            let expected = json!({"metadata":{"annotations":{"b":"2","c":"3"}},"x":[3]});
            assert_eq!(merged(target, &patch, strategy), expected);
        }
    }

    #[test]
    fn conditions_are_told_apart_by_their_type() {
        let target = json!({"conditions":[{"type":"Ready","status":"True"},{"type":"NetworkUnavailable","status":"True"}]});
        let patch = json!({"conditions":[{"type":"NetworkUnavailable","status":"False"}]});
        let expected = json!({"conditions":[{"type":"Ready","status":"True"},{"type":"NetworkUnavailable","status":"False"}]});
        assert_eq!(merged(target.clone(), &patch, Strategy::Strategic), expected);
        assert_eq!(merged(target, &patch, Strategy::Plain), patch);
    }

    #[test]
    fn pod_cidrs_are_only_added_to() {
        let target = json!({"podCIDRs":["10.1.0.0/24"]});
        let patch = json!({"podCIDRs":["10.2.0.0/24","10.1.0.0/24"]});
        let expected = json!({"podCIDRs":["10.1.0.0/24","10.2.0.0/24"]});
        assert_eq!(merged(target, &patch, Strategy::Strategic), expected);
    }
}
