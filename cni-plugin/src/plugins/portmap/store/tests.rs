use super::super::attachment::tests::{REFERENCES_MAPPINGS, attachment};
use super::*;

fn stored(dir: &Path, id: &str, ifname: &str) -> Attachment {
    let mut attachment = attachment(id, &["10.244.7.2/24"], REFERENCES_MAPPINGS);
    attachment.target.ifname = net_types::IfName::new(ifname).unwrap();
    Store::open_or_create(dir).unwrap().put(&attachment).unwrap();
    attachment
}

#[test]
fn attachments_are_found_by_themselves_and_by_their_container() {
    let temp = tempfile::tempdir().unwrap();
    assert!(Store::open(&temp.path().join("none")).unwrap().is_none());
    let long = "c".repeat(300);
    let [a0, a1, other] = [("a", "eth0"), ("a", "eth1"), (long.as_str(), "eth0")]
        .map(|(id, ifname)| stored(temp.path(), id, ifname));
    let store = Store::open(temp.path()).unwrap().unwrap();
    let _lock = store.lock().unwrap();
    assert_eq!(store.get(&a1.network, &a1.target).unwrap().as_ref(), Some(&a1));
    assert_eq!(store.of_container(&a0.target.container_id).unwrap().len(), 2);
    assert_eq!(store.of_container(&other.target.container_id).unwrap(), [other]);
    assert_eq!(store.all().unwrap().len(), 3);
    store.remove(&a0.network, &a0.target).unwrap();
    store.remove(&a0.network, &a0.target).unwrap();
    assert_eq!(store.of_container(&a0.target.container_id).unwrap(), [a1]);
}

#[test]
fn files_that_tell_no_attachment_are_none_and_can_be_removed() {
    let temp = tempfile::tempdir().unwrap();
    let kept = stored(temp.path(), "a", "eth0");
    let lost = stored(temp.path(), "b", "eth0");
    let store = Store::open(temp.path()).unwrap().unwrap();
    fs::write(store.path(&lost.network, &lost.target), "").unwrap();
    fs::write(temp.path().join("strangers"), "text").unwrap();
    assert_eq!(store.get(&lost.network, &lost.target).unwrap(), None);
    assert_eq!(store.all().unwrap(), [kept]);
    store.remove_unreadable().unwrap();
    assert!(!store.path(&lost.network, &lost.target).exists());
    assert!(temp.path().join("strangers").exists());
    assert_eq!(store.all().unwrap().len(), 1);
}
