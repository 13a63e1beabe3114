//! The numbers of nf_tables' messages, attributes and expressions (linux `include/uapi/linux/netfilter/nf_tables.h`),
//! and how our types map to them.

use netlink::netfilter;
use netstate::nft::{ChainKind, Family, Hook, Policy};

/// Messages (`NFT_MSG_*`).
pub(crate) mod message {
    pub(crate) const NEW_TABLE: u8 = 0;
    pub(crate) const GET_TABLE: u8 = 1;
    pub(crate) const DEL_TABLE: u8 = 2;
    pub(crate) const NEW_CHAIN: u8 = 3;
    pub(crate) const GET_CHAIN: u8 = 4;
    pub(crate) const DEL_CHAIN: u8 = 5;
    pub(crate) const NEW_RULE: u8 = 6;
    pub(crate) const GET_RULE: u8 = 7;
    pub(crate) const DEL_RULE: u8 = 8;
    pub(crate) const GET_GEN: u8 = 16;
}

/// Attributes of a generation (`NFTA_GEN_*`).
pub(crate) const GEN_ID: u16 = 1;

/// Attributes of a table (`NFTA_TABLE_*`).
pub(crate) mod table {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const USE: u16 = 3;
    pub(crate) const USERDATA: u16 = 6;
}

/// Attributes of a chain (`NFTA_CHAIN_*`, `NFTA_HOOK_*`).
pub(crate) mod chain {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 3;
    pub(crate) const HOOK: u16 = 4;
    pub(crate) const POLICY: u16 = 5;
    pub(crate) const TYPE: u16 = 7;
    pub(crate) const USERDATA: u16 = 12;
    pub(crate) const HOOK_NUMBER: u16 = 1;
    pub(crate) const HOOK_PRIORITY: u16 = 2;
}

/// Attributes of a rule (`NFTA_RULE_*`).
pub(crate) mod rule {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
    pub(crate) const HANDLE: u16 = 3;
    pub(crate) const EXPRESSIONS: u16 = 4;
    pub(crate) const USERDATA: u16 = 7;
}

/// Types of user data that nft(8) writes: comments (libnftnl `udata.h`, `NFTNL_UDATA_*_COMMENT`).
pub(crate) const UDATA_COMMENT: u8 = 0;

/// Expressions of a rule (`NFTA_LIST_*`, `NFTA_EXPR_*`, `NFTA_DATA_*`).
pub(crate) mod expr {
    pub(crate) const LIST_ELEM: u16 = 1;
    pub(crate) const NAME: u16 = 1;
    pub(crate) const DATA: u16 = 2;
    pub(crate) const VALUE: u16 = 1;
    pub(crate) const VERDICT: u16 = 2;
    pub(crate) const VERDICT_CODE: u16 = 1;
    pub(crate) const VERDICT_CHAIN: u16 = 2;
}

/// Attributes of expressions that read or write a register (`NFTA_META_*`, `NFTA_CT_*`, `NFTA_FIB_*`,
/// `NFTA_PAYLOAD_*`, `NFTA_BITWISE_*`, `NFTA_CMP_*`, `NFTA_IMMEDIATE_*`).
pub(crate) mod attr {
    pub(crate) const META_DREG: u16 = 1;
    pub(crate) const META_KEY: u16 = 2;
    pub(crate) const META_SREG: u16 = 3;
    pub(crate) const CT_DREG: u16 = 1;
    pub(crate) const CT_KEY: u16 = 2;
    pub(crate) const FIB_DREG: u16 = 1;
    pub(crate) const FIB_RESULT: u16 = 2;
    pub(crate) const FIB_FLAGS: u16 = 3;
    pub(crate) const PAYLOAD_DREG: u16 = 1;
    pub(crate) const PAYLOAD_BASE: u16 = 2;
    pub(crate) const PAYLOAD_OFFSET: u16 = 3;
    pub(crate) const PAYLOAD_LEN: u16 = 4;
    pub(crate) const BITWISE_SREG: u16 = 1;
    pub(crate) const BITWISE_DREG: u16 = 2;
    pub(crate) const BITWISE_LEN: u16 = 3;
    pub(crate) const BITWISE_MASK: u16 = 4;
    pub(crate) const BITWISE_XOR: u16 = 5;
    pub(crate) const BITWISE_OP: u16 = 6;
    pub(crate) const CMP_SREG: u16 = 1;
    pub(crate) const CMP_OP: u16 = 2;
    pub(crate) const CMP_DATA: u16 = 3;
    pub(crate) const IMMEDIATE_DREG: u16 = 1;
    pub(crate) const IMMEDIATE_DATA: u16 = 2;
    pub(crate) const MASQ_FLAGS: u16 = 1;
    pub(crate) const MASQ_PROTO_MIN: u16 = 2;
    pub(crate) const MASQ_PROTO_MAX: u16 = 3;
    pub(crate) const NAT_TYPE: u16 = 1;
    pub(crate) const NAT_FAMILY: u16 = 2;
    pub(crate) const NAT_ADDR_MIN: u16 = 3;
    pub(crate) const NAT_ADDR_MAX: u16 = 4;
    pub(crate) const NAT_PROTO_MIN: u16 = 5;
    pub(crate) const NAT_PROTO_MAX: u16 = 6;
    pub(crate) const NAT_FLAGS: u16 = 7;
}

