//! The words of a scenario.
//!
//! Objects, changes and keys are written in `netstate`'s text form. The node is 192.168.77.250 on `eth0`, and gets
//! the subnet 10.244.250.0/24 where that is free; a device that it makes anew, without a stored lease, has the MAC
//! address 02:00:00:00:00:fa.
//!
//! | line | meaning |
//! |---|---|
//! | `underlay made` / `deleted` | makes `eth0` with the node's address, one end of a veth pair, or deletes it |
//! | `backend vxlan [with DirectRouting]` / `ipip [with DirectRouting]` / `host-gw` / `wireguard` / `alloc` | the configuration names another backend; leases are of that one from then on |
//! | `start` / `crash` | starts the daemon, or ends it at once |
//! | `ipv6 was on` | the subnet file of an earlier run tells of the pod network fd00:10:244::/48 |
//! | `stranger CHANGE` | another program changes the kernel, which says so |
//! | `stranger unnoticed CHANGE` | the same, but the notice is lost |
//! | `lease KEY public-ip IP mac MAC` | a lease appears or changes; without `mac MAC` one of the backend host-gw, with `ipip` instead one of ipip, with `public-key KEY` instead one of WireGuard |
//! | `lease KEY removed` | a lease goes |
//! | `leases A..B` / `leases A..B removed` | the leases of the nodes A to B, as node 7 has 10.244.7.0-24, 192.168.77.7 and 02:00:00:00:00:07 |
//! | `store unreachable` / `reachable` | the store fails, or answers again |
//! | `config removed` / `restored` | the store loses its configuration, or has it again |
//! | `subnet file refused` / `accepted` | the subnet file cannot be written, or can be again |
//! | `after 59s` | time passes |
//! | `expect OBJECT` / `expect-not KEY` | the kernel holds exactly this object, or none of this key |
//! | `expect change CHANGE` / `expect no changes` | the last step led to this change, or to none |
//! | `expect failing KEY [naming WORD]` / `expect nothing failing` | what the daemon reports, and what the reason names |
//! | `expect ready` / `expect not ready` | whether the node says that its data plane is as it should be |
//! | `expect running` / `expect stopped TEXT` | whether the daemon runs, or why it ended |
//! | `expect subnet file SUBNET mtu N` / `expect no subnet file` | what the CNI plugin is told |
//! | `expect lease KEY public-ip IP mac MAC` | the store holds this lease |

use std::time::Duration;

use flannel_types::{Lease, LeaseAttrs, VxlanData, WireguardData};
use lease_store::Reach;
use net_types::registry::WIREGUARD_DEVICE;
use net_types::{SubnetKey, Vni, WgPublicKey};
use netstate::{LinkScope, ObjectKey, Op, Scope, State};

use crate::driver::{Backend, Driver, Kernels, PUBLIC_IP};

/// The links whose content a scenario may expect.
const LINKS: [&str; 9] = [
    "eth0",
    "far0",
    "flannel-v6.1",
    "flannel-wg",
    "flannel.1",
    "flannel.7",
    "flannel.ipip",
    "other0",
    "strange0",
];
/// How long each step takes.
const STEP: Duration = Duration::from_secs(1);

/// A scenario that is being played.
pub(crate) struct Stage {
    driver: Driver,
}

impl Stage {
    pub(crate) fn new(kernels: Kernels) -> Self {
        Self {
            driver: Driver::new(kernels),
        }
    }

    /// Plays one line.
    pub(crate) fn step(&mut self, line: &str) -> Result<(), String> {
        if let Some(key) = line.strip_prefix("expect-not ") {
            return self.expect_not(key);
        }
        if let Some(expected) = line.strip_prefix("expect ") {
            return self.expect(expected);
        }
        self.driver.changes.clear();
        if let Some(time) = line.strip_prefix("after ") {
            let time = time.strip_suffix('s').and_then(|secs| secs.parse().ok());
            return self.driver.pass(Duration::from_secs(
                time.ok_or("a number of seconds such as 5s is expected")?,
            ));
        }
        self.happen(line)?;
        self.driver.pass(STEP)
    }

