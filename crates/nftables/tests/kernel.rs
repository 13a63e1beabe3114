//! What is written to the real kernel, as nft(8) lists it and as it reads back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use common::*;
use netstate::ErrorClass;
use netstate::nft::{Chain, ChainKind, Change, Family, Hook, Policy, Table, listing, replacement};
use nftables::{ApplyError, Nftables, Selection};

/// Writes a table and checks that nft(8) lists it as we print it, and that it reads back.
fn write_and_read(family: Family, table: &Table) {
    let key = key(family, "t");
    let mut nftables = Nftables::open().unwrap();
    nftables.apply(&replacement(&key, table)).unwrap();
    let read = nftables.table(&key).unwrap().unwrap();
    let expected = canonical(family, table);
    assert_eq!(read.table, expected);
    // The kernel lists the chains in the order of their making, which is by name here.
    assert_eq!(ruleset(), listing(&key, &expected));
    run("nft -j list ruleset");
    nftables.apply(&[Change::DelTable(key)]).unwrap();
    assert_eq!(ruleset(), "");
}

#[test]
fn rules_of_ipv4_tables_are_listed_as_they_print_and_read_back() {
    in_netns(|| {
        let postrouting = chain(
            base(ChainKind::Nat, Hook::Postrouting, 100),
            &[
                "meta mark 0x00004000 return",
                "meta mark & 0x00002000 == 0x00002000 return",
                "meta mark & 0x00002000 != 0x00002000 return",
                "meta mark & 0x0000ff00 == 0x00002400 return",
                "meta mark != 0x00000005 return",
                "ip saddr 10.244.57.0/24 ip daddr 10.0.0.0/9 return comment \"hello, world\"",
                "ip saddr != 10.244.57.0/25 ip daddr 10.1.2.3 return",
                "ip saddr 10.1.2.4 ip daddr 10.1.2.3 return",
                "ip saddr 0.0.0.0/0 return",
                "ip saddr 10.0.0.0/8 ip daddr != 224.0.0.0/4 masquerade fully-random",
                "masquerade",
                "oifname \"eth0\" iifname != \"eth1\" accept",
                "oifname \"eth\\*\" accept",
            ],
        );
        let prerouting = chain(
            base(ChainKind::Nat, Hook::Prerouting, -100),
            &[
                "fib daddr type local jump plain",
                "fib daddr type != local return",
                "ip daddr 192.168.0.1 tcp dport 80 dnat to 10.0.0.1:8080",
                "meta l4proto udp ip saddr 10.0.0.9 udp dport 53 dnat to 10.0.0.1",
                "sctp dport 5 dnat to 10.0.0.1:5",
            ],
        );
        let plain = chain(
            None,
            &[
                "tcp dport 80 counter goto second",
                "tcp sport 81 tcp dport 80 counter accept",
                "udp dport != 80 drop",
                "meta l4proto tcp",
                "meta l4proto != tcp th dport 80",
                "meta l4proto 77 return",
                "meta l4proto ipv6-icmp drop",
                "ct state established,related accept",
                "ct state new",
                "ct state invalid,new",
                "ct state ! established,related drop",
                "meta mark set 0x00002000",
                "meta mark set meta mark | 0x00002000",
                "meta mark set meta mark & 0xffff0000",
                "meta mark set meta mark & 0xffff2000 | 0x00002000",
                "ether saddr 02:00:00:00:00:01 accept",
                "th sport 5 return",
            ],
        );
        let mut whole = table([
            ("plain", plain),
            ("postrouting", postrouting),
            ("prerouting", prerouting),
            ("second", Chain::default()),
        ]);
        whole.comment = Some("what the table is for".to_owned());
        whole.chains.get_mut("second").unwrap().comment = Some("what the chain is for".to_owned());
        whole.chains.get_mut("postrouting").unwrap().comment = Some("c".repeat(120));
        write_and_read(Family::Ip, &whole);
    });
}

#[test]
fn rules_of_ipv6_tables_are_listed_as_they_print_and_read_back() {
    in_netns(|| {
        let nat = chain(
            base(ChainKind::Nat, Hook::Prerouting, -100),
            &[
                "ip6 saddr fd00::/48 ip6 daddr fd00::1 accept",
                "ip6 saddr fd00::/47 ip6 daddr != ff00::/8 return",
                "ip6 saddr ::/0 return",
                "tcp dport 80 dnat to [fd00::1]:80",
                "dnat to fd00::1",
            ],
        );
        write_and_read(Family::Ip6, &table([("nat", nat)]));
    });
}

