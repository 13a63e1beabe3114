//! The embedded store, used as daemons use it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use flannel_types::{Lease, LeaseAttrs, NetConf, PreviousSubnets, UnixTime, VxlanData};
use lease_store::{
    Clock, ErrorClass, FileStore, FileWatch, LEASE_TTL, LeaseEvent, LeaseRequest, LeaseStore, LeaseWatch,
    StoreError,
};
use net_types::SubnetKey;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

const CONFIG: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
const DUAL_STACK: &str = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}"#;
const V6_ONLY: &str = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48"}"#;
/// An event that does not come within this time does not come.
const PATIENCE: Duration = Duration::from_secs(20);
const NOON: u64 = 1_900_000_000;

#[tokio::test]
async fn the_first_lease_is_written_as_etcd_would_hold_it() {
    let lab = Lab::new(CONFIG);
    let lease = lab.acquire(1).await.unwrap();
    assert_eq!(lease.expires, Some(UnixTime::from_secs(NOON).plus(LEASE_TTL)));
    let text = fs::read_to_string(lab.lease_path(lease.key)).unwrap();
    assert_eq!(
        text,
        "{\"PublicIP\":\"192.168.77.1\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\
         \"BackendData\":{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:00:01\"},\"Expiration\":\"2030-03-18T17:46:40Z\"}\n"
    );
    assert_eq!(lab.names(), [lease.key.to_string()]);
}

#[tokio::test]
async fn a_restarted_node_gets_its_lease_again_with_a_new_end() {
    let lab = Lab::new(DUAL_STACK);
    let first = lab.acquire(1).await.unwrap();
    assert!(first.key.v6().is_some());
    lab.now.fetch_add(3600, Ordering::Relaxed);
    let second = lab.acquire(1).await.unwrap();
    assert_eq!(second.key, first.key);
    assert_eq!(
        second.expires,
        first.expires.map(|end| end.plus(Duration::from_secs(3600)))
    );
    assert_eq!(lab.store.find(first.attrs.addrs()).await.unwrap(), Some(second));
    assert_eq!(
        lab.store.find(request(CONFIG, 2).attrs.addrs()).await.unwrap(),
        None
    );
}

#[test]
fn fifty_nodes_that_start_at_once_get_fifty_subnets() {
    let lab = Lab::new(CONFIG);
    let keys: BTreeSet<SubnetKey> = thread::scope(|scope| {
        let start = |owner: u8| {
            let store = FileStore::open(lab.dir.path());
            scope.spawn(move || block_on(store.acquire(&request(CONFIG, owner))).unwrap().key)
        };
        let nodes: Vec<_> = (1..=50).map(start).collect();
        nodes.into_iter().map(|node| node.join().unwrap()).collect()
    });
    assert_eq!(keys.len(), 50);
    assert_eq!(lab.names().len(), 50);
}

