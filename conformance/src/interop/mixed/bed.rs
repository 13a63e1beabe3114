//! The lab: nodes of both sides over etcd, each with a pod that stays.

use std::cell::Cell;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::programs::{gather, install, keeps_own_record, with_port, write_list};
use super::state::{of_daemon, traces};
use super::step::{Step, Stream, judge_loss, streams};
use super::{ENDED_BY_OTHERS, NAME, Side, Terms};
use crate::captures::Entry;
use crate::interop::compare::{Compared, settled_within};
use crate::interop::deviation::Deviations;
use crate::interop::labels::Labels;
use crate::lab::matrix::Matrix;
use crate::lab::ping::Patience;
use crate::lab::traffic::dropped_when_busy;
use crate::lab::{Binaries, Flanneld, Lab, LabConfig, Node, Pod, Store, wait_until};
use crate::report::{Checked, Outcome, differs, expect};

/// Unless another is given.
const NET_CONF: &str = r#"{"Network":"10.244.0.0/16","EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#;
/// Of every daemon, beside those of the store.
const FLAGS: [&str; 1] = ["--ip-masq"];
/// How long a daemon may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How long nodes may take until all pods reach each other.
const REACH_LIMIT: Duration = Duration::from_secs(10);
/// How long a node may take until it looks as it has to, and how long once somebody did not answer in time.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
const CUT_SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// Nobody is asked for longer: it is asked again until the limit.
const PATIENCE: Patience = Patience {
    tries: 2,
    timeout: Duration::from_millis(300),
};
/// How long traffic runs on after a change.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// The lab, its daemons, and what of the nodes' state is to be found again.
pub(super) struct Bed {
    // Fields are dropped in this order: the daemons are reaped before the lab waits for its processes to end.
    daemons: Vec<Flanneld>,
    sides: Vec<Side>,
    /// A pod of each node, made at the start.
    kept: Vec<Pod>,
    /// A pod of each node, made after its last change of sides.
    newest: Vec<Option<Pod>>,
    /// For each side, how a node looks on which its daemon was started first.
    fresh: Vec<(Side, Vec<String>)>,
    /// Whether somebody did not answer in time once; then nobody is waited for again, and nothing for long.
    is_cut: Cell<bool>,
    /// The sides whose CHECK finds nothing wrong with their own pods.
    checkers: Vec<Side>,
    lab: Lab,
    terms: Terms,
}

impl Bed {
    /// Starts the daemons, the first node's being one's own, and every second one's the other; makes a pod on each.
    ///
    /// # Errors
    /// Fails when the lab cannot be made, a daemon does not start, or a pod cannot be attached.
    pub(super) fn start(terms: &Terms, binaries: &Binaries) -> Result<Self> {
        let config = LabConfig {
            nodes: terms.nodes,
            binaries: binaries.clone(),
        };
        let lab = Lab::on(Store::Etcd, &config)?;
        gather(&lab, Side::Own, None, None)?;
        gather(
            &lab,
            Side::Other,
            terms.flanneld.as_deref(),
            terms.plugins.as_deref(),
        )?;
        let conf = terms.net_conf.as_deref().unwrap_or(NET_CONF);
        lab.put_in_etcd("config", conf, None)?;
        let has_ipv6 = serde_json::from_str::<Value>(conf)
            .context("reading the network configuration")?
            .get("EnableIPv6")
            .is_some_and(|value| *value == Value::Bool(true));
        let mut bed = Self {
            daemons: Vec::new(),
            sides: Vec::new(),
            kept: Vec::new(),
            newest: Vec::new(),
            fresh: Vec::new(),
            is_cut: Cell::new(false),
            checkers: Vec::new(),
            lab,
            terms: terms.clone(),
        };
        for (node, side) in bed
            .lab
            .nodes()
            .iter()
            .zip([Side::Own, Side::Other].into_iter().cycle())
        {
            if has_ipv6 {
                node.use_ipv6()?;
            }
            install(node, side)?;
            bed.daemons.push(node.start_flanneld(&FLAGS)?);
            bed.sides.push(side);
            write_list(node, terms)?;
            bed.kept.push(node.add_pod(&format!("{}-kept", node.name()))?);
            bed.newest.push(None);
        }
        Ok(bed)
    }

    /// Looks at all nodes as they were started.
    ///
    /// # Errors
    /// Fails when they cannot be looked at.
    pub(super) fn first_look(&mut self) -> Result<Step> {
        let mut step = Step::default();
        step.add("MIX-01", self.all_reach_all());
        for (index, side) in [(0, Side::Own), (1, Side::Other)] {
            let node = self.lab.nodes().get(index).context("a side has no node")?;
            let limit = self.settle_limit();
            let lines = settled_within(limit, || self.look(node, index), |lines| is_quiet(lines))?;
            if !is_quiet(&lines) {
                bail!(
                    "an address of {} is still tentative after {} s",
                    node.name(),
                    limit.as_secs()
                );
            }
            self.fresh.push((side, lines));
            let checked = checked(node, self.kept.get(index).context("a node without a pod")?);
            if checked.is_ok() {
                self.checkers.push(side);
            }
            // Others' CHECK is not judged; it is only not asked again.
            if side == Side::Own {
                step.add("MIX-03", checked);
            }
        }
        Ok(step)
    }

