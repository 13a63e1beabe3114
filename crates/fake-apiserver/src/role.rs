//! Who may do what.

use http::Method;
use serde::Deserialize;

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What the ClusterRole of `deploy/kube-flannel.yml` allows: read and watch Nodes, patch their status.
    Flannel,
    /// All of it.
    Admin,
    /// Nothing.
    Nobody,
}

impl Role {
    /// Whether a request is allowed.
    pub(crate) fn may(self, method: &Method, path: &str) -> bool {
        match self {
            Self::Admin => true,
            Self::Nobody => false,
            Self::Flannel => match path.trim_matches('/').split('/').collect::<Vec<_>>()[..] {
                ["api", "v1", "nodes"] | ["api", "v1", "nodes", _] => method == Method::GET,
                ["api", "v1", "nodes", _, "status"] => method == Method::PATCH,
                _ => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flannel_may_read_nodes_and_patch_their_status_and_nothing_else() {
        for (is_allowed, method, path) in [
            (true, Method::GET, "/api/v1/nodes"),
            (true, Method::GET, "/api/v1/nodes/node1"),
            (true, Method::PATCH, "/api/v1/nodes/node1/status"),
            (false, Method::PATCH, "/api/v1/nodes/node1"),
            (false, Method::DELETE, "/api/v1/nodes/node1"),
            (false, Method::POST, "/api/v1/nodes"),
            (false, Method::GET, "/api/v1/pods"),
            (false, Method::GET, "/api/v1/namespaces/a/pods/nodes"),
            (false, Method::GET, "/api/v1/namespaces/a/pods/b/exec"),
            (false, Method::PATCH, "/api/v1/namespaces/a/pods/b/status"),
        ] {
            assert_eq!(Role::Flannel.may(&method, path), is_allowed, "{method} {path}");
            assert!(Role::Admin.may(&method, path) && !Role::Nobody.may(&method, path));
        }
    }
}
