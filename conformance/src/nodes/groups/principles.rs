//! The three principles of the Kubernetes network model (kubernetes.io, "Services, Load Balancing, and Networking: The
//! Kubernetes network model"), and what a cluster's own parts need besides.

use anyhow::{Context, Result};

use super::pairs::{Pair, all_of, ask, ping};
use crate::nodes::bed::{End, is_link_local};
use crate::nodes::case::{Case, Look, case};
use crate::nodes::protocol::{Pinged, Request, Seen, Transport};
use crate::report::{Checked, differs};

/// Of a packet without anything special, in bytes.
const USUAL_BYTES: u16 = 84;
/// Of a datagram's payload.
const USUAL_DATAGRAM: usize = 64;

pub(super) const CASES: &[Case] = &[
    case(
        "NET-01",
        "every pod reaches every pod over TCP, and is seen at its own address",
        |look| pods_see_pods(look, Transport::Tcp),
    ),
    case(
        "NET-01",
        "every pod reaches every pod over UDP, and is seen at its own address",
        |look| pods_see_pods(look, Transport::Udp),
    ),
    case("NET-01", "every pod reaches every pod by ICMP", |look| {
        let pods = pods(look);
        answered(look, &ping(look, &pods, &pods, USUAL_BYTES)?)
    }),
    case(
        "NET-02",
        "every node reaches every pod over TCP, and is seen at an address of its own",
        |look| nodes_see_pods(look, Transport::Tcp),
    ),
    case(
        "NET-02",
        "every node reaches every pod over UDP, and is seen at an address of its own",
        |look| nodes_see_pods(look, Transport::Udp),
    ),
    case("NET-02", "every node reaches every pod by ICMP", |look| {
        answered(look, &ping(look, &nodes(look), &pods(look), USUAL_BYTES)?)
    }),
    case(
        "NET-03",
        "the address in a pod is the one that the plugins told, and no other",
        own_addresses,
    ),
    case("NET-04", "every pod reaches every node over TCP", |look| {
        let pairs = ask(look, &pods(look), &nodes(look), Transport::Tcp, 0)?;
        all_of(look, "an answer", &pairs, |pair| pair.seen.clone().err())
    }),
    case("NET-04", "every pod reaches every node by ICMP", |look| {
        answered(look, &ping(look, &pods(look), &nodes(look), USUAL_BYTES)?)
    }),
];

/// All pods.
pub(super) fn pods<'a>(look: &Look<'a>) -> Vec<End<'a>> {
    look.bed.pods.iter().map(End::Pod).collect()
}

/// All nodes.
pub(super) fn nodes<'a>(look: &Look<'a>) -> Vec<End<'a>> {
    (0..look.bed.nodes.len()).map(End::Node).collect()
}

fn pods_see_pods(look: &Look<'_>, transport: Transport) -> Checked<()> {
    let pods = pods(look);
    let pairs = ask(look, &pods, &pods, transport, USUAL_DATAGRAM)?;
    all_of(
        look,
        "the receiver sees the sender's own address",
        &pairs,
        |pair| {
            let own = look.bed.address(pair.from, look.family).ok();
            not_seen_as(pair, |seen| {
                Some(seen.by_server) == own && Some(seen.by_client) == own
            })
        },
    )
}

fn nodes_see_pods(look: &Look<'_>, transport: Transport) -> Checked<()> {
    let pairs = ask(look, &nodes(look), &pods(look), transport, USUAL_DATAGRAM)?;
    all_of(look, "the receiver sees an address of the node", &pairs, |pair| {
        let node = look.bed.node(pair.from.node()).ok();
        let is_own = |seen: &Seen| node.is_some_and(|node| node.addresses.contains(&seen.by_server));
        not_seen_as(pair, |seen| seen.by_server == seen.by_client && is_own(seen))
    })
}

/// What was seen instead of what should be.
fn not_seen_as(pair: &Pair<'_, Result<Seen, String>>, right: impl Fn(&Seen) -> bool) -> Option<String> {
    match &pair.seen {
        Err(words) => Some(words.clone()),
        Ok(seen) if right(seen) => None,
        Ok(seen) => Some(format!(
            "the receiver sees {}, the sender calls itself {}",
            seen.by_server, seen.by_client
        )),
    }
}

/// Ends the case unless every echo request was answered.
pub(super) fn answered(look: &Look<'_>, pairs: &[Pair<'_, Pinged>]) -> Checked<()> {
    all_of(look, "an answer", pairs, |pair| match pair.seen {
        Pinged::Answered(_) => None,
        other @ (Pinged::TooBig | Pinged::Refused(_) | Pinged::Silent) => Some(in_words(other)),
    })
}

/// What became of an echo request, in words.
pub(super) fn in_words(pinged: Pinged) -> String {
    match pinged {
        Pinged::Answered(after) => format!("answered after {:.3} ms", after.as_secs_f64() * 1e3),
        Pinged::TooBig => "somebody said that it is too big".to_owned(),
        Pinged::Refused(errno) => format!(
            "the sender's kernel refused it: {}",
            std::io::Error::from_raw_os_error(errno)
        ),
        Pinged::Silent => "no answer".to_owned(),
    }
}

fn own_addresses(look: &Look<'_>) -> Checked<()> {
    let mut wrong = Vec::new();
    for pod in &look.bed.pods {
        let end = End::Pod(pod);
        let place = end.place();
        let all: Vec<(String, std::net::IpAddr)> = look.bed.agent(end)?.ask(Request::Addresses { place })?;
        let own = look
            .bed
            .address(end, look.family)
            .context("a pod of another family")?;
        let seen: Vec<_> = all
            .into_iter()
            .map(|(_, ip)| ip)
            .filter(|ip| ip.is_ipv4() == own.is_ipv4() && !is_link_local(*ip))
            .collect();
        if seen != [own] {
            wrong.push(format!("{}: told {own}, in the pod {seen:?}", pod.name));
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        differs("the address of the result alone", wrong.join("\n"))
    }
}
