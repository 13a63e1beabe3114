//! What drops packets to addresses of this node's subnets that no pod has.
//!
//! Where pods have routes of their own and there is no bridge (Canal), such packets would follow the default route, and
//! may come back from there for ever.

use ipnetwork::IpNetwork;
use net_types::registry::{BLACKHOLE_METRIC, RT_TABLE_MAIN, RTPROT_FLANNEL};
use netstate::{Route, RouteKey, RouteKind, State};

/// Returns the routes that drop what nothing else in these subnets takes. Upstream's have metric 0 and hide a bridge that
/// is made after them; these come last.
#[must_use]
pub fn blackholes(subnets: &[IpNetwork]) -> State {
    let key = |dst: &IpNetwork| RouteKey {
        table: RT_TABLE_MAIN,
        dst: *dst,
        metric: BLACKHOLE_METRIC,
    };
    let route = Route {
        kind: RouteKind::Blackhole,
        protocol: RTPROT_FLANNEL,
        source: None,
        mtu_bytes: None,
        advmss_bytes: None,
        scope: None,
    };
    State {
        routes: subnets.iter().map(|dst| (key(dst), route.clone())).collect(),
        ..State::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_a_route_behind_all_others() {
        let state = blackholes(&["10.244.4.0/24", "fd00:10:244:4::/64"].map(|net| net.parse().unwrap()));
        assert_eq!(
            state.to_string(),
            "route 10.244.4.0/24 blackhole proto 102 metric 4096\n\
             route fd00:10:244:4::/64 blackhole proto 102 metric 4096\n"
        );
    }
}
