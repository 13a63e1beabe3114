//! Tunnels of IP in IP on the real kernel, or what is said where it has none. The guests of `conformance` run this
//! program on Debian's kernel.
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
use fake_kernel::FakeKernel;
use netlink::RealKernel;
use netstate::{ErrorClass, Ipip, Kernel, LinkKind, Op, Prune, Scope, State, plan};

const DEVICE: &str = "flannel.ipip";

#[test]
fn a_device_becomes_what_is_desired_or_the_missing_module_is_named() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        if !kernel_has_ipip(&mut kernel) {
            return;
        }
        let mut fake = FakeKernel::new();
        for desired in [
            state("192.168.77.11", 1480, &["10.244.2.0/24 via 192.168.77.12"]),
            state(
                "192.168.77.11",
                1400,
                &["10.244.2.0/24 via 10.9.9.9", "10.244.3.0/24 via 192.168.77.13"],
            ),
            state("192.168.77.99", 1400, &["10.244.3.0/24 via 192.168.77.13"]),
        ] {
            let mut made = Vec::new();
            for kernel in [&mut kernel as &mut dyn Kernel, &mut fake] {
                let ops = plan(&desired, &kernel.observe(&scope()).unwrap(), Prune::Remove);
                for (op, result) in ops.iter().zip(kernel.apply(&ops)) {
                    assert_eq!(result, Ok(()), "{op}");
                }
                assert_eq!(kernel.observe(&scope()).unwrap(), desired);
                made.push(ops);
            }
            assert_eq!(made[0], made[1]);
        }
        // As the reference makes it: it gives neither a TTL nor that packets must not be fragmented.
        let shown = run("ip -d link show flannel.ipip");
        let details = "remote any local 192.168.77.99 ttl inherit nopmtudisc";
        assert!(shown.contains(details), "{shown}");
    });
}

#[test]
fn changing_the_local_address_keeps_routes_and_addresses() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        if !kernel_has_ipip(&mut kernel) {
            return;
        }
        let before = state("192.168.77.11", 1480, &["10.244.2.0/24 via 192.168.77.12"]);
        all_ok(kernel.apply(&plan(&before, &State::default(), Prune::Remove)));
        let after = state("192.168.77.99", 1480, &["10.244.2.0/24 via 192.168.77.12"]);
        let ops = plan(&after, &before, Prune::Remove);
        assert_eq!(
            ops.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["set link flannel.ipip ipiplocal 192.168.77.99"]
        );
        all_ok(kernel.apply(&ops));
        assert_eq!(kernel.observe(&scope()).unwrap(), after);
    });
}

#[test]
fn a_device_that_is_bound_or_carries_no_ipv4_is_of_another_kind() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        if !kernel_has_ipip(&mut kernel) {
            return;
        }
        for made in ["remote 192.168.77.12", "dev eth0", "mode mplsip"] {
            run(&format!(
                "ip link add flannel.ipip type ipip local 192.168.77.11 {made}"
            ));
            let observed = kernel.observe(&scope()).unwrap();
            let kind = &observed.links[&name(DEVICE)].kind;
            assert_eq!(*kind, LinkKind::Other("ipip".to_owned()), "{made}");
            let desired = state("192.168.77.11", 1480, &[]);
            all_ok(kernel.apply(&plan(&desired, &observed, Prune::Remove)));
            assert_eq!(kernel.observe(&scope()).unwrap(), desired, "{made}");
            run("ip link del flannel.ipip");
        }
        // As the reference may make it.
        for mode in ["any", "ipip"] {
            run(&format!(
                "ip link add flannel.ipip type ipip local 192.168.77.11 mode {mode}"
            ));
            let observed = kernel.observe(&scope()).unwrap();
            let kind = &observed.links[&name(DEVICE)].kind;
            assert!(matches!(kind, LinkKind::Ipip(_)), "{mode}: {kind:?}");
            run("ip link del flannel.ipip");
        }
    });
}

#[test]
fn a_tunnel_in_the_way_of_a_new_local_address_is_named() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        if !kernel_has_ipip(&mut kernel) {
            return;
        }
        let before = state("192.168.77.11", 1480, &[]);
        all_ok(kernel.apply(&plan(&before, &State::default(), Prune::Remove)));
        // One on a link is not in the way; one for another protocol is.
        run("ip link add bound0 type ipip local 192.168.77.98 dev eth0");
        run("ip link add mpls0 type ipip local 192.168.77.99 mode mplsip");
        let ops = plan(&state("192.168.77.99", 1480, &[]), &before, Prune::Remove);
        let error = kernel.apply(&ops).remove(0).expect_err("the kernel accepted it");
        assert_eq!(error.class, ErrorClass::Exists);
        assert_eq!(
            error.message,
            "the link \"mpls0\" already is a tunnel of IP in IP from 192.168.77.99 to any remote: remove it"
        );
        all_ok(kernel.apply(&plan(&state("192.168.77.98", 1480, &[]), &before, Prune::Remove)));
    });
}

#[test]
fn a_tunnel_from_the_same_address_is_named() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        if !kernel_has_ipip(&mut kernel) {
            return;
        }
        run_all(
            "ip link add other0 type ipip local 192.168.77.12
             ip link add bound0 type ipip local 192.168.77.11 dev eth0
             ip link add strange0 type ipip local 192.168.77.11",
        );
        assert_eq!(
            refusal(&mut kernel),
            "the link \"strange0\" already is a tunnel of IP in IP from 192.168.77.11 to any remote: remove it"
        );
        run_all(
            "ip link del strange0
             ip link add flannel.ipip type dummy",
        );
        assert_eq!(
            refusal(&mut kernel),
            "there is already a link \"flannel.ipip\": remove it, or choose another name"
        );
    });
}

/// Whether there is anything to test. Where there is not, the kernel says so in words.
fn kernel_has_ipip(kernel: &mut RealKernel) -> bool {
    let ipip = Ipip {
        local: Some([192, 168, 77, 1].into()),
    };
    let creation = Op::AddLink(name("probe"), link_of_kind(LinkKind::Ipip(ipip)));
    match kernel.apply(&[creation]).remove(0) {
        Ok(()) => {
            all_ok(kernel.apply(&[Op::DelLink(name("probe"))]));
            true
        }
        Err(error) => {
            assert_eq!(error.class, ErrorClass::Unsupported, "{error}");
            assert!(error.message.contains("load the module ipip"), "{error}");
            false
        }
    }
}

fn refusal(kernel: &mut RealKernel) -> String {
    let link = state("192.168.77.11", 1480, &[]).links[&name(DEVICE)].clone();
    let results = kernel.apply(&[Op::AddLink(name(DEVICE), link)]);
    let error = results[0].as_ref().expect_err("the kernel accepted it");
    assert_eq!(error.class, ErrorClass::Exists);
    error.message.clone()
}

/// The device with routes through it.
fn state(local: &str, mtu_bytes: u32, routes: &[&str]) -> State {
    let routes: String = routes
        .iter()
        .map(|route| format!("route {route} dev {DEVICE} onlink proto 3\n"))
        .collect();
    format!(
        "link {DEVICE} ipip local {local} mtu {mtu_bytes} up
         addr {DEVICE} 10.244.1.0/32
         {routes}"
    )
    .parse()
    .unwrap()
}

fn scope() -> Scope {
    whole_scope(DEVICE)
}
