use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use flannel_types::{NetConf, UnixTime, VxlanData};
use ipnetwork::IpNetwork;
use net_types::IfName;
use netstate::{AdminState, ErrorClass, LinkKind, ObjectKey};

use super::*;
use crate::desired::{Carrier, FilterMode, Masquerade, RuleSettings, Side, Way};
use crate::status::PeerWay;
use crate::testing::{dual_lease, key, lease, mac, mac_v6, public_ip, side, side_settings, side_v6, subnet};

use bench::Bench;

mod bench;
mod commands;
mod direct;
mod new_conf;
mod strangers;
mod wireguard;

const DAY_SECS: u64 = 24 * 60 * 60;

#[test]
fn the_device_s_mac_precedes_the_stored_one_and_that_the_random_one() {
    let multicast = MacAddr::new([1, 0, 0, 0, 0, 1]);
    for (device, stored, expected) in [
        (None, None, mac(250)),
        (None, Some(mac(9)), mac(9)),
        (None, Some(multicast), mac(250)),
        (Some(mac(8)), None, mac(8)),
        (Some(mac(8)), Some(mac(9)), mac(8)),
    ] {
        let mut node = Node::new(settings());
        let found = device.map_or_else(State::default, |mac| device_state(mac, LinkKindOf::Vxlan));
        let attrs = asks_for_lease(&mut node, found, stored.map(|mac| own_lease(mac, None)));
        assert_eq!(
            announced(&attrs),
            expected,
            "device {device:?}, stored {stored:?}"
        );
        assert_eq!(attrs.public_ip, Some(public_ip(250)));
        assert_eq!(attrs.backend_type, "vxlan");
    }
}

#[test]
fn a_node_that_changed_its_address_and_has_no_lease_there_takes_another_mac() {
    for (stored, expected) in [(None, mac(250)), (Some(mac(9)), mac(8))] {
        let mut found = device_state(mac(8), LinkKindOf::Vxlan);
        let link = found.links.get_mut(&device_name()).unwrap();
        let LinkKind::Vxlan(vxlan) = &mut link.kind else {
            panic!("the device is no VXLAN")
        };
        vxlan.local = Some(public_ip(7).into());
        let mut node = Node::new(settings());
        let attrs = asks_for_lease(&mut node, found, stored.map(|mac| own_lease(mac, None)));
        assert_eq!(announced(&attrs), expected, "stored {stored:?}");
    }
}

#[test]
fn a_link_of_another_kind_under_the_device_s_name_decides_nothing() {
    let mut node = Node::new(settings());
    let found = device_state(mac(8), LinkKindOf::Bridge);
    let attrs = asks_for_lease(&mut node, found, Some(own_lease(mac(9), None)));
    assert_eq!(announced(&attrs), mac(9));
}

#[test]
fn a_failed_first_observation_is_repeated_after_a_second() {
    let mut node = Node::new(settings());
    node.handle(at(0), Event::Start);
    let err = KernelError {
        class: ErrorClass::Busy,
        message: "busy".to_owned(),
    };
    assert_eq!(node.handle(at(5), Event::Observed(Err(err))), []);
    assert_eq!(node.wake_at(at(5)), Some(Duration::from_secs(6)));
    let actions = node.handle(at(6), Event::Tick);
    assert!(
        matches!(actions.as_slice(), [Action::Kernel(Work::Observe(_))]),
        "{actions:?}"
    );
}

