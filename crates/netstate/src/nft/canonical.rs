use ipnetwork::IpNetwork;

use super::{Comparison, CtStates, Family, Match, Rule, Statement};

impl CtStates {
    const INVALID: u32 = 1;
    const ESTABLISHED: u32 = 2;
    const RELATED: u32 = 4;
    const NEW: u32 = 8;

    /// The bits that the kernel knows the states by (`NF_CT_STATE_BIT`, linux `nf_conntrack_common.h`).
    #[must_use]
    pub const fn bits(self) -> u32 {
        let mut bits = 0;
        if self.invalid {
            bits |= Self::INVALID;
        }
        if self.established {
            bits |= Self::ESTABLISHED;
        }
        if self.related {
            bits |= Self::RELATED;
        }
        if self.new {
            bits |= Self::NEW;
        }
        bits
    }

    /// The states of bits; `None` if there are others (`untracked`) among them.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        let states = Self {
            invalid: bits & Self::INVALID != 0,
            established: bits & Self::ESTABLISHED != 0,
            related: bits & Self::RELATED != 0,
            new: bits & Self::NEW != 0,
        };
        if states.bits() == bits { Some(states) } else { None }
    }
}

impl Rule {
    /// The one form among those that mean the same in a table of this family; it is what nft prints, and what is read
    /// from the kernel.
    ///
    /// A network without host bits; no `meta nfproto` that the table or a following address says anyway; the transport
    /// protocol once, directly before the first port that needs it; no bits of a new mark outside its mask. Nothing that
    /// acts changes its place among the matches.
    #[must_use]
    pub fn canonical(&self, family: Family) -> Self {
        let mut statements: Vec<Statement> = Vec::with_capacity(self.statements.len());
        // Where the last match of each layer stands that a later statement would imply or belong to.
        let mut network: Option<(usize, Family)> = None;
        let mut transport: Option<usize> = None;
        let mut protocol = None;
        for statement in &self.statements {
            match statement {
                Statement::Match(comparison, Match::NfProto(proto)) => {
                    if always_holds(family, *comparison, *proto) {
                        continue;
                    }
                    if *comparison == Comparison::Is {
                        if network.is_some_and(|(_, known)| known == *proto) {
                            continue;
                        }
                        network = Some((statements.len(), *proto));
                    }
                }
                Statement::Match(Comparison::Is, Match::L4Proto(number)) => {
                    if protocol.replace(*number) == Some(*number) {
                        continue;
                    }
                    transport = Some(statements.len());
                }
                Statement::Match(Comparison::IsNot, Match::L4Proto(_)) => {
                    protocol = None;
                    transport = None;
                }
                Statement::Match(_, Match::Saddr(net) | Match::Daddr(net)) => {
                    let implied = network.filter(|(_, proto)| *proto == layer(net) && family == Family::Inet);
                    if let Some((index, _)) = implied {
                        statements.remove(index);
                        network = None;
                        transport = transport.map(|other| if other > index { other - 1 } else { other });
                    }
                }
                Statement::Match(_, Match::Sport(_) | Match::Dport(_)) => {
                    if let Some(index) = transport.take() {
                        let proto = statements.remove(index);
                        statements.push(proto);
                        network = network
                            .map(|(other, proto)| (if other > index { other - 1 } else { other }, proto));
                    }
                }
                Statement::Match(..) => {}
                // It acts only on packets that the matches before it let through, so none is moved past it.
                Statement::Counter
                | Statement::SetMark { .. }
                | Statement::Masquerade { .. }
                | Statement::Dnat { .. }
                | Statement::Verdict(_)
                | Statement::Other(_) => {
                    network = None;
                    transport = None;
                }
            }
            statements.push(cleaned(statement));
        }
        Self {
            statements,
            comment: self.comment.clone(),
        }
    }
}

/// Whether a match of the network layer says nothing in tables that see only one.
fn always_holds(family: Family, comparison: Comparison, proto: Family) -> bool {
    match (family, comparison) {
        (Family::Ip | Family::Ip6, Comparison::Is) => proto == family,
        (Family::Ip | Family::Ip6, Comparison::IsNot) => proto != family,
        (Family::Inet | Family::Bridge, _) => false,
    }
}

fn layer(net: &IpNetwork) -> Family {
    match net {
        IpNetwork::V4(_) => Family::Ip,
        IpNetwork::V6(_) => Family::Ip6,
    }
}

/// A statement without bits that mean nothing.
fn cleaned(statement: &Statement) -> Statement {
    let bare = |net: &IpNetwork| IpNetwork::new(net.network(), net.prefix()).unwrap_or(*net);
    match statement {
        Statement::Match(comparison, Match::Saddr(net)) => {
            Statement::Match(*comparison, Match::Saddr(bare(net)))
        }
        Statement::Match(comparison, Match::Daddr(net)) => {
            Statement::Match(*comparison, Match::Daddr(bare(net)))
        }
        Statement::SetMark { value, mask } => Statement::SetMark {
            value: value & mask,
            mask: *mask,
        },
        Statement::Match(..)
        | Statement::Counter
        | Statement::Masquerade { .. }
        | Statement::Dnat { .. }
        | Statement::Verdict(_)
        | Statement::Other(_) => statement.clone(),
    }
}
