use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::frame::{ALIGNMENT, HEADER_LEN};

fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER_LEN + payload.len()).unwrap();
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

/// `struct ndmsg`: family, padding, link, state, flags, type; then what identifies the entry.
fn neigh(family: u8, link: u32, state: u16) -> Vec<u8> {
    let mut bytes = vec![family, 0, 0, 0];
    bytes.extend(link.to_ne_bytes());
    bytes.extend(state.to_ne_bytes());
    bytes.extend([0, 0]);
    bytes.extend(if family == BRIDGE {
        attribute(libc::NDA_LLADDR, &[2, 0, 0, 0, 0, 5])
    } else {
        attribute(libc::NDA_DST, &[10, 1, 0, 5])
    });
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

const NEIGH: NeighEntry = NeighEntry::Neigh(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 5)));
const FDB: NeighEntry = NeighEntry::Fdb(MacAddr::new([2, 0, 0, 0, 0, 5]));

fn read(bytes: &[u8], close: &[u32]) -> (bool, Vec<Notice>) {
    let close = close.iter().map(|link| IfIndex::new(*link).unwrap()).collect();
    let mut found = Vec::new();
    let whole = notices(bytes, &close, |notice| found.push(notice));
    (whole == Heard::Everything, found)
}

const INET: u8 = 2;
const BRIDGE: u8 = 7;
const REACHABLE: u16 = 0x02;
const PERMANENT: u16 = 0x80;

#[test]
fn neighbours_that_come_and_go_by_themselves_are_dropped() {
    for family in [INET, BRIDGE] {
        let bytes = message(libc::RTM_NEWNEIGH, 0, &neigh(family, 5, REACHABLE));
        assert_eq!(read(&bytes, &[]), (true, vec![]));
        assert_eq!(read(&bytes, &[6]), (true, vec![]));
    }
    let aged = message(libc::RTM_DELNEIGH, 0, &neigh(BRIDGE, 5, REACHABLE));
    assert_eq!(read(&aged, &[]), (true, vec![]));
}

#[test]
fn a_permanent_entry_that_becomes_transient_is_reported_on_a_link_watched_closely() {
    let bytes = message(libc::RTM_NEWNEIGH, 0, &neigh(INET, 5, REACHABLE));
    let expected = Notice::Neigh {
        link: IfIndex::new(5).unwrap(),
        entry: NEIGH,
        change: NeighChange::Transient,
    };
    assert_eq!(read(&bytes, &[5]), (true, vec![expected]));
}

#[test]
fn several_messages_of_a_datagram_are_all_read() {
    let bytes = [
        message(libc::RTM_NEWNEIGH, 0, &neigh(BRIDGE, 5, PERMANENT)),
        message(libc::RTM_DELNEIGH, 0, &neigh(INET, 6, REACHABLE)),
    ]
    .concat();
    let (whole, found) = read(&bytes, &[]);
    let expected = |link, entry, change| Notice::Neigh {
        link: IfIndex::new(link).unwrap(),
        entry,
        change,
    };
    assert!(whole);
    assert_eq!(
        found,
        [
            expected(5, FDB, NeighChange::Permanent),
            expected(6, NEIGH, NeighChange::Removed),
        ]
    );
}

#[test]
fn routes_of_other_tables_are_dropped() {
    let rtmsg = |table: u8| [INET, 24, 0, 0, table, 3, 0, 1, 0, 0, 0, 0];
    let oif = attribute(libc::RTA_OIF, &9_u32.to_ne_bytes());
    let dst = attribute(libc::RTA_DST, &[10, 2, 3, 0]);
    let metric = attribute(libc::RTA_PRIORITY, &7_u32.to_ne_bytes());
    let payload = |table| [rtmsg(table).as_slice(), &dst, &metric, &oif].concat();
    let main = message(libc::RTM_NEWROUTE, 0, &payload(254));
    let through = |link| Notice::Route {
        link,
        key: RouteKey {
            table: 254,
            dst: "10.2.3.0/24".parse().unwrap(),
            metric: 7,
        },
    };
    assert_eq!(read(&main, &[]), (true, vec![through(IfIndex::new(9))]));
    let replaced = message(libc::RTM_NEWROUTE, NLM_F_REPLACE, &payload(254));
    assert_eq!(read(&replaced, &[]), (true, vec![through(None)]));
    let local = message(libc::RTM_NEWROUTE, 0, &payload(255));
    assert_eq!(read(&local, &[]), (true, vec![]));
}

#[test]
fn a_message_cut_short_is_reported() {
    let bytes = message(libc::RTM_NEWNEIGH, 0, &neigh(INET, 5, PERMANENT));
    assert!(!read(&bytes[..20], &[]).0);
    assert!(!read(&message(libc::RTM_NEWADDR, 0, &[2, 24]), &[]).0);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_the_reading_ends(
        bytes in vec(any::<u8>(), 0..200),
        kind in 16_u16..32,
        flags in any::<u16>(),
    ) {
        read(&bytes, &[1]);
        read(&message(kind, flags, &bytes), &[1]);
    }
}