/// Registers: the verdict's, and those of 16 bytes (`NFT_REG_*`).
pub(crate) const REG_VERDICT: u32 = 0;
pub(crate) const REG_1: u32 = 1;
pub(crate) const REG_2: u32 = 2;

/// What `meta` reads (`NFT_META_*`).
pub(crate) mod meta {
    pub(crate) const PROTOCOL: u32 = 1;
    pub(crate) const MARK: u32 = 3;
    pub(crate) const IIFNAME: u32 = 6;
    pub(crate) const OIFNAME: u32 = 7;
    pub(crate) const IIFTYPE: u32 = 8;
    pub(crate) const NFPROTO: u32 = 15;
    pub(crate) const L4PROTO: u32 = 16;
}

/// What `ct` reads (`NFT_CT_STATE`).
pub(crate) const CT_STATE: u32 = 0;

/// The type of the destination address (`NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`), and the type that is this
/// host's own (`RTN_LOCAL`, linux `rtnetlink.h`).
pub(crate) const FIB_RESULT_ADDRTYPE: u32 = 3;
pub(crate) const FIB_F_DADDR: u32 = 2;
pub(crate) const RTN_LOCAL: u32 = 2;

/// Where `payload` reads (`NFT_PAYLOAD_*`).
pub(crate) mod base {
    pub(crate) const LINK: u32 = 0;
    pub(crate) const NETWORK: u32 = 1;
    pub(crate) const TRANSPORT: u32 = 2;
}

/// Comparisons (`NFT_CMP_*`).
pub(crate) const CMP_EQ: u32 = 0;
pub(crate) const CMP_NEQ: u32 = 1;

/// Mask and exclusive or, the only bitwise operation that matters here (`NFT_BITWISE_MASK_XOR`).
pub(crate) const BITWISE_MASK_XOR: u32 = 0;

/// Destination translation (`NFT_NAT_DNAT`).
pub(crate) const NAT_DNAT: u32 = 1;

/// How an address or port is chosen (linux `nf_nat.h`, `NF_NAT_RANGE_*`).
pub(crate) const RANGE_MAP_IPS: u32 = 1;
pub(crate) const RANGE_PROTO_SPECIFIED: u32 = 2;
pub(crate) const RANGE_PROTO_RANDOM_FULLY: u32 = 16;

/// Verdicts (linux `netfilter.h`, `NF_*`, and `NFT_*`).
pub(crate) mod verdict {
    pub(crate) const DROP: i32 = 0;
    pub(crate) const ACCEPT: i32 = 1;
    pub(crate) const JUMP: i32 = -3;
    pub(crate) const GOTO: i32 = -4;
    pub(crate) const RETURN: i32 = -5;
}

/// Ethernet's number among link types and its numbers for IPv4 and IPv6 (linux `if_arp.h`, `if_ether.h`).
pub(crate) const ARPHRD_ETHER: u16 = 1;
pub(crate) const ETH_P_IP: u16 = 0x0800;
pub(crate) const ETH_P_IPV6: u16 = 0x86dd;

/// Bytes of an interface's name with its padding (`IFNAMSIZ`).
pub(crate) const IFNAME_BYTES: usize = 16;

/// The fixed part of a message about a family's objects.
pub(crate) const fn header(family: Family) -> [u8; 4] {
    netfilter::header(family.number(), 0)
}

/// The number of a hook, the same for all families here (linux `netfilter.h`, `NF_INET_*`).
pub(crate) const fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

pub(crate) const fn hook(number: u32) -> Option<Hook> {
    match number {
        0 => Some(Hook::Prerouting),
        1 => Some(Hook::Input),
        2 => Some(Hook::Forward),
        3 => Some(Hook::Output),
        4 => Some(Hook::Postrouting),
        _ => None,
    }
}

pub(crate) const fn kind_name(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
        ChainKind::Route => "route",
    }
}

pub(crate) fn kind(name: &str) -> Option<ChainKind> {
    match name {
        "filter" => Some(ChainKind::Filter),
        "nat" => Some(ChainKind::Nat),
        "route" => Some(ChainKind::Route),
        _ => None,
    }
}

pub(crate) const fn policy_number(policy: Policy) -> u32 {
    match policy {
        Policy::Drop => 0,
        Policy::Accept => 1,
    }
}

pub(crate) const fn policy(number: u32) -> Option<Policy> {
    match number {
        0 => Some(Policy::Drop),
        1 => Some(Policy::Accept),
        _ => None,
    }
}