    fn happen(&mut self, line: &str) -> Result<(), String> {
        if let Some(change) = line.strip_prefix("stranger unnoticed ") {
            return self.change(change);
        }
        if let Some(change) = line.strip_prefix("stranger ") {
            self.change(change)?;
            self.driver.notice();
            return Ok(());
        }
        let driver = &mut self.driver;
        match line {
            "underlay made" => {
                let peer = "add link eth0 veth peer far0 mtu 1500 down";
                let addr = format!("add addr eth0 {PUBLIC_IP}/24");
                for change in [peer, "set link far0 up", "set link eth0 up", &addr] {
                    self.change(change)?;
                }
                self.driver.notice();
            }
            "underlay deleted" => {
                self.change("del link eth0")?;
                self.driver.notice();
            }
            "start" => driver.start(),
            "crash" => driver.run = None,
            "ipv6 was on" => driver.former_networks = vec![parse("fd00:10:244::/48")?],
            "store unreachable" => driver.store.set_reach(Reach::Unreachable),
            "store reachable" => driver.store.set_reach(Reach::Reachable),
            "config removed" => driver.store.set_config(None),
            "config restored" => driver.store.set_config(Some(driver.backend.net_conf())),
            "backend vxlan" => configure(driver, Backend::Vxlan),
            "backend wireguard" => configure(driver, Backend::Wireguard),
            "backend vxlan with DirectRouting" => configure(driver, Backend::DirectRouting),
            "backend ipip" => configure(driver, Backend::Ipip),
            "backend ipip with DirectRouting" => configure(driver, Backend::IpipDirectRouting),
            "backend host-gw" => configure(driver, Backend::HostGw),
            "backend alloc" => configure(driver, Backend::Alloc),
            "subnet file refused" => driver.subnet_file_refused = true,
            "subnet file accepted" => driver.subnet_file_refused = false,
            _ => return self.lease_happens(line),
        }
        Ok(())
    }