#[test]
fn a_store_that_may_answer_later_is_asked_again_and_one_that_will_not_ends_the_daemon() {
    let looking = |node: &mut Node| {
        node.handle(at(0), Event::Start);
        node.handle(at(0), Event::Observed(Ok(State::default())));
    };
    let acquiring = |node: &mut Node| {
        asks_for_lease(node, State::default(), None);
    };
    let found = |failure| Event::LeaseFound(Err(failure));
    let acquired = |failure| Event::LeaseAcquired(Err(failure));
    type Prepare<'a> = &'a dyn Fn(&mut Node);
    type Answer<'a> = &'a dyn Fn(StoreFailure) -> Event;
    let steps: [(Prepare<'_>, Answer<'_>); 2] = [(&looking, &found), (&acquiring, &acquired)];
    for (prepare, answer) in steps {
        for (outlook, expected) in [
            (Outlook::Retry, None),
            (
                Outlook::GiveUp,
                Some(StopReason::NoLease("it does not answer".to_owned())),
            ),
            (Outlook::Lost, Some(StopReason::LeaseRevoked)),
        ] {
            let mut node = Node::new(settings());
            prepare(&mut node);
            let actions = node.handle(at(1), answer(failure(outlook)));
            let stops: Vec<_> = expected.clone().map(Action::Stop).into_iter().collect();
            assert_eq!(actions, stops);
            if expected.is_none() {
                assert_eq!(node.wake_at(at(1)), Some(Duration::from_secs(2)));
                let actions = node.handle(at(2), Event::Tick);
                assert!(
                    matches!(
                        actions.as_slice(),
                        [Action::FindLease(_) | Action::AcquireLease(_)]
                    ),
                    "{actions:?}"
                );
            }
        }
    }
}

#[test]
fn the_subnet_file_is_written_once_the_device_is_settled_and_only_then() {
    let mut bench = Bench::holding(&[1]);

    let written = bench.run(|bench, action| {
        if let Action::WriteSubnetFile(_) = action {
            assert!(bench.kernel.links[&device_name()].admin == AdminState::Up);
            assert_eq!(bench.kernel.addrs.len(), 1);
            assert!(bench.kernel.routes.is_empty(), "peers come after the file");
        }
    });

    let files: Vec<_> = written
        .iter()
        .filter(|action| matches!(action, Action::WriteSubnetFile(_)))
        .collect();
    let [Action::WriteSubnetFile(env)] = files.as_slice() else {
        panic!("{files:?}")
    };
    assert_eq!(env.networks, ["10.244.0.0/16".parse().unwrap()]);
    assert_eq!(env.subnet, Some("10.244.250.1/24".parse().unwrap()));
    assert_eq!((env.mtu, env.ip_masq), (1450, true));
    assert_eq!(bench.kernel.routes.len(), 1);
}

#[test]
fn peers_are_programmed_although_the_subnet_file_cannot_be_written_and_it_is_written_again() {
    let mut bench = Bench::holding(&[1]);
    bench.file_fails = true;
    bench.run(|_, _| {});
    assert_eq!(bench.kernel.routes.len(), 1);

    bench.file_fails = false;
    bench.now += Duration::from_secs(4);
    assert!(
        !bench
            .tick()
            .iter()
            .any(|action| matches!(action, Action::WriteSubnetFile(_)))
    );
    bench.now += Duration::from_secs(1);
    assert!(
        bench
            .tick()
            .iter()
            .any(|action| matches!(action, Action::WriteSubnetFile(_)))
    );
    bench.now += Duration::from_secs(100);
    assert!(
        !bench
            .tick()
            .iter()
            .any(|action| matches!(action, Action::WriteSubnetFile(_)))
    );
}

#[test]
fn an_own_lease_that_is_gone_or_another_s_ends_the_daemon_for_good() {
    let gone = |_: &mut Bench| snapshot(&[lease(1, None)]);
    let removed = |_: &mut Bench| Event::Lease(LeaseEvent::Remove(key(250)));
    let taken = |_: &mut Bench| {
        let mut taken = own_lease(mac(9), None);
        taken.attrs.public_ip = Some(public_ip(9));
        Event::Lease(LeaseEvent::Put(taken))
    };
    let lost = |bench: &mut Bench| {
        bench.now = Duration::from_secs(DAY_SECS);
        bench.tick();
        Event::LeaseRenewed(Err(failure(Outlook::Lost)))
    };
    for event in [&gone as &dyn Fn(&mut Bench) -> Event, &removed, &taken, &lost] {
        let mut bench = Bench::holding(&[1]);
        bench.run(|_, _| {});
        let event = event(&mut bench);
        let now = bench.clock();
        let text = format!("{event:?}");
        assert_eq!(
            bench.node.handle(now, event),
            [Action::Stop(StopReason::LeaseRevoked)],
            "{text}"
        );
        assert_eq!(bench.node.handle(now, snapshot(&[])), []);
        assert_eq!(bench.node.handle(now, Event::KernelChanged), []);
        assert_eq!(bench.node.wake_at(now), None);
    }
}

