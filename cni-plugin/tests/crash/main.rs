//! Plugins that are killed, or whose system calls fail, at every system call in turn.
//!
//! A foreign pod stands beside, attached by the same chain. After each fault a DEL, or a GC, succeeds, and node, files
//! and foreign pod are as they were before.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]
#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "system calls are skipped on x86-64 only")
)]

mod chain;
#[path = "../common/mod.rs"]
mod common;
mod resources;
mod snapshot;
mod stepper;

use std::hash::{BuildHasher, RandomState};

use chain::{Attachment, Chain};
use common::{Node, Pod, on_a_node};
use nix::errno::Errno;
use serde_json::json;
use snapshot::Snapshot;
use stepper::{Fault, run};

const FLANNEL: Chain = Chain {
    plugins: |node, _| vec![node.conf("1.0.0")],
    sparse: 1,
};

const BRIDGE: Chain = Chain {
    plugins: |node, _| vec![node.bridge_conf("1.0.0")],
    sparse: 1,
};

const DUAL_STACK: Chain = Chain {
    plugins: |node, _| {
        let mut conf = node.bridge_conf("1.0.0");
        conf["ipam"]["ranges"] = json!([[{"subnet": "10.244.7.0/24"}], [{"subnet": "fd00:7::/64"}]]);
        vec![conf]
    },
    sparse: 1,
};

/// With limits in both directions.
const SHAPED: Chain = Chain {
    plugins: |node, _| {
        let limits = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000,
            "egressRate": 8_000_000, "egressBurst": 800_000});
        let bandwidth = json!({"cniVersion": "1.0.0", "name": "cbr0", "type": "bandwidth",
            "runtimeConfig": {"bandwidth": limits}});
        vec![node.bridge_conf("1.0.0"), bandwidth]
    },
    sparse: 1,
};

/// With the keys that make the bridge work for single ports.
const BRIDGE_KEYS: Chain = Chain {
    plugins: |node, _| {
        let mut conf = node.bridge_conf("1.0.0");
        conf["hairpinMode"] = json!(false);
        for key in ["promiscMode", "portIsolation", "enabledad"] {
            conf[key] = json!(true);
        }
        vec![conf]
    },
    sparse: 1,
};

const TUNING: Chain = Chain {
    plugins: |node, _| {
        let tuning = json!({
            "cniVersion": "1.0.0", "name": "cbr0", "type": "tuning", "dataDir": node.path("tuning"),
            "mac": "c2:b0:57:49:47:f1", "mtu": 1400, "promisc": true, "allmulti": true, "txQLen": 77,
            "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"},
        });
        vec![node.conf("1.0.0"), tuning]
    },
    sparse: 1,
};

/// With the packet filter's rules of the bridge's own, and those of the plugin firewall.
const GUARDED: Chain = Chain {
    plugins: |node, _| {
        let mut bridge = node.bridge_conf("1.0.0");
        bridge["ipam"]["ranges"] = json!([[{"subnet": "10.244.7.0/24"}], [{"subnet": "fd00:7::/64"}]]);
        for key in ["ipMasq", "macspoofchk"] {
            bridge[key] = json!(true);
        }
        let firewall = json!({
            "cniVersion": "1.0.0", "name": "cbr0", "type": "firewall", "backend": "nftables",
            "dataDir": node.path("firewall"), "ingressPolicy": "isolated",
        });
        vec![bridge, firewall]
    },
    sparse: 1,
};

/// Two mapped ports of each container, in nf_tables.
const PORTS: Chain = Chain {
    plugins: |node, number| vec![node.conf("1.0.0"), portmap(node, number, "nftables")],
    sparse: 1,
};

/// The same in iptables, whose programs live on for a moment when the plugin is killed.
const PORTS_IPTABLES: Chain = Chain {
    plugins: |node, number| vec![node.conf("1.0.0"), portmap(node, number, "iptables")],
    sparse: 5,
};

fn portmap(node: &Node, number: u16, backend: &str) -> serde_json::Value {
    let port = |protocol: &str, port: u16| json!({"hostPort": port + number, "containerPort": 80, "protocol": protocol});
    json!({
        "cniVersion": "1.0.0", "name": "cbr0", "type": "portmap", "backend": backend, "dataDir": node.path("portmap"),
        "runtimeConfig": {"portMappings": [port("tcp", 10_000), port("udp", 20_000)]},
    })
}

/// No chain makes more system calls for one plugin.
const STEPS_MAX: usize = 2000;

/// Every how many steps a fault is injected by the tests that are not heavy.
const SAMPLED: usize = 17;

/// After how many faults everything is looked at, with half a second of programs.
const LOOK_CLOSELY: u16 = 10;

/// Which steps of a chain's calls a fault is injected at.
#[derive(Debug, Clone, Copy)]
struct Steps {
    first: usize,
    every: usize,
}

