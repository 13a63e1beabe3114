//! A rule's expressions folded into statements.
//!
//! nft(8) and other programs write the same statement in several ways: a network as few bytes or as a mask, two
//! adjacent fields as one read, a match of the protocol where it is implied. All of them read alike here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use net_types::{IfName, MacAddr};
use netstate::nft::{Comparison, CtStates, Family, Match, Statement};

use super::expressions::{Expression, Source, expression};
use crate::wire::{self, base, meta};

/// The statements that a list of expressions makes.
pub(super) fn statements(family: Family, list: &[u8]) -> Vec<Statement> {
    let mut reading = Reading {
        family,
        network: match family {
            Family::Ip | Family::Ip6 => Some(family),
            Family::Inet | Family::Bridge => None,
        },
        dependency: None,
        ethernet: family == Family::Bridge,
        registers: BTreeMap::new(),
        statements: Vec::new(),
    };
    for (name, data) in super::expressions(list) {
        let understood = expression(&name, data).and_then(|expression| reading.take(&name, expression));
        if understood.is_none() {
            // It may have written any register.
            reading.registers.clear();
            reading.statements.push(Statement::Other(name));
        }
    }
    reading.finish()
}

/// A rule that is being read.
struct Reading {
    family: Family,
    /// The network layer that the table or an expression so far has made sure of.
    network: Option<Family>,
    /// Where the statement stands that is there only for an address or hardware address to follow.
    dependency: Option<(usize, Dependency)>,
    ethernet: bool,
    registers: BTreeMap<u32, Register>,
    statements: Vec<Statement>,
}

/// A match that has no statement of its own and must be followed by what depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dependency {
    /// The ethertype, in bridge tables.
    Protocol,
    /// The type of the link, outside bridge tables.
    LinkType,
}

/// What a register holds.
struct Register {
    content: Content,
    /// The expression that wrote it.
    writer: String,
    /// Whether a statement has made use of it; what is read for nothing can still fail, and is a match then.
    used: bool,
}

#[derive(Clone)]
enum Content {
    Loaded(Source),
    Masked(Source, Vec<u8>, Vec<u8>),
    Value(Vec<u8>),
}

impl Reading {
    /// Takes the next expression; `None` if it makes no statement of ours.
    fn take(&mut self, name: &str, expression: Expression) -> Option<()> {
        match expression {
            Expression::Load { register, source } => self.write(register, Content::Loaded(source), name),
            Expression::Immediate { register, value } => self.write(register, Content::Value(value), name),
            Expression::Bitwise {
                source,
                target,
                mask,
                xor,
            } => {
                let Content::Loaded(loaded) = self.read(source)? else {
                    return None;
                };
                self.write(target, Content::Masked(loaded, mask, xor), name);
            }
            Expression::Compare {
                register,
                comparison,
                value,
            } => {
                let content = self.read(register)?;
                self.compare(comparison, content, &value)?;
            }
            Expression::SetMark { register } => {
                let statement = set_mark(self.read(register)?)?;
                self.act(statement);
            }
            Expression::Dnat { family, addr, port } => {
                let statement = self.dnat(family, addr, port)?;
                self.act(statement);
            }
            Expression::Masquerade { fully_random } => self.act(Statement::Masquerade { fully_random }),
            Expression::Counter => self.act(Statement::Counter),
            Expression::Verdict(verdict) => self.act(Statement::Verdict(verdict)),
        }
        Some(())
    }

    /// A statement that acts on what the matches before it let through, so that they are statements of their own.
    fn act(&mut self, statement: Statement) {
        self.dependency = None;
        self.statements.push(statement);
    }

    fn finish(mut self) -> Vec<Statement> {
        for (_, register) in std::mem::take(&mut self.registers) {
            self.unread(register);
        }
        self.statements
    }

    fn write(&mut self, number: u32, content: Content, writer: &str) {
        let register = Register {
            content,
            writer: writer.to_owned(),
            used: false,
        };
        if let Some(old) = self.registers.insert(number, register) {
            self.unread(old);
        }
    }

    fn unread(&mut self, register: Register) {
        if !register.used {
            self.statements.push(Statement::Other(register.writer));
        }
    }

    fn read(&mut self, number: u32) -> Option<Content> {
        let register = self.registers.get_mut(&number)?;
        register.used = true;
        Some(register.content.clone())
    }