#[test]
fn an_own_lease_that_ran_out_while_the_machine_slept_is_renewed() {
    let mut bench = Bench::holding(&[1]);
    bench.run(|_, _| {});
    bench.now = Duration::from_secs(2 * DAY_SECS);
    let actions = bench.node.handle(bench.clock(), snapshot(&[lease(1, None)]));
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::RenewLease(_))),
        "{actions:?}"
    );
    let lost = Event::LeaseRenewed(Err(failure(Outlook::Lost)));
    let actions = bench.node.handle(bench.clock(), lost);
    assert_eq!(actions, [Action::Stop(StopReason::LeaseRevoked)]);
}

#[test]
fn the_lease_is_renewed_in_time_and_again_a_minute_after_a_failure() {
    let mut bench = Bench::holding(&[]);
    bench.run(|_, _| {});
    let renews = |actions: &[Action]| {
        actions
            .iter()
            .any(|action| matches!(action, Action::RenewLease(_)))
    };
    bench.now = Duration::from_secs(DAY_SECS - 3601);
    assert!(!renews(&bench.tick()));
    bench.now += Duration::from_secs(1);
    assert!(renews(&bench.tick()));
    let failed = Event::LeaseRenewed(Err(failure(Outlook::Retry)));
    bench.node.handle(bench.clock(), failed);
    bench.now += Duration::from_secs(59);
    assert!(!renews(&bench.tick()));
    bench.now += Duration::from_secs(1);
    assert!(renews(&bench.tick()));
    let renewed = own_lease(mac(250), Some(3 * DAY_SECS));
    bench.node.handle(bench.clock(), Event::LeaseRenewed(Ok(renewed)));
    bench.now += Duration::from_secs(DAY_SECS);
    assert!(!renews(&bench.tick()));
}

#[test]
fn peers_are_watched_once_the_lease_is_held_and_nothing_goes_before_a_snapshot() {
    let mut bench = Bench::found(State::default(), Some(own_lease(mac(250), None)));
    bench.add_stale_peer();
    bench.acquire();
    let actions = bench.run(|_, _| {});
    assert_eq!(actions.first(), Some(&Action::WatchLeases));
    assert_eq!(bench.kernel.routes.len(), 1, "nothing is removed yet");

    bench.deliver(snapshot(&[lease(1, None), own_lease(mac(250), None)]));
    bench.run(|_, _| {});
    let routed: Vec<_> = bench.kernel.routes.keys().map(|route| route.dst).collect();
    assert_eq!(routed, [IpNetwork::V4(key(1).v4().unwrap())]);
}

#[test]
fn in_dual_stack_each_device_announces_its_own_mac() {
    let mut kernel = device_state(mac(8), LinkKindOf::Vxlan);
    let mut v6 = desired::desired(&side_v6(), &BTreeMap::new(), |_| Way::Carrier);
    v6.links.get_mut(&"flannel-v6.1".parse().unwrap()).unwrap().mac = Some(mac_v6(8));
    kernel.absorb(v6);
    for (found, v4, v6) in [
        (kernel, mac(8), mac_v6(8)),
        (State::default(), mac(250), mac_v6(250)),
    ] {
        let mut node = Node::new(dual_settings());
        let attrs = asks_for_lease(&mut node, found, Some(lease(250, None)));
        assert_eq!(announced(&attrs), v4);
        let data = VxlanData::parse(attrs.backend_v6_data.as_deref().unwrap()).unwrap();
        assert_eq!(data.vtep_mac, v6);
        assert_eq!(attrs.addrs(), dual_lease(250, None).attrs.addrs());
    }
}