impl Steps {
    const ALL: Self = Self { first: 1, every: 1 };

    /// Some, others in each run; `CRASH_OFFSET` repeats one.
    fn sampled() -> Self {
        let given = std::env::var("CRASH_OFFSET")
            .ok()
            .and_then(|text| text.parse().ok());
        let random = RandomState::new().hash_one(0) % SAMPLED as u64;
        let offset = given.unwrap_or(usize::try_from(random).unwrap());
        println!("CRASH_OFFSET={offset}");
        Self {
            first: 1 + offset % SAMPLED,
            every: SAMPLED,
        }
    }

    fn numbers(self, chain: Chain) -> impl Iterator<Item = usize> {
        (self.first..STEPS_MAX).step_by(self.every * chain.sparse)
    }
}

/// A node with a foreign pod, and what everything looked like before.
struct Stand<'a> {
    node: &'a Node,
    chain: Chain,
    foreign: Attachment<'a>,
    empty_pod: Snapshot,
    before: Snapshot,
    /// Without starting a program.
    at_a_glance: Snapshot,
    tried: u16,
}

impl<'a> Stand<'a> {
    fn new(node: &'a Node, chain: Chain) -> Self {
        let mut foreign = chain.attachment(node, "foreign", 0);
        foreign.add();
        // What every node has after its first attachments and detachments.
        let mut first = chain.attachment(node, "first", 1);
        let empty_pod = Snapshot::of_pod(&first.pod);
        first.add();
        first.del();
        settle(&foreign.pod);
        let before = Snapshot::take(node, &foreign.pod);
        Self {
            node,
            chain,
            foreign,
            empty_pod,
            before,
            at_a_glance: Snapshot::glance(node),
            tried: 1,
        }
    }

    fn next_attachment(&mut self) -> Attachment<'a> {
        self.tried += 1;
        self.chain
            .attachment(self.node, &format!("pod{}", self.tried), self.tried)
    }

    fn assert_clean(&self, attachment: &Attachment<'_>, case: &str) {
        Snapshot::of_pod(&attachment.pod).assert_same(&self.empty_pod, case);
        self.assert_gone(case);
    }

    /// As [`Self::assert_clean`], for a pod that is no more.
    fn assert_gone(&self, case: &str) {
        Snapshot::glance(self.node).assert_same(&self.at_a_glance, case);
        if self.tried.is_multiple_of(LOOK_CLOSELY) {
            self.look_closely(case);
        }
    }

    fn look_closely(&self, case: &str) {
        let case = format!("{case}, or at one of the {LOOK_CLOSELY} before");
        Snapshot::take(self.node, &self.foreign.pod).assert_same(&self.before, &case);
    }

    /// Kills the ADD of a plugin of the chain at a step; `false` when it was done before.
    fn kill_add(&mut self, plugin: usize, step: usize) -> bool {
        let case = format!("ADD of plugin {plugin} killed at step {step}");
        let mut attachment = self.next_attachment();
        attachment.add_before(plugin);
        let ran = run(&attachment.call("ADD", plugin), Fault::Kill(step));
        match step % 4 {
            0 => attachment.gc(),
            // The runtime has forgotten the namespace.
            1 => attachment.del_without_netns(),
            2 => attachment.del(),
            // A runtime that tries again before the DEL may be refused, but must not be harmed.
            _ => {
                drop(attachment.try_add_from(plugin));
                attachment.del();
            }
        }
        self.assert_clean(&attachment, &case);
        ran.met
    }

    fn kill_del(&mut self, plugin: usize, step: usize) -> bool {
        let case = format!("DEL of plugin {plugin} killed at step {step}");
        let mut attachment = self.next_attachment();
        attachment.add();
        attachment.del_behind(plugin);
        let ran = run(&attachment.call("DEL", plugin), Fault::Kill(step));
        if step.is_multiple_of(2) {
            attachment.del();
        } else {
            attachment.gc();
        }
        self.assert_clean(&attachment, &case);
        ran.met
    }

    fn kill_gc(&mut self, plugin: usize, step: usize) -> bool {
        let case = format!("GC of plugin {plugin} killed at step {step}");
        let mut attachment = self.next_attachment();
        attachment.add();
        let ran = run(&attachment.call("GC", plugin), Fault::Kill(step));
        attachment.gc();
        self.assert_clean(&attachment, &case);
        ran.met
    }

    /// Lets a system call of an ADD fail. An ADD that says so leaves nothing itself.
    fn fail_add(&mut self, plugin: usize, step: usize, errno: Errno) -> bool {
        let case = format!("{errno} at step {step} of the ADD of plugin {plugin}");
        let mut attachment = self.next_attachment();
        attachment.add_before(plugin);
        let ran = run(&attachment.call("ADD", plugin), Fault::Fail(step, errno));
        if ran.code == Some(1) && plugin == 0 && !ran.stdout.is_empty() {
            self.assert_clean(&attachment, &format!("{case}, before DEL: {}", ran.stdout));
        }
        attachment.del();
        self.assert_clean(&attachment, &case);
        ran.met
    }

    fn fail_del(&mut self, plugin: usize, step: usize, errno: Errno) -> bool {
        let case = format!("{errno} at step {step} of the DEL of plugin {plugin}");
        let mut attachment = self.next_attachment();
        attachment.add();
        attachment.del_behind(plugin);
        let ran = run(&attachment.call("DEL", plugin), Fault::Fail(step, errno));
        let said = ran.code == Some(0);
        if !said {
            attachment.del();
        } else if plugin == 0 {
            // Who says that it is done must be.
            self.assert_clean(&attachment, &format!("{case}, which it did not tell"));
        } else {
            (0..plugin)
                .rev()
                .for_each(|before| drop(attachment.call("DEL", before).succeeds()));
        }
        self.assert_clean(&attachment, &case);
        ran.met
    }

    /// Does something at every step until there is none left, for each plugin of the chain.
    fn at(&mut self, steps: Steps, mut fault: impl FnMut(&mut Self, usize, usize) -> bool) {
        for plugin in 0..self.chain.len(self.node) {
            let last = steps.numbers(self.chain).find(|step| !fault(self, plugin, *step));
            let last = last.expect("the plugin comes to its end");
            println!("plugin {plugin}: fewer than {last} steps");
            self.look_closely(&format!("all of plugin {plugin}"));
        }
    }
}

