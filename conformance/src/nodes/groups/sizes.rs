//! Packets and contents of all sizes: what must not be divided, what has to be, and what is long.

use super::pairs::{all_of, ask, ping};
use super::principles::{answered, in_words, nodes, pods};
use super::tools::{across, beside, pod_mtus};
use crate::lab::POD_LINK;
use crate::nodes::bed::{End, Pod};
use crate::nodes::case::{Case, Look, case};
use crate::nodes::protocol::{Check, Pinged, Request, Sent, Transport};
use crate::report::{Checked, Stop, differs, expect};

/// Of a datagram that no link of an Ethernet takes undivided, in bytes (NFS over UDP's usual one).
const LARGE_DATAGRAM: usize = 8192;
/// Of contents that take many thousand packets, in bytes.
const LARGE_CONTENTS: u64 = 8 << 20;

pub(super) const CASES: &[Case] = &[
    case(
        "MTU-01",
        "packets of the pods' MTU go undivided from every pod to every pod",
        |look| {
            let mtu = pod_mtus(look)?.into_iter().min().unwrap_or_default();
            look.measured(format!("{mtu} bytes"));
            let pods = pods(look);
            answered(look, &ping(look, &pods, &pods, mtu)?)
        },
    ),
    case(
        "MTU-01",
        "packets of the pods' MTU go undivided from every node to every pod",
        |look| {
            let mtu = pod_mtus(look)?.into_iter().min().unwrap_or_default();
            answered(look, &ping(look, &nodes(look), &pods(look), mtu)?)
        },
    ),
    case(
        "MTU-02",
        "who sends a packet larger than the MTU is told so",
        |look| {
            let size = pod_mtus(look)?
                .into_iter()
                .max()
                .unwrap_or_default()
                .saturating_add(1);
            look.measured(format!("{size} bytes"));
            let all: Vec<_> = nodes(look).into_iter().chain(pods(look)).collect();
            let pairs = ping(look, &all, &pods(look), size)?;
            all_of(
                look,
                "an answer, or word that it is too big",
                &pairs,
                |pair| match pair.seen {
                    Pinged::Answered(_) | Pinged::TooBig => None,
                    other @ (Pinged::Refused(_) | Pinged::Silent) => Some(in_words(other)),
                },
            )
        },
    ),
    case(
        "MTU-03",
        "datagrams of 8 kB go from every node and every pod to every pod and back",
        |look| {
            let all: Vec<_> = nodes(look).into_iter().chain(pods(look)).collect();
            let pairs = ask(look, &all, &pods(look), Transport::Udp, LARGE_DATAGRAM)?;
            all_of(look, "an answer of 8 kB", &pairs, |pair| pair.seen.clone().err())
        },
    ),
    case(
        "MTU-04",
        "8 MiB over TCP arrive whole, on one node and across nodes",
        |look| {
            transfers(look)?
                .into_iter()
                .try_for_each(|(from, to)| transfer(look, from, to))
        },
    ),
    case(
        "MTU-04",
        "8 MiB over TCP arrive whole with the sender's segmentation offload off",
        |look| {
            for (from, to) in transfers(look)? {
                segments_at_once(look, from, "1")?;
                let ended = transfer(look, from, to);
                segments_at_once(look, from, "65535")?;
                ended?;
            }
            Ok(())
        },
    ),
];

fn transfers<'a>(look: &Look<'a>) -> Checked<Vec<(&'a Pod, &'a Pod)>> {
    Ok(beside(look).into_iter().chain(across(look)?).collect())
}

fn transfer(look: &Look<'_>, from: &Pod, to: &Pod) -> Checked<()> {
    let (bed, from) = (look.bed, End::Pod(from));
    let sent: Result<Sent, _> = bed.agent(from)?.ask(Request::Send {
        place: from.place(),
        target: bed.server(End::Pod(to), look.family)?,
        size: LARGE_CONTENTS,
        check: Check::Contents,
    });
    let names = format!("{} → {}", bed.name(from), to.name);
    match sent {
        Err(error) => differs(
            format!("{LARGE_CONTENTS} bytes arrive"),
            format!("{names}: {error:#}"),
        ),
        Ok(sent) => expect(
            sent.arrived == LARGE_CONTENTS && sent.intact,
            format!("{LARGE_CONTENTS} bytes arrive as they were sent"),
            format!(
                "{names}: {} bytes, their checksum right: {}",
                sent.arrived, sent.intact
            ),
        ),
    }
}

/// Lets a pod's interface take as many segments in one piece, one being what a device without offload takes.
fn segments_at_once(look: &Look<'_>, pod: &Pod, count: &str) -> Checked<()> {
    let end = End::Pod(pod);
    let argv = ["ip", "link", "set", "dev", POD_LINK, "gso_max_segs", count];
    let output = look.bed.agent(end)?.run_in(end.place(), &argv)?;
    if output.status == Some(0) {
        return Ok(());
    }
    let words = output.stderr.trim();
    Err(Stop::Skip(format!("iproute2 cannot set it: {words}")))
}