#[test]
fn in_dual_stack_what_a_peer_loses_in_one_family_leaves_the_other() {
    let mut bench = Bench::dual(&[dual_lease(1, None), lease(2, None)]);
    let actions = bench.run(|_, _| {});
    let env = actions.iter().find_map(|action| {
        let Action::WriteSubnetFile(env) = action else {
            return None;
        };
        Some(env.render())
    });
    assert_eq!(
        env.unwrap(),
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.250.1/24\nFLANNEL_IPV6_NETWORK=fd00:10:244::/48\n\
         FLANNEL_IPV6_SUBNET=fd00:10:244:fa::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n"
    );
    let [one, two] = [1, 2].map(|n| subnet(n).to_string());
    let one_v6 = "fd00:10:244:1::/64".to_owned();
    assert_eq!(routed(&bench), [one.clone(), two.clone(), one_v6.clone()]);
    let families: Vec<_> = bench.rules.nft.keys().map(|key| key.name.as_str()).collect();
    assert_eq!(families, ["flannel-ipv4", "flannel-ipv6"]);
    assert_eq!(bench.node.status(bench.clock()).peers.programmed, 2);

    let spoilt = |change: &dyn Fn(&mut LeaseAttrs)| {
        let mut lease = dual_lease(1, None);
        change(&mut lease.attrs);
        lease
    };
    for (lease, expected) in [
        (
            spoilt(&|attrs| attrs.backend_v6_data = None),
            vec![one.clone(), two.clone()],
        ),
        (
            dual_lease(1, None),
            vec![one.clone(), two.clone(), one_v6.clone()],
        ),
        (
            spoilt(&|attrs| attrs.public_ip = None),
            vec![two.clone(), one_v6.clone()],
        ),
        (dual_lease(1, None), vec![one, two, one_v6]),
    ] {
        bench.now += Duration::from_secs(1);
        bench.deliver(Event::Lease(LeaseEvent::Put(lease)));
        bench.run(|_, _| {});
        assert_eq!(routed(&bench), expected);
    }
    let statuses = bench.node.peers_after(None, 10);
    assert_eq!(statuses.len(), 3);
}

#[test]
fn a_peer_that_gets_ipv6_keeps_its_ipv4_untouched() {
    for put_first in [true, false] {
        let (old, new) = (lease(1, None), dual_lease(1, None));
        let mut bench = Bench::dual(std::slice::from_ref(&old));
        bench.run(|_, _| {});
        bench.now += Duration::from_secs(1);
        if put_first {
            bench.deliver(Event::Lease(LeaseEvent::Put(new)));
            bench.deliver(Event::Lease(LeaseEvent::Remove(old.key)));
        } else {
            bench.deliver(snapshot(&[new, dual_lease(250, Some(DAY_SECS))]));
        }
        let actions = bench.run(|bench, _| assert!(routed(bench).contains(&subnet(1).to_string())));
        let changes = actions.iter().filter_map(|action| {
            let Action::Kernel(Work::Apply(ops)) = action else {
                return None;
            };
            Some(ops)
        });
        let changed: Vec<_> = changes.flatten().map(|op| op.object().to_string()).collect();
        assert_eq!(changed.len(), 3, "{changed:?}");
        assert!(
            changed
                .iter()
                .all(|object| object.contains("flannel-v6.1") || object.contains("fd00:10:244:1::/64"))
        );
        assert_eq!(routed(&bench).len(), 2);
    }
}

fn routed(bench: &Bench) -> Vec<String> {
    bench
        .kernel
        .routes
        .keys()
        .map(|route| route.dst.to_string())
        .collect()
}

#[test]
fn a_store_that_did_not_know_a_node_with_peers_is_not_believed_for_the_grace_time() {
    let mut kernel = device_state(mac(250), LinkKindOf::Vxlan);
    kernel.routes.extend(stale_peer().routes);
    let mut bench = Bench::found(kernel, None);
    bench.acquire();
    bench.deliver(snapshot(&[own_lease(mac(250), None)]));
    bench.run(|_, _| {});
    assert_eq!(bench.kernel.routes.len(), 1);
    bench.now = Duration::from_secs(61);
    bench.tick();
    assert_eq!(bench.kernel.routes.len(), 0);
}

