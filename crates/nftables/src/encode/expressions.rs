//! Statements as the register expressions of the kernel, in the way that nft(8) compiles them.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::IfName;
use netlink::tlv::Attributes;
use netstate::nft::{Comparison, CtStates, Family, Match, Statement, Verdict};

use super::EncodeError;
use crate::wire::{self, attr, base, expr, meta};

/// A rule's expressions under construction.
pub(super) struct Expressions<'a> {
    list: &'a mut Attributes,
    family: Family,
    /// The network layer that an expression so far has made sure of, where the table sees several.
    network: Option<Family>,
    /// Whether an expression so far has made sure of Ethernet, where the table sees other links too.
    ethernet: bool,
}

impl<'a> Expressions<'a> {
    pub(super) const fn new(list: &'a mut Attributes, family: Family) -> Self {
        Self {
            list,
            family,
            network: None,
            ethernet: false,
        }
    }

    /// Adds what a statement compiles to.
    pub(super) fn statement(&mut self, statement: &Statement) -> Result<(), EncodeError> {
        match statement {
            Statement::Match(comparison, property) => self.property(*comparison, property)?,
            Statement::Counter => self.add("counter", |_| {}),
            Statement::SetMark { value, mask } => self.set_mark(*value & *mask, *mask),
            Statement::Masquerade { fully_random } => self.add("masq", |data| {
                if *fully_random {
                    data.put_be32(attr::MASQ_FLAGS, wire::RANGE_PROTO_RANDOM_FULLY);
                }
            }),
            Statement::Dnat { addr, port } => self.dnat(*addr, *port)?,
            Statement::Verdict(verdict) => self.verdict(verdict),
            Statement::Other(name) => return Err(EncodeError::Unknown(name.clone())),
        }
        Ok(())
    }

    fn property(&mut self, comparison: Comparison, property: &Match) -> Result<(), EncodeError> {
        match property {
            Match::Saddr(net) => self.address(comparison, *net, Side::Source)?,
            Match::Daddr(net) => self.address(comparison, *net, Side::Destination)?,
            Match::DaddrIsLocal => {
                self.add("fib", |data| {
                    data.put_be32(attr::FIB_DREG, wire::REG_1);
                    data.put_be32(attr::FIB_RESULT, wire::FIB_RESULT_ADDRTYPE);
                    data.put_be32(attr::FIB_FLAGS, wire::FIB_F_DADDR);
                });
                self.compare(comparison, &wire::RTN_LOCAL.to_ne_bytes());
            }
            Match::L4Proto(number) => self.meta(meta::L4PROTO, comparison, &[*number]),
            Match::NfProto(family) => self.nfproto(comparison, *family)?,
            Match::Sport(port) => self.port(comparison, 0, *port),
            Match::Dport(port) => self.port(comparison, 2, *port),
            Match::Mark { value, mask } => {
                self.load_meta(meta::MARK);
                if *mask != u32::MAX {
                    self.bitwise(&mask.to_ne_bytes(), &[0; 4]);
                }
                self.compare(comparison, &value.to_ne_bytes());
            }
            Match::Iifname(name) => self.meta(meta::IIFNAME, comparison, &padded(name)),
            Match::Oifname(name) => self.meta(meta::OIFNAME, comparison, &padded(name)),
            Match::CtState(states) => self.ct_state(comparison, *states),
            Match::EtherSaddr(mac) => {
                if self.family != Family::Bridge && !self.ethernet {
                    self.meta(meta::IIFTYPE, Comparison::Is, &wire::ARPHRD_ETHER.to_ne_bytes());
                    self.ethernet = true;
                }
                self.payload(base::LINK, 6, 6);
                self.compare(comparison, &mac.octets());
            }
        }
        Ok(())
    }

    fn nfproto(&mut self, comparison: Comparison, family: Family) -> Result<(), EncodeError> {
        // In a table of one family it never holds, unless it always does and is left out of the canonical form. nft
        // 1.0.6 aborts when it lists such a rule with some others.
        let known = matches!(family, Family::Ip | Family::Ip6);
        if !known || self.family != Family::Inet {
            let statement = Statement::Match(comparison, Match::NfProto(family));
            return Err(self.misplaced(&statement));
        }
        self.meta(meta::NFPROTO, comparison, &[family.number()]);
        if comparison == Comparison::Is {
            self.network = Some(family);
        }
        Ok(())
    }

