//! What is in a result, in whatever version's form (CNI SPEC 1.1.0 §5 Result Types, spec 0.2.0 §Result).

use serde_json::Value;

/// The addresses, as `10.0.0.2/24`.
pub(super) fn addresses(result: &Value) -> Vec<&str> {
    let new = list(result, "ips")
        .iter()
        .filter_map(|ip| ip.get("address")?.as_str());
    let old = ["/ip4/ip", "/ip6/ip"]
        .into_iter()
        .filter_map(|path| result.pointer(path)?.as_str());
    new.chain(old).collect()
}

/// The routes of all families.
pub(super) fn routes(result: &Value) -> Vec<&Value> {
    let old = ["/ip4/routes", "/ip6/routes"]
        .into_iter()
        .filter_map(|path| result.pointer(path)?.as_array());
    list(result, "routes").iter().chain(old.flatten()).collect()
}

/// A member that is a list, or an empty one.
pub(super) fn list<'a>(result: &'a Value, key: &str) -> &'a [Value] {
    result
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The entry of a container's interface: that with a sandbox and the name.
pub(super) fn interface<'a>(result: &'a Value, ifname: &str) -> Option<&'a Value> {
    let has = |one: &&Value, key: &str| {
        one.get(key)
            .and_then(Value::as_str)
            .is_some_and(|text| !text.is_empty())
    };
    let named = |one: &&Value| one.get("name").and_then(Value::as_str) == Some(ifname);
    list(result, "interfaces")
        .iter()
        .find(|one| has(one, "sandbox") && named(one))
}
