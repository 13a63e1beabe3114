//! Printing rules in the syntax of nft(8), as its version 1.0.6 lists them.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Comparison, CtStates, Family, Match, Rule, Statement, TableKey, Verdict};

/// A rule as nft prints it in a table of a family: it differs from a bare rule's text only for `inet`, where `dnat`
/// says of which family the new address is.
#[derive(Debug, Clone, Copy)]
pub struct RuleIn<'a>(pub Family, pub &'a Rule);

impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        })
    }
}

impl Display for TableKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

impl Display for RuleIn<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(family, rule) = self;
        print_rule(f, rule, *family == Family::Inet)
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        print_rule(f, self, false)
    }
}

fn print_rule(f: &mut Formatter<'_>, rule: &Rule, both_families: bool) -> fmt::Result {
    let mut first = true;
    let mut transport = None;
    let mut rest = rule.statements.iter().peekable();
    while let Some(statement) = rest.next() {
        if let Statement::Match(comparison, Match::L4Proto(number)) = statement {
            transport = port_protocol(*number).filter(|_| *comparison == Comparison::Is);
            let before_port = matches!(
                rest.peek(),
                Some(Statement::Match(_, Match::Sport(_) | Match::Dport(_)))
            );
            // The name of the protocol stands before the port.
            if transport.is_some() && before_port {
                continue;
            }
        }
        if !first {
            f.write_str(" ")?;
        }
        first = false;
        match statement {
            Statement::Match(comparison, Match::Sport(port)) => {
                print_port(f, transport, "sport", *comparison, *port)?;
            }
            Statement::Match(comparison, Match::Dport(port)) => {
                print_port(f, transport, "dport", *comparison, *port)?;
            }
            Statement::Dnat { addr, port } if both_families => {
                print_dnat(f, family_word(*addr), *addr, *port)?
            }
            Statement::Match(..)
            | Statement::Counter
            | Statement::SetMark { .. }
            | Statement::Masquerade { .. }
            | Statement::Dnat { .. }
            | Statement::Verdict(_)
            | Statement::Other(_) => write!(f, "{statement}")?,
        }
    }
    match &rule.comment {
        Some(comment) if first => write!(f, "comment \"{comment}\""),
        Some(comment) => write!(f, " comment \"{comment}\""),
        None => Ok(()),
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Match(comparison, property) => print_match(f, *comparison, property),
            Self::Counter => f.write_str("counter"),
            Self::SetMark { value, mask } => print_set_mark(f, *value & *mask, *mask),
            Self::Masquerade { fully_random: false } => f.write_str("masquerade"),
            Self::Masquerade { fully_random: true } => f.write_str("masquerade fully-random"),
            Self::Dnat { addr, port } => print_dnat(f, "", *addr, *port),
            Self::Verdict(verdict) => verdict.fmt(f),
            Self::Other(name) => write!(f, "<{name}>"),
        }
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        print_match(f, Comparison::Is, self)
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl Display for CtStates {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names = [
            (self.invalid, "invalid"),
            (self.established, "established"),
            (self.related, "related"),
            (self.new, "new"),
        ];
        let names: Vec<_> = names
            .into_iter()
            .filter(|(is, _)| *is)
            .map(|(_, name)| name)
            .collect();
        f.write_str(&names.join(","))
    }
}

fn print_match(f: &mut Formatter<'_>, comparison: Comparison, property: &Match) -> fmt::Result {
    let not = match comparison {
        Comparison::Is => "",
        Comparison::IsNot => "!= ",
    };
    match property {
        Match::Saddr(net) => write!(f, "{} saddr {not}{}", family_word(net.ip()), Net(net)),
        Match::Daddr(net) => write!(f, "{} daddr {not}{}", family_word(net.ip()), Net(net)),
        Match::DaddrIsLocal => write!(f, "fib daddr type {not}local"),
        Match::L4Proto(number) => match protocol_name(*number) {
            Some(name) => write!(f, "meta l4proto {not}{name}"),
            None => write!(f, "meta l4proto {not}{number}"),
        },
        Match::NfProto(Family::Ip) => write!(f, "meta nfproto {not}ipv4"),
        Match::NfProto(Family::Ip6) => write!(f, "meta nfproto {not}ipv6"),
        Match::NfProto(family) => write!(f, "meta nfproto {not}{family}"),
        Match::Sport(port) => print_port(f, None, "sport", comparison, *port),
        Match::Dport(port) => print_port(f, None, "dport", comparison, *port),
        Match::Mark {
            value,
            mask: u32::MAX,
        } => write!(f, "meta mark {not}{value:#010x}"),
        // nft takes a mask of leading bits for a prefix, though a mark is no address.
        Match::Mark { value, mask } if mask.leading_ones() == mask.count_ones() => {
            write!(f, "meta mark {not}{value:#010x}/{}", mask.count_ones())
        }
        Match::Mark { value, mask } => {
            let comparison = if not.is_empty() { "== " } else { not };
            write!(f, "meta mark & {mask:#010x} {comparison}{value:#010x}")
        }
        Match::Iifname(name) => write!(f, "iifname {not}{}", LinkName(name.as_str())),
        Match::Oifname(name) => write!(f, "oifname {not}{}", LinkName(name.as_str())),
        Match::CtState(states) => match comparison {
            Comparison::Is => write!(f, "ct state {states}"),
            Comparison::IsNot => write!(f, "ct state ! {states}"),
        },
        Match::EtherSaddr(mac) => write!(f, "ether saddr {not}{mac}"),
    }
}