    fn address(&mut self, comparison: Comparison, net: IpNetwork, side: Side) -> Result<(), EncodeError> {
        let family = self.network_layer(net.ip())?;
        if self.family != family && self.network != Some(family) {
            self.depend_on(family);
        }
        let (offset, octets) = field(net.network(), side);
        let prefix = usize::from(net.prefix());
        let whole = octets.len();
        if prefix.is_multiple_of(8) && prefix > 0 {
            // As nft(8) has it: only the bytes that count are read.
            let octets = octets.get(..prefix / 8).unwrap_or(&octets);
            self.payload(base::NETWORK, offset, octets.len());
            self.compare(comparison, octets);
            return Ok(());
        }
        let (_, mask) = field(net.mask(), side);
        self.payload(base::NETWORK, offset, whole);
        self.bitwise(&mask, &vec![0; whole]);
        self.compare(comparison, &octets);
        Ok(())
    }

    /// The network layer of an address; an error in tables that never see it.
    fn network_layer(&self, addr: IpAddr) -> Result<Family, EncodeError> {
        let family = match addr {
            IpAddr::V4(_) => Family::Ip,
            IpAddr::V6(_) => Family::Ip6,
        };
        match self.family {
            Family::Ip | Family::Ip6 if self.family != family => Err(EncodeError::WrongFamily {
                addr,
                family: self.family,
            }),
            Family::Ip | Family::Ip6 | Family::Inet | Family::Bridge => Ok(family),
        }
    }

    /// Makes sure that the packet has a network layer, where the table sees several.
    fn depend_on(&mut self, family: Family) {
        if self.family == Family::Bridge {
            let protocol = match family {
                Family::Ip6 => wire::ETH_P_IPV6,
                Family::Ip | Family::Inet | Family::Bridge => wire::ETH_P_IP,
            };
            self.meta(meta::PROTOCOL, Comparison::Is, &protocol.to_be_bytes());
        } else {
            self.meta(meta::NFPROTO, Comparison::Is, &[family.number()]);
        }
        self.network = Some(family);
    }

    fn port(&mut self, comparison: Comparison, offset: u32, port: u16) {
        self.payload(base::TRANSPORT, offset, 2);
        self.compare(comparison, &port.to_be_bytes());
    }

    fn ct_state(&mut self, comparison: Comparison, states: CtStates) {
        self.add("ct", |data| {
            data.put_be32(attr::CT_DREG, wire::REG_1);
            data.put_be32(attr::CT_KEY, wire::CT_STATE);
        });
        self.bitwise(&states.bits().to_ne_bytes(), &[0; 4]);
        // A connection is in one of the states if a bit is left.
        let inverse = match comparison {
            Comparison::Is => Comparison::IsNot,
            Comparison::IsNot => Comparison::Is,
        };
        self.compare(inverse, &[0; 4]);
    }

    fn set_mark(&mut self, value: u32, mask: u32) {
        if mask == u32::MAX {
            self.immediate(wire::REG_1, &value.to_ne_bytes());
        } else {
            self.load_meta(meta::MARK);
            self.bitwise(&(!mask).to_ne_bytes(), &value.to_ne_bytes());
        }
        self.add("meta", |data| {
            data.put_be32(attr::META_KEY, meta::MARK);
            data.put_be32(attr::META_SREG, wire::REG_1);
        });
    }

    fn dnat(&mut self, addr: IpAddr, port: Option<u16>) -> Result<(), EncodeError> {
        if self.family == Family::Bridge {
            return Err(self.misplaced(&Statement::Dnat { addr, port }));
        }
        let family = self.network_layer(addr)?;
        let (_, octets) = field(addr, Side::Destination);
        self.immediate(wire::REG_1, &octets);
        if let Some(port) = port {
            self.immediate(wire::REG_2, &port.to_be_bytes());
        }
        self.add("nat", |data| {
            data.put_be32(attr::NAT_TYPE, wire::NAT_DNAT);
            data.put_be32(attr::NAT_FAMILY, u32::from(family.number()));
            data.put_be32(attr::NAT_ADDR_MIN, wire::REG_1);
            if port.is_some() {
                data.put_be32(attr::NAT_PROTO_MIN, wire::REG_2);
                data.put_be32(attr::NAT_FLAGS, wire::RANGE_PROTO_SPECIFIED);
            }
        });
        Ok(())
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let (code, chain) = match verdict {
            Verdict::Accept => (wire::verdict::ACCEPT, None),
            Verdict::Drop => (wire::verdict::DROP, None),
            Verdict::Return => (wire::verdict::RETURN, None),
            Verdict::Jump(chain) => (wire::verdict::JUMP, Some(chain)),
            Verdict::Goto(chain) => (wire::verdict::GOTO, Some(chain)),
        };
        self.add("immediate", |data| {
            data.put_be32(attr::IMMEDIATE_DREG, wire::REG_VERDICT);
            data.nest(attr::IMMEDIATE_DATA, |value| {
                value.nest(expr::VERDICT, |verdict| {
                    verdict.put(expr::VERDICT_CODE, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        verdict.put_text(expr::VERDICT_CHAIN, chain);
                    }
                });
            });
        });
    }

