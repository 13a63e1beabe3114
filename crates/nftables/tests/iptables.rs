//! iptables' programs on the real kernel, both variants.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::collections::BTreeSet;
use std::thread;

use common::*;
use netlink::Netns;
use netstate::iptables::{IptablesFamily, IptablesKey, IptablesVariant, Restore, save_word};
use nftables::Nftables;
use nftables::iptables::{Iptables, IptablesUse, hides_legacy_tables, iptables_use, programs_holding};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid, setgroups};

fn iptables(variant: IptablesVariant) -> Iptables {
    Iptables::find(IptablesFamily::V4, Some(variant)).unwrap()
}

fn both(test: fn(IptablesVariant)) {
    in_netns(move || test(IptablesVariant::Nft));
    in_netns(move || test(IptablesVariant::Legacy));
}

fn used() -> IptablesUse {
    let mut nftables = Nftables::open().unwrap();
    iptables_use(Some(&mut nftables), IptablesFamily::V4).unwrap()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn rules_are_written_at_once_and_read_back_as_written() {
    both(|variant| {
        let iptables = iptables(variant);
        let comment = save_word("dnat name: \"cbr0\" id: \"a2\"");
        let rules = [
            format!("-s 10.0.0.0/8 -m comment --comment {comment} -j RETURN"),
            "! -s 10.1.0.0/16 -d 10.0.0.1/32 -j MASQUERADE --random-fully".to_owned(),
            "-m mark --mark 0x2000/0x2000 -j RETURN".to_owned(),
        ];
        let mut restore = Restore::default();
        restore.fresh_chain("nat", "OURS").unwrap();
        for rule in &rules {
            restore.append("nat", "OURS", rule).unwrap();
        }
        restore.insert("nat", "POSTROUTING", "-j OURS").unwrap();
        restore.append("filter", "FORWARD", "-j ACCEPT").unwrap();
        iptables.restore(&restore).unwrap();
        let nat = iptables.save("nat").unwrap();
        let ours = &nat.chains["OURS"];
        assert_eq!(
            (ours.rules.as_slice(), ours.policy.as_deref()),
            (&rules[..], None)
        );
        assert_eq!(nat.chains["POSTROUTING"].rules, ["-j OURS"]);
        assert_eq!(nat.chains["POSTROUTING"].policy.as_deref(), Some("ACCEPT"));
        assert_eq!(
            iptables.save("filter").unwrap().chains["FORWARD"].rules,
            ["-j ACCEPT"]
        );

        let mut restore = Restore::default();
        restore.delete("nat", "POSTROUTING", "-j OURS").unwrap();
        restore.delete_chain("nat", "OURS").unwrap();
        restore.delete_chain("nat", "NEVER-THERE").unwrap();
        iptables.restore(&restore).unwrap();
        assert_eq!(iptables.save("nat").unwrap().chains.len(), 4);
    });
}

#[test]
fn a_refusal_has_the_programs_words_and_changes_nothing() {
    both(|variant| {
        let iptables = iptables(variant);
        let before = iptables.save("nat").unwrap();
        let mut restore = Restore::default();
        restore.fresh_chain("nat", "OURS").unwrap();
        restore.append("nat", "OURS", "-j RETURN").unwrap();
        restore.append("nat", "OURS", "-j NOWHERE").unwrap();
        let refused = iptables.restore(&restore).unwrap_err().to_string();
        assert!(refused.contains("NOWHERE"), "{refused}");
        assert!(!refused.contains('\n'), "{refused}");
        assert_eq!(iptables.save("nat").unwrap(), before);
        assert!(iptables.save("no-such-table").is_err());
    });
}

#[test]
fn many_writers_wait_for_each_other() {
    both(|variant| {
        let netns = Netns::current().unwrap();
        thread::scope(|scope| {
            for writer in 0..8 {
                let netns = &netns;
                let write = move || {
                    let iptables = iptables(variant);
                    let chain = format!("OURS-{writer}");
                    let mut restore = Restore::default();
                    restore.fresh_chain("nat", &chain).unwrap();
                    restore
                        .append("nat", "POSTROUTING", &format!("-j {chain}"))
                        .unwrap();
                    iptables.restore(&restore).unwrap();
                };
                scope.spawn(move || netns.run(write).unwrap());
            }
        });
        let nat = iptables(variant).save("nat").unwrap();
        assert_eq!(nat.chains["POSTROUTING"].rules.len(), 8);
    });
}

#[test]
fn ipv6_has_programs_of_its_own() {
    in_netns(|| {
        let iptables = Iptables::find(IptablesFamily::V6, None).unwrap();
        let mut restore = Restore::default();
        restore
            .append("filter", "FORWARD", "-s fd00::/64 -j ACCEPT")
            .unwrap();
        iptables.restore(&restore).unwrap();
        let filter = iptables.save("filter").unwrap();
        assert_eq!(filter.chains["FORWARD"].rules, ["-s fd00::/64 -j ACCEPT"]);
        assert!(iptables.version().unwrap().has_random_fully());
        assert_eq!(used(), IptablesUse::default());
        let mut nftables = Nftables::open().unwrap();
        let used = iptables_use(Some(&mut nftables), IptablesFamily::V6).unwrap();
        assert_eq!(used.nft, names(&["filter"]));
    });
}

#[test]
fn a_node_without_iptables_rules_does_not_rely_on_iptables() {
    in_netns(|| {
        nft("table ip flannel-ipv4 { chain c { accept; } ; }
             table ip nat { chain mine { accept; } ; }
             table inet filter { chain INPUT { type filter hook input priority 0; drop; } ; }");
        assert_eq!(used(), IptablesUse::default());
        // Whoever lists a legacy table makes the kernel name it from then on.
        run("iptables-legacy -t nat -S");
        run("iptables-nft -t nat -S");
        assert_eq!(used(), IptablesUse::default());
        assert_eq!(used().variant(), None);
    });
}

#[test]
fn rules_of_either_variant_are_found() {
    in_netns(|| {
        run("iptables-legacy -t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE");
        let legacy = IptablesUse {
            nft: names(&[]),
            legacy: names(&["nat"]),
        };
        assert_eq!(used(), legacy);
        assert_eq!(used().variant(), Some(IptablesVariant::Legacy));
        run("iptables-nft -A FORWARD -s 10.0.0.0/8 -j ACCEPT");
        let both = IptablesUse {
            nft: names(&["filter"]),
            ..legacy
        };
        assert_eq!((used(), used().variant()), (both, None));
    });
    in_netns(|| {
        run("iptables-nft -P FORWARD DROP");
        assert_eq!(used().nft, names(&["filter"]));
        assert_eq!(used().variant(), Some(IptablesVariant::Nft));
    });
    in_netns(|| {
        run("iptables-nft -t nat -N OTHERS");
        run("iptables-nft -t nat -A OTHERS -m addrtype --dst-type LOCAL -j RETURN");
        assert_eq!(used().nft, names(&["nat"]));
    });
}

#[test]
fn rules_of_either_variant_are_found_by_who_may_not_read_the_list_of_tables() {
    as_who_may_not_list(|| {
        assert_eq!(used(), IptablesUse::default());
        run("iptables-legacy -t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE");
        let legacy = IptablesUse {
            nft: names(&[]),
            legacy: names(&["nat"]),
        };
        assert_eq!(used(), legacy);
        let key = |table: &str| IptablesKey {
            family: IptablesFamily::V4,
            variant: IptablesVariant::Legacy,
            table: table.to_owned(),
        };
        // It may be there: its programs have to be asked.
        for table in ["nat", "mangle"] {
            let programs = programs_holding(None, &key(table), |_, _| Ok(false)).unwrap();
            assert_eq!(programs, Some(iptables(IptablesVariant::Legacy)), "{table}");
        }
    });
    as_who_may_not_list(|| {
        run("iptables-nft -A FORWARD -s 10.0.0.0/8 -j ACCEPT");
        assert_eq!(used().variant(), Some(IptablesVariant::Nft));
    });
}

/// Runs a test as who is not root where files are concerned, in a namespace. Programs that it runs are root's.
fn as_who_may_not_list(test: fn()) {
    in_netns(move || {
        // The kernel lists them for root's group too.
        setgroups(&[]).unwrap();
        setfsgid(Gid::from_raw(65534));
        setfsuid(Uid::from_raw(65534));
        assert!(hides_legacy_tables(IptablesFamily::V4));
        test();
    });
}

#[test]
fn a_strangers_chain_in_a_table_of_iptables_does_not_disturb() {
    in_netns(|| {
        nft("table ip nat { chain mine { type nat hook postrouting priority 7; return; } ; }");
        let iptables = iptables(IptablesVariant::Nft);
        let mut restore = Restore::default();
        restore.append("nat", "POSTROUTING", "-j RETURN").unwrap();
        iptables.restore(&restore).unwrap();
        assert_eq!(
            iptables.save("nat").unwrap().chains["POSTROUTING"].rules,
            ["-j RETURN"]
        );
    });
}
