//! Nodes of the size that real ones have.

use serde_json::{Value, json};

/// What a Node is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeShape {
    /// Its name.
    pub name: String,
    /// Its subnets.
    pub pod_cidrs: Vec<String>,
    /// Its annotations, by their full names.
    pub annotations: Vec<(String, String)>,
    /// How large it is at least, in bytes.
    pub bytes: usize,
}

/// The name of one of [`many`] Nodes.
#[must_use]
pub fn node_name(number: u32) -> String {
    format!("peer-{number:05}")
}

/// So many Nodes of this size, whose daemons have announced what Flannel's VXLAN backend does; from 1 to 65,535. Their
/// subnets follow on 10.0.0.0/24, one a number, and so do their addresses on 172.16.0.0.
pub fn many(count: u32, bytes: usize) -> impl Iterator<Item = NodeShape> {
    (1..=count).map(move |number| {
        let [_, _, high, low] = number.to_be_bytes();
        let mac = format!("02:00:00:00:{high:02x}:{low:02x}");
        let shape = NodeShape::bare(&node_name(number), &[&format!("10.{high}.{low}.0/24")]);
        NodeShape {
            bytes,
            ..shape.announced(&format!("172.16.{high}.{low}"), &mac)
        }
    })
}

impl NodeShape {
    /// A Node that no daemon has announced anything on.
    #[must_use]
    pub fn bare(name: &str, pod_cidrs: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            pod_cidrs: pod_cidrs.iter().map(|cidr| (*cidr).to_owned()).collect(),
            ..Self::default()
        }
    }

    /// The same once its daemon has announced what Flannel's VXLAN backend does.
    #[must_use]
    pub fn announced(self, public_ip: &str, vtep_mac: &str) -> Self {
        let name = |suffix: &str| format!("flannel.alpha.coreos.com/{suffix}");
        Self {
            annotations: vec![
                (
                    name("backend-data"),
                    format!(r#"{{"VNI":1,"VtepMAC":"{vtep_mac}"}}"#),
                ),
                (name("backend-type"), "vxlan".to_owned()),
                (name("kube-subnet-manager"), "true".to_owned()),
                (name("public-ip"), public_ip.to_owned()),
            ],
            ..self
        }
    }

    /// The Node as a client would send it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let annotations: serde_json::Map<_, _> = self
            .annotations
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.clone())))
            .collect();
        let mut node = json!({
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": {
                "name": self.name,
                "labels": { "kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux" },
                "annotations": annotations,
            },
            "spec": {},
            "status": {
                "conditions": [
                    { "type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated" },
                    { "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z" },
                ],
                "addresses": [{ "type": "Hostname", "address": self.name }],
            },
        });
        if let (Some(first), Some(spec)) = (self.pod_cidrs.first(), node.pointer_mut("/spec")) {
            *spec = json!({ "podCIDR": first, "podCIDRs": self.pod_cidrs });
        }
        // Images are most of a real Node.
        let missing = self.bytes.saturating_sub(node.to_string().len());
        let image = |number: usize| {
            json!({
                "names": [format!("registry.example/team/image-{number}@sha256:{}", "0123456789abcdef".repeat(4))],
                "sizeBytes": 100_000_000 + number,
            })
        };
        let each = image(0).to_string().len() + 1;
        let images: Vec<_> = (0..missing.div_ceil(each)).map(image).collect();
        if let Some(status) = node.pointer_mut("/status").and_then(Value::as_object_mut)
            && !images.is_empty()
        {
            status.insert("images".to_owned(), Value::from(images));
        }
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_as_large_as_they_should_be() {
        let sizes: Vec<_> = many(300, 10_000)
            .map(|node| node.to_json().to_string().len())
            .collect();
        assert!(
            sizes.iter().all(|size| (10_000..10_400).contains(size)),
            "{sizes:?}"
        );
        let last = many(300, 0).last().unwrap();
        assert_eq!(last.pod_cidrs, ["10.1.44.0/24"]);
    }
}