    fn lease_happens(&mut self, line: &str) -> Result<(), String> {
        let Driver { store, backend, .. } = &self.driver;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["lease", key, "removed"] => store.remove(parse(key)?),
            ["lease", ..] => store.put(lease(&words)?),
            ["leases", range] => {
                range_of(range)?.for_each(|number| store.put(lease_of(*backend, number)));
            }
            ["leases", range, "removed"] => {
                range_of(range)?.for_each(|number| store.remove(lease_of(*backend, number).key))
            }
            _ => return Err("this is none of the words of a scenario".to_owned()),
        }
        Ok(())
    }

    fn change(&mut self, change: &str) -> Result<(), String> {
        let op: Op = parse(change)?;
        let answers = self.driver.kernel.apply(&[op]);
        answers
            .into_iter()
            .collect::<Result<Vec<()>, _>>()
            .map_err(|err| format!("the kernel refuses: {err}"))?;
        Ok(())
    }

    fn expect(&mut self, expected: &str) -> Result<(), String> {
        let words: Vec<&str> = expected.split_whitespace().collect();
        match words.as_slice() {
            ["no", "changes"] => self.expect_no_changes(),
            ["change", ..] => self.expect_change(&parse(rest(expected))?),
            ["failing", key @ .., "naming", word] => self.expect_failing(&parse(&key.join(" "))?, word),
            ["failing", ..] => self.expect_failing(&parse(rest(expected))?, ""),
            ["nothing", "failing"] => self.expect_nothing_failing(),
            ["ready"] => self.driver.readiness(),
            ["not", "ready"] => same(&self.driver.readiness().is_err(), &true),
            ["running"] => match &self.driver.stopped {
                None if self.driver.run.is_some() => Ok(()),
                stopped => Err(format!("the daemon does not run: {stopped:?}")),
            },
            ["stopped", ..] => {
                let reason = self.driver.stopped.as_ref().map(ToString::to_string);
                same(reason.as_deref().unwrap_or("it runs"), rest(expected))
            }
            ["no", "subnet", "file"] => same(&self.driver.subnet_file.is_none(), &true),
            ["subnet", "file", subnet, "mtu", mtu] => {
                let file = self.driver.subnet_file.as_ref();
                let written = file.map(|file| (file.subnet, file.mtu));
                same(&written, &Some((Some(parse(subnet)?), parse(mtu)?)))
            }
            ["lease", key, ..] => {
                let held = self
                    .driver
                    .store
                    .leases()
                    .remove(&parse(key)?)
                    .ok_or("there is no such lease")?;
                same(&held.attrs, &lease(&words)?.attrs)
            }
            _ => self.expect_object(expected),
        }
    }

    fn expect_object(&mut self, text: &str) -> Result<(), String> {
        // What has keys is printed, but not read.
        let expected = if is_of_wireguard(text) {
            text.to_owned()
        } else {
            parse::<State>(text)?.to_string()
        };
        let state = self.observe()?;
        let held = state.to_string();
        for line in expected.lines() {
            if !held.lines().any(|object| object == line) {
                return Err(format!("the kernel holds\n{held}"));
            }
        }
        Ok(())
    }

    fn expect_not(&mut self, text: &str) -> Result<(), String> {
        let state = self.observe()?;
        if is_of_wireguard(text) {
            let is_held = state.to_string().lines().any(|line| line.starts_with(text));
            return same(&is_held, &false);
        }
        let key: ObjectKey = parse(text)?;
        let is_held = match &key {
            ObjectKey::Link(key) => state.links.contains_key(key),
            ObjectKey::Addr(key) => state.addrs.contains_key(key),
            ObjectKey::Route(key) => state.routes.contains_key(key),
            ObjectKey::Neigh(key) => state.neighs.contains_key(key),
            ObjectKey::Fdb(key) => state.fdb.contains(key),
            ObjectKey::Wireguard(link) => state.wireguard.contains_key(link),
            ObjectKey::WgPeer(key) => state.wg_peers.contains_key(key),
            ObjectKey::Sysctl(key) => state.sysctls.contains_key(key),
            ObjectKey::NftTable(key) => state.nft.contains_key(key),
            ObjectKey::Iptables(key) => state.iptables.contains_key(key),
        };
        if is_held {
            Err(format!("the kernel holds\n{state}"))
        } else {
            Ok(())
        }
    }

    fn observe(&mut self) -> Result<State, String> {
        let mut scope = Scope::default();
        for link in LINKS {
            let content = LinkScope {
                addrs_inside: vec![parse("0.0.0.0/0")?],
                neighs: true,
                fdb: true,
                routes: true,
                wireguard: link == WIREGUARD_DEVICE,
                ..LinkScope::default()
            };
            scope.links.insert(parse(link)?, content);
        }
        self.driver.kernel.observe(&scope).map_err(|err| err.to_string())
    }

    fn expect_no_changes(&self) -> Result<(), String> {
        let changes: Vec<_> = self.driver.changes.iter().map(ToString::to_string).collect();
        same(&changes, &Vec::new())
    }

    fn expect_change(&self, op: &Op) -> Result<(), String> {
        if self.driver.changes.contains(op) {
            return Ok(());
        }
        let changes: Vec<_> = self.driver.changes.iter().map(|op| format!("\n{op}")).collect();
        Err(format!("the changes are{}", changes.concat()))
    }

    fn expect_failing(&self, key: &ObjectKey, word: &str) -> Result<(), String> {
        let run = self.driver.run.as_ref().ok_or("the daemon does not run")?;
        let mut failures = run.node.engine().failures();
        let failure = failures
            .find(|(failing, _)| *failing == key)
            .map(|(_, failure)| failure);
        let refusal = failure.ok_or("it does not fail")?.refusal.as_ref();
        let reason = refusal.map(ToString::to_string).unwrap_or_default();
        if reason.contains(word) {
            Ok(())
        } else {
            Err(format!("the reason is {reason:?}"))
        }
    }

    fn expect_nothing_failing(&self) -> Result<(), String> {
        let run = self.driver.run.as_ref().ok_or("the daemon does not run")?;
        let failing: Vec<_> = run
            .node
            .engine()
            .failures()
            .map(|(key, _)| key.to_string())
            .collect();
        same(&failing, &Vec::new())
    }
}

