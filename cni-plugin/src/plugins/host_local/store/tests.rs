use std::os::unix::fs::PermissionsExt;

use net_types::IfName;

use super::*;

fn target(id: &str, ifname: &str) -> Target {
    Target {
        container_id: ContainerId::new(id).unwrap(),
        ifname: IfName::new(ifname).unwrap(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_layout_is_the_references_byte_for_byte() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("networks/cbr0");
    let store = Store::open_or_create(&dir).unwrap();
    let pod = target("cnitool-0cea03627191eaa6cdf9", "eth0");
    store.reserve(ip("10.244.7.2"), &pod).unwrap();
    store.reserve(ip("fd00:10:244:7::2"), &pod).unwrap();
    store.set_last_reserved(0, ip("10.244.7.2")).unwrap();

    let content = fs::read(dir.join("10.244.7.2")).unwrap();
    assert_eq!(content, b"cnitool-0cea03627191eaa6cdf9\r\neth0");
    assert_eq!(fs::read(dir.join("fd00:10:244:7::2")).unwrap(), content);
    assert_eq!(fs::read(dir.join("last_reserved_ip.0")).unwrap(), b"10.244.7.2");
    assert_eq!(fs::read(dir.join("lock")).unwrap(), b"");
    assert_eq!(mode(&dir), 0o755);
    assert_eq!(mode(&dir.join("lock")), 0o750);
    assert_eq!(mode(&dir.join("10.244.7.2")), 0o600);
    assert_eq!(mode(&dir.join("last_reserved_ip.0")), 0o600);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 4);
    assert_eq!(store.last_reserved(0), Some(ip("10.244.7.2")));
}

#[test]
fn reservations_of_every_form_are_read_and_what_a_crash_left_is_removed() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(temp.path()).unwrap();
    for (name, content) in [
        ("10.0.0.2", "a\r\neth0"),
        ("10.0.0.3", "a"),
        ("10.0.0.4", " a\r\neth0\r\n"),
        ("10.0.0.5", ""),
        ("10.0.0.6", "\0\0\0\0"),
        ("10.0.0.7", "\r\n"),
        (".10.0.0.8.tmp", "a\r\neth0"),
        ("notes", "a\r\neth0"),
        ("last_reserved_ip.0", "10.0.0.2"),
    ] {
        fs::write(temp.path().join(name), content).unwrap();
    }
    let mut found = store.reservations().unwrap();
    found.sort_by_key(|reservation| reservation.ip);
    assert_eq!(
        addresses(&found).into_iter().collect::<Vec<_>>(),
        [ip("10.0.0.2"), ip("10.0.0.3"), ip("10.0.0.4")]
    );
    assert!(found.iter().all(|r| r.is_of(&target("a", "eth0"))));
    assert!(!found[0].is_of(&target("a", "eth1")));
    assert!(found[1].is_of(&target("a", "eth1")));
    assert!(!found[0].is_of(&target("b", "eth0")));
    let mut left: Vec<_> = fs::read_dir(temp.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(
        left,
        [
            "10.0.0.2",
            "10.0.0.3",
            "10.0.0.4",
            "last_reserved_ip.0",
            "lock",
            "notes"
        ]
    );
}

#[test]
fn an_address_is_reserved_once() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(temp.path()).unwrap();
    store.reserve(ip("10.0.0.2"), &target("a", "eth0")).unwrap();
    assert!(store.reserve(ip("10.0.0.2"), &target("b", "eth0")).is_err());
    let found = store.reservations().unwrap();
    assert_eq!(
        (
            found.len(),
            found[0].holder.as_ref().unwrap().container_id.as_str()
        ),
        (1, "a")
    );
    store.release(ip("10.0.0.2")).unwrap();
    store.release(ip("10.0.0.2")).unwrap();
    assert!(store.reservations().unwrap().is_empty());
}

#[test]
fn a_missing_store_is_not_created_by_looking() {
    let temp = tempfile::tempdir().unwrap();
    assert!(Store::open(&temp.path().join("none")).unwrap().is_none());
    assert!(!temp.path().join("none").exists());
    fs::write(temp.path().join("file"), "").unwrap();
    assert!(Store::open(&temp.path().join("file")).is_err());
}

proptest::proptest! {
    #[test]
    fn arbitrary_content_of_a_reservation_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
        if let Some(holder) = Holder::parse(&bytes) {
            assert!(ContainerId::new(&holder.container_id).is_ok());
        }
    }
}

#[test]
fn what_an_earlier_run_of_the_machine_left_is_freed_once_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(temp.path()).unwrap();
    let boot = Boot::current().unwrap();
    let kept = |store: &Store| addresses(&store.reservations().unwrap());
    for (address, id) in [("10.0.0.2", "a"), ("10.0.0.3", "b")] {
        store.reserve(ip(address), &target(id, "eth0")).unwrap();
        boot.mark(&store.path(ip(address)));
    }
    // The reference's, and what is no reservation.
    fs::write(temp.path().join("10.0.0.4"), "c\r\neth0").unwrap();
    fs::create_dir(temp.path().join("10.0.0.5")).unwrap();
    store.reclaim(&boot, None).unwrap();
    assert_eq!(kept(&store).len(), 4);
    store.reclaim(&boot.masked(), None).unwrap();
    assert_eq!(kept(&store).len(), 4);
    let next = boot.next();
    store.reclaim(&next, Some(&target("b", "eth0"))).unwrap();
    assert_eq!(kept(&store), ["10.0.0.3", "10.0.0.5"].map(ip).into());
    // One that is made in the new run, and seen again and again in it.
    store.reserve(ip("10.0.0.6"), &target("d", "eth0")).unwrap();
    next.mark(&store.path(ip("10.0.0.6")));
    store.reclaim(&next, None).unwrap();
    assert_eq!(kept(&store), ["10.0.0.3", "10.0.0.5", "10.0.0.6"].map(ip).into());
}

#[test]
fn what_the_reference_left_is_freed_in_the_second_run_after() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(temp.path()).unwrap();
    let boot = Boot::current().unwrap();
    fs::write(temp.path().join("10.0.0.4"), "c\r\neth0").unwrap();
    let next = boot.next();
    store.reclaim(&next, None).unwrap();
    assert_eq!(store.reservations().unwrap().len(), 1);
    store.reclaim(&next.next(), None).unwrap();
    assert_eq!(store.reservations().unwrap(), []);
}