/// Waits until the kernel has nothing left to announce by itself: link-local addresses are in place.
fn settle(foreign: &Pod) {
    for _ in 0..100 {
        let addresses = common::ip(&["-o", "addr"]) + &foreign.sh("ip -o addr");
        if !addresses.contains("tentative") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("the addresses stay tentative");
}

fn kills(chain: Chain, steps: Steps) {
    on_a_node(move |node| {
        let mut stand = Stand::new(&node, chain);
        stand.at(steps, Stand::kill_add);
        stand.at(steps, Stand::kill_del);
        stand.at(steps, Stand::kill_gc);
        assert!(stand.foreign.pod.reaches("10.244.7.1"));
    });
}

fn failures(chain: Chain, steps: Steps) {
    on_a_node(move |node| {
        let mut stand = Stand::new(&node, chain);
        for errno in [Errno::ENOMEM, Errno::EINTR] {
            stand.at(steps, |stand, plugin, step| stand.fail_add(plugin, step, errno));
            stand.at(steps, |stand, plugin, step| stand.fail_del(plugin, step, errno));
        }
        assert!(stand.foreign.pod.reaches("10.244.7.1"));
    });
}

macro_rules! chains {
    ($($name:ident: $chain:expr,)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn killed_at_sampled_steps_leaves_nothing() {
                kills($chain, Steps::sampled());
            }

            #[test]
            #[cfg(target_arch = "x86_64")]
            fn failing_at_sampled_steps_leaves_nothing() {
                failures($chain, Steps::sampled());
            }

            #[test]
            fn without_descriptors_leaves_nothing() {
                on_a_node(|node| resources::descriptors_run_out(&node, $chain));
            }

            #[test]
            fn without_room_leaves_nothing() {
                on_a_node(|node| resources::disk_is_full(&node, $chain));
            }

            #[test]
            fn what_it_cannot_remove_from_a_read_only_disk_it_removes_later() {
                on_a_node(|node| resources::disk_is_read_only(&node, $chain));
            }

            #[test]
            fn a_namespace_that_vanishes_midway_leaves_nothing() {
                on_a_node(|node| resources::namespace_vanishes(&node, $chain, Steps::sampled()));
            }

            #[test]
            fn a_bridge_that_vanishes_midway_is_made_again() {
                on_a_node(|node| resources::bridge_vanishes(&node, $chain, Steps::sampled()));
            }

            mod heavy {
                use super::*;

                #[test]
                fn killed_at_every_step_leaves_nothing() {
                    kills($chain, Steps::ALL);
                }

                #[test]
                #[cfg(target_arch = "x86_64")]
                fn failing_at_every_step_leaves_nothing() {
                    failures($chain, Steps::ALL);
                }
            }
        })*
    };
}

chains! {
    flannel: FLANNEL,
    bridge: BRIDGE,
    dual_stack: DUAL_STACK,
    shaped: SHAPED,
    bridge_keys: BRIDGE_KEYS,
    tuning: TUNING,
    guarded: GUARDED,
    ports: PORTS,
    ports_iptables: PORTS_IPTABLES,
}