    fn compare(&mut self, comparison: Comparison, content: Content, value: &[u8]) -> Option<()> {
        let property = match content {
            Content::Loaded(Source::Payload { base, offset, len }) => {
                (usize::try_from(len).ok()? == value.len()).then_some(())?;
                return self.fields(comparison, base, offset, value);
            }
            Content::Masked(Source::Payload { base, offset, .. }, mask, xor) => {
                xor.iter().all(|byte| *byte == 0).then_some(())?;
                self.address(base, offset, value, prefix(&mask)?)?
            }
            Content::Loaded(Source::Meta(key)) => match self.meta(comparison, key, value)? {
                Some(property) => property,
                None => return Some(()),
            },
            Content::Masked(Source::Meta(meta::MARK), mask, xor) => {
                (host_u32(&xor)? == 0).then_some(())?;
                Match::Mark {
                    value: host_u32(value)?,
                    mask: host_u32(&mask)?,
                }
            }
            Content::Loaded(Source::CtState) => {
                // Unequal to one state is not to be in it: there is only one at a time.
                let states = host_u32(value)?;
                (comparison == Comparison::IsNot && states.is_power_of_two()).then_some(())?;
                Match::CtState(CtStates::from_bits(states)?)
            }
            Content::Masked(Source::CtState, mask, xor) => {
                (host_u32(&xor)? == 0 && host_u32(value)? == 0).then_some(())?;
                let states = CtStates::from_bits(host_u32(&mask)?)?;
                let inverse = match comparison {
                    Comparison::Is => Comparison::IsNot,
                    Comparison::IsNot => Comparison::Is,
                };
                self.statements
                    .push(Statement::Match(inverse, Match::CtState(states)));
                return Some(());
            }
            Content::Loaded(Source::FibDaddrType) => {
                (host_u32(value)? == wire::RTN_LOCAL).then_some(Match::DaddrIsLocal)?
            }
            Content::Masked(Source::FibDaddrType | Source::Meta(_), ..) | Content::Value(_) => return None,
        };
        self.statements.push(Statement::Match(comparison, property));
        Some(())
    }

    /// A match of meta data; `Some(None)` if it only makes sure of what later expressions need.
    fn meta(&mut self, comparison: Comparison, key: u32, value: &[u8]) -> Option<Option<Match>> {
        let one = || match value {
            [number] => Some(*number),
            _ => None,
        };
        let property = match key {
            meta::L4PROTO => Match::L4Proto(one()?),
            meta::NFPROTO => {
                let family = Family::from_number(one()?)?;
                matches!(family, Family::Ip | Family::Ip6).then_some(())?;
                if comparison == Comparison::Is && self.family == Family::Inet {
                    self.network = Some(family);
                }
                Match::NfProto(family)
            }
            meta::MARK => Match::Mark {
                value: host_u32(value)?,
                mask: u32::MAX,
            },
            meta::IIFNAME => Match::Iifname(link_name(value)?),
            meta::OIFNAME => Match::Oifname(link_name(value)?),
            meta::PROTOCOL => {
                let in_bridge = self.family == Family::Bridge && comparison == Comparison::Is;
                let family = in_bridge.then(|| match u16::from_be_bytes(value.try_into().ok()?) {
                    wire::ETH_P_IP => Some(Family::Ip),
                    wire::ETH_P_IPV6 => Some(Family::Ip6),
                    _ => None,
                })??;
                self.network = Some(family);
                self.depend(Dependency::Protocol);
                return Some(None);
            }
            meta::IIFTYPE => {
                let ethernet = value == wire::ARPHRD_ETHER.to_ne_bytes();
                let dependable = ethernet && self.family != Family::Bridge && comparison == Comparison::Is;
                dependable.then_some(())?;
                self.ethernet = true;
                self.depend(Dependency::LinkType);
                return Some(None);
            }
            _ => return None,
        };
        Some(Some(property))
    }

    /// Notes a match that is a statement only if nothing that depends on it follows.
    fn depend(&mut self, dependency: Dependency) {
        self.dependency = Some((self.statements.len(), dependency));
        self.statements.push(Statement::Other("meta".to_owned()));
    }

    /// Takes back the statement that the next one implies.
    fn imply(&mut self, dependency: Dependency) {
        if let Some((index, _)) = self.dependency.take_if(|(_, found)| *found == dependency)
            && index < self.statements.len()
        {
            self.statements.remove(index);
        }
    }

    /// Matches of the whole fields, or the beginning of one, that a read covers.
    fn fields(&mut self, comparison: Comparison, base: u32, offset: u32, value: &[u8]) -> Option<()> {
        let size = self.field_size(base, offset)?;
        if value.len() <= size {
            let property = self.field(base, offset, value)?;
            self.statements.push(Statement::Match(comparison, property));
            return Some(());
        }
        // Several fields at once are unequal if any of them is, which is no statement of ours.
        (comparison == Comparison::Is).then_some(())?;
        let mark = self.statements.len();
        let (head, rest) = value.split_at_checked(size)?;
        let property = self.field(base, offset, head)?;
        self.statements.push(Statement::Match(comparison, property));
        let next = offset.checked_add(u32::try_from(size).ok()?)?;
        let whole_fields = self.field_size(base, next).is_some_and(|size| rest.len() >= size);
        if !whole_fields || self.fields(comparison, base, next, rest).is_none() {
            self.statements.truncate(mark);
            return None;
        }
        Some(())
    }