#[tokio::test]
async fn a_reservation_stays_one_when_it_is_used() {
    let lab = Lab::new(CONFIG);
    lab.put("10.5.9.0-24", r#"{"PublicIP":"192.168.77.1"}"#);
    let lease = lab.acquire(1).await.unwrap();
    assert_eq!(
        (lease.key.to_string().as_str(), lease.expires),
        ("10.5.9.0-24", None)
    );
    assert_eq!(lab.store.renew(&lease).await.unwrap(), lease);
    assert!(
        !fs::read_to_string(lab.lease_path(lease.key))
            .unwrap()
            .contains("Expiration")
    );
}

#[tokio::test]
async fn an_expired_lease_gives_way_when_nothing_else_is_free() {
    let lab = Lab::new(r#"{"Network":"10.5.0.0/22","SubnetMin":"10.5.1.0","SubnetMax":"10.5.1.0"}"#);
    let old = lab.acquire(1).await.unwrap();
    assert!(matches!(lab.acquire(2).await, Err(StoreError::OutOfSubnets)));
    lab.now.fetch_add(LEASE_TTL.as_secs(), Ordering::Relaxed);
    let new = lab.acquire(2).await.unwrap();
    assert_eq!(new.key, old.key);
    let err = lab.store.renew(&old).await.unwrap_err();
    assert_eq!(err.class(), ErrorClass::Lost);
    assert_eq!(
        err.to_string(),
        "the lease of 10.5.1.0-24 belongs to 192.168.77.2"
    );
}

#[tokio::test]
async fn renewal_publishes_the_attributes_as_given_and_needs_the_lease() {
    let lab = Lab::new(CONFIG);
    let mut lease = lab.acquire(1).await.unwrap();
    lease.attrs.backend_data = Some(r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}"#.to_owned());
    lab.now.fetch_add(60, Ordering::Relaxed);
    let renewed = lab.store.renew(&lease).await.unwrap();
    assert_eq!(renewed.attrs, lease.attrs);
    assert_eq!(
        renewed.expires,
        lease.expires.map(|end| end.plus(Duration::from_secs(60)))
    );
    fs::remove_file(lab.lease_path(lease.key)).unwrap();
    let err = lab.store.renew(&lease).await.unwrap_err();
    assert_eq!(err.to_string(), format!("the lease of {} is gone", lease.key));
    assert!(lab.names().is_empty());
}

#[tokio::test]
async fn a_node_takes_its_lease_along_to_another_address_unless_it_is_not_what_it_was() {
    let lab = Lab::new(CONFIG);
    let lease = lab.acquire(1).await.unwrap();
    let to = request(CONFIG, 9).attrs.addrs();
    let moved = lab.store.readdress(&lease, to).await.unwrap();
    assert_eq!((moved.key, moved.attrs.addrs()), (lease.key, to));
    assert_eq!(moved.attrs.backend_data, lease.attrs.backend_data);
    assert_eq!(lab.store.find(to).await.unwrap(), Some(moved));
    assert_eq!(lab.store.find(lease.attrs.addrs()).await.unwrap(), None);

    let text = fs::read_to_string(lab.lease_path(lease.key)).unwrap();
    let err = lab.store.readdress(&lease, to).await.unwrap_err();
    assert_eq!(err.class(), ErrorClass::Lost, "it was done before");
    assert_eq!(fs::read_to_string(lab.lease_path(lease.key)).unwrap(), text);
    fs::remove_file(lab.lease_path(lease.key)).unwrap();
    let err = lab.store.readdress(&lease, to).await.unwrap_err();
    assert_eq!(err.to_string(), format!("the lease of {} is gone", lease.key));
    assert!(lab.names().is_empty());
}

#[tokio::test]
async fn ipv6_alone_is_leased_and_keeps_its_subnet_when_ipv4_comes() {
    let lab = Lab::new(V6_ONLY);
    let mut request = request(V6_ONLY, 1);
    request.attrs.public_ip = None;
    request.attrs.public_ipv6 = Some("fd00:77::1".parse().unwrap());
    let first = lab.store.acquire(&request).await.unwrap();
    assert_eq!(first.key.v4(), None);
    let text = fs::read_to_string(lab.lease_path(first.key)).unwrap();
    assert!(
        text.starts_with("{\"PublicIP\":\"0.0.0.0\",\"PublicIPv6\":\"fd00:77::1\","),
        "{text}"
    );
    assert_eq!(
        lab.store.find(request.attrs.addrs()).await.unwrap(),
        Some(first.clone())
    );
    assert_eq!(lab.store.renew(&first).await.unwrap(), first);
    request.conf = NetConf::parse(DUAL_STACK).unwrap();
    request.attrs.public_ip = Some([192, 168, 77, 1].into());
    let second = lab.store.acquire(&request).await.unwrap();
    assert_eq!(second.key.v6(), first.key.v6());
    assert!(second.key.v4().is_some());
    assert_eq!(lab.names(), [second.key.to_string()]);
}

#[tokio::test]
async fn an_own_lease_that_no_longer_fits_is_replaced() {
    let lab = Lab::new(CONFIG);
    let old = lab.acquire(1).await.unwrap();
    fs::write(lab.path("config"), DUAL_STACK).unwrap();
    let previous = PreviousSubnets {
        subnet: old.key.v4(),
        ..PreviousSubnets::default()
    };
    let new = lab
        .store
        .acquire(&LeaseRequest {
            previous,
            ..request(DUAL_STACK, 1)
        })
        .await
        .unwrap();
    assert_eq!(new.key.v4(), old.key.v4());
    assert_eq!(lab.names(), [new.key.to_string()]);
}

#[tokio::test]
async fn what_is_missing_may_come_and_is_asked_for_again() {
    let lab = Lab::new(CONFIG);
    assert_eq!(
        lab.store.find(request(CONFIG, 1).attrs.addrs()).await.unwrap(),
        None
    );
    fs::remove_file(lab.path("config")).unwrap();
    let err = lab.store.read_config().await.unwrap_err();
    assert_eq!(err.class(), ErrorClass::Retry);
    assert!(
        err.to_string().starts_with("flannel config not found in "),
        "{err}"
    );
    let absent = FileStore::open(lab.path("absent"));
    let err = absent.read_config().await.unwrap_err();
    assert_eq!(err.class(), ErrorClass::Retry);
    let named = format!("there is no directory {}: ", lab.path("absent").display());
    assert!(err.to_string().starts_with(&named), "{err}");
    assert_eq!(
        absent.acquire(&request(CONFIG, 1)).await.unwrap_err().class(),
        ErrorClass::Retry
    );
    assert_eq!(
        absent
            .find(request(CONFIG, 1).attrs.addrs())
            .await
            .unwrap_err()
            .class(),
        ErrorClass::Retry
    );
    assert!(!lab.path("absent").exists());
}

#[tokio::test]
async fn a_bad_configuration_is_refused_in_flannels_words() {
    let lab = Lab::new(r#"{"Network":"10.5.0.0/16","SubnetLen":31}"#);
    let err = lab.store.read_config().await.unwrap_err();
    assert_eq!(err.class(), ErrorClass::Fatal);
    let place = lab.path("config");
    assert_eq!(
        err.to_string(),
        format!("cannot use the network configuration in {}", place.display())
    );
    assert_eq!(
        std::error::Error::source(&err).unwrap().to_string(),
        "SubnetLen must be less than /31"
    );
}

#[tokio::test]
async fn a_malformed_lease_is_nobody_s_and_keeps_its_subnet() {
    let lab = Lab::new(r#"{"Network":"10.5.0.0/22","SubnetMin":"10.5.1.0","SubnetMax":"10.5.2.0"}"#);
    lab.put("10.5.1.0-24", r#"{"PublicIP":"192.168."#);
    let node = request(CONFIG, 1).attrs.addrs();
    assert_eq!(lab.store.find(node).await.unwrap(), None);
    let lease = lab.acquire(1).await.unwrap();
    assert_eq!(lease.key.to_string(), "10.5.2.0-24");
    let err = lab.acquire(2).await.unwrap_err();
    assert!(matches!(err, StoreError::OutOfSubnets), "{err}");
    // It may be the one that this node's pods live in.
    let mut former = request(CONFIG, 3);
    former.previous.subnet = Some("10.5.1.0/24".parse().unwrap());
    let err = lab.store.acquire(&former).await.unwrap_err();
    assert!(
        err.to_string().contains("subnets/10.5.1.0-24 is malformed: "),
        "{err}"
    );
    let stored = fs::read_to_string(lab.path("subnets/10.5.1.0-24")).unwrap();
    assert_eq!(stored, r#"{"PublicIP":"192.168."#);
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    in_private_mounts(|| {
        let lab = Lab::new(CONFIG);
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(
            Some(lab.dir.path()),
            lab.dir.path(),
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .unwrap();
        mount(None::<&str>, lab.dir.path(), None::<&str>, flags, None::<&str>).unwrap();
        let err = block_on(lab.acquire(1)).unwrap_err();
        assert_eq!(err.class(), ErrorClass::Fatal);
        assert!(err.to_string().starts_with("cannot use "), "{err}");
        assert!(block_on(lab.store.read_config()).is_ok());

        let file = FileStore::open(lab.path("config"));
        assert_eq!(
            block_on(file.acquire(&request(CONFIG, 1))).unwrap_err().class(),
            ErrorClass::Fatal
        );
    });
}

#[tokio::test]
async fn a_watch_follows_what_other_nodes_do() {
    let lab = Lab::new(CONFIG);
    let own = lab.acquire(1).await.unwrap();
    let mut watch = lab.store.watch().unwrap();
    assert_eq!(leases(&mut watch).await, std::slice::from_ref(&own));
    let other = lab.acquire(2).await.unwrap();
    assert_eq!(leases(&mut watch).await.len(), 2);
    lab.now.fetch_add(60, Ordering::Relaxed);
    let renewed = lab.store.renew(&other).await.unwrap();
    assert!(leases(&mut watch).await.contains(&renewed));
    fs::remove_file(lab.lease_path(other.key)).unwrap();
    assert_eq!(leases(&mut watch).await, [own]);
}

#[tokio::test]
async fn a_file_written_in_place_is_noticed() {
    let lab = Lab::new(CONFIG);
    let own = lab.acquire(1).await.unwrap();
    let mut watch = lab.store.watch().unwrap();
    leases(&mut watch).await;
    fs::write(lab.lease_path(own.key), r#"{"PublicIP":"192.168.77.200"}"#).unwrap();
    assert_eq!(
        leases(&mut watch).await[0].attrs.addrs().to_string(),
        "192.168.77.200"
    );
    fs::write(lab.path("config"), r#"{"Network":"10.5.0.0/17"}"#).unwrap();
    let LeaseEvent::Snapshot { config, .. } = next(&mut watch).await else {
        panic!("no snapshot")
    };
    assert_eq!(config.network.unwrap().to_string(), "10.5.0.0/17");
}

#[tokio::test]
async fn a_watch_survives_that_the_directory_is_deleted_and_made_again() {
    let lab = Lab::new(CONFIG);
    let own = lab.acquire(1).await.unwrap();
    let mut watch = lab.store.watch().unwrap();
    leases(&mut watch).await;
    for _ in 0..2 {
        let away = lab.dir.path().with_extension("away");
        fs::rename(lab.dir.path(), &away).unwrap();
        assert!(matches!(next(&mut watch).await, LeaseEvent::Unsynced { .. }));
        fs::remove_dir_all(&away).unwrap();
        fs::create_dir_all(lab.path("subnets")).unwrap();
        fs::write(lab.path("config"), CONFIG).unwrap();
        assert!(leases(&mut watch).await.is_empty());
        assert_eq!(lab.acquire(1).await.unwrap().attrs, own.attrs);
        assert_eq!(leases(&mut watch).await.len(), 1);
    }
}

#[tokio::test]
async fn a_watch_that_begins_before_the_store_exists_waits_for_it() {
    let lab = Lab::new(CONFIG);
    fs::remove_file(lab.path("config")).unwrap();
    let mut watch = lab.store.watch().unwrap();
    assert!(matches!(next(&mut watch).await, LeaseEvent::Unsynced { .. }));
    fs::write(lab.path("config"), CONFIG).unwrap();
    lab.acquire(1).await.unwrap();
    while leases(&mut watch).await.is_empty() {}
}

#[test]
fn in_a_storm_of_renewals_no_lease_is_missed_and_no_change_lost() {
    // File systems differ in what a listing shows while names are replaced, and a node's absence is fatal to it.
    in_private_mounts(|| block_on(survive_a_storm(&Lab::new(CONFIG))));
    in_private_mounts(|| {
        let lab = Lab::new(CONFIG);
        mount(
            Some("test"),
            lab.dir.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        fs::write(lab.path("config"), CONFIG).unwrap();
        block_on(survive_a_storm(&lab));
    });
}

async fn survive_a_storm(lab: &Lab) {
    // More than the kernel lists in one piece.
    const NODES: u32 = 3_000;
    const NODES_LEN: usize = 3_000;
    const RENEWALS: u32 = 9_000;
    fs::create_dir(lab.path("subnets")).unwrap();
    let subnets = lab.path("subnets");
    let renew = move |n: u32| {
        let text = format!("{{\"PublicIP\":\"192.168.{}.{}\"}}", n >> 8, n & 255);
        fs::write(subnets.join(".storm"), text).unwrap();
        let node = n % NODES;
        let name = format!("10.{}.{}.0-24", node >> 8, node & 255);
        fs::rename(subnets.join(".storm"), subnets.join(name)).unwrap();
    };
    (0..NODES).for_each(&renew);
    let mut watch = lab.store.watch().unwrap();
    assert_eq!(leases(&mut watch).await.len(), NODES_LEN);
    // Another watch each time: its first look knows nothing from before.
    let store = lab.store.clone();
    let storm = thread::spawn(move || (NODES..RENEWALS).for_each(renew));
    while !storm.is_finished() {
        assert_eq!(leases(&mut store.watch().unwrap()).await.len(), NODES_LEN);
    }
    storm.join().unwrap();
    let last = |lease: &&Lease| (u32::from(lease.attrs.public_ip.unwrap()) & 0xffff) >= RENEWALS - NODES;
    loop {
        let leases = leases(&mut watch).await;
        assert_eq!(leases.len(), NODES_LEN);
        if leases.iter().filter(last).count() == NODES_LEN {
            return;
        }
    }
}

struct Lab {
    dir: TempDir,
    store: FileStore,
    now: Arc<AtomicU64>,
    config: String,
}

impl Lab {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config"), config).unwrap();
        let now = Arc::new(AtomicU64::new(NOON));
        let clock = Arc::clone(&now);
        let clock = Clock::new(move || UnixTime::from_secs(clock.load(Ordering::Relaxed)));
        Self {
            store: FileStore::with_clock(dir.path(), clock),
            dir,
            now,
            config: config.to_owned(),
        }
    }

    async fn acquire(&self, owner: u8) -> Result<Lease, StoreError> {
        self.store.acquire(&request(&self.config, owner)).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn lease_path(&self, key: SubnetKey) -> PathBuf {
        self.path("subnets").join(key.to_string())
    }

    fn put(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path("subnets")).unwrap();
        fs::write(self.path("subnets").join(name), text).unwrap();
    }

    fn names(&self) -> Vec<String> {
        names(&self.path("subnets"))
    }
}

fn request(config: &str, owner: u8) -> LeaseRequest {
    let mac = net_types::MacAddr::new([2, 0, 0, 0, 0, owner]);
    let data = VxlanData {
        vni: net_types::Vni::DEFAULT,
        vtep_mac: mac,
    };
    let attrs = LeaseAttrs {
        public_ip: Some([192, 168, 77, owner].into()),
        public_ipv6: None,
        backend_type: "vxlan".to_owned(),
        backend_data: Some(data.to_json()),
        backend_v6_data: None,
    };
    LeaseRequest {
        conf: NetConf::parse(config).unwrap(),
        attrs,
        previous: PreviousSubnets::default(),
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

async fn next(watch: &mut FileWatch) -> LeaseEvent {
    tokio::time::timeout(PATIENCE, watch.next_event())
        .await
        .expect("no event in time")
}

/// The leases of the next snapshot, whatever comes before it.
async fn leases(watch: &mut FileWatch) -> Vec<Lease> {
    loop {
        if let LeaseEvent::Snapshot { leases, .. } = next(watch).await {
            let leases: BTreeMap<SubnetKey, Lease> = leases;
            return leases.into_values().collect();
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Runs a test in a thread with mounts of its own.
fn in_private_mounts(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        test();
    });
    thread.join().unwrap();
}