    fn meta(&mut self, key: u32, comparison: Comparison, value: &[u8]) {
        self.load_meta(key);
        self.compare(comparison, value);
    }

    fn load_meta(&mut self, key: u32) {
        self.add("meta", |data| {
            data.put_be32(attr::META_KEY, key);
            data.put_be32(attr::META_DREG, wire::REG_1);
        });
    }

    fn payload(&mut self, base: u32, offset: u32, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.add("payload", |data| {
            data.put_be32(attr::PAYLOAD_DREG, wire::REG_1);
            data.put_be32(attr::PAYLOAD_BASE, base);
            data.put_be32(attr::PAYLOAD_OFFSET, offset);
            data.put_be32(attr::PAYLOAD_LEN, len);
        });
    }

    fn bitwise(&mut self, mask: &[u8], xor: &[u8]) {
        let len = u32::try_from(mask.len()).unwrap_or(u32::MAX);
        self.add("bitwise", |data| {
            data.put_be32(attr::BITWISE_SREG, wire::REG_1);
            data.put_be32(attr::BITWISE_DREG, wire::REG_1);
            data.put_be32(attr::BITWISE_LEN, len);
            data.put_be32(attr::BITWISE_OP, wire::BITWISE_MASK_XOR);
            data.nest(attr::BITWISE_MASK, |value| value.put(expr::VALUE, mask));
            data.nest(attr::BITWISE_XOR, |value| value.put(expr::VALUE, xor));
        });
    }

    fn compare(&mut self, comparison: Comparison, value: &[u8]) {
        let op = match comparison {
            Comparison::Is => wire::CMP_EQ,
            Comparison::IsNot => wire::CMP_NEQ,
        };
        self.add("cmp", |data| {
            data.put_be32(attr::CMP_SREG, wire::REG_1);
            data.put_be32(attr::CMP_OP, op);
            data.nest(attr::CMP_DATA, |data| data.put(expr::VALUE, value));
        });
    }

    fn immediate(&mut self, register: u32, value: &[u8]) {
        self.add("immediate", |data| {
            data.put_be32(attr::IMMEDIATE_DREG, register);
            data.nest(attr::IMMEDIATE_DATA, |data| data.put(expr::VALUE, value));
        });
    }

    fn add(&mut self, name: &str, fill: impl FnOnce(&mut Attributes)) {
        self.list.nest(expr::LIST_ELEM, |element| {
            element.put_text(expr::NAME, name);
            element.nest(expr::DATA, fill);
        });
    }

    fn misplaced(&self, statement: &Statement) -> EncodeError {
        EncodeError::WrongTable {
            statement: statement.to_string(),
            family: self.family,
        }
    }
}

/// Which address of a packet.
#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// Where an address stands in its header (RFC 791 §3.1, RFC 8200 §3), and its octets.
fn field(addr: IpAddr, side: Side) -> (u32, Vec<u8>) {
    match (addr, side) {
        (IpAddr::V4(addr), Side::Source) => (12, addr.octets().to_vec()),
        (IpAddr::V4(addr), Side::Destination) => (16, addr.octets().to_vec()),
        (IpAddr::V6(addr), Side::Source) => (8, addr.octets().to_vec()),
        (IpAddr::V6(addr), Side::Destination) => (24, addr.octets().to_vec()),
    }
}

fn padded(name: &IfName) -> Vec<u8> {
    let mut bytes = name.as_str().as_bytes().to_vec();
    bytes.resize(wire::IFNAME_BYTES, 0);
    bytes
}
