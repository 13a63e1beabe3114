//! A VXLAN device that cannot be made: the refusal names what stands in its way.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::os::fd::AsRawFd;

use common::*;
use netlink::RealKernel;
use netstate::{ErrorClass, Kernel, LinkKind, Op};

/// What the kernel in the calling thread's namespace says to a device as flannel makes it.
fn refusal() -> String {
    let mut kernel = RealKernel::open().unwrap();
    let results = kernel.apply(&[Op::AddLink(name("flannel.1"), flannel_link()), up("flannel.1")]);
    let error = results[0].as_ref().expect_err("the kernel accepted it");
    assert_eq!(error.class, ErrorClass::Exists);
    error.message.clone()
}

#[test]
fn a_link_of_equal_vni_and_port_is_named() {
    in_netns(|| {
        underlay();
        run_all(
            "ip link add other0 type vxlan id 2 dstport 8472 dev eth0
             ip link add other1 type vxlan id 1 dstport 4789 dev eth0
             ip link add strange0 type vxlan id 1 dstport 8472 dev eth0 local 192.168.77.11",
        );
        assert_eq!(
            refusal(),
            "the link \"strange0\" already has VNI 1 on UDP port 8472: remove it, or choose another VNI or port"
        );
    });
}

#[test]
fn of_two_links_the_one_that_the_kernel_means_is_named() {
    in_netns(|| {
        underlay();
        run_all(
            "ip link add six0 type vxlan id 1 dstport 8472 dev eth0 local fd00:77::11
             ip link add policy0 type vxlan id 1 dstport 8472 dev eth0 gbp
             ip link add strange0 type vxlan id 1 dstport 8472 dev eth0",
        );
        assert!(refusal().contains("\"strange0\""), "{}", refusal());

        let mut kernel = RealKernel::open().unwrap();
        let mut wanted = flannel_link();
        let LinkKind::Vxlan(vxlan) = &mut wanted.kind else {
            panic!()
        };
        vxlan.local = Some("fd00:77::11".parse().unwrap());
        let results = kernel.apply(&[Op::AddLink(name("flannel-v6.1"), wanted)]);
        let error = results[0].as_ref().unwrap_err();
        assert!(error.message.contains("\"six0\""), "{error}");
    });
}

#[test]
fn a_name_that_is_taken_is_told_from_a_vni_that_is() {
    in_netns(|| {
        underlay();
        run_all(
            "ip link add strange0 type vxlan id 1 dstport 8472 dev eth0
             ip link add flannel.1 type bridge",
        );
        assert_eq!(
            refusal(),
            "there is already a link \"flannel.1\": remove it, or choose another name"
        );
        run_all(
            "ip link del flannel.1
             ip link property add dev eth0 altname flannel.1",
        );
        assert_eq!(
            refusal(),
            "the link \"eth0\" already has the alternative name \"flannel.1\": remove that name, or choose another"
        );
    });
}

#[test]
fn a_link_that_was_moved_to_another_namespace_still_holds_its_vni() {
    in_netns(|| {
        underlay();
        let other = new_netns();
        let path = format!("/proc/{}/fd/{}", std::process::id(), other.as_raw_fd());
        run("ip link add strange0 type vxlan id 1 dstport 8472 dev eth0");
        run(&format!("ip link set strange0 netns {path}"));
        assert_eq!(
            refusal(),
            "EEXIST: A VXLAN device with the specified VNI already exists, but no link in this network namespace has \
             VNI 1 on UDP port 8472: look for one that was moved to another"
        );
    });
}
