use std::collections::BTreeSet;
use std::fs;

use crate::common;
use fake_kernel::FakeKernel;
use fake_kernel::strategy::world_scope;
use netlink::RealKernel;
use netstate::{ErrorClass, Kernel, KernelError, Op, Scope, Spot, State, SysctlKey};

/// The kernel in memory and the real one, of the calling thread's namespace, side by side.
pub(crate) struct Twin {
    fake: FakeKernel,
    real: RealKernel,
    scope: Scope,
    /// Where anything ever stood.
    spots: BTreeSet<Spot>,
}

impl Twin {
    pub(crate) fn new() -> Self {
        // The kernel would add link-local addresses at times of its own.
        fs::write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1").unwrap();
        // New namespaces take IPv4's defaults from the host.
        fs::write("/proc/sys/net/ipv4/conf/all/promote_secondaries", "0").unwrap();
        fs::write("/proc/sys/net/ipv4/conf/default/promote_secondaries", "0").unwrap();
        let mut scope = world_scope();
        for link in scope.links.keys() {
            for name in ["accept_ra", "disable_ipv6"] {
                scope.sysctls.insert(SysctlKey::of_link("ipv6", link, name));
            }
        }
        let mut real = RealKernel::open().unwrap();
        // Without any IPv4 address ever, the kernel takes every gateway for a broadcast address.
        common::all_ok(real.apply(&[common::up("lo")]));
        Self {
            fake: FakeKernel::new(),
            real,
            scope,
            spots: BTreeSet::new(),
        }
    }

    /// Applies one change to both; describes the difference if there is one.
    pub(crate) fn step(&mut self, op: &Op) -> Result<(), String> {
        let fake = self.fake.apply(std::slice::from_ref(op));
        let real = self.real.apply(std::slice::from_ref(op));
        if classes(&fake) != classes(&real) {
            return Err(format!("{op}\n  fake: {fake:?}\n  real: {real:?}"));
        }
        let fake = self.fake.observe(&self.scope).map_err(|e| e.to_string())?;
        let real = self.real.observe(&self.scope).map_err(|e| e.to_string())?;
        if fake != real {
            return Err(format!("{op}\n{}", difference(&fake, &real)));
        }
        self.spots.extend(real.spots());
        self.spots.extend(Spot::of(&op.object()));
        let looked = self
            .real
            .observe_at(&self.scope, &self.spots)
            .map_err(|e| e.to_string())?;
        let real = real.at(&self.spots);
        if looked != real {
            return Err(format!(
                "{op}\nspot by spot it is not what it is as a whole\n{looked}\nbut\n{real}"
            ));
        }
        Ok(())
    }

    /// Applies one change, given as text, to both, which must agree.
    #[track_caller]
    pub(crate) fn apply(&mut self, text: &str) -> Result<(), ErrorClass> {
        let op = change(text);
        let before = self.fake.counters().refused;
        if let Err(why) = self.step(&op) {
            panic!("{why}");
        }
        if self.fake.counters().refused == before {
            return Ok(());
        }
        // What was refused is refused once more when it is asked again.
        self.fake.edit(&op).map_err(|error| error.class)
    }

    /// Applies several changes, a line each, which must succeed.
    #[track_caller]
    pub(crate) fn apply_all(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            assert_eq!(self.apply(line), Ok(()), "{line}");
        }
    }

    /// What both say to a change, given as text, that they refuse.
    pub(crate) fn refusals(&mut self, text: &str) -> [String; 2] {
        let op = change(text);
        let fake = self.fake.apply(std::slice::from_ref(&op));
        let real = self.real.apply(std::slice::from_ref(&op));
        [fake, real].map(|mut results| results.remove(0).unwrap_err().message)
    }

    /// Whether both hold an object whose text begins so.
    #[track_caller]
    pub(crate) fn holds(&mut self, prefix: &str) -> bool {
        let real = self.real.observe(&self.scope).unwrap();
        assert_eq!(self.fake.observe(&self.scope).unwrap(), real);
        real.to_string().lines().any(|line| line.starts_with(prefix))
    }
}

pub(crate) fn change(text: &str) -> Op {
    text.parse().expect(text)
}

fn classes(results: &[Result<(), KernelError>]) -> Vec<Result<(), ErrorClass>> {
    let class = |result: &Result<(), KernelError>| result.clone().map_err(|error| error.class);
    results.iter().map(class).collect()
}

fn difference(fake: &State, real: &State) -> String {
    let (fake, real) = (fake.to_string(), real.to_string());
    let only_fake = fake
        .lines()
        .filter(|line| !real.lines().any(|other| other == *line));
    let only_real = real
        .lines()
        .filter(|line| !fake.lines().any(|other| other == *line));
    let only_fake = only_fake.map(|line| format!("  only fake: {line}\n"));
    let only_real = only_real.map(|line| format!("  only real: {line}\n"));
    only_fake.chain(only_real).collect()
}
