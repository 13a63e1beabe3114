use super::*;
use crate::desired::Underlay;
use crate::testing::{shared_wireguard, wireguard_key, wireguard_lease};

#[test]
fn of_a_shared_device_a_peer_keeps_in_one_family_what_it_loses_in_the_other() {
    let sides = [side(), side_v6()].map(|side| shared_wireguard(side, Underlay::Ipv4));
    let conf = "{\"Network\": \"10.244.0.0/16\", \"EnableIPv6\": true, \"IPv6Network\": \"fd00:10:244::/48\", \"Backend\": \
                {\"Type\": \"wireguard\", \"Mode\": \"ipv4\"}}";
    let mut node = Node::new(settings_of(&sides, conf));
    let attrs = asks_for_lease(&mut node, State::default(), None);
    let announced = format!("{{\"PublicKey\":\"{}\",\"Port\":51820}}", wireguard_key(250));
    assert_eq!(attrs.backend_type, "wireguard");
    assert_eq!(attrs.backend_data.as_ref(), Some(&announced));
    assert_eq!(attrs.backend_v6_data.as_ref(), Some(&announced));
    let mut bench = Bench::asking(node);
    let own = Lease {
        attrs,
        ..dual_lease(250, Some(DAY_SECS))
    };
    bench.deliver(Event::LeaseAcquired(Ok(own.clone())));
    bench.deliver(snapshot(&[own, wireguard_lease(1), wireguard_lease(2)]));
    bench.run(|_, _| {});

    let [v4, v6] = ["10.244.1.0/24", "fd00:10:244:1::/64"];
    let spoilt = |change: &dyn Fn(&mut LeaseAttrs)| {
        let mut lease = wireguard_lease(1);
        change(&mut lease.attrs);
        lease
    };
    let whole = || spoilt(&|_| ());
    for (lease, expected) in [
        (whole(), vec![v4, v6]),
        (spoilt(&|attrs| attrs.backend_v6_data = None), vec![v4]),
        (whole(), vec![v4, v6]),
        (spoilt(&|attrs| attrs.backend_data = None), vec![v6]),
        (spoilt(&|attrs| attrs.backend_type.clear()), vec![]),
        (whole(), vec![v4, v6]),
    ] {
        bench.now += Duration::from_secs(1);
        bench.deliver(Event::Lease(LeaseEvent::Put(lease)));
        bench.run(|_, _| {});
        bench.tick();
        let held = |n| {
            let mut peers = bench.kernel.wg_peers.iter();
            let peer = peers.find(|(key, _)| key.public_key == wireguard_key(n));
            let allowed = peer.map(|(_, peer)| peer.allowed_ips.iter().map(ToString::to_string));
            allowed.into_iter().flatten().collect::<Vec<_>>()
        };
        assert_eq!(held(1), expected);
        assert_eq!(held(2).len(), 2);
    }
    assert_eq!(bench.node.status(bench.clock()).second_device, None);
}
