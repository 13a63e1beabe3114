//! Kernel parameters: read, written, absent; each in the namespace of its kernel.
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
use netlink::{RealKernel, Writes};
use netstate::{ErrorClass, Kernel, LinkKind, Op, Scope, SysctlKey};

fn accept_ra(link: &str) -> SysctlKey {
    SysctlKey::of_link("ipv6", &name(link), "accept_ra")
}

fn read(kernel: &mut RealKernel, key: &SysctlKey) -> Option<String> {
    let scope = Scope {
        sysctls: [key.clone()].into(),
        ..Scope::default()
    };
    kernel.observe(&scope).unwrap().sysctls.remove(key)
}

#[test]
fn a_parameter_of_a_new_link_is_written_in_the_same_apply_and_read_back() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        let key = accept_ra("flannel.1");
        assert_eq!(read(&mut kernel, &key), None);

        all_ok(kernel.apply(&[
            Op::AddLink(name("flannel.1"), flannel_link()),
            Op::SetSysctl(key.clone(), "0".into()),
            up("flannel.1"),
        ]));

        assert_eq!(read(&mut kernel, &key), Some("0".into()));
        let expected = Writes {
            requests: 2,
            sysctls: 1,
        };
        assert_eq!(kernel.writes(), expected);
    });
}

#[test]
fn an_absent_parameter_is_not_found_and_not_made() {
    in_netns(|| {
        let mut kernel = RealKernel::open().unwrap();
        let error = kernel
            .apply(&[Op::SetSysctl(accept_ra("none"), "0".into())])
            .remove(0)
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::NotFound);
        let text = "cannot write \"0\" to /proc/sys/net/ipv6/conf/none/accept_ra: ";
        assert!(error.message.starts_with(text), "{error}");
        assert_eq!(kernel.writes().sysctls, 0);
    });
}

#[test]
fn a_value_that_the_kernel_refuses_is_reported() {
    in_netns(|| {
        let mut kernel = RealKernel::open().unwrap();
        let key = SysctlKey::new("net/ipv4/ip_forward").unwrap();
        let error = kernel
            .apply(&[Op::SetSysctl(key, "nonsense".into())])
            .remove(0)
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::Other(22));
    });
}

#[test]
fn parameters_of_another_namespace_are_its_own() {
    in_netns(|| {
        let there = new_netns();
        let mut inside = RealKernel::open_in(there).unwrap();
        let mut outside = RealKernel::open().unwrap();
        let forward = SysctlKey::new("net/ipv4/ip_forward").unwrap();
        let of_bridge = accept_ra("br0");

        // A new namespace has what the machine has (linux `devinet.c`).
        all_ok(outside.apply(&[Op::SetSysctl(forward.clone(), "0".into())]));
        all_ok(inside.apply(&[
            Op::AddLink(name("br0"), link_of_kind(LinkKind::Bridge)),
            Op::SetSysctl(forward.clone(), "1".into()),
            Op::SetSysctl(of_bridge.clone(), "2".into()),
        ]));

        assert_eq!(read(&mut inside, &forward), Some("1".into()));
        assert_eq!(read(&mut inside, &of_bridge), Some("2".into()));
        assert_eq!(read(&mut outside, &forward), Some("0".into()));
        assert_eq!(read(&mut outside, &of_bridge), None);
    });
}
