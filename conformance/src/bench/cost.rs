//! What an operation costs beside time: processes, system calls, memory.

use anyhow::Result;

use super::aim::{self, Aim};
use super::baseline;
use super::cni::{Stand, sides};
use super::footprint::mebibytes;
use super::memory::peak_of;
use super::report::{Figure, Peer, Plot, Section};
use super::side::{Load, Operation, Side};
use super::stats::Summary;
use super::{BenchConfig, progress};

/// Pods whose operations are counted, after a first one, which finds less than all others.
const PODS: u8 = 5;

/// Counts processes and system calls of every load, and takes the memory of the first program of a list.
///
/// # Errors
/// Fails when a lab cannot be made or a plugin answers with an error.
pub(super) fn measure(config: &BenchConfig, loads: &[Load]) -> Result<Section> {
    let mut figures = Vec::new();
    for load in loads {
        progress(&format!("CNI {}, processes and system calls", load.name()))?;
        figures.extend(counts(config, *load)?);
    }
    figures.push(memory(config)?);
    Ok(Section {
        title: "CNI, what an operation costs beside time".to_owned(),
        short: "each process",
        notes: vec![
            "processes: programs started; calls: system calls of all of them, as strace counts".to_owned(),
            "memory: the peak of the first program alone, in an ADD; * reference: of the three at once"
                .to_owned(),
        ],
        tail: 95,
        plot: Plot::None,
        figures,
    })
}

fn counts(config: &BenchConfig, load: Load) -> Result<Vec<Figure>> {
    let operations = [Operation::Add, Operation::Check, Operation::Del];
    let mut found = Vec::new();
    for side in sides(config, load) {
        let mut stand = Stand::new(config, side, load, PODS)?;
        for operation in operations {
            if !stand.chain().has(side, operation) {
                continue;
            }
            let mut counts = Vec::new();
            for pod in 0..usize::from(PODS) {
                counts.push(count(&stand.traced(operation, pod, &[])?));
            }
            found.push((side, operation, counts.split_off(1)));
        }
    }
    let of = |side: Side, operation: Operation, part: fn(&Count) -> u32| {
        let mut matching = found.iter().filter(|(s, o, _)| (*s, *o) == (side, operation));
        let (_, _, counts) = matching.next()?;
        Some(Summary::of(
            counts.iter().map(|count| f64::from(part(count))).collect(),
        ))
    };
    let figure = |operation: Operation, what: &str, part: fn(&Count) -> u32| {
        let peers = [(Side::Peer, aim::PEER), (Side::Floor, aim::FLOOR)]
            .into_iter()
            .filter_map(|(side, name)| Some(Peer::paired(name, of(side, operation, part)?)));
        let ours = of(Side::Ours, operation, part)?;
        let name = format!("{} {what}, {}", operation.name(), short(load));
        Some(Figure::low(name, "", ours, peers.collect()))
    };
    let figures = operations.into_iter().flat_map(|operation| {
        [
            figure(operation, "processes", |count| count.processes),
            figure(operation, "calls", |count| count.calls),
        ]
    });
    Ok(figures.flatten().collect())
}

fn short(load: Load) -> &'static str {
    match load {
        Load::Plain => "plain",
        Load::Chain => "portmap",
        Load::Port => "one port",
        Load::DualStack => "dual",
    }
}

struct Count {
    processes: u32,
    calls: u32,
}

/// Counts in a log of strace's. A call that others interrupted is told on two lines.
fn count(log: &str) -> Count {
    let calls = log
        .lines()
        .filter(|line| line.contains('(') && !line.contains(" resumed>"));
    let (mut count, mut seen) = (0_u32, 0_u32);
    for line in calls {
        seen += 1;
        count += u32::from(line.contains(" execve(") && !line.contains(" = -1 "));
    }
    Count {
        processes: count,
        calls: seen,
    }
}

/// The peak of one ADD's first process, in each of many.
fn memory(config: &BenchConfig) -> Result<Figure> {
    progress("CNI, memory")?;
    let of = |side: Side| {
        let stand = Stand::new(config, side, Load::Plain, config.runs)?;
        let node = stand.lab().node(1)?;
        let peaks = stand.seats().iter().map(|seat| {
            Ok(mebibytes(
                peak_of(stand.chain(), Operation::Add, node, seat)? * 1024,
            ))
        });
        anyhow::Ok(Summary::of(peaks.collect::<Result<Vec<_>>>()?))
    };
    let ours = of(Side::Ours)?;
    let mut peers = Vec::new();
    // The floor waits for nothing, and is over before it could be looked at.
    if config.peer_dir.is_some() {
        peers.push(Peer::paired(aim::PEER, of(Side::Peer)?));
    }
    peers.push(baseline::PLUGIN_MEMORY);
    Ok(Figure::low("memory", "MiB", ours, peers).with(vec![Aim::Most(3.0)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_calls_count_once_and_failed_starts_not_at_all() {
        let log = "7 execve(\"/a\", [\"a\"], 0x7 /* 1 vars */) = 0\n\
            7 futex(0x7, FUTEX_WAIT <unfinished ...>\n\
            8 execve(\"/b\", [\"b\"], 0x7) = -1 ENOENT (No such file)\n\
            8 exit(0) = ?\n\
            8 +++ exited with 0 +++\n\
            7 <... futex resumed>) = 0\n";
        let Count { processes, calls } = count(log);
        assert_eq!((processes, calls), (1, 4));
    }
}
