//! What a test gets from the kernel in memory beyond the real kernel's behaviour: faults, counters, strangers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a panic is a failed test"
)]

use fake_kernel::strategy::{world_ops, world_scope};
use fake_kernel::{Counters, FakeKernel};
use netstate::{ErrorClass, Kernel, KernelError, LinkChange, NeighKey, NetnsLabel, Op, State};
use proptest::prelude::*;

fn op(text: &str) -> Op {
    text.parse().expect(text)
}

fn apply(kernel: &mut FakeKernel, text: &str) -> Result<(), ErrorClass> {
    let results: Result<Vec<()>, KernelError> = kernel.apply(&[op(text)]).into_iter().collect();
    results.map(|_| ()).map_err(|error| error.class)
}

fn node() -> FakeKernel {
    let mut kernel = FakeKernel::new();
    kernel
        .add_physical(
            &"eth0".parse().unwrap(),
            "02:00:00:00:00:01".parse().unwrap(),
            "192.168.77.11/24".parse().unwrap(),
        )
        .unwrap();
    kernel
}

#[test]
fn a_card_comes_up_with_its_connected_route() {
    let expected = "\
link eth0 physical mac 02:00:00:00:00:01 mtu 1500 up
addr eth0 192.168.77.11/24
route 192.168.77.0/24 dev eth0 proto 2 src 192.168.77.11
";
    let mut state = node().dump();
    state.sysctls.clear();
    assert_eq!(state.to_string(), expected);
}

#[test]
fn the_next_changes_fail_as_told_and_change_nothing() {
    let mut kernel = node();
    let before = kernel.dump();
    kernel.fail_next(2, ErrorClass::Busy);
    let add = "add addr eth0 10.0.0.1/32";
    assert_eq!(apply(&mut kernel, add), Err(ErrorClass::Busy));
    assert_eq!(apply(&mut kernel, add), Err(ErrorClass::Busy));
    assert_eq!(kernel.dump(), before);
    assert_eq!(apply(&mut kernel, add), Ok(()));
    let expected = Counters {
        applied: 1,
        refused: 2,
        observed: 0,
    };
    assert_eq!(kernel.counters(), expected);
}

#[test]
fn an_object_fails_until_the_fault_is_cleared() {
    let mut kernel = node();
    kernel.fail_on("addr eth0 10.0.0.1/32".parse().unwrap(), ErrorClass::Denied);
    assert_eq!(
        apply(&mut kernel, "add addr eth0 10.0.0.1/32"),
        Err(ErrorClass::Denied)
    );
    assert_eq!(apply(&mut kernel, "add addr eth0 10.0.0.2/32"), Ok(()));
    kernel.clear_faults();
    assert_eq!(apply(&mut kernel, "add addr eth0 10.0.0.1/32"), Ok(()));
}

#[test]
fn observations_fail_as_told() {
    let mut kernel = node();
    kernel.fail_observations(1, ErrorClass::Busy);
    assert_eq!(
        kernel.observe(&world_scope()).unwrap_err().class,
        ErrorClass::Busy
    );
    assert_eq!(kernel.observe(&world_scope()).unwrap(), State::default());
}

#[test]
fn a_stranger_is_neither_counted_nor_hindered() {
    let mut kernel = node();
    kernel.fail_next(1, ErrorClass::Busy);
    kernel.edit(&op("add addr eth0 10.0.0.1/32")).unwrap();
    assert_eq!(kernel.counters(), Counters::default());
}

#[test]
fn learned_neighbours_are_kept_apart() {
    let mut kernel = node();
    let key = NeighKey {
        link: "eth0".parse().unwrap(),
        ip: "192.168.77.12".parse().unwrap(),
    };
    kernel
        .learn_neigh(&key, "02:00:00:00:00:02".parse().unwrap())
        .unwrap();
    assert!(kernel.dump().neighs.is_empty());
    assert!(kernel.learned_neighs().contains_key(&key));
    apply(&mut kernel, "set neigh eth0 192.168.77.12 mac 02:00:00:00:00:03").unwrap();
    assert_eq!(kernel.dump().neighs.len(), 1);
    assert!(kernel.learned_neighs().is_empty());
}

#[test]
fn a_veth_pair_ends_in_another_namespace_and_goes_from_either_end() {
    let label = NetnsLabel("pod".to_owned());
    let make = "add link veth1 veth peer eth0 peermac 02:00:00:00:00:02 netns pod mtu 1450 down";
    let mut kernel = FakeKernel::new();
    assert!(apply(&mut kernel, make).is_err());
    assert!(kernel.dump().links.is_empty());
    kernel.add_netns(label.clone());
    apply(&mut kernel, make).unwrap();
    let pod = kernel.netns(&label).unwrap();
    let end = "link eth0 veth mac 02:00:00:00:00:02 mtu 1450 down";
    assert!(pod.dump().to_string().contains(end), "{}", pod.dump());

    apply(&mut kernel, "del link veth1").unwrap();
    assert!(kernel.netns(&label).unwrap().dump().links.is_empty());

    apply(&mut kernel, make).unwrap();
    apply(kernel.netns(&label).unwrap(), "del link eth0").unwrap();
    assert_eq!(apply(&mut kernel, "set link veth1 up"), Err(ErrorClass::NoDevice));

    apply(&mut kernel, make).unwrap();
    assert!(kernel.remove_netns(&label));
    assert!(kernel.dump().links.is_empty());
}

#[test]
fn a_pulled_card_takes_its_vxlan_device_along() {
    let mut kernel = node();
    let add = "add link flannel.1 vxlan vni 1 port 8472 parent eth0 nolearning down";
    apply(&mut kernel, add).unwrap();
    assert!(kernel.remove_link(&"eth0".parse().unwrap()));
    assert!(!kernel.remove_link(&"eth0".parse().unwrap()));
    let left = kernel.dump();
    assert!(left.links.is_empty() && left.routes.is_empty(), "{left}");
}

proptest! {
    #[test]
    fn a_refused_change_changes_nothing(ops in world_ops(0..40)) {
        let mut kernel = FakeKernel::new();
        for op in ops {
            let before = kernel.dump();
            // The kernel takes a link out of its bridge before it asks the next one, and one away before it makes another.
            let leaves_first = matches!(op, Op::SetLink(_, LinkChange::Port(_)) | Op::ReplaceLink(..));
            if kernel.edit(&op).is_err() && !leaves_first {
                prop_assert_eq!(kernel.dump(), before, "{}", op);
            }
        }
    }

    #[test]
    fn the_same_changes_make_the_same_kernel(ops in world_ops(0..40)) {
        let (mut one, mut other) = (FakeKernel::new(), FakeKernel::new());
        prop_assert_eq!(one.apply(&ops), other.apply(&ops));
        prop_assert_eq!(one.dump(), other.dump());
    }

    #[test]
    fn what_a_link_held_goes_with_it(ops in world_ops(0..40), name in "[upbx][01]") {
        let mut kernel = FakeKernel::new();
        kernel.apply(&ops);
        kernel.remove_link(&name.parse().unwrap());
        let gone = |line: &str| !line.split([' ', '/']).any(|word| word == name);
        for line in kernel.dump().to_string().lines() {
            prop_assert!(gone(line), "{}", line);
        }
    }
}
