//! Namespaces: opening, telling apart, working inside without moving the caller.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use common::*;
use netlink::{Netns, NetnsError, RealKernel};
use netstate::{ErrorClass, Kernel, Link, LinkKind, NetnsLabel, Op, VethPeer};

#[test]
fn a_path_that_names_nothing_is_not_found() {
    let error = Netns::open(Path::new("/run/netns/none-of-this-name")).unwrap_err();
    assert!(matches!(&error, NetnsError::NotFound(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "network namespace /run/netns/none-of-this-name does not exist"
    );
}

#[test]
fn a_file_a_directory_and_a_fifo_are_no_namespaces() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let fifo = dir.path().join("fifo");
    run(&format!("mkfifo {}", fifo.display()));
    for path in [dir.path(), &file, &fifo] {
        let error = Netns::open(path).unwrap_err();
        assert!(matches!(&error, NetnsError::NotNetns(_)), "{error:?}");
    }
}

#[test]
fn a_socket_cannot_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    let error = Netns::open(&path).unwrap_err();
    assert!(matches!(&error, NetnsError::Open { .. }), "{error:?}");
}

#[test]
fn a_namespace_of_another_kind_is_found_out_when_it_is_entered() {
    let mounts = Netns::open(Path::new("/proc/self/ns/uts")).unwrap();
    let mut ran = false;
    let error = mounts.run(|| ran = true).unwrap_err();
    assert!(matches!(&error, NetnsError::NotNetns(_)), "{error:?}");
    assert!(!ran);
    let error = RealKernel::open_in(mounts).err().unwrap();
    assert_eq!(error.message, "/proc/self/ns/uts is not a network namespace");
}

#[test]
fn namespaces_are_told_apart() {
    in_netns(|| {
        let here = Netns::current().unwrap();
        let there = new_netns();
        assert!(here.is_same(&Netns::current().unwrap()));
        assert!(there.is_same(&there.try_clone().unwrap()));
        assert!(!here.is_same(&there));
    });
}

#[test]
fn work_inside_returns_its_value_and_leaves_the_caller_where_it_was() {
    in_netns(|| {
        let here = Netns::current().unwrap();
        let there = new_netns();
        let borrowed = String::from("lo");
        let inside = there.run(|| {
            run(&format!("ip link set {borrowed} up"));
            Netns::current().unwrap()
        });
        assert!(inside.unwrap().is_same(&there));
        assert!(Netns::current().unwrap().is_same(&here));
        assert!(run("ip link show lo").contains("DOWN"));
    });
}

#[test]
fn a_panic_inside_continues_in_the_caller() {
    in_netns(|| {
        let there = new_netns();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            there.run(|| std::panic::resume_unwind(Box::new("inside")))
        }));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"inside"));
    });
}

#[test]
fn a_kernel_stays_in_the_namespace_it_was_opened_in() {
    in_netns(|| {
        let there = new_netns();
        let mut kernel = RealKernel::open_in(there.try_clone().unwrap()).unwrap();
        all_ok(kernel.apply(&[Op::AddLink(name("br0"), link_of_kind(LinkKind::Bridge))]));
        assert!(observe(&mut kernel, "br0").links.contains_key(&name("br0")));
        assert!(observe(&mut RealKernel::open().unwrap(), "br0").links.is_empty());
        assert!(there.run(|| run("ip link show br0")).unwrap().contains("br0"));
    });
}

#[test]
fn a_peer_in_an_unregistered_namespace_is_refused() {
    in_netns(|| {
        let mut kernel = RealKernel::open().unwrap();
        let peer = VethPeer {
            name: name("eth0"),
            mac: None,
            netns: Some(NetnsLabel("pod".into())),
        };
        let veth: Link = link_of_kind(LinkKind::Veth(Some(peer)));
        let error = kernel
            .apply(&[Op::AddLink(name("veth0"), veth)])
            .remove(0)
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::NotFound);
        assert!(error.message.contains("\"pod\""), "{error}");
        assert!(observe(&mut kernel, "veth0").links.is_empty());
    });
}
