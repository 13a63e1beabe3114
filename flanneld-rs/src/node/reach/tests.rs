use super::*;

#[test]
fn a_peer_is_direct_where_its_address_is_on_a_link_that_is_not_ours() {
    for (link, expected) in [
        (Some("eth0"), direct("eth0")),
        (Some("eth1"), direct("eth1")),
        (Some("flannel.1"), Way::Carrier),
        (None, Way::Carrier),
    ] {
        let mut reach = Reach::default();
        assert_eq!(reach.way(ip(1)), None);
        reach.want(ip(1));
        assert!(reach.is_waiting());
        assert_eq!(reach.next(secs(0), || [ip(1)].into()), Some([ip(1)].into()));
        let changed = reach.found(
            secs(0),
            Ok(link.map(|link| (ip(1), name(link))).into_iter().collect()),
            &own(),
        );
        assert_eq!(changed, [(ip(1), None)].into());
        assert_eq!(reach.way(ip(1)), Some(&expected), "{link:?}");
        assert!(!reach.is_waiting());
    }
}

#[test]
fn a_new_peer_is_looked_up_at_once_and_alone() {
    let mut reach = known(&[1, 2], "eth0");
    reach.want(ip(1));
    assert!(!reach.is_waiting());
    reach.want(ip(3));
    assert_eq!(reach.next(secs(1), || panic!("all")), Some([ip(3)].into()));
    // One look-up at a time; who comes meanwhile waits for the next.
    reach.want(ip(4));
    assert_eq!(
        (reach.next(secs(1), || panic!("all")), reach.wake_at()),
        (None, None)
    );
    reach.found(secs(1), Ok(on_link(&[3], "eth0")), &own());
    assert!(reach.is_waiting());
    assert_eq!(reach.next(secs(1), || panic!("all")), Some([ip(4)].into()));
}

#[test]
fn a_storm_of_changes_leads_to_one_look_up_a_second() {
    let mut reach = known(&[1, 2], "eth0");
    let mut look_ups = 0;
    for ms in 10_000..20_000 {
        let now = Duration::from_millis(ms);
        reach.host_changed();
        if let Some(asked) = reach.next(now, || [ip(1), ip(2)].into()) {
            assert_eq!(asked.len(), 2);
            look_ups += 1;
            assert_eq!(
                reach.found(now, Ok(on_link(&[1, 2], "eth0")), &own()),
                BTreeMap::new()
            );
        }
    }
    assert_eq!(look_ups, 10);
    // The last change is not forgotten.
    assert_eq!(reach.wake_at(), Some(secs(20)));
    assert!(reach.next(secs(20), || [ip(1)].into()).is_some());
}

#[test]
fn a_change_while_a_look_up_is_under_way_leads_to_another_one() {
    let mut reach = known(&[1], "eth0");
    reach.host_changed();
    assert!(reach.next(secs(10), || [ip(1)].into()).is_some());
    reach.host_changed();
    reach.found(secs(10), Ok(on_link(&[1], "eth0")), &own());
    assert_eq!(reach.next(secs(10), || panic!("too early")), None);
    assert_eq!(reach.wake_at(), Some(secs(11)));
    assert!(reach.next(secs(11), || [ip(1)].into()).is_some());
    let changed = reach.found(secs(11), Ok(on_link(&[], "eth0")), &own());
    assert_eq!(changed, [(ip(1), Some(direct("eth0")))].into());
}

#[test]
fn without_a_notice_all_are_looked_up_once_a_minute_and_those_that_left_are_forgotten() {
    let mut reach = known(&[1, 2], "eth0");
    assert_eq!(reach.wake_at(), Some(secs(60)));
    assert_eq!(reach.next(secs(59), || panic!("too early")), None);
    assert_eq!(reach.next(secs(60), || [ip(2)].into()), Some([ip(2)].into()));
    reach.found(secs(60), Ok(on_link(&[2], "eth0")), &own());
    assert_eq!(
        (reach.way(ip(1)), reach.way(ip(2))),
        (None, Some(&direct("eth0")))
    );
    // A node without peers has nothing to look up.
    assert_eq!(reach.next(secs(120), BTreeSet::new), None);
    assert_eq!(reach.wake_at(), Some(secs(180)));
}

#[test]
fn a_look_up_that_fails_changes_nothing_that_is_known_and_is_repeated() {
    let mut reach = known(&[1], "eth0");
    reach.want(ip(2));
    reach.host_changed();
    assert!(reach.next(secs(10), || [ip(1), ip(2)].into()).is_some());
    let changed = reach.found(secs(10), Err("busy".to_owned()), &own());
    // The tunnel serves until more is known.
    assert_eq!(changed, [(ip(2), None)].into());
    assert_eq!(
        (reach.way(ip(1)), reach.way(ip(2))),
        (Some(&direct("eth0")), Some(&Way::Carrier))
    );
    assert_eq!(reach.wake_at(), Some(secs(15)));
    assert!(reach.next(secs(15), || [ip(1), ip(2)].into()).is_some());
}

#[test]
fn where_the_kernel_refuses_a_plain_route_the_tunnel_serves_until_something_changes() {
    let mut reach = known(&[1], "eth0");
    assert!(reach.refuse(ip(1)) && !reach.refuse(ip(1)) && !reach.refuse(ip(2)));
    assert_eq!(reach.way(ip(1)), Some(&Way::Carrier));
    let mut look_up = |now, link| {
        reach.is_stale = true;
        assert!(reach.next(secs(now), || [ip(1)].into()).is_some());
        reach.found(secs(now), Ok(on_link(&[1], link)), &own());
        reach.way(ip(1)).cloned()
    };
    assert_eq!(look_up(10, "eth0"), Some(Way::Carrier));
    assert_eq!(look_up(20, "eth1"), Some(direct("eth1")));
    assert!(reach.refuse(ip(1)));
    reach.host_changed();
    assert!(reach.next(secs(30), || [ip(1)].into()).is_some());
    reach.found(secs(30), Ok(on_link(&[1], "eth1")), &own());
    assert_eq!(reach.way(ip(1)), Some(&direct("eth1")));
}

/// Nodes that were found on a link at second 0.

#[test]
fn what_is_on_a_link_is_on_it_under_its_new_name() {
    let mut reach = known(&[1, 2], "eth0");
    reach.rename(&name("eth0"), &name("lan0"));
    assert_eq!([1, 2].map(|node| reach.way(ip(node))), [Some(&direct("lan0")); 2]);
    reach.rename(&name("eth1"), &name("eth0"));
    assert_eq!(reach.way(ip(1)), Some(&direct("lan0")));
}

fn known(nodes: &[u8], link: &str) -> Reach {
    let mut reach = Reach::default();
    let all: BTreeSet<_> = nodes.iter().map(|n| ip(*n)).collect();
    assert_eq!(reach.next(secs(0), || all.clone()), Some(all));
    reach.found(secs(0), Ok(on_link(nodes, link)), &own());
    reach
}

fn on_link(nodes: &[u8], link: &str) -> BTreeMap<IpAddr, IfName> {
    nodes.iter().map(|n| (ip(*n), name(link))).collect()
}

fn direct(link: &str) -> Way {
    Way::Direct(name(link))
}

fn own() -> BTreeSet<IfName> {
    [name("flannel.1")].into()
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn ip(n: u8) -> IpAddr {
    [192, 168, 77, n].into()
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
