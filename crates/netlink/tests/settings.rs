//! Settings of a link: changed one by one, as iproute2 shows them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use common::*;
use netlink::{LinkSetting, RealKernel};
use netstate::ErrorClass;

#[test]
fn settings_are_changed_in_place_and_read_back() {
    in_netns(|| {
        run_all("ip link add va type veth peer name vb");
        let mut kernel = RealKernel::open().unwrap();
        let before = kernel.link_settings(&name("va")).unwrap();
        let changes = [
            LinkSetting::Mac(mac("0a:00:00:00:00:01")),
            LinkSetting::MtuBytes(1400),
            LinkSetting::Promiscuous(true),
            LinkSetting::AllMulticast(true),
            LinkSetting::TxQueueLen(77),
        ];
        assert!(changes.iter().all(|change| !before.has(*change)));

        all_ok(kernel.set_link(&name("va"), &changes));

        let after = kernel.link_settings(&name("va")).unwrap();
        assert!(changes.iter().all(|change| after.has(*change)), "{after:?}");
        let shown = run("ip link show dev va");
        for word in ["PROMISC", "ALLMULTI", "mtu 1400", "qlen 77", "0a:00:00:00:00:01"] {
            assert!(shown.contains(word), "{word}: {shown}");
        }
        let back = [
            LinkSetting::Mac(before.mac.unwrap()),
            LinkSetting::MtuBytes(before.mtu_bytes),
            LinkSetting::Promiscuous(false),
            LinkSetting::AllMulticast(false),
            LinkSetting::TxQueueLen(before.tx_queue_len),
        ];
        all_ok(kernel.set_link(&name("va"), &back));
        assert_eq!(kernel.link_settings(&name("va")).unwrap(), before);
    });
}

#[test]
fn a_port_of_a_bridge_does_not_count_as_made_promiscuous() {
    in_netns(|| {
        run_all(
            "ip link add br0 type bridge
             ip link add va type veth peer name vb
             ip link set va master br0 up",
        );
        let mut kernel = RealKernel::open().unwrap();
        assert!(run("ip -d link show dev va").contains("promiscuity 1"));
        assert!(!kernel.link_settings(&name("va")).unwrap().promiscuous);
    });
}

#[test]
fn a_refused_setting_does_not_stop_the_next_and_a_missing_link_is_named() {
    in_netns(|| {
        run_all("ip link add va type veth peer name vb");
        let mut kernel = RealKernel::open().unwrap();
        let results = kernel.set_link(
            &name("va"),
            &[LinkSetting::MtuBytes(1), LinkSetting::Promiscuous(true)],
        );
        assert_eq!(results[0].as_ref().unwrap_err().class, ErrorClass::Other(22));
        assert_eq!(results[1], Ok(()));
        let missing = kernel.link_settings(&name("none")).unwrap_err();
        assert_eq!(missing.class, ErrorClass::NoDevice);
        assert!(missing.message.contains("none"));
    });
}
