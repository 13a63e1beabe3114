//! Whether a pod runs, and what is told of one that does not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

/// As many of a pod's events are told.
const MAX_EVENTS: usize = 3;

/// What there is of all pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pods {
    /// The addresses of those that are ready, by their names.
    pub(super) ready: BTreeMap<String, Vec<IpAddr>>,
    /// One that may become so.
    pub(super) late: Option<Unready>,
    /// One that will not.
    pub(super) over: Option<Unready>,
}

/// A pod that is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unready {
    pub(super) name: String,
    pub(super) node: String,
    pub(super) why: String,
}

impl Pods {
    /// Those of a list of the API.
    pub(super) fn of(list: &Value) -> Self {
        let mut pods = Self::default();
        let items = list.get("items").and_then(Value::as_array);
        for pod in items.into_iter().flatten() {
            let text = |path: &str| pod.pointer(path).and_then(Value::as_str);
            let name = text("/metadata/name").unwrap_or_default().to_owned();
            let node = text("/spec/nodeName").unwrap_or("no node").to_owned();
            match state(pod) {
                State::Ready(addresses) => drop(pods.ready.insert(name, addresses)),
                State::Waits(why) => pods.late = Some(Unready { name, node, why }),
                State::Over(why) => pods.over = Some(Unready { name, node, why }),
            }
        }
        pods
    }
}

/// What there is of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// It is ready, with these addresses.
    Ready(Vec<IpAddr>),
    /// It may become so.
    Waits(String),
    /// It will not: it has ended, or is about to.
    Over(String),
}

/// The state of a pod (Kubernetes `core/v1/types.go`, `PodStatus`).
fn state(pod: &Value) -> State {
    let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let phase = text("/status/phase");
    let reason = reasons(pod);
    let told = if reason.is_empty() {
        phase.to_owned()
    } else {
        format!("{phase}: {reason}")
    };
    if ["Failed", "Succeeded"].contains(&phase) {
        return State::Over(told);
    }
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        return State::Over(format!("somebody deletes it ({told})"));
    }
    let addresses = addresses(pod);
    if is_ready(pod) && !addresses.is_empty() {
        return State::Ready(addresses);
    }
    State::Waits(told)
}

/// The addresses of a pod as its status has them.
pub(in crate::nodes) fn addresses(pod: &Value) -> Vec<IpAddr> {
    let all = pod.pointer("/status/podIPs").and_then(Value::as_array);
    let texts = all
        .into_iter()
        .flatten()
        .filter_map(|one| one.get("ip")?.as_str());
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// The status of an object's condition of a type, and its reason.
pub(in crate::nodes) fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str)> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    let found = all
        .iter()
        .find(|one| one.get("type").and_then(Value::as_str) == Some(kind))?;
    let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default();
    Some((text("status"), text("reason")))
}

/// Whether a pod or a node says that it is ready.
pub(super) fn is_ready(object: &Value) -> bool {
    condition(object, "Ready").is_some_and(|(status, _)| status == "True")
}

/// Why a pod's containers do not run, or the pod itself, by its status.
fn reasons(pod: &Value) -> String {
    let both = |of: &Value| {
        let text = |key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default();
        format!("{} {}", text("reason"), text("message"))
            .trim()
            .to_owned()
    };
    let containers = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let states = containers.into_iter().flatten().filter_map(|one| {
        let state = one.get("state")?;
        state.get("waiting").or_else(|| state.get("terminated"))
    });
    let of_pod = pod.get("status").map(both);
    let all: Vec<_> = states
        .map(both)
        .chain(of_pod)
        .filter(|text| !text.is_empty())
        .collect();
    all.join("; ")
}

/// What the last of a pod's events say.
pub(super) fn events_in_words(events: &Value) -> String {
    let items = events.get("items").and_then(Value::as_array);
    let texts = items.into_iter().flatten().filter_map(|event| {
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
        (text("type") != "Normal").then(|| format!("{}: {}", text("reason"), text("message")))
    });
    let mut all: Vec<_> = texts.collect();
    let last = all.split_off(all.len().saturating_sub(MAX_EVENTS));
    last.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_ready_when_it_says_so_and_has_an_address() {
        let mut pod = json!({"status": {"phase": "Running", "podIP": "10.0.0.2",
            "podIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::2"}], "conditions": [{"type": "Ready", "status": "True"}]}});
        let addresses = vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        assert_eq!(state(&pod), State::Ready(addresses));
        pod["status"]["conditions"][0]["status"] = json!("False");
        assert_eq!(state(&pod), State::Waits("Running".to_owned()));
        pod["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert!(matches!(state(&pod), State::Over(_)));
    }

    #[test]
    fn what_a_pod_waits_for_is_told() {
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
        let pod = json!({"status": {"phase": "Pending", "containerStatuses": [{"state": waiting}]}});
        let told = "Pending: ImagePullBackOff no such image";
        assert_eq!(state(&pod), State::Waits(told.to_owned()));
        let pod =
            json!({"status": {"phase": "Failed", "reason": "NodePorts", "message": "the port is taken"}});
        let told = "Failed: NodePorts the port is taken";
        assert_eq!(state(&pod), State::Over(told.to_owned()));
        let events = json!({"items": [{"type": "Normal", "reason": "Pulled"},
            {"type": "Warning", "reason": "FailedCreatePodSandBox", "message": "no subnet.env"}]});
        assert_eq!(events_in_words(&events), "FailedCreatePodSandBox: no subnet.env");
    }
}