#[test]
fn rules_of_inet_tables_are_listed_as_they_print_and_read_back() {
    in_netns(|| {
        let nat = chain(
            base(ChainKind::Nat, Hook::Prerouting, -100),
            &[
                "meta nfproto ipv4 accept",
                "meta nfproto != ipv6 accept",
                "ip saddr 10.0.0.0/8 ip daddr 10.1.0.0/15 accept",
                "meta nfproto ipv4 ip saddr 10.0.0.0/8 accept",
                "meta nfproto ipv4 tcp dport 80 ip saddr 1.2.3.4 accept",
                "ip saddr 1.1.1.1 meta nfproto ipv4 accept",
                "ip6 saddr fd00::/48 ip6 daddr fd00::1 accept",
                "tcp dport 80 dnat to 10.0.0.1:80",
                "ip6 daddr fd00::2 tcp dport 80 dnat to [fd00::1]:80",
                "ip daddr 1.2.3.4 tcp dport 80 dnat to 10.0.0.1",
                "fib daddr type local accept",
                "ether saddr 02:00:00:00:00:01 ip saddr 10.0.0.1 accept",
            ],
        );
        let postrouting = chain(
            base(ChainKind::Nat, Hook::Postrouting, 100),
            &["masquerade fully-random"],
        );
        write_and_read(Family::Inet, &table([("nat", nat), ("postrouting", postrouting)]));
    });
}

#[test]
fn rules_of_bridge_tables_are_listed_as_they_print_and_read_back() {
    in_netns(|| {
        let rules = [
            "iifname \"veth0\" ether saddr != 02:00:00:00:00:01 drop",
            "ether saddr 02:00:00:00:00:01 return",
            "ip saddr 10.0.0.0/8 ip daddr 10.1.1.1 accept",
            "ip6 saddr fd00::/16 accept",
            "tcp dport 80 accept",
            "meta mark 0x00000001 accept",
        ];
        let filter = chain(base(ChainKind::Filter, Hook::Prerouting, -300), &rules);
        write_and_read(Family::Bridge, &table([("PREROUTING", filter)]));
    });
}

#[test]
fn priorities_are_listed_by_the_names_that_nft_gives_them() {
    in_netns(|| {
        let named = [-300, -200, -150, -100, 0, 50, 100, 300];
        let priorities: Vec<i32> = named
            .iter()
            .flat_map(|named| [-11, -10, -1, 0, 1, 10, 11].map(|offset| named + offset))
            .collect();
        let hooks = [
            Hook::Prerouting,
            Hook::Input,
            Hook::Forward,
            Hook::Output,
            Hook::Postrouting,
        ];
        for family in [Family::Ip, Family::Ip6, Family::Inet, Family::Bridge] {
            let mut whole = Table::default();
            for (index, hook) in hooks.iter().enumerate() {
                for priority in &priorities {
                    let mut chain = chain(base(ChainKind::Filter, *hook, *priority), &[]);
                    chain.base.as_mut().unwrap().policy = Policy::Drop;
                    whole.chains.insert(format!("c{index}-{priority:04}"), chain);
                }
            }
            write_and_read(family, &whole);
        }
    });
}

#[test]
fn the_references_tables_read_as_ours_and_ours_list_as_the_references() {
    for golden in [
        include_str!("data/vxlan.nft"),
        include_str!("data/vxlan-dualstack.nft"),
    ] {
        in_netns(move || {
            nft(golden);
            assert_eq!(ruleset(), golden);
            let mut nftables = Nftables::open().unwrap();
            let keys = [key(Family::Ip, "flannel-ipv4"), key(Family::Ip6, "flannel-ipv6")];
            let theirs: Vec<_> = keys
                .iter()
                .map(|key| nftables.table(key).unwrap().unwrap().table)
                .collect();
            let postrouting = &theirs[0].chains["postrtg"];
            assert_eq!(postrouting.rules.len(), 6);
            assert_eq!(
                postrouting.rules[4].to_string(),
                "ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random"
            );
            run("nft flush ruleset");
            for (key, table) in keys.iter().zip(&theirs) {
                // In the reference's order, which the golden has.
                let mut changes = replacement(key, table);
                changes.sort_by_key(|change| {
                    let forward =
                        matches!(change, Change::AddChain { chain, .. } if chain.as_str() == "forward");
                    let rule = matches!(change, Change::AppendRule { .. });
                    (rule, forward)
                });
                nftables.apply(&changes).unwrap();
                assert_eq!(nftables.table(key).unwrap().unwrap().table, *table);
            }
            assert_eq!(ruleset(), golden);
        });
    }
}