fn print_port(
    f: &mut Formatter<'_>,
    transport: Option<&str>,
    side: &str,
    comparison: Comparison,
    port: u16,
) -> fmt::Result {
    let transport = transport.unwrap_or("th");
    match comparison {
        Comparison::Is => write!(f, "{transport} {side} {port}"),
        Comparison::IsNot => write!(f, "{transport} {side} != {port}"),
    }
}

fn print_set_mark(f: &mut Formatter<'_>, value: u32, mask: u32) -> fmt::Result {
    f.write_str("meta mark set ")?;
    match (value, mask) {
        (_, u32::MAX) => write!(f, "{value:#010x}"),
        (_, 0) => f.write_str("meta mark"),
        (0, _) => write!(f, "meta mark & {:#010x}", !mask),
        _ if value == mask => write!(f, "meta mark | {value:#010x}"),
        // nft prints the bits of the new value as kept, though they do not matter.
        _ => write!(f, "meta mark & {:#010x} | {value:#010x}", !mask | value),
    }
}

fn print_dnat(f: &mut Formatter<'_>, family: &str, addr: IpAddr, port: Option<u16>) -> fmt::Result {
    f.write_str("dnat ")?;
    if !family.is_empty() {
        write!(f, "{family} ")?;
    }
    match (addr, port) {
        (_, None) => write!(f, "to {addr}"),
        (IpAddr::V4(_), Some(port)) => write!(f, "to {addr}:{port}"),
        (IpAddr::V6(_), Some(port)) => write!(f, "to [{addr}]:{port}"),
    }
}

fn family_word(addr: IpAddr) -> &'static str {
    match addr {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}

/// A network without its length if that is an address's.
struct Net<'a>(&'a IpNetwork);

impl Display for Net<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let whole = match self.0 {
            IpNetwork::V4(_) => 32,
            IpNetwork::V6(_) => 128,
        };
        if self.0.prefix() == whole {
            return self.0.ip().fmt(f);
        }
        write!(f, "{}/{}", self.0.network(), self.0.prefix())
    }
}

/// The name of a link in quotes; an asterisk at its end would mean any continuation.
struct LinkName<'a>(&'a str);

impl Display for LinkName<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.strip_suffix('*') {
            Some(name) => write!(f, "\"{name}\\*\""),
            None => write!(f, "\"{}\"", self.0),
        }
    }
}

/// Transport protocols by number, those with ports first (IANA "Protocol Numbers"; the names that nft prints).
const PROTOCOLS: [(u8, &str); 12] = [
    (6, "tcp"),
    (17, "udp"),
    (132, "sctp"),
    (33, "dccp"),
    (136, "udplite"),
    (1, "icmp"),
    (2, "igmp"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "ipv6-icmp"),
    (4, "ipencap"),
];

/// How many of [`PROTOCOLS`] have ports that nft knows by the protocol's name.
const WITH_PORTS: usize = 5;

fn protocol_name(number: u8) -> Option<&'static str> {
    PROTOCOLS
        .iter()
        .find(|(found, _)| *found == number)
        .map(|(_, name)| *name)
}

pub(super) fn protocol_number(name: &str) -> Option<u8> {
    PROTOCOLS
        .iter()
        .find(|(_, found)| *found == name)
        .map(|(number, _)| *number)
}

fn port_protocol(number: u8) -> Option<&'static str> {
    let with_ports = PROTOCOLS.iter().take(WITH_PORTS);
    with_ports
        .filter(|(found, _)| *found == number)
        .map(|(_, name)| *name)
        .next()
}

/// The number of a protocol that nft writes ports with.
pub(super) fn port_protocol_number(name: &str) -> Option<u8> {
    let with_ports = PROTOCOLS.iter().take(WITH_PORTS);
    with_ports
        .filter(|(_, found)| *found == name)
        .map(|(number, _)| *number)
        .next()
}
