//! The objects that a run makes.

use serde_json::{Value, json};

use crate::nodes::bed::{HOST_PORT, POD_PORT};
use crate::nodes::inventory::Newcomer;

/// By this label everything that any run made is found.
pub(super) const LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "flannel-conformance");
/// The container in which commands are run.
pub(super) const CONTAINER: &str = "agent";
/// What keeps pods away from the Node that joins.
const TAINT: &str = "flannel-conformance/no-machine";
/// The pods end by themselves, should nobody delete them.
const LIFE_SECS: &str = "7200";
/// How long a pod may take to end.
const GRACE_SECS: u8 = 1;

/// What a pod is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It leads to its node: to its network, its processes and through them to its files.
    Node,
    /// It is one of those between which the network is judged.
    Pod { has_host_port: bool },
    /// It is such a one, and asks for nothing that a policy may forbid.
    PlainPod,
}

/// A namespace in which privileged pods are allowed (Kubernetes, "Pod Security Standards").
pub(super) fn namespace(name: &str, unprivileged: bool) -> Value {
    let (label, value) = LABEL;
    let level = if unprivileged { "baseline" } else { "privileged" };
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": name, "labels": { label: value, "pod-security.kubernetes.io/enforce": level } },
    })
}

/// A Node without a machine. Nothing is to run there, and no load balancer to lead there: it takes no pods, and those that
/// would come nevertheless, because they tolerate everything, ask for a label of the operating system or the architecture
/// as a rule, and it has none (Kubernetes, "Well-Known Labels, Annotations and Taints").
pub(super) fn node(name: &str, newcomer: &Newcomer) -> Value {
    let (label, value) = LABEL;
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": { label: value, "node.kubernetes.io/exclude-from-external-load-balancers": "" },
            "annotations": newcomer.annotations,
        },
        "spec": {
            "podCIDR": newcomer.pod_cidrs.first(), "podCIDRs": newcomer.pod_cidrs,
            "unschedulable": true,
            "taints": [{ "key": TAINT, "effect": "NoSchedule" }, { "key": TAINT, "effect": "NoExecute" }],
        },
    })
}

/// A pod on a node, whatever keeps others away from it.
pub(super) fn pod(name: &str, node: &str, image: &str, role: Role) -> Value {
    let (label, value) = LABEL;
    let port =
        |protocol: &str| json!({ "containerPort": POD_PORT, "hostPort": HOST_PORT, "protocol": protocol });
    let (is_node, security, ports) = match role {
        Role::Node => (true, json!({ "privileged": true, "runAsUser": 0 }), Vec::new()),
        // Some runtimes do not give it by itself; an echo request takes a raw socket.
        Role::Pod { has_host_port } => (
            false,
            json!({ "capabilities": { "add": ["NET_RAW"] }, "runAsUser": 0 }),
            if has_host_port {
                vec![port("TCP"), port("UDP")]
            } else {
                Vec::new()
            },
        ),
        Role::PlainPod => (false, json!({ "runAsUser": 0 }), Vec::new()),
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { label: value } },
        "spec": {
            "nodeName": node,
            "hostNetwork": is_node, "hostPID": is_node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_SECS,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{
                "name": CONTAINER, "image": image, "command": ["sleep", LIFE_SECS],
                "ports": ports, "securityContext": security,
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_nodes_own_pod_is_privileged_and_only_the_first_of_the_others_has_a_port_of_it() {
        let of = |role| pod("a", "node1", "busybox:1.37", role);
        let security = "/spec/containers/0/securityContext";
        let node = of(Role::Node);
        assert_eq!(node.pointer("/spec/hostPID"), Some(&json!(true)));
        assert_eq!(
            node.pointer(&format!("{security}/privileged")),
            Some(&json!(true))
        );
        for (role, ports) in [
            (Role::Pod { has_host_port: true }, 2),
            (Role::Pod { has_host_port: false }, 0),
            (Role::PlainPod, 0),
        ] {
            let pod = of(role);
            assert_eq!(pod.pointer("/spec/hostNetwork"), Some(&json!(false)));
            assert_eq!(pod.pointer(&format!("{security}/privileged")), None);
            let adds = pod.pointer(&format!("{security}/capabilities")).is_some();
            assert_eq!(adds, role != Role::PlainPod);
            let listed = pod
                .pointer("/spec/containers/0/ports")
                .unwrap()
                .as_array()
                .unwrap();
            assert_eq!(listed.len(), ports);
        }
    }

    /// What is written as it should not be is lost on its way through the API's own types.
    #[test]
    fn what_is_made_is_written_as_the_api_has_it() {
        use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
        for unprivileged in [true, false] {
            let made = namespace("mine", unprivileged);
            let read: Namespace = serde_json::from_value(made.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), made);
        }
        let newcomer = Newcomer {
            pod_cidrs: vec!["10.1.0.0/24".to_owned(), "fd00::/64".to_owned()],
            annotations: [("a.example/b".to_owned(), "c".to_owned())].into(),
        };
        let made = node("mine", &newcomer);
        let read: Node = serde_json::from_value(made.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), made);
        for role in [Role::Node, Role::Pod { has_host_port: true }, Role::PlainPod] {
            let made = pod("a", "node1", "busybox:1.37", role);
            let read: Pod = serde_json::from_value(made.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), made);
        }
    }
}