#[test]
fn what_nft_writes_in_other_ways_reads_alike() {
    in_netns(|| {
        let texts = [
            ("ip saddr 10.0.0.0/8 accept", "ip saddr 10.0.0.0/8 accept"),
            ("meta mark and 0x1 == 0x1 accept", "meta mark & 0x1 == 0x1 accept"),
            (
                "meta l4proto tcp ip saddr 1.2.3.4 tcp dport 80 accept",
                "ip saddr 1.2.3.4 tcp dport 80 accept",
            ),
            ("tcp sport 1 tcp dport 2 accept", "tcp sport 1 tcp dport 2 accept"),
            (
                "ip saddr 1.1.1.1 ip daddr 1.1.1.2 accept",
                "ip saddr 1.1.1.1 ip daddr 1.1.1.2 accept",
            ),
            (
                "mark set mark and 0xffffdfff or 0x2000",
                "mark set mark or 0x2000",
            ),
            ("ct state != new accept", "ct state ! new accept"),
            ("ct state { new } accept", "ct state new accept"),
            ("ip saddr { 10.0.0.1 } accept", "ip saddr 10.0.0.1 accept"),
            ("counter packets 7 bytes 9 accept", "counter accept"),
            ("th dport 80 accept", "th dport 80 accept"),
            (
                "iifname \"eth0\" accept comment \"a\"",
                "iifname \"eth0\" accept comment \"a\"",
            ),
        ];
        for family in [Family::Ip, Family::Inet, Family::Bridge] {
            nft(&format!("table {family} t {{ chain c {{ }} ; }}"));
            let mut expected = Vec::new();
            for (text, meaning) in texts {
                // This kernel doesn't track connections of bridges.
                if family == Family::Bridge && text.contains("ct state") {
                    continue;
                }
                nft(&format!("add rule {family} t c {text}"));
                expected.push(rule(meaning).canonical(family));
            }
            let read = Nftables::open()
                .unwrap()
                .table(&key(family, "t"))
                .unwrap()
                .unwrap();
            assert_eq!(read.table.chains["c"].rules, expected, "{family}");
        }
    });
}

#[test]
fn what_we_never_write_reads_as_something_else() {
    in_netns(|| {
        nft("table ip t {
            set s { type ipv4_addr; }
            counter n { }
            chain c {
                type nat hook prerouting priority 0;
                ip saddr @s accept
                tcp dport { 80, 443 } accept
                tcp dport 80-90 accept
                ip protocol tcp accept
                limit rate 10/second accept
                log prefix \"a\" accept
                iifname \"eth*\" accept
                meta mark set meta mark ^ 0x1
                ct mark set 1
                tcp dport 1 redirect to :80
                tcp dport 1 dnat to 10.0.0.1:80-90
                tcp dport 1 dnat to 10.0.0.1:80 persistent
                counter name n
                ct state untracked accept
                ip saddr & 255.0.255.0 == 10.0.0.0 accept
            }
        }");
        let read = Nftables::open()
            .unwrap()
            .table(&key(Family::Ip, "t"))
            .unwrap()
            .unwrap();
        let rules = &read.table.chains["c"].rules;
        assert_eq!(rules.len(), 15);
        for rule in rules {
            assert!(rule.to_string().contains('<'), "{rule}");
        }
        assert_eq!(read.table.other_objects, 2);
    });
}

#[test]
fn an_absent_table_or_chain_is_none_and_tables_are_listed_by_family() {
    in_netns(|| {
        let mut nftables = Nftables::open().unwrap();
        assert_eq!(nftables.table(&key(Family::Ip, "t")).unwrap(), None);
        nft("table ip a {\nchain c { }\n}\ntable ip b { }\ntable inet a { }\ntable arp c { }");
        assert_eq!(nftables.tables(Family::Ip).unwrap(), ["a", "b"]);
        assert_eq!(nftables.tables(Family::Inet).unwrap(), ["a"]);
        assert_eq!(nftables.tables(Family::Bridge).unwrap(), Vec::<String>::new());
        let chains = [("a", "c"), ("a", "d"), ("t", "c")];
        let held = chains.map(|(table, chain)| nftables.has_chain(&key(Family::Ip, table), chain).unwrap());
        assert_eq!(held, [true, false, false]);
        let named = ["a", "b", "t"].map(|table| nftables.chains(&key(Family::Ip, table)).unwrap());
        assert_eq!(named, [vec!["c".to_owned()], vec![], vec![]]);
        assert_eq!(nftables.table(&key(Family::Ip6, "a")).unwrap(), None);
    });
}

