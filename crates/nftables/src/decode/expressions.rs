//! Single expressions of a rule.

use netlink::tlv::{attribute, be32, text};
use netstate::nft::{Comparison, Verdict};

use crate::wire::{self, attr, expr};

/// An expression that we may be able to make sense of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// Reads something into a register.
    Load { register: u32, source: Source },
    /// Masks and alters a register.
    Bitwise {
        source: u32,
        target: u32,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Goes on only if a register compares.
    Compare {
        register: u32,
        comparison: Comparison,
        value: Vec<u8>,
    },
    /// Puts a value into a register.
    Immediate { register: u32, value: Vec<u8> },
    /// Sets the packet's mark from a register.
    SetMark { register: u32 },
    /// Replaces the destination by what registers hold.
    Dnat {
        family: u8,
        addr: u32,
        port: Option<u32>,
    },
    /// Replaces the source by the outgoing interface's address.
    Masquerade { fully_random: bool },
    /// Counts.
    Counter,
    /// Decides.
    Verdict(Verdict),
}

/// What is read into a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Meta(u32),
    CtState,
    FibDaddrType,
    Payload { base: u32, offset: u32, len: u32 },
}

/// Makes sense of an expression; `None` if it says anything that we never write.
pub(super) fn expression(name: &str, data: &[u8]) -> Option<Expression> {
    match name {
        "meta" => meta(data),
        "ct" => Some(Expression::Load {
            register: number(data, attr::CT_DREG)?,
            source: (number(data, attr::CT_KEY)? == wire::CT_STATE).then_some(Source::CtState)?,
        }),
        "fib" => fib(data),
        "payload" => Some(Expression::Load {
            register: number(data, attr::PAYLOAD_DREG)?,
            source: Source::Payload {
                base: number(data, attr::PAYLOAD_BASE)?,
                offset: number(data, attr::PAYLOAD_OFFSET)?,
                len: number(data, attr::PAYLOAD_LEN)?,
            },
        }),
        "bitwise" => bitwise(data),
        "cmp" => Some(Expression::Compare {
            register: number(data, attr::CMP_SREG)?,
            comparison: match number(data, attr::CMP_OP)? {
                wire::CMP_EQ => Comparison::Is,
                wire::CMP_NEQ => Comparison::IsNot,
                _ => return None,
            },
            value: value(data, attr::CMP_DATA)?,
        }),
        "immediate" => immediate(data),
        "nat" => nat(data),
        "masq" => masquerade(data),
        "counter" => Some(Expression::Counter),
        _ => None,
    }
}

fn number(data: &[u8], kind: u16) -> Option<u32> {
    attribute(data, kind).and_then(be32)
}

fn value(data: &[u8], kind: u16) -> Option<Vec<u8>> {
    Some(attribute(attribute(data, kind)?, expr::VALUE)?.to_vec())
}

fn meta(data: &[u8]) -> Option<Expression> {
    let key = number(data, attr::META_KEY)?;
    match (number(data, attr::META_DREG), number(data, attr::META_SREG)) {
        (Some(register), None) => Some(Expression::Load {
            register,
            source: Source::Meta(key),
        }),
        (None, Some(register)) if key == wire::meta::MARK => Some(Expression::SetMark { register }),
        _ => None,
    }
}

fn fib(data: &[u8]) -> Option<Expression> {
    let of_daddr = number(data, attr::FIB_FLAGS)? == wire::FIB_F_DADDR;
    let kind = number(data, attr::FIB_RESULT)? == wire::FIB_RESULT_ADDRTYPE;
    (of_daddr && kind).then_some(())?;
    Some(Expression::Load {
        register: number(data, attr::FIB_DREG)?,
        source: Source::FibDaddrType,
    })
}

fn bitwise(data: &[u8]) -> Option<Expression> {
    // Old kernels have the one operation only, and don't tell it.
    let op = number(data, attr::BITWISE_OP).unwrap_or(wire::BITWISE_MASK_XOR);
    (op == wire::BITWISE_MASK_XOR).then_some(())?;
    let (mask, xor) = (value(data, attr::BITWISE_MASK)?, value(data, attr::BITWISE_XOR)?);
    (mask.len() == xor.len()).then_some(())?;
    Some(Expression::Bitwise {
        source: number(data, attr::BITWISE_SREG)?,
        target: number(data, attr::BITWISE_DREG)?,
        mask,
        xor,
    })
}

fn immediate(data: &[u8]) -> Option<Expression> {
    let register = number(data, attr::IMMEDIATE_DREG)?;
    let content = attribute(data, attr::IMMEDIATE_DATA)?;
    if let Some(value) = attribute(content, expr::VALUE) {
        let value = value.to_vec();
        return (register != wire::REG_VERDICT).then_some(Expression::Immediate { register, value });
    }
    (register == wire::REG_VERDICT).then_some(())?;
    let verdict = attribute(content, expr::VERDICT)?;
    let code = attribute(verdict, expr::VERDICT_CODE)?.try_into().ok()?;
    let chain = || attribute(verdict, expr::VERDICT_CHAIN).map(text);
    let verdict = match i32::from_be_bytes(code) {
        wire::verdict::ACCEPT => Verdict::Accept,
        wire::verdict::DROP => Verdict::Drop,
        wire::verdict::RETURN => Verdict::Return,
        wire::verdict::JUMP => Verdict::Jump(chain()?),
        wire::verdict::GOTO => Verdict::Goto(chain()?),
        _ => return None,
    };
    Some(Expression::Verdict(verdict))
}

fn nat(data: &[u8]) -> Option<Expression> {
    (number(data, attr::NAT_TYPE)? == wire::NAT_DNAT).then_some(())?;
    // The kernel adds these flags by itself, depending on its age.
    let flags = number(data, attr::NAT_FLAGS).unwrap_or(0);
    (flags & !(wire::RANGE_MAP_IPS | wire::RANGE_PROTO_SPECIFIED) == 0).then_some(())?;
    let addr = number(data, attr::NAT_ADDR_MIN)?;
    let port = number(data, attr::NAT_PROTO_MIN);
    // The kernel tells the end of a range even if it is the beginning.
    let one_addr = number(data, attr::NAT_ADDR_MAX).is_none_or(|max| max == addr);
    let one_port = number(data, attr::NAT_PROTO_MAX).is_none_or(|max| Some(max) == port);
    (one_addr && one_port).then_some(())?;
    Some(Expression::Dnat {
        family: u8::try_from(number(data, attr::NAT_FAMILY)?).ok()?,
        addr,
        port,
    })
}

fn masquerade(data: &[u8]) -> Option<Expression> {
    let to_ports = [attr::MASQ_PROTO_MIN, attr::MASQ_PROTO_MAX];
    if to_ports.iter().any(|kind| attribute(data, *kind).is_some()) {
        return None;
    }
    match number(data, attr::MASQ_FLAGS).unwrap_or(0) {
        0 => Some(Expression::Masquerade { fully_random: false }),
        wire::RANGE_PROTO_RANDOM_FULLY => Some(Expression::Masquerade { fully_random: true }),
        _ => None,
    }
}
