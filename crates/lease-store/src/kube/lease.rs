//! From Nodes to leases and back: which subnets a Node has, what its annotations tell, and what ours must be.

use flannel_types::{Lease, LeaseAttrs, NetConf, VXLAN_TYPE, WIREGUARD_TYPE};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use net_types::SubnetKey;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::annotations::{Annotation, AnnotationPrefix, Annotations};
use super::node::{NETWORK_UNAVAILABLE, Node};

#[cfg(test)]
mod tests;

/// Backends whose data is never published empty (flannel `pkg/subnet/kube/kube.go`, `AcquireLease`).
const BACKENDS_WITH_DATA: [&str; 2] = [VXLAN_TYPE, WIREGUARD_TYPE];
/// How a backend without data is published.
const NO_DATA: &str = "null";

/// Why a Node has no lease; the texts are upstream's (flannel `pkg/subnet/kube/kube.go`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SubnetError {
    /// Nobody has given it a subnet yet.
    #[error(
        "node {0:?} pod cidr not assigned: the controller manager does it (--allocate-node-cidrs and --cluster-cidr)"
    )]
    NotAssigned(String),
    /// More than one subnet of each family.
    #[error("pod cidrs should be IPv4/IPv6 only or dualstack, and those of the node {0:?} are {1}")]
    TooMany(String, String),
    /// Not a subnet.
    #[error("the pod CIDR {1:?} of the node {0:?} is no subnet")]
    Malformed(String, String),
    /// Not in the pod network.
    #[error(
        "subnet {network:?} specified in the flannel net config doesn't contain {subnet:?} PodCIDR of the {node:?} \
         node: give both the same network"
    )]
    Outside {
        network: String,
        subnet: String,
        node: String,
    },
    /// A family is on and the Node has no subnet of it.
    #[error("the node {node:?} has no {family} pod CIDR, and {switch} is true in the network configuration")]
    NoFamily {
        node: String,
        family: &'static str,
        switch: &'static str,
    },
}

/// A Node of the cluster, as a peer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Reading {
    /// Its lease, if it has one.
    pub(super) lease: Option<Lease>,
    /// What is wrong with the Node, if something is.
    pub(super) problem: Option<String>,
}

/// The subnet that this node holds.
pub(super) fn own_key(node: &Node, conf: &NetConf) -> Result<SubnetKey, SubnetError> {
    let (v4s, v6s) = subnets(node)?;
    let no_family = |family, switch| SubnetError::NoFamily {
        node: node.name.clone(),
        family,
        switch,
    };
    let outside = |network: String, subnet: String| SubnetError::Outside {
        network,
        subnet,
        node: node.name.clone(),
    };
    // Of several, the last one, as upstream has it for the node itself.
    let (mut v4, mut v6) = (None, None);
    if conf.enable_ipv4 {
        let subnet = *v4s.last().ok_or_else(|| no_family("IPv4", "EnableIPv4"))?;
        if let Some(network) = conf.network.filter(|network| !contains_v4(*network, subnet)) {
            return Err(outside(network.to_string(), subnet.to_string()));
        }
        v4 = Some(subnet);
    }
    if conf.enable_ipv6 {
        let subnet = *v6s.last().ok_or_else(|| no_family("IPv6", "EnableIPv6"))?;
        if let Some(network) = conf.ipv6_network.filter(|network| !contains_v6(*network, subnet)) {
            return Err(outside(network.to_string(), subnet.to_string()));
        }
        v6 = Some(subnet);
    }
    SubnetKey::of(v4, v6).ok_or_else(|| SubnetError::NotAssigned(node.name.clone()))
}

/// What a Node is as a peer. Each family stands for itself: without an address or data of the one, the other one counts.
pub(super) fn read(node: &Node) -> Reading {
    if node.annotations.get(&Annotation::Managed).map(String::as_str) != Some("true") {
        return Reading::default();
    }
    // Of several, the first one, as upstream has it for peers.
    let key = match subnets(node) {
        Ok((v4s, v6s)) => SubnetKey::of(v4s.first().copied(), v6s.first().copied()),
        Err(err) => return Reading::refused(err.to_string()),
    };
    let Some(key) = key else {
        return Reading::default();
    };
    let mut problem = None;
    let attrs = attrs_of(node, &mut |text| problem = Some(text));
    if attrs.public_ip.is_none() && attrs.public_ipv6.is_none() {
        return Reading {
            lease: None,
            problem: problem
                .or_else(|| Some(format!("the node {:?} has announced no address yet", node.name))),
        };
    }
    let expires = None;
    Reading {
        lease: Some(Lease { key, attrs, expires }),
        problem,
    }
}

/// What a Node's annotations announce.
pub(super) fn attrs_of(node: &Node, tell: &mut impl FnMut(String)) -> LeaseAttrs {
    let text = |annotation| {
        let text = node.annotations.get(&annotation).map(String::as_str);
        text.filter(|text| !text.is_empty())
    };
    let mut data = |annotation: Annotation| {
        let text = text(annotation).filter(|text| *text != NO_DATA)?;
        if serde_json::from_str::<&RawValue>(text).is_err() {
            tell(format!(
                "the annotation {} of the node {:?} is no JSON",
                annotation.suffix(),
                node.name
            ));
            return None;
        }
        Some(text.to_owned())
    };
    let backend_data = data(Annotation::BackendData);
    let backend_v6_data = data(Annotation::BackendV6Data);
    LeaseAttrs {
        public_ip: parsed(node, Annotation::PublicIp, tell),
        public_ipv6: parsed(node, Annotation::PublicIpv6, tell),
        backend_type: text(Annotation::BackendType).unwrap_or_default().to_owned(),
        backend_data,
        backend_v6_data,
    }
}

