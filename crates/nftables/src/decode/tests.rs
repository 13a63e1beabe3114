use netlink::tlv::Attributes;
use netstate::nft::{Change, Statement, TableKey, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::encode;

fn read_rule(family: Family, bytes: &[u8]) -> Option<RawRule> {
    rule(family, bytes, place(bytes)?)
}

/// A rule's message as the kernel would describe it.
fn described(text: &str) -> Vec<u8> {
    let change = Change::AppendRule {
        table: TableKey {
            family: Family::Inet,
            name: "t".to_owned(),
        },
        chain: "c".to_owned(),
        rule: text.parse().unwrap(),
    };
    let mut bytes = encode::change(&change).unwrap().payload.split_off(4);
    let mut handle = Attributes::default();
    handle.put(rule::HANDLE, &7_u64.to_be_bytes());
    bytes.extend(handle.finish().unwrap());
    bytes
}

const TEXT: &str = "meta l4proto tcp ip saddr 10.0.0.0/9 ether saddr 02:00:00:00:00:01 tcp sport 1 ct state new iifname \
                    eth0 fib daddr type local meta mark & 0x1 == 0x1 mark set mark or 0x2 counter dnat to 1.1.1.1:5 \
                    masquerade fully-random jump d comment \"abc\"";

#[test]
fn a_rule_reads_back_as_it_is_written() {
    let read = read_rule(Family::Inet, &described(TEXT)).unwrap();
    let written: Rule = TEXT.parse().unwrap();
    assert_eq!(read.rule, written.canonical(Family::Inet));
    assert_eq!((read.chain.as_str(), read.handle), ("c", 7));
}

#[test]
fn a_read_that_nothing_uses_is_seen() {
    let mut list = Attributes::default();
    list.nest(wire::expr::LIST_ELEM, |element| {
        element.put_text(wire::expr::NAME, "meta");
        element.nest(wire::expr::DATA, |data| {
            data.put_be32(wire::attr::META_KEY, wire::meta::MARK);
            data.put_be32(wire::attr::META_DREG, wire::REG_1);
        });
    });
    let statements = statements::statements(Family::Ip, &list.finish().unwrap());
    assert_eq!(statements, [Statement::Other("meta".to_owned())]);
}

#[test]
fn a_verdict_without_its_chain_is_not_understood() {
    let bytes = described("jump dd");
    let at = bytes.windows(2).position(|pair| pair == b"dd").unwrap();
    let mut broken = bytes.clone();
    // The attribute of the chain's name gets another type.
    broken[at - 2] = 9;
    let statement = |bytes: &[u8]| read_rule(Family::Inet, bytes).unwrap().rule.statements;
    assert_eq!(
        statement(&bytes),
        [Statement::Verdict(Verdict::Jump("dd".to_owned()))]
    );
    assert_eq!(statement(&broken), [Statement::Other("immediate".to_owned())]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in vec(any::<u8>(), 0..300), family in family()) {
        read_all(family, &bytes);
    }

    #[test]
    fn no_altered_rule_makes_the_reader_panic(
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        family in family(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = described(TEXT);
        for (index, byte) in edits {
            *index.get_mut(&mut bytes) = byte;
        }
        read_all(family, &bytes);
        let cut = cut.index(bytes.len());
        read_all(family, &bytes[..cut]);
    }

    #[test]
    fn a_read_of_any_place_and_length_never_panics(
        base in 0_u32..4,
        offset in prop_oneof![0_u32..45, any::<u32>()],
        value in vec(any::<u8>(), 0..40),
        mask in vec(select(vec![0_u8, 0x80, 0xf0, 0xff]), 0..20),
        masked in any::<bool>(),
        family in family(),
    ) {
        let mut list = Attributes::default();
        let len = u32::try_from(value.len()).unwrap();
        add(&mut list, "meta", |data| {
            data.put_be32(wire::attr::META_KEY, wire::meta::NFPROTO);
            data.put_be32(wire::attr::META_DREG, 1);
        });
        compare(&mut list, &[Family::Ip6.number()]);
        add(&mut list, "payload", |data| {
            data.put_be32(wire::attr::PAYLOAD_DREG, 1);
            data.put_be32(wire::attr::PAYLOAD_BASE, base);
            data.put_be32(wire::attr::PAYLOAD_OFFSET, offset);
            data.put_be32(wire::attr::PAYLOAD_LEN, len);
        });
        if masked {
            add(&mut list, "bitwise", |data| {
                data.put_be32(wire::attr::BITWISE_SREG, 1);
                data.put_be32(wire::attr::BITWISE_DREG, 1);
                data.nest(wire::attr::BITWISE_MASK, |data| data.put(wire::expr::VALUE, &mask));
                data.nest(wire::attr::BITWISE_XOR, |data| data.put(wire::expr::VALUE, &vec![0; mask.len()]));
            });
        }
        compare(&mut list, &value);
        let statements = statements::statements(family, &list.finish().unwrap());
        prop_assert!(statements.len() >= 2);
    }
}

fn add(list: &mut Attributes, name: &str, fill: impl FnOnce(&mut Attributes)) {
    list.nest(wire::expr::LIST_ELEM, |element| {
        element.put_text(wire::expr::NAME, name);
        element.nest(wire::expr::DATA, fill);
    });
}

fn compare(list: &mut Attributes, value: &[u8]) {
    add(list, "cmp", |data| {
        data.put_be32(wire::attr::CMP_SREG, 1);
        data.put_be32(wire::attr::CMP_OP, 0);
        data.nest(wire::attr::CMP_DATA, |data| data.put(wire::expr::VALUE, value));
    });
}

fn family() -> impl Strategy<Value = Family> {
    select(vec![Family::Ip, Family::Ip6, Family::Inet, Family::Bridge])
}

fn read_all(family: Family, bytes: &[u8]) {
    drop(table(bytes));
    drop(chain(bytes));
    drop(read_rule(family, bytes));
    drop(comment(bytes));
    drop(statements::statements(family, bytes));
    let _generation = generation(bytes);
}
