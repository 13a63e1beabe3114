//! Another network configuration while a node runs.

use super::*;

#[test]
fn a_changed_configuration_is_warned_of_once() {
    let log = logged(|| {
        let mut bench = Bench::holding(&[]);
        bench.run(|_, _| {});
        let changed = |network| {
            let config = NetConf::parse(&format!("{{\"Network\": \"{network}\"}}")).unwrap();
            let leases = BTreeMap::from([(key(250), own_lease(mac(250), None))]);
            Event::Lease(LeaseEvent::Snapshot { config, leases })
        };
        for network in ["10.99.0.0/16", "10.99.0.0/16"] {
            bench.deliver(changed(network));
        }
    });
    let warnings = log
        .matches("the network configuration has changed in Network, or the subnets in it")
        .count();
    assert_eq!(warnings, 1, "{log}");
}

#[test]
fn a_change_that_pods_do_not_notice_is_applied() {
    let mut bench = Bench::holding(&[]);
    bench.run(|_, _| {});
    let mut conf = settings().conf;
    conf.enable_nftables = !conf.enable_nftables;
    let leases = BTreeMap::from([(key(250), own_lease(mac(250), None))]);
    let boxed = || Box::new(conf.clone());
    let applied = vec![Action::TryConf(boxed()), Action::ApplyConf(boxed())];
    for expected in [applied, vec![]] {
        bench.deliver(Event::Lease(LeaseEvent::Snapshot {
            config: conf.clone(),
            leases: leases.clone(),
        }));
        let mut done = bench.run(|_, _| {});
        done.retain(|action| matches!(action, Action::TryConf(_) | Action::ApplyConf(_)));
        assert_eq!(done, expected);
    }
}

/// What the kernel refuses is waited for only where another configuration can count again.
#[test]
fn a_configuration_on_trial_is_given_up_where_the_kernel_refuses_its_device() {
    for (is_on_trial, is_refused) in [(true, true), (false, true), (true, false)] {
        let settings = Settings {
            is_on_trial,
            ..settings()
        };
        let mut node = Node::new(settings);
        asks_for_lease(&mut node, State::default(), None);
        let mut bench = Bench::asking(node);
        bench.refused = is_refused.then(|| "link flannel.1".to_owned());
        bench.acquire();
        let mut done = bench.tick_after(4);
        assert!(
            !done.iter().any(|action| matches!(action, Action::Stop(_))),
            "{done:?}"
        );
        done = bench.tick_after(2);
        let gives_up = matches!(done.as_slice(), [.., Action::Stop(StopReason::NotUp(_))]);
        assert_eq!(gives_up, is_on_trial && is_refused, "{done:?}");
    }
}
