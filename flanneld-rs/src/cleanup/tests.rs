use super::*;

#[test]
fn only_names_that_the_daemon_gives_are_looked_at() {
    let names = [
        "flannel.1",
        "flannel.4096",
        "flannel-v6.1",
        "flannel.0",
        "flannel.01",
        "flannel.+1",
        "flannel.",
        "flannel.1x",
        "flannel0",
        "flannel-wg",
        "flannel.ipip",
        "flannel-ipip",
        "cni0",
    ]
    .map(|name| name.parse().unwrap());
    let scope = device_scope(&names);
    let looked_at: Vec<_> = scope.links.keys().map(IfName::as_str).collect();
    assert_eq!(
        looked_at,
        [
            "flannel-v6.1",
            "flannel-wg",
            "flannel.1",
            "flannel.4096",
            "flannel.ipip"
        ]
    );
}

#[test]
fn a_link_that_only_has_such_a_name_is_kept_with_the_reason() {
    let found: State = "link flannel.1 bridge up\n\
         link flannel.2 vxlan vni 3 port 8472 nolearning up\n\
         link flannel.3 vxlan vni 3 port 4789 nolearning up\n\
         link flannel-wg wireguard up\n\
         link flannel-wg-v6 bridge up\n\
         link flannel.ipip other ipip up"
        .parse()
        .unwrap();
    let reasons = found.links.iter().map(|(name, link)| strangeness(name, link));
    let expected = [
        None,
        Some("it is no WireGuard device".to_owned()),
        Some("it is no VXLAN device".to_owned()),
        Some("it has the network identifier 3".to_owned()),
        None,
        Some("it is no device of IP in IP without a remote of its own".to_owned()),
    ];
    assert!(reasons.eq(expected));
}

#[test]
fn who_may_not_look_is_told_who_may() {
    for (class, words) in [
        (
            ErrorClass::Denied,
            "the kernel's state cannot be read: EPERM; run this as root",
        ),
        (ErrorClass::Busy, "the kernel's state cannot be read: EPERM"),
    ] {
        let message = "EPERM".to_owned();
        let row = unreadable(&netstate::KernelError { class, message });
        assert_eq!((row.outcome, row.what.as_str()), (Outcome::Failed, words));
    }
}

#[test]
fn the_table_says_what_became_of_each_thing() {
    let rows = [
        Row::new(Outcome::Removed, "link flannel.1".to_owned()),
        Row::new(Outcome::WouldRemove, "nft ip flannel-ipv4".to_owned()),
    ];
    assert_eq!(
        render(&rows),
        "removed       link flannel.1\nwould remove  nft ip flannel-ipv4\n"
    );
    assert_eq!(render(&[]), "there is nothing of flannel's here\n");
}