    /// What is lost while nothing happens.
    ///
    /// # Errors
    /// Fails when pods do not reach each other.
    pub(super) fn idle(&self) -> Result<Vec<Stream>> {
        let ((), streams) = streams(&self.kept, || thread::sleep(AFTERWARDS))?;
        Ok(streams)
    }

    /// Has a node change sides while its pods speak, and looks what became of it.
    ///
    /// # Errors
    /// Fails when a daemon does not start or end, and when the node cannot be looked at.
    pub(super) fn change_sides(
        &mut self,
        number: u8,
        deviations: &Deviations,
        idle: &[Stream],
    ) -> Result<Step> {
        let index = index_of(number)?;
        let to = self.side(number)?.opposite();
        let lease = self.lease(number)?;
        let dropped = dropped_when_busy()?;
        let Self {
            daemons, kept, lab, ..
        } = self;
        let node = lab.node(number)?;
        let daemon = daemons.get_mut(index).context("a node without a daemon")?;
        let (changed, streams) = streams(kept, || {
            let changed = change(node, daemon, to);
            thread::sleep(AFTERWARDS);
            changed
        })?;
        changed?;
        let dropped = dropped_when_busy()?.saturating_sub(dropped);
        if let Some(side) = self.sides.get_mut(index) {
            *side = to;
        }
        let mut step = Step::default();
        let pods = self.renew_pod(number, deviations)?;
        step.add("MIX-01", self.all_reach_all());
        let after = self.lease(number)?;
        let told = |lease: &Entry| format!("{} = {}", lease.name, lease.value);
        step.add("MIX-02", expect(lease == after, told(&lease), told(&after)));
        let (ended, told) = self.keeps_pod(number)?;
        step.add_measured("MIX-03", ended, told);
        let compared = self.looks_fresh(number, to)?;
        let outcome = deviations.judge("MIX-04", NAME, &[compared]);
        step.0.push(("MIX-04", outcome, Vec::new()));
        let (ended, told) = judge_loss(&streams, idle, dropped, &self.terms);
        step.add_measured("MIX-05", ended, told);
        step.0.push(("MIX-06", pods, Vec::new()));
        Ok(step)
    }

    /// Has the plugins of the other side end each pod of a node.
    ///
    /// # Errors
    /// Fails when a node cannot be looked at.
    pub(super) fn end_pods(&self, number: u8, deviations: &Deviations) -> Result<Step> {
        let by = self.side(number)?.opposite();
        install(self.lab.node(number)?, by)?;
        let index = index_of(number)?;
        let newest = self.newest.get(index).and_then(Option::as_ref);
        let pods: Vec<_> = self.kept.get(index).into_iter().chain(newest).collect();
        let outcome = self.end(number, by, &pods, deviations)?;
        Ok(Step(vec![("MIX-06", outcome, Vec::new())]))
    }

    /// Which side's programs a node has.
    ///
    /// # Errors
    /// Fails when there is no such node.
    pub(super) fn side(&self, number: u8) -> Result<Side> {
        let side = self.sides.get(index_of(number)?);
        side.copied().context("a node without a side")
    }

    fn lease(&self, number: u8) -> Result<Entry> {
        let address = format!("\"{}\"", self.lab.node(number)?.address());
        let mut entries = self.lab.entries_in_etcd()?.into_iter();
        let found = entries.find(|entry| entry.value.contains(&address));
        found.with_context(|| format!("node{number} has no lease"))
    }

    fn look(&self, node: &Node, index: usize) -> Result<Vec<String>> {
        let labels = Labels::of_leases(&self.lab.entries_in_etcd()?, index)?;
        of_daemon(node, &labels)
    }

    /// The node beside one on which its side's daemon was started first.
    fn looks_fresh(&self, number: u8, side: Side) -> Result<Compared> {
        let node = self.lab.node(number)?;
        let fresh = self.fresh.iter().find(|(other, _)| *other == side);
        let (_, expected) = fresh.context("a side without a node")?;
        let index = index_of(number)?;
        let limit = self.settle_limit();
        let observed = settled_within(limit, || self.look(node, index), |lines| lines == expected)?;
        Ok(Compared {
            place: node.name(),
            expected: expected.clone(),
            observed,
        })
    }

    fn settle_limit(&self) -> Duration {
        if self.is_cut.get() {
            CUT_SETTLE_LIMIT
        } else {
            SETTLE_LIMIT
        }
    }

