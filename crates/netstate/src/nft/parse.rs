//! Reading rules in the syntax of nft(8): what [`super::print`] prints, and the other common ways to say it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::{FromStr, SplitWhitespace};

use ipnetwork::IpNetwork;
use net_types::IfName;

use super::print::{port_protocol_number, protocol_number};
use super::{Comparison, CtStates, Family, Match, Rule, Statement, Verdict};
use crate::TextError;

const STATEMENT: &str = "a match or statement that this program knows";
const PORT: &str = "a port number";
const MARK: &str = "a mark, decimal or hexadecimal with 0x";
const NETWORK: &str = "an address or network of this family";

impl FromStr for Rule {
    type Err = TextError;

    /// Reads a rule, or only its matches.
    fn from_str(text: &str) -> Result<Self, TextError> {
        let (text, comment) = split_comment(text)?;
        let mut words = Words(text.split_whitespace());
        let mut statements = Vec::new();
        let mut transport = None;
        while let Some(word) = words.0.next() {
            if let Some(port) = port(word, &mut words)? {
                let number = port_protocol_number(word);
                if let Some(number) = number.filter(|number| transport != Some(*number)) {
                    statements.push(Statement::Match(Comparison::Is, Match::L4Proto(number)));
                    transport = Some(number);
                }
                statements.push(port);
                continue;
            }
            let statement = statement(word, &mut words)?;
            if let Statement::Match(comparison, Match::L4Proto(number)) = statement {
                transport = Some(number).filter(|_| comparison == Comparison::Is);
            }
            statements.push(statement);
        }
        Ok(Self { statements, comment })
    }
}

/// Takes the comment off the end.
fn split_comment(text: &str) -> Result<(&str, Option<String>), TextError> {
    let text = text.trim();
    let quote = || TextError::Quote(text.to_owned());
    let (rest, comment) = match text.split_once(" comment \"") {
        Some(parts) => parts,
        None => match text.strip_prefix("comment \"") {
            Some(comment) => ("", comment),
            None => return Ok((text, None)),
        },
    };
    let comment = comment.strip_suffix('"').ok_or_else(quote)?;
    Ok((rest, Some(comment.to_owned())))
}

/// The words of a rule, taken from the front.
struct Words<'a>(SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn next(&mut self, expected: &'static str) -> Result<&'a str, TextError> {
        self.0.next().ok_or(TextError::Ends { expected })
    }

    fn peek(&self) -> Option<&'a str> {
        self.0.clone().next()
    }

    fn take_if(&mut self, any: &[&str]) -> bool {
        let found = self.peek().is_some_and(|word| any.contains(&word));
        if found {
            self.0.next();
        }
        found
    }

    fn value<T>(
        &mut self,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, TextError> {
        let word = self.next(expected)?;
        read(word).ok_or_else(|| unexpected(word, expected))
    }

    fn comparison(&mut self) -> Comparison {
        if self.take_if(&["!="]) {
            return Comparison::IsNot;
        }
        self.take_if(&["=="]);
        Comparison::Is
    }

    /// A comparison and its value.
    fn compared(
        &mut self,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<Match>,
    ) -> Result<Statement, TextError> {
        let comparison = self.comparison();
        Ok(Statement::Match(comparison, self.value(expected, read)?))
    }
}

fn unexpected(word: &str, expected: &'static str) -> TextError {
    TextError::Unexpected {
        word: word.to_owned(),
        expected,
    }
}

/// A match of a port, if the word begins one.
fn port(transport: &str, words: &mut Words<'_>) -> Result<Option<Statement>, TextError> {
    if transport != "th" && port_protocol_number(transport).is_none() {
        return Ok(None);
    }
    let make = match words.next("sport or dport")? {
        "sport" => Match::Sport,
        "dport" => Match::Dport,
        other => return Err(unexpected(other, "sport or dport")),
    };
    let read = |word: &str| word.parse().ok().map(make);
    words.compared(PORT, read).map(Some)
}