#[test]
fn a_part_of_a_table_is_all_its_chains_and_the_rules_that_were_asked_for() {
    in_netns(|| {
        let mut nftables = Nftables::open().unwrap();
        let (key, other) = (key(Family::Ip, "t"), key(Family::Ip, "absent"));
        nft("table ip t {
            chain shared {
                jump own
            }
            chain own {
                tcp dport 1 drop comment \"a\"
                tcp dport 2 drop comment \"b\"
                tcp dport 3 drop
                tcp dport 4 drop comment \"a\"
            }
            chain more {
                tcp dport 5 drop comment \"a\"
            }
        }
        table ip u {
            chain own {
                tcp dport 6 drop comment \"a\"
            }
        }");
        let whole = nftables.table(&key).unwrap().unwrap();
        let kept = |chain: &str, texts: &[&str]| {
            let rules = whole
                .rules(chain)
                .filter(|(_, rule)| texts.contains(&rule.to_string().as_str()));
            let rules: Vec<_> = rules.map(|(handle, rule)| (handle, rule.clone())).collect();
            assert_eq!(rules.len(), texts.len());
            rules
        };
        let shared = kept("shared", &["jump own"]);
        let own = kept(
            "own",
            &["tcp dport 1 drop comment \"a\"", "tcp dport 4 drop comment \"a\""],
        );
        let more = kept("more", &["tcp dport 5 drop comment \"a\""]);
        let cases = [
            (vec!["shared", "nowhere"], None, [&shared[..], &[], &[]]),
            (vec![], None, [&[], &[], &[]]),
            (vec!["shared"], Some("a"), [&shared[..], &own[..], &more[..]]),
            (vec![], Some("c"), [&[], &[], &[]]),
        ];
        for (chains, comment, expected) in cases {
            let selection = Selection {
                chains: chains.into_iter().map(str::to_owned).collect(),
                comment: comment.map(str::to_owned),
            };
            let part = nftables.part(&key, &selection).unwrap().unwrap();
            assert!(part.table.chains.keys().eq(["more", "own", "shared"]));
            let read = ["shared", "own", "more"].map(|chain| {
                let rules = part.rules(chain).map(|(handle, rule)| (handle, rule.clone()));
                rules.collect::<Vec<_>>()
            });
            assert_eq!(read, expected.map(<[_]>::to_vec), "{selection:?}");
            assert_eq!(nftables.part(&other, &selection).unwrap(), None);
        }
    });
}