/// What is logged meanwhile.
fn logged(action: impl FnOnce()) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, action);
    let held = log.0.lock().unwrap();
    String::from_utf8(held.clone()).unwrap()
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts a node up to its request for a lease, which is returned.
fn asks_for_lease(node: &mut Node, found: State, stored: Option<Lease>) -> LeaseAttrs {
    let actions = node.handle(at(0), Event::Start);
    assert!(
        matches!(actions.as_slice(), [Action::Kernel(Work::Observe(_))]),
        "{actions:?}"
    );
    let actions = node.handle(at(0), Event::Observed(Ok(found)));
    assert_eq!(actions, [Action::FindLease(node.settings.public_addrs())]);
    let mut actions = node.handle(at(0), Event::LeaseFound(Ok(stored)));
    match actions.pop() {
        Some(Action::AcquireLease(attrs)) if actions.is_empty() => attrs,
        other => panic!("{other:?} after {actions:?}"),
    }
}

/// A peer's route on the device that no lease names.
fn stale_peer() -> State {
    "route 10.244.77.0/24 via 10.244.77.0 dev flannel.1 onlink proto 3"
        .parse()
        .unwrap()
}

enum LinkKindOf {
    Vxlan,
    Bridge,
}

fn device_state(mac: MacAddr, kind: LinkKindOf) -> State {
    let mut state = desired::desired(&side(), &BTreeMap::new(), |_| Way::Carrier);
    let link = state.links.get_mut(&device_name()).unwrap();
    link.mac = Some(mac);
    if matches!(kind, LinkKindOf::Bridge) {
        link.kind = LinkKind::Bridge;
    }
    state
}

fn device_name() -> IfName {
    "flannel.1".parse().unwrap()
}

fn own_lease(mac: MacAddr, expires: Option<u64>) -> Lease {
    let data = VxlanData {
        vni: net_types::Vni::DEFAULT,
        vtep_mac: mac,
    };
    let mut own = lease(250, expires);
    own.attrs.backend_data = Some(data.to_json());
    own
}

fn announced(attrs: &LeaseAttrs) -> MacAddr {
    VxlanData::parse(attrs.backend_data.as_deref().unwrap())
        .unwrap()
        .vtep_mac
}

fn snapshot(leases: &[Lease]) -> Event {
    Event::Lease(LeaseEvent::Snapshot {
        config: settings().conf,
        leases: leases.iter().map(|lease| (lease.key, lease.clone())).collect(),
    })
}

fn failure(outlook: Outlook) -> StoreFailure {
    StoreFailure {
        message: "it does not answer".to_owned(),
        outlook,
    }
}

fn at(secs: u64) -> Now {
    Now {
        monotonic: Duration::from_secs(secs),
        wall: UnixTime::from_secs(secs),
    }
}

fn settings() -> Settings {
    settings_of(&[side()], "{\"Network\": \"10.244.0.0/16\"}")
}

fn dual_settings() -> Settings {
    let conf =
        "{\"Network\": \"10.244.0.0/16\", \"EnableIPv6\": true, \"IPv6Network\": \"fd00:10:244::/48\"}";
    Settings {
        pod_mtu_bytes: 1430,
        ..settings_of(&[side(), side_v6()], conf)
    }
}

fn settings_of(sides: &[Side], conf: &str) -> Settings {
    Settings {
        sides: sides.iter().cloned().map(side_settings).collect(),
        parent: "eth0".parse().unwrap(),
        pod_mtu_bytes: 1450,
        conf: NetConf::parse(conf).unwrap(),
        renew_margin: Duration::from_secs(3600),
        mass_loss_grace: Duration::from_secs(60),
        rules: RuleSettings {
            mode: FilterMode::Nftables,
            masquerade: Masquerade::FullyRandom,
            forward: true,
        },
        rules_audit: Duration::from_secs(60),
        blackhole: false,
        tx_checksum: None,
        former_devices: Vec::new(),
        former_networks: Vec::new(),
        direct_routing: false,
        extension: None,
        is_on_trial: false,
        refused: None,
    }
}