    fn all_reach_all(&self) -> Checked<()> {
        let mut told = String::new();
        let limit = if self.is_cut.get() {
            Duration::ZERO
        } else {
            REACH_LIMIT
        };
        let all = wait_until("all pods to reach each other", limit, || {
            let matrix = Matrix::measure(self.lab.nodes(), &self.kept, PATIENCE)?;
            let failures = matrix.failures();
            let texts = failures.iter().map(|(from, to)| format!("{from} to {to}"));
            told = texts.collect::<Vec<_>>().join(", ");
            Ok(failures.is_empty())
        });
        let Err(error) = all else { return Ok(()) };
        self.is_cut.set(true);
        differs(
            "every node and pod reaches every pod",
            format!("{error:#}; no answer: {told}"),
        )
    }

    /// The pod that was there before has its address, and the new side's CHECK finds it as it was, if it finds its own so.
    fn keeps_pod(&self, number: u8) -> Result<(Checked<()>, Vec<String>)> {
        let node = self.lab.node(number)?;
        let pod = self.kept.get(index_of(number)?).context("a node without a pod")?;
        let addresses = pod.kernel_addresses()?;
        let has_address = expect(
            addresses == [pod.address()],
            format!("{} has {}", pod.name(), pod.address()),
            format!("it has {addresses:?}"),
        );
        if !self.checkers.contains(&self.side(number)?) {
            let why = "CHECK is not asked, because it finds fault with its own pods as well";
            return Ok((has_address, vec![why.to_owned()]));
        }
        Ok((has_address.and_then(|()| checked(node, pod)), Vec::new()))
    }

    /// Has the new side end the pod that the former made last, and make another.
    fn renew_pod(&mut self, number: u8, deviations: &Deviations) -> Result<Outcome> {
        let index = index_of(number)?;
        let former = self.newest.get_mut(index).and_then(Option::take);
        let ended = match &former {
            Some(pod) => self.end(number, self.side(number)?, &[pod], deviations)?,
            None => Outcome::Passed,
        };
        let node = self.lab.node(number)?;
        let pod = match with_port(node, || node.add_pod(&format!("{}-new", node.name()))) {
            Ok(pod) => pod,
            // What went wrong before may be why.
            Err(_) if ended.is_bad() => return Ok(ended),
            Err(error) => {
                return Ok(Outcome::of(differs(
                    "a new pod can be attached",
                    format!("{error:#}"),
                )));
            }
        };
        let traces = traces(node, &pod)?;
        if let Some(slot) = self.newest.get_mut(index) {
            *slot = Some(pod);
        }
        // Otherwise nothing would be seen to be left, either.
        let made = expect(
            traces.len() > 2,
            "a link, rules and files of a new pod",
            traces.join("; "),
        );
        Ok(if made.is_ok() { ended } else { Outcome::of(made) })
    }

    /// Has a side's plugins end pods that the other's made.
    fn end(&self, number: u8, by: Side, pods: &[&Pod], deviations: &Deviations) -> Result<Outcome> {
        let node = self.lab.node(number)?;
        let mut observed = Vec::new();
        for pod in pods {
            if let Err(error) = with_port(node, || node.detach_pod(pod)) {
                let expected = format!("DEL of {} succeeds", pod.name());
                return Ok(Outcome::of(differs(expected, format!("{error:#}"))));
            }
            node.end_pod(pod)?;
            observed.extend(traces(node, pod)?);
        }
        let compared = Compared {
            place: node.name(),
            expected: Vec::new(),
            observed,
        };
        let others = self.terms.plugins.as_ref().filter(|_| by == Side::Other);
        let name = match others {
            Some(dir) if !keeps_own_record(&dir.join("portmap"))? => ENDED_BY_OTHERS,
            Some(_) | None => NAME,
        };
        Ok(deviations.judge("MIX-06", name, &[compared]))
    }
}

fn change(node: &Node, daemon: &mut Flanneld, to: Side) -> Result<()> {
    daemon.stop(STOP_LIMIT)?;
    install(node, to)?;
    *daemon = node.start_flanneld(&FLAGS)?;
    Ok(())
}

/// CHECK finds a pod as it was.
fn checked(node: &Node, pod: &Pod) -> Checked<()> {
    match node.check_pod(pod) {
        Ok(()) => Ok(()),
        Err(error) => differs(format!("CHECK of {} succeeds", pod.name()), format!("{error:#}")),
    }
}

fn index_of(number: u8) -> Result<usize> {
    let index = usize::from(number).checked_sub(1);
    index.context("nodes are counted from 1")
}

/// Whether the kernel has looked for others that have its addresses.
fn is_quiet(lines: &[String]) -> bool {
    !lines.iter().any(|line| line.contains("tentative"))
}
