use super::super::annotations::{Annotation, Annotations};
use super::*;

fn node(name: &str, cidr: &str, address: &str) -> Node {
    Node {
        name: name.to_owned(),
        pod_cidrs: vec![cidr.to_owned()],
        annotations: Annotations::from([
            (Annotation::Managed, "true".to_owned()),
            (Annotation::BackendType, "vxlan".to_owned()),
            (Annotation::PublicIp, address.to_owned()),
        ]),
        ..Node::default()
    }
}

fn lease(cidr: &str, address: &str) -> Lease {
    read(&node("x", cidr, address)).lease.unwrap()
}

fn roster() -> Roster {
    let conf = NetConf::parse(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#).unwrap();
    Roster::new("own".to_owned(), lease("10.244.0.0/24", "192.168.77.1"), conf)
}

/// A roster that has read these in full.
fn knowing(nodes: &[Node]) -> Roster {
    let mut roster = roster();
    roster.begin();
    for node in nodes {
        assert_eq!(roster.put(node), []);
    }
    roster.complete();
    roster
}

fn keys(event: &LeaseEvent) -> Vec<String> {
    let LeaseEvent::Snapshot { leases, .. } = event else {
        panic!("no snapshot: {event:?}");
    };
    leases.keys().map(SubnetKey::to_string).collect()
}

#[test]
fn a_reading_in_full_replaces_what_was_known() {
    let mut roster = knowing(&[
        node("a", "10.244.1.0/24", "192.168.77.2"),
        node("b", "10.244.2.0/24", "192.168.77.3"),
    ]);
    roster.begin();
    assert_eq!(roster.put(&node("b", "10.244.2.0/24", "192.168.77.3")), []);
    assert_eq!(roster.put(&node("c", "10.244.3.0/24", "192.168.77.4")), []);
    assert_eq!(roster.gone("c"), []);
    assert_eq!(keys(&roster.complete()), ["10.244.0.0-24", "10.244.2.0-24"]);
}

#[test]
fn a_reading_that_breaks_off_changes_nothing() {
    let mut roster = knowing(&[node("a", "10.244.1.0/24", "192.168.77.2")]);
    roster.begin();
    roster.begin();
    roster.put(&node("a", "10.244.1.0/24", "192.168.77.2"));
    assert_eq!(keys(&roster.complete()), ["10.244.0.0-24", "10.244.1.0-24"]);
}

#[test]
fn a_heartbeat_is_no_news_and_a_change_is() {
    let same = node("a", "10.244.1.0/24", "192.168.77.2");
    let mut roster = knowing(std::slice::from_ref(&same));
    let heartbeat = Node {
        revision: "99".to_owned(),
        ..same
    };
    assert_eq!(roster.put(&heartbeat), []);
    let moved = node("a", "10.244.1.0/24", "192.168.77.9");
    let expected = LeaseEvent::Put(lease("10.244.1.0/24", "192.168.77.9"));
    assert_eq!(roster.put(&moved), [expected]);
}

#[test]
fn another_subnet_takes_the_place_of_the_old_one() {
    let mut roster = knowing(&[node("a", "10.244.1.0/24", "192.168.77.2")]);
    let old = lease("10.244.1.0/24", "192.168.77.2").key;
    assert_eq!(
        roster.put(&node("a", "10.244.7.0/24", "192.168.77.2")),
        [
            LeaseEvent::Remove(old),
            LeaseEvent::Put(lease("10.244.7.0/24", "192.168.77.2"))
        ]
    );
}

#[test]
fn a_node_that_is_managed_no_more_is_no_peer() {
    let mut roster = knowing(&[node("a", "10.244.1.0/24", "192.168.77.2")]);
    let mut unmanaged = node("a", "10.244.1.0/24", "192.168.77.2");
    unmanaged
        .annotations
        .insert(Annotation::Managed, "false".to_owned());
    let key = lease("10.244.1.0/24", "192.168.77.2").key;
    assert_eq!(roster.put(&unmanaged), [LeaseEvent::Remove(key)]);
    assert_eq!(roster.gone("a"), []);
}

#[test]
fn of_two_nodes_with_one_subnet_the_other_takes_over_when_the_first_goes() {
    let mut roster = knowing(&[
        node("a", "10.244.1.0/24", "192.168.77.2"),
        node("b", "10.244.1.0/24", "192.168.77.3"),
    ]);
    assert_eq!(roster.put(&node("b", "10.244.1.0/24", "192.168.77.9")), []);
    let expected = LeaseEvent::Put(lease("10.244.1.0/24", "192.168.77.9"));
    assert_eq!(roster.gone("a"), [expected]);
    let key = lease("10.244.1.0/24", "192.168.77.9").key;
    assert_eq!(roster.gone("b"), [LeaseEvent::Remove(key)]);
}

#[test]
fn a_node_that_comes_later_does_not_take_a_subnet_from_the_one_that_has_it() {
    let holder = node("m", "10.244.1.0/24", "192.168.77.2");
    let mut roster = knowing(std::slice::from_ref(&holder));
    let thief = node("a", "10.244.1.0/24", "192.168.77.3");
    assert_eq!(roster.put(&thief), []);
    // A reading in full keeps it so, and one that brings nothing new.
    let held = |event: LeaseEvent| {
        let LeaseEvent::Snapshot { leases, .. } = event else {
            panic!("no snapshot: {event:?}");
        };
        leases.into_values().next_back()?.attrs.public_ip
    };
    roster.begin();
    assert_eq!((roster.put(&thief), roster.put(&holder)), (vec![], vec![]));
    assert_eq!(held(roster.complete()), Some([192, 168, 77, 2].into()));
    assert_eq!(held(roster.complete()), Some([192, 168, 77, 2].into()));
    // What the holder changes counts, and what the other one does not.
    assert_eq!(roster.put(&node("a", "10.244.1.0/24", "192.168.77.4")), []);
    let moved = lease("10.244.1.0/24", "192.168.77.9");
    let change = node("m", "10.244.1.0/24", "192.168.77.9");
    assert_eq!(roster.put(&change), [LeaseEvent::Put(moved)]);
    // The holder goes to another subnet.
    let elsewhere = node("m", "10.244.5.0/24", "192.168.77.9");
    assert_eq!(
        roster.put(&elsewhere),
        [
            LeaseEvent::Put(lease("10.244.1.0/24", "192.168.77.4")),
            LeaseEvent::Put(lease("10.244.5.0/24", "192.168.77.9"))
        ]
    );
    // And back, where it is the rival now.
    let key = lease("10.244.5.0/24", "192.168.77.9").key;
    assert_eq!(roster.put(&change), [LeaseEvent::Remove(key)]);
    assert_eq!(roster.gone("m"), []);
}

#[test]
fn nobody_takes_the_own_subnet() {
    let mut roster = knowing(&[]);
    assert_eq!(roster.put(&node("a", "10.244.0.0/24", "192.168.77.2")), []);
    let LeaseEvent::Snapshot { leases, .. } = roster.complete() else {
        panic!("no snapshot");
    };
    let own = leases.into_values().next().unwrap();
    assert_eq!(own.attrs.public_ip, Some([192, 168, 77, 1].into()));
    assert_eq!(roster.gone("a"), []);
}

#[test]
fn the_own_lease_stays_until_the_node_has_another_subnet() {
    let mut roster = knowing(&[]);
    assert_eq!(roster.gone("own"), []);
    let bare = Node {
        name: "own".to_owned(),
        ..Node::default()
    };
    assert_eq!(roster.put(&bare), []);
    assert_eq!(keys(&roster.complete()), ["10.244.0.0-24"]);
    let key = lease("10.244.0.0/24", "192.168.77.1").key;
    let moved = node("own", "10.244.8.0/24", "192.168.77.1");
    assert_eq!(roster.put(&moved), [LeaseEvent::Remove(key)]);
    roster.begin();
    assert_eq!(roster.put(&moved), []);
    assert_eq!(keys(&roster.complete()), Vec::<String>::new());
}