fn statement(word: &str, words: &mut Words<'_>) -> Result<Statement, TextError> {
    let verdict = match word {
        "ip" => return address(words, Family::Ip),
        "ip6" => return address(words, Family::Ip6),
        "ether" => return ether(words),
        "meta" => {
            let key = words.next("l4proto, nfproto, mark, iifname or oifname")?;
            return meta(key, words);
        }
        "l4proto" | "nfproto" | "mark" | "iifname" | "oifname" => return meta(word, words),
        "fib" => return fib(words),
        "ct" => return ct(words),
        "counter" => return counter(words),
        "masquerade" => {
            let fully_random = words.take_if(&["fully-random"]);
            return Ok(Statement::Masquerade { fully_random });
        }
        "dnat" => return dnat(words),
        "accept" => Verdict::Accept,
        "drop" => Verdict::Drop,
        "return" => Verdict::Return,
        "jump" => Verdict::Jump(words.next("the name of a chain")?.to_owned()),
        "goto" => Verdict::Goto(words.next("the name of a chain")?.to_owned()),
        other => return Err(unexpected(other, STATEMENT)),
    };
    Ok(Statement::Verdict(verdict))
}

fn address(words: &mut Words<'_>, family: Family) -> Result<Statement, TextError> {
    let make = match words.next("saddr or daddr")? {
        "saddr" => Match::Saddr,
        "daddr" => Match::Daddr,
        other => return Err(unexpected(other, "saddr or daddr")),
    };
    words.compared(NETWORK, |word| {
        let net: IpNetwork = word.parse().ok()?;
        (net.is_ipv4() == (family == Family::Ip)).then(|| make(net))
    })
}

fn ether(words: &mut Words<'_>) -> Result<Statement, TextError> {
    match words.next("saddr")? {
        "saddr" => words.compared("a MAC address", |word| word.parse().ok().map(Match::EtherSaddr)),
        other => Err(unexpected(other, "saddr")),
    }
}

fn meta(key: &str, words: &mut Words<'_>) -> Result<Statement, TextError> {
    match key {
        "l4proto" => words.compared("a transport protocol by name or number", |word| {
            let number = word.parse().ok().or_else(|| protocol_number(word));
            number.map(Match::L4Proto)
        }),
        "nfproto" => words.compared("ipv4 or ipv6", |word| match word {
            "ipv4" => Some(Match::NfProto(Family::Ip)),
            "ipv6" => Some(Match::NfProto(Family::Ip6)),
            _ => None,
        }),
        "mark" => mark(words),
        "iifname" => words.compared("the name of a link", |word| link_name(word).map(Match::Iifname)),
        "oifname" => words.compared("the name of a link", |word| link_name(word).map(Match::Oifname)),
        other => Err(unexpected(other, "l4proto, nfproto, mark, iifname or oifname")),
    }
}

/// The name of a link, in quotes or not; one that ends in an asterisk would stand for many.
fn link_name(word: &str) -> Option<IfName> {
    let bare = match word.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => word,
    };
    let name = match (bare.strip_suffix("\\*"), bare.ends_with('*')) {
        (Some(name), _) => format!("{name}*"),
        (None, true) => return None,
        (None, false) => bare.to_owned(),
    };
    IfName::new(&name).ok()
}

fn number(word: &str) -> Option<u32> {
    match word.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => word.parse().ok(),
    }
}

fn mark(words: &mut Words<'_>) -> Result<Statement, TextError> {
    if words.take_if(&["set"]) {
        return set_mark(words);
    }
    if words.take_if(&["&", "and"]) {
        let mask = words.value(MARK, number)?;
        let comparison = match words.next("== or !=")? {
            "==" => Comparison::Is,
            "!=" => Comparison::IsNot,
            other => return Err(unexpected(other, "== or !=")),
        };
        let value = words.value(MARK, number)?;
        return Ok(Statement::Match(comparison, Match::Mark { value, mask }));
    }
    words.compared(MARK, |word| {
        let (value, mask) = match word.split_once('/') {
            Some((value, mask)) if mask.starts_with("0x") => (number(value)?, number(mask)?),
            Some((value, len)) => (number(value)?, leading_bits(len.parse().ok()?)?),
            None => (number(word)?, u32::MAX),
        };
        Some(Match::Mark { value, mask })
    })
}