fn is_of_wireguard(text: &str) -> bool {
    ["wireguard ", "wgpeer "]
        .iter()
        .any(|word| text.starts_with(word))
}

fn same<T: PartialEq + std::fmt::Debug + ?Sized>(is: &T, expected: &T) -> Result<(), String> {
    if is == expected {
        return Ok(());
    }
    Err(format!("{is:?} instead of {expected:?}"))
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|err: T::Err| format!("{text:?}: {err}"))
}

/// What follows the first word.
fn rest(text: &str) -> &str {
    text.split_once(' ').map_or("", |(_, rest)| rest)
}

fn configure(driver: &mut Driver, backend: Backend) {
    driver.backend = backend;
    driver.store.set_config(Some(backend.net_conf()));
}

/// Reads `lease KEY public-ip IP mac MAC`, the same with `public-key KEY`, or with neither.
fn lease(words: &[&str]) -> Result<Lease, String> {
    let (key, public_ip, backend, data) = match words {
        ["lease", key, "public-ip", public_ip] => (key, public_ip, Backend::HostGw, None),
        ["lease", key, "public-ip", public_ip, "ipip"] => (key, public_ip, Backend::Ipip, None),
        ["lease", key, "public-ip", public_ip, "mac", mac] => {
            let data = VxlanData {
                vni: Vni::DEFAULT,
                vtep_mac: parse(mac)?,
            };
            (key, public_ip, Backend::Vxlan, Some(data.to_json()))
        }
        ["lease", key, "public-ip", public_ip, "public-key", public_key] => {
            let data = WireguardData {
                public_key: parse(public_key)?,
                port: Some(51820),
            };
            (key, public_ip, Backend::Wireguard, Some(data.to_json()))
        }
        _ => return Err("lease KEY public-ip IP mac MAC is expected".to_owned()),
    };
    let key: SubnetKey = parse(key)?;
    let attrs = LeaseAttrs {
        public_ip: Some(parse(public_ip)?),
        public_ipv6: None,
        backend_type: backend.name().to_owned(),
        backend_data: data,
        backend_v6_data: None,
    };
    Ok(Lease {
        key,
        attrs,
        expires: None,
    })
}

fn lease_of(backend: Backend, number: u8) -> Lease {
    let (key, ip) = (format!("10.244.{number}.0-24"), format!("192.168.77.{number}"));
    let mac = format!("02:00:00:00:00:{number:02x}");
    let public_key = WgPublicKey::new([number; 32]).to_string();
    let device: &[&str] = match backend {
        Backend::Vxlan | Backend::DirectRouting => &["mac", &mac],
        Backend::Wireguard => &["public-key", &public_key],
        Backend::Ipip | Backend::IpipDirectRouting => &["ipip"],
        Backend::HostGw | Backend::Alloc => &[],
    };
    lease(&[&["lease", &key, "public-ip", &ip], device].concat()).unwrap()
}

fn range_of(text: &str) -> Result<std::ops::RangeInclusive<u8>, String> {
    let (first, last) = text.split_once("..").ok_or("a range such as 1..20 is expected")?;
    Ok(parse(first)?..=parse(last)?)
}
