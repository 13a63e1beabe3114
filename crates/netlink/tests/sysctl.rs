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
use netstate::{ErrorClass, Kernel, LinkKind, LinkScope, Op, Scope, SysctlKey};

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

/// A parameter as its file says, by which `cat` reads it.
fn in_file(key: &SysctlKey) -> String {
    run(&format!("cat /proc/sys/{}", key.as_str())).trim().to_owned()
}

fn write_file(key: &SysctlKey, value: &str) {
    std::fs::write(format!("/proc/sys/{}", key.as_str()), value).unwrap();
}

#[test]
fn what_is_told_by_netlink_is_what_the_files_say() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        let of_link = |family, parameter| SysctlKey::of_link(family, &name("eth0"), parameter);
        let keys = [
            of_link("ipv4", "arp_notify"),
            of_link("ipv6", "accept_dad"),
            of_link("ipv6", "accept_ra"),
            of_link("ipv6", "addr_gen_mode"),
            SysctlKey::new("net/ipv4/ip_forward").unwrap(),
            SysctlKey::new("net/ipv4/conf/all/forwarding").unwrap(),
            SysctlKey::new("net/ipv6/conf/all/forwarding").unwrap(),
        ];
        let scope = Scope {
            links: [(name("eth0"), LinkScope::default())].into(),
            sysctls: keys.clone().into(),
            ..Scope::default()
        };
        for value in ["0", "1"] {
            for key in &keys {
                write_file(key, value);
            }
            let told = kernel.observe(&scope).unwrap().sysctls;
            let expected = keys.clone().map(|key| (key, value.to_owned())).into();
            assert_eq!(told, expected);
        }
    });
}

#[test]
fn a_link_without_a_family_has_none_of_its_parameters() {
    in_netns(|| {
        underlay();
        // IPv6 needs 1,280 bytes (RFC 8200 §5), and without them the kernel takes its parameters away.
        run("ip link set eth0 mtu 1000");
        let (v4, v6) = (
            SysctlKey::of_link("ipv4", &name("eth0"), "arp_notify"),
            SysctlKey::of_link("ipv6", &name("eth0"), "accept_dad"),
        );
        let scope = Scope {
            links: [(name("eth0"), LinkScope::default())].into(),
            sysctls: [v4.clone(), v6].into(),
            ..Scope::default()
        };
        let told = RealKernel::open().unwrap().observe(&scope).unwrap().sysctls;
        assert_eq!(told, [(v4, "0".to_owned())].into());
    });
}

#[test]
fn arp_notify_is_set_whatever_it_is_set_to_and_wherever() {
    in_netns(|| {
        let there = new_netns();
        let mut inside = RealKernel::open_in(there.try_clone().unwrap()).unwrap();
        let mut outside = RealKernel::open().unwrap();
        let key = SysctlKey::of_link("ipv4", &name("br0"), "arp_notify");
        let set = |value: &str| Op::SetSysctl(key.clone(), value.to_owned());
        let bridge = || Op::AddLink(name("br0"), link_of_kind(LinkKind::Bridge));
        all_ok(outside.apply(&[bridge()]));
        all_ok(inside.apply(&[bridge(), set("1"), up("br0")]));
        let file = || there.run(|| in_file(&key)).unwrap();
        assert_eq!((file(), in_file(&key)), ("1".to_owned(), "0".to_owned()));
        for value in ["2", "0", "1"] {
            all_ok(inside.apply(&[set(value)]));
            assert_eq!(file(), value);
        }
        let refused = |kernel: &mut RealKernel, op| kernel.apply(&[op]).remove(0).unwrap_err().class;
        assert_eq!(refused(&mut inside, set("x")), ErrorClass::Other(22));
        let absent = SysctlKey::of_link("ipv4", &name("none"), "arp_notify");
        let op = Op::SetSysctl(absent, "1".to_owned());
        assert_eq!(refused(&mut inside, op), ErrorClass::NotFound);
    });
}