#[test]
fn the_availability_of_nf_tables_is_found_out_without_leaving_anything() {
    in_netns(|| {
        let mut nftables = Nftables::open().unwrap();
        assert!(nftables.is_available());
        assert_eq!(ruleset(), "");
        assert_eq!(nftables.tables(Family::Inet).unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_refusal_names_the_change_and_nothing_changes() {
    in_netns(|| {
        nft("table ip t { chain c { accept; } ; }");
        let before = ruleset();
        let key = key(Family::Ip, "t");
        let append = |chain: &str, text: &str| Change::AppendRule {
            table: key.clone(),
            chain: chain.to_owned(),
            rule: rule(text),
        };
        let mut nftables = Nftables::open().unwrap();
        let refused = nftables
            .apply(&[
                append("c", "ip saddr 10.0.0.0/8 drop"),
                append("c", "jump nowhere"),
                append("absent", "drop"),
            ])
            .unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the kernel refused the change \"add rule ip t c jump nowhere\""
        );
        let ApplyError::Refused { index, source, .. } = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!((*index, source.class), (1, ErrorClass::NotFound));
        assert_eq!(ruleset(), before);

        let unwritable = nftables
            .apply(&[append("c", "drop"), append("c", "ip6 saddr ::1 drop")])
            .unwrap_err();
        assert_eq!(
            unwritable.to_string(),
            "cannot write the change \"add rule ip t c ip6 saddr ::1 drop\""
        );
        assert_eq!(ruleset(), before);
        let used = nftables
            .apply(&[
                append("c", "jump c2"),
                Change::DelChain {
                    table: key.clone(),
                    chain: "c2".to_owned(),
                },
            ])
            .unwrap_err();
        assert!(matches!(used, ApplyError::Refused { index: 0, .. }), "{used:?}");
        assert_eq!(nftables.check(&[append("c", "drop")]), Ok(()));
        assert_eq!(ruleset(), before);
    });
}

#[test]
fn rules_are_inserted_appended_and_removed_by_handle() {
    in_netns(|| {
        nft("table ip t { chain c { accept; } ; chain d { } ; }");
        let key = key(Family::Ip, "t");
        let mut nftables = Nftables::open().unwrap();
        let change = |text: &str| (key.clone(), "c".to_owned(), rule(text));
        let (table, chain, rule) = change("drop");
        nftables
            .apply(&[Change::InsertRule { table, chain, rule }])
            .unwrap();
        let (table, chain, rule) = change("return");
        nftables
            .apply(&[Change::AppendRule { table, chain, rule }])
            .unwrap();
        let texts = |nftables: &mut Nftables| -> Vec<(u64, String)> {
            let read = nftables.table(&key).unwrap().unwrap();
            read.rules("c")
                .map(|(handle, rule)| (handle, rule.to_string()))
                .collect()
        };
        let found = texts(&mut nftables);
        let rules: Vec<_> = found.iter().map(|(_, rule)| rule.as_str()).collect();
        assert_eq!(rules, ["drop", "accept", "return"]);
        let remove = Change::DelRule {
            table: key.clone(),
            chain: "c".to_owned(),
            handle: found[1].0,
        };
        nftables.apply(std::slice::from_ref(&remove)).unwrap();
        let again = nftables.apply(&[remove]).unwrap_err();
        assert_eq!(again.class(), ErrorClass::NotFound);
        assert_eq!(texts(&mut nftables).len(), 2);
        let of = |chain: &str| (key.clone(), chain.to_owned());
        let (table, chain) = of("c");
        nftables.apply(&[Change::FlushChain { table, chain }]).unwrap();
        assert!(texts(&mut nftables).is_empty());
        let (table, chain) = of("c");
        nftables.apply(&[Change::DelChain { table, chain }]).unwrap();
        assert!(!ruleset().contains("chain c"));
    });
}

#[test]
fn large_batches_are_one_change() {
    in_netns(|| {
        let key = key(Family::Ip, "t");
        for count in [600, 10_000_u32] {
            let mut rules = Chain::default();
            for n in 0..count {
                let [_, b, c, d] = n.to_be_bytes();
                let port = n % 60_000 + 1;
                let text = format!(
                    "ip daddr 10.{b}.{c}.{d} tcp dport {port} dnat to 10.{b}.{c}.{d}:80 comment \"pod {n}\""
                );
                rules.rules.push(rule(&text));
            }
            let mut whole = table([]);
            rules.base = Some(base(ChainKind::Nat, Hook::Prerouting, -100));
            whole.chains.insert("c".to_owned(), rules);
            let changes = replacement(&key, &whole);
            let mut nftables = Nftables::open().unwrap();
            let start = Instant::now();
            nftables.apply(&changes).unwrap();
            let written = start.elapsed();
            let read = nftables.table(&key).unwrap().unwrap();
            println!(
                "{count} rules: written in {written:?}, read in {:?}",
                start.elapsed() - written
            );
            assert_eq!(read.table, canonical(Family::Ip, &whole));
        }
        let mut failing: Vec<Change> = Vec::new();
        for _ in 0..10_000 {
            failing.push(Change::AppendRule {
                table: key.clone(),
                chain: "absent".to_owned(),
                rule: rule("drop"),
            });
        }
        let refused = Nftables::open().unwrap().apply(&failing).unwrap_err();
        assert!(
            matches!(refused, ApplyError::Refused { index: 0, .. }),
            "{refused:?}"
        );
    });
}

#[test]
fn a_table_that_is_replaced_all_the_time_is_read_at_one_instant() {
    in_netns(|| {
        let key = key(Family::Ip, "t");
        let version = |n: u32| {
            let text = format!("meta mark {n} return");
            let rules = [text.as_str(); 50];
            table([("a", chain(None, &rules)), ("b", chain(None, &rules))])
        };
        let mut writer = Nftables::open().unwrap();
        writer.apply(&replacement(&key, &version(0))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let writing = thread::spawn({
            let (key, stop) = (key.clone(), Arc::clone(&stop));
            move || {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    writer.apply(&replacement(&key, &version(n))).unwrap();
                    thread::sleep(std::time::Duration::from_millis(2));
                }
                n
            }
        });
        let mut reader = Nftables::open().unwrap();
        let mut busy = 0;
        for _ in 0..200 {
            match reader.table(&key) {
                Ok(read) => {
                    let read = read.expect("the table is there at every instant").table;
                    let rules: Vec<_> = read.chains.values().flat_map(|chain| &chain.rules).collect();
                    assert_eq!(rules.len(), 100);
                    assert!(rules.iter().all(|rule| *rule == rules[0]));
                }
                Err(e) => {
                    assert_eq!(e.class, ErrorClass::Busy, "{e}");
                    busy += 1;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        let writes = writing.join().unwrap();
        println!("{writes} writes, {busy} of 200 readings gave up");
        assert!(writes > 0 && busy < 100);
    });
}