    /// How long the field is that begins at a place of the packet.
    fn field_size(&self, base: u32, offset: u32) -> Option<usize> {
        match (base, offset, self.network) {
            (base::NETWORK, 12 | 16, Some(Family::Ip)) => Some(4),
            (base::NETWORK, 8 | 24, Some(Family::Ip6)) => Some(16),
            (base::TRANSPORT, 0 | 2, _) => Some(2),
            (base::LINK, 6, _) if self.ethernet => Some(6),
            _ => None,
        }
    }

    fn field(&mut self, base: u32, offset: u32, value: &[u8]) -> Option<Match> {
        match (base, offset) {
            (base::TRANSPORT, 0) => Some(Match::Sport(u16::from_be_bytes(value.try_into().ok()?))),
            (base::TRANSPORT, 2) => Some(Match::Dport(u16::from_be_bytes(value.try_into().ok()?))),
            (base::LINK, 6) => {
                let octets = value.try_into().ok()?;
                self.imply(Dependency::LinkType);
                Some(Match::EtherSaddr(MacAddr::new(octets)))
            }
            _ => self.address(
                base,
                offset,
                value,
                u8::try_from(value.len().checked_mul(8)?).ok()?,
            ),
        }
    }

    /// A match of an address's first bits.
    fn address(&mut self, base: u32, offset: u32, value: &[u8], prefix: u8) -> Option<Match> {
        (base == base::NETWORK).then_some(())?;
        let addr = match self.network? {
            Family::Ip => IpAddr::V4(Ipv4Addr::from_octets(filled(value)?)),
            Family::Ip6 => IpAddr::V6(Ipv6Addr::from_octets(filled(value)?)),
            Family::Inet | Family::Bridge => return None,
        };
        let make = match (addr, offset) {
            (IpAddr::V4(_), 12) | (IpAddr::V6(_), 8) => Match::Saddr,
            (IpAddr::V4(_), 16) | (IpAddr::V6(_), 24) => Match::Daddr,
            _ => return None,
        };
        let net = IpNetwork::new(addr, prefix).ok()?;
        // With bits outside the mask it never matches.
        (net.network() == addr).then_some(())?;
        self.imply(Dependency::Protocol);
        Some(make(net))
    }

    fn dnat(&mut self, family: u8, addr: u32, port: Option<u32>) -> Option<Statement> {
        let Content::Value(octets) = self.read(addr)? else {
            return None;
        };
        let addr = match Family::from_number(family)? {
            Family::Ip => IpAddr::V4(Ipv4Addr::from_octets(octets.try_into().ok()?)),
            Family::Ip6 => IpAddr::V6(Ipv6Addr::from_octets(octets.try_into().ok()?)),
            Family::Inet | Family::Bridge => return None,
        };
        let port = match port {
            None => None,
            Some(register) => match self.read(register)? {
                Content::Value(value) => Some(u16::from_be_bytes(value.try_into().ok()?)),
                Content::Loaded(_) | Content::Masked(..) => return None,
            },
        };
        Some(Statement::Dnat { addr, port })
    }
}

/// A mark set to a register's content.
fn set_mark(content: Content) -> Option<Statement> {
    match content {
        Content::Value(value) => Some(Statement::SetMark {
            value: host_u32(&value)?,
            mask: u32::MAX,
        }),
        Content::Masked(Source::Meta(meta::MARK), kept, xor) => {
            let (kept, value) = (host_u32(&kept)?, host_u32(&xor)?);
            // A bit that is kept and flipped is no value.
            (kept & value == 0).then_some(Statement::SetMark { value, mask: !kept })
        }
        Content::Loaded(_) | Content::Masked(..) => None,
    }
}

/// How many leading bits a mask has; `None` if others follow a gap.
fn prefix(mask: &[u8]) -> Option<u8> {
    let bits = mask.iter().map(|byte| byte.leading_ones());
    let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let mut leading = 0;
    for bits in bits {
        leading += bits;
        if bits < u8::BITS {
            break;
        }
    }
    (leading == ones).then(|| u8::try_from(leading).ok()).flatten()
}

/// An address's octets from its first ones.
fn filled<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    let mut octets = [0; N];
    octets.get_mut(..value.len())?.copy_from_slice(value);
    Some(octets)
}

fn host_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

/// A link's whole name: without its terminating zero it stands for all names that begin so.
fn link_name(value: &[u8]) -> Option<IfName> {
    let end = value.iter().position(|byte| *byte == 0)?;
    let (name, rest) = value.split_at_checked(end)?;
    rest.iter().all(|byte| *byte == 0).then_some(())?;
    IfName::new(std::str::from_utf8(name).ok()?).ok()
}