/// A mask of this many leading bits, as nft prints it behind a slash.
fn leading_bits(len: u32) -> Option<u32> {
    let rest = u32::BITS.checked_sub(len)?;
    Some(u32::MAX.checked_shl(rest).unwrap_or(0))
}

fn set_mark(words: &mut Words<'_>) -> Result<Statement, TextError> {
    let word = words.next(MARK)?;
    if word != "meta" && word != "mark" {
        let value = number(word).ok_or_else(|| unexpected(word, MARK))?;
        return Ok(Statement::SetMark {
            value,
            mask: u32::MAX,
        });
    }
    if word == "meta" {
        words.value("mark", |word| (word == "mark").then_some(()))?;
    }
    let mut kept = u32::MAX;
    let mut value = 0;
    if words.take_if(&["&", "and"]) {
        kept = words.value(MARK, number)?;
    }
    if words.take_if(&["|", "or"]) {
        value = words.value(MARK, number)?;
    }
    Ok(Statement::SetMark {
        value,
        mask: !kept | value,
    })
}

fn fib(words: &mut Words<'_>) -> Result<Statement, TextError> {
    words.value("daddr", |word| (word == "daddr").then_some(()))?;
    words.value("type", |word| (word == "type").then_some(()))?;
    words.compared("local", |word| (word == "local").then_some(Match::DaddrIsLocal))
}

fn ct(words: &mut Words<'_>) -> Result<Statement, TextError> {
    words.value("state", |word| (word == "state").then_some(()))?;
    let exact = words.take_if(&["!="]);
    let comparison = if exact || words.take_if(&["!"]) {
        Comparison::IsNot
    } else {
        Comparison::Is
    };
    let states = words.value("invalid, established, related or new, joined by commas", |word| {
        // Unlike "!", "!=" compares with all states at once, which no packet is in.
        let readable = !(exact && word.contains(','));
        readable.then(|| ct_states(word)).flatten()
    })?;
    Ok(Statement::Match(comparison, Match::CtState(states)))
}

fn ct_states(word: &str) -> Option<CtStates> {
    let mut states = CtStates::default();
    for name in word.split(',') {
        let state = match name {
            "invalid" => &mut states.invalid,
            "established" => &mut states.established,
            "related" => &mut states.related,
            "new" => &mut states.new,
            _ => return None,
        };
        *state = true;
    }
    Some(states)
}

/// A counter; its figures, if printed, are no state.
fn counter(words: &mut Words<'_>) -> Result<Statement, TextError> {
    if words.take_if(&["packets"]) {
        words.value("a number of packets", |word| word.parse::<u64>().ok())?;
        words.value("bytes", |word| (word == "bytes").then_some(()))?;
        words.value("a number of bytes", |word| word.parse::<u64>().ok())?;
    }
    Ok(Statement::Counter)
}

fn dnat(words: &mut Words<'_>) -> Result<Statement, TextError> {
    let family = words.peek();
    if words.take_if(&["ip", "ip6"]) {
        let is_v4 = family == Some("ip");
        return new_destination(words, |addr| addr.is_ipv4() == is_v4);
    }
    new_destination(words, |_| true)
}

fn new_destination(words: &mut Words<'_>, fits: impl FnOnce(IpAddr) -> bool) -> Result<Statement, TextError> {
    words.take_if(&["to"]);
    words.value("an address, with or without a port", |word| {
        let (addr, port) = socket(word)?;
        fits(addr).then_some(Statement::Dnat { addr, port })
    })
}

fn socket(word: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Some(rest) = word.strip_prefix('[') {
        let (addr, rest) = rest.split_once(']')?;
        let addr: Ipv6Addr = addr.parse().ok()?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port.parse().ok()?),
            None if rest.is_empty() => None,
            None => return None,
        };
        return Some((addr.into(), port));
    }
    if let Ok(addr) = word.parse() {
        return Some((addr, None));
    }
    let (addr, port) = word.split_once(':')?;
    let addr: Ipv4Addr = addr.parse().ok()?;
    Some((addr.into(), Some(port.parse().ok()?)))
}