/// An annotation's value that is to be an address, or nothing, and what is wrong with it.
pub(super) fn parsed<T: std::str::FromStr>(
    node: &Node,
    annotation: Annotation,
    tell: &mut impl FnMut(String),
) -> Option<T> {
    let text = node
        .annotations
        .get(&annotation)
        .filter(|text| !text.is_empty())?;
    let value = text.parse().ok();
    if value.is_none() {
        tell(format!(
            "the annotation {} of the node {:?} is {text:?}, which is no address of its family",
            annotation.suffix(),
            node.name
        ));
    }
    value
}

/// What peers are told of this node: the addresses that an administrator put in their place, if any.
pub(super) fn published(attrs: &LeaseAttrs, node: &Node, tell: &mut impl FnMut(String)) -> LeaseAttrs {
    let mut attrs = attrs.clone();
    if attrs.public_ip.is_some() {
        attrs.public_ip = parsed(node, Annotation::PublicIpOverwrite, tell).or(attrs.public_ip);
    }
    if attrs.public_ipv6.is_some() {
        attrs.public_ipv6 = parsed(node, Annotation::PublicIpv6Overwrite, tell).or(attrs.public_ipv6);
    }
    attrs
}

/// The annotations that announce this.
pub(super) fn annotations_of(attrs: &LeaseAttrs) -> Annotations {
    let mut wanted = Annotations::from([
        (Annotation::Managed, "true".to_owned()),
        (Annotation::BackendType, attrs.backend_type.clone()),
    ]);
    let needs_data = BACKENDS_WITH_DATA.contains(&attrs.backend_type.as_str());
    let mut family = |address: Option<String>, data: &Option<String>, names: [Annotation; 2]| {
        if let Some(address) = address
            && (data.is_some() || !needs_data)
        {
            let data = data.clone().unwrap_or_else(|| NO_DATA.to_owned());
            wanted.extend(names.into_iter().zip([data, address]));
        }
    };
    family(
        attrs.public_ip.map(|ip| ip.to_string()),
        &attrs.backend_data,
        [Annotation::BackendData, Annotation::PublicIp],
    );
    family(
        attrs.public_ipv6.map(|ip| ip.to_string()),
        &attrs.backend_v6_data,
        [Annotation::BackendV6Data, Annotation::PublicIpv6],
    );
    wanted
}

/// The patch of the Node's status that brings its annotations to what they should be; `None` if they are.
pub(super) fn annotations_patch(
    prefix: &AnnotationPrefix,
    node: &Node,
    wanted: &Annotations,
) -> Option<Value> {
    let changed: serde_json::Map<_, _> = wanted
        .iter()
        .filter(|(annotation, value)| node.annotations.get(annotation) != Some(*value))
        .map(|(annotation, value)| (prefix.name(*annotation), Value::from(value.clone())))
        .collect();
    (!changed.is_empty()).then(|| json!({ "metadata": { "annotations": changed } }))
}

/// The patch of the Node's status that lets pods be scheduled (flannel `pkg/subnet/kube/kube.go`,
/// `setNodeNetworkUnavailableFalse`).
pub(super) fn condition_patch(now: &str) -> Value {
    json!({ "status": { "conditions": [{
        "type": NETWORK_UNAVAILABLE,
        "status": "False",
        "reason": "FlannelIsUp",
        "message": "Flannel is running on this node",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }] } })
}

impl Reading {
    fn refused(problem: String) -> Self {
        Self {
            lease: None,
            problem: Some(problem),
        }
    }
}

fn subnets(node: &Node) -> Result<(Vec<Ipv4Network>, Vec<Ipv6Network>), SubnetError> {
    match node.pod_cidrs.len() {
        0 => return Err(SubnetError::NotAssigned(node.name.clone())),
        1 | 2 => {}
        _ => {
            return Err(SubnetError::TooMany(node.name.clone(), node.pod_cidrs.join(", ")));
        }
    }
    let (mut v4s, mut v6s) = (Vec::new(), Vec::new());
    for text in &node.pod_cidrs {
        // An address alone would count as a subnet of its own.
        let subnet = text.contains('/').then(|| text.parse().ok()).flatten();
        match subnet {
            Some(IpNetwork::V4(subnet)) => v4s.push(subnet),
            Some(IpNetwork::V6(subnet)) => v6s.push(subnet),
            None => return Err(SubnetError::Malformed(node.name.clone(), text.clone())),
        }
    }
    Ok((v4s, v6s))
}

fn contains_v4(network: Ipv4Network, subnet: Ipv4Network) -> bool {
    network.prefix() <= subnet.prefix() && network.contains(subnet.network())
}

fn contains_v6(network: Ipv6Network, subnet: Ipv6Network) -> bool {
    network.prefix() <= subnet.prefix() && network.contains(subnet.network())
}
