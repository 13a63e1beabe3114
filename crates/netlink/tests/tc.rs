//! Traffic control as `tc` and the kernel see it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use common::{in_netns, name, run, run_all};
use netlink::tc::{Control, Entry, NewIfb, Root, TcLink, TcLinkKind, TcOp, TokenBucket, TrafficControl};
use netstate::ErrorClass;

const BUCKET: TokenBucket = TokenBucket {
    rate_bytes_per_sec: 1_250_000,
    burst_ticks: 2_500_000,
    limit_bytes: 231_250,
};

fn veth(tc: &mut TrafficControl) -> TcLink {
    run_all("ip link add veth0 mtu 1450 type veth peer name far0\nip link set veth0 up\nip link set far0 up");
    link(tc, "veth0").unwrap()
}

fn link(tc: &mut TrafficControl, text: &str) -> Option<TcLink> {
    tc.links(&[name(text)]).unwrap().pop()
}

fn new_ifb(text: &str) -> NewIfb {
    NewIfb {
        name: name(text),
        mtu_bytes: 1450,
        queue_len: 1000,
        alias: "a note".to_owned(),
    }
}

fn apply(tc: &mut TrafficControl, ops: &[TcOp]) {
    for (op, result) in ops.iter().zip(tc.apply(ops)) {
        assert_eq!(result, Ok(()), "{op:?}");
    }
}

#[test]
fn links_are_found_by_name_and_number() {
    in_netns(|| {
        let mut tc = TrafficControl::open().unwrap();
        let veth = veth(&mut tc);
        let far = link(&mut tc, "far0").unwrap();
        assert_eq!(veth.kind, TcLinkKind::Veth(Some(far.index)));
        assert_eq!(far.kind, TcLinkKind::Veth(Some(veth.index)));
        assert_eq!((veth.mtu_bytes, veth.queue_len, veth.up), (1450, 1000, true));
        assert_eq!(tc.link_at(far.index).unwrap(), Some(far.clone()));
        run("ip link property add dev far0 altname other");
        assert_eq!(link(&mut tc, "other"), None);
        run("ip link del far0");
        assert_eq!(tc.link_at(far.index).unwrap(), None);
        assert_eq!(link(&mut tc, "veth0"), None);
    });
}

#[test]
fn a_block_is_made_up_and_with_its_note_or_not_at_all() {
    in_netns(|| {
        let mut tc = TrafficControl::open().unwrap();
        assert_eq!(tc.ifbs().unwrap(), []);
        run("ip link add theirs0 type bridge");
        let made = tc.add_ifb(&new_ifb("bwp0")).unwrap();
        assert_eq!(
            (made.kind, made.up, made.mtu_bytes),
            (TcLinkKind::Ifb, true, 1450)
        );
        assert_eq!(made.alias.as_deref(), Some("a note"));
        assert_eq!(tc.ifbs().unwrap(), std::slice::from_ref(&made));
        assert!(run("ip -d link show type ifb").contains("bwp0: <BROADCAST,NOARP,UP,LOWER_UP> mtu 1450"));

        run("ip link set theirs0 alias theirs");
        let taken = tc.add_ifb(&new_ifb("theirs0")).unwrap_err();
        assert_eq!(taken.class, ErrorClass::Exists);
        let mut long = new_ifb("bwp1");
        long.alias = "x".repeat(256);
        tc.add_ifb(&long).unwrap_err();
        assert_eq!(tc.ifbs().unwrap().len(), 1);
        apply(&mut tc, &[TcOp::DelLink(made.index)]);
        assert_eq!(tc.ifbs().unwrap(), []);
        assert!(run("ip link show theirs0").contains("theirs0"));
    });
}

#[test]
fn buckets_and_redirections_are_as_tc_shows_them_and_read_back() {
    in_netns(|| {
        let mut tc = TrafficControl::open().unwrap();
        let veth = veth(&mut tc).index;
        let plain = Control {
            root: Root::Default,
            entry: Entry::Plain,
        };
        assert_eq!(tc.control(veth).unwrap(), plain);
        let ifb = tc.add_ifb(&new_ifb("bwp0")).unwrap().index;
        let redirect = TcOp::Redirect { from: veth, to: ifb };
        apply(&mut tc, &[TcOp::SetBucket(veth, BUCKET), TcOp::AddIngress(veth)]);
        assert_eq!(tc.control(veth).unwrap().entry, Entry::Redirected(vec![]));
        apply(&mut tc, &[redirect, TcOp::SetBucket(ifb, BUCKET)]);
        let shown = run("tc qdisc");
        assert!(
            shown.contains("qdisc tbf 1: dev veth0 root refcnt 3 rate 10Mbit burst 200000b lat 25ms"),
            "{shown}"
        );
        assert!(
            shown.contains("qdisc ingress ffff: dev veth0 parent ffff:fff1"),
            "{shown}"
        );
        assert!(
            shown.contains("qdisc tbf 1: dev bwp0 root refcnt 2 rate 10Mbit burst 200000b lat 25ms"),
            "{shown}"
        );
        let filter = run("tc filter show dev veth0 ingress");
        assert!(
            filter.contains("protocol all pref 1 u32") && filter.contains("match 00000000/00000000 at 0"),
            "{filter}"
        );
        assert!(
            filter.contains("mirred (Egress Redirect to device bwp0) stolen"),
            "{filter}"
        );
        let shaped = Control {
            root: Root::Bucket(BUCKET),
            entry: Entry::Redirected(vec![Some(ifb)]),
        };
        assert_eq!(tc.control(veth).unwrap(), shaped);

        let other = TokenBucket {
            rate_bytes_per_sec: 6_000_000_000,
            burst_ticks: u32::MAX,
            limit_bytes: u32::MAX,
        };
        apply(&mut tc, &[TcOp::SetBucket(veth, other), TcOp::DelLink(ifb)]);
        let orphaned = Control {
            root: Root::Bucket(other),
            entry: Entry::Redirected(vec![None]),
        };
        assert_eq!(tc.control(veth).unwrap(), orphaned);
        apply(&mut tc, &[TcOp::ClearRoot(veth), TcOp::ClearIngress(veth)]);
        assert_eq!(tc.control(veth).unwrap(), plain);
        assert_eq!(
            tc.apply(&[TcOp::ClearRoot(veth)])
                .pop()
                .unwrap()
                .unwrap_err()
                .class,
            ErrorClass::NotFound
        );
    });
}

#[test]
fn what_others_set_is_told_from_ours() {
    in_netns(|| {
        let mut tc = TrafficControl::open().unwrap();
        let veth = veth(&mut tc).index;
        run_all("tc qdisc add dev veth0 root handle 5: pfifo limit 10\ntc qdisc add dev veth0 clsact");
        let control = tc.control(veth).unwrap();
        assert_eq!(control.root, Root::Other("pfifo".to_owned()));
        assert_eq!(control.entry, Entry::Other("clsact".to_owned()));
        run_all(
            "tc qdisc del dev veth0 clsact
             tc qdisc add dev veth0 ingress
             tc filter add dev veth0 ingress protocol ip pref 5 u32 match ip dst 10.0.0.1/32 flowid 1:1",
        );
        assert_eq!(tc.control(veth).unwrap().entry, Entry::Other("u32".to_owned()));
        let down = {
            run("ip link add down0 type bridge");
            link(&mut tc, "down0").unwrap()
        };
        assert_eq!(tc.control(down.index).unwrap().root, Root::Default);
    });
}
