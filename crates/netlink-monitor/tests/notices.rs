//! Each kind of change produces its notice, and a flood is never met with silence. Each test has a network namespace of
//! its own; iproute2 makes the changes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use net_types::IfIndex;
use netlink_monitor::{Monitor, NeighChange, NeighEntry, Notice, Presence};
use netstate::RouteKey;
use nix::sched::{CloneFlags, unshare};
use tokio::time::timeout;

/// How long a notice may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs a test in a network namespace of its own, with `eth0` (and `far0`) up.
fn in_netns(test: impl AsyncFnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        ip("link add eth0 type veth peer name far0");
        // No address that the kernel would make, check for a second and then report once more.
        ip("link set far0 addrgenmode none up");
        ip("link set eth0 addrgenmode none up");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn run(program: &str, line: &str) -> String {
    let output = Command::new(program)
        .args(line.split_whitespace())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {line}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn ip(line: &str) {
    run("ip", line);
}

fn bridge(line: &str) {
    run("bridge", line);
}

/// Feeds many lines to one iproute2 program.
fn batch(program: &str, lines: impl Iterator<Item = String>) {
    let mut child = Command::new(program)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = std::io::BufWriter::new(child.stdin.take().unwrap());
    lines.for_each(|line| writeln!(input, "{line}").unwrap());
    drop(input);
    assert!(child.wait().unwrap().success());
}

fn index_of(link: &str) -> IfIndex {
    let shown = run("ip", &format!("-o link show {link}"));
    let (number, _) = shown.split_once(':').unwrap();
    IfIndex::new(number.parse().unwrap()).unwrap()
}

/// Takes what is there until nothing comes for a while.
async fn settle(monitor: &mut Monitor) -> Vec<Notice> {
    let mut seen = Vec::new();
    while let Ok(notice) = timeout(Duration::from_millis(100), monitor.next()).await {
        seen.push(notice);
    }
    seen
}

/// Waits for a notice among others.
async fn expect(monitor: &mut Monitor, expected: Notice) {
    let mut seen = Vec::new();
    let found = timeout(LIMIT, async {
        loop {
            let notice = monitor.next().await;
            if notice == expected {
                return;
            }
            seen.push(notice);
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("{expected:?} did not come, but {seen:?}"));
}

fn link_notice(name: &str, index: IfIndex, presence: Presence) -> Notice {
    let name = name.parse().unwrap();
    Notice::Link {
        index,
        name,
        presence,
    }
}

fn neigh_notice(link: IfIndex, entry: NeighEntry, change: NeighChange) -> Notice {
    Notice::Neigh { link, entry, change }
}

fn neigh(ip: &str) -> NeighEntry {
    NeighEntry::Neigh(ip.parse().unwrap())
}

fn fdb(mac: &str) -> NeighEntry {
    NeighEntry::Fdb(mac.parse().unwrap())
}

fn route_notice(link: Option<IfIndex>, dst: &str, metric: u32) -> Notice {
    let (table, dst) = (254, dst.parse().unwrap());
    Notice::Route {
        link,
        key: RouteKey { table, dst, metric },
    }
}

#[test]
fn a_link_that_comes_changes_and_goes_is_noticed() {
    in_netns(async || {
        let mut monitor = Monitor::open().unwrap();
        ip("link add br0 type bridge");
        let br0 = index_of("br0");
        expect(&mut monitor, link_notice("br0", br0, Presence::Present)).await;
        settle(&mut monitor).await;
        ip("link set br0 up");
        expect(&mut monitor, link_notice("br0", br0, Presence::Present)).await;
        settle(&mut monitor).await;
        ip("link set eth0 master br0");
        expect(
            &mut monitor,
            link_notice("eth0", index_of("eth0"), Presence::Present),
        )
        .await;
        settle(&mut monitor).await;
        ip("link set eth0 nomaster");
        let seen = settle(&mut monitor).await;
        let gone = link_notice("eth0", index_of("eth0"), Presence::Gone);
        assert!(!seen.is_empty() && !seen.contains(&gone), "{seen:?}");
        ip("link set br0 name br1");
        expect(&mut monitor, link_notice("br1", br0, Presence::Present)).await;
        ip("link del br1");
        expect(&mut monitor, link_notice("br1", br0, Presence::Gone)).await;
    });
}

#[test]
fn addresses_of_both_families_are_noticed() {
    in_netns(async || {
        let link = index_of("eth0");
        let mut monitor = Monitor::open().unwrap();
        for (change, addr) in [
            ("add", "192.168.77.11/24"),
            ("add", "fd00:77::11/64"),
            ("del", "192.168.77.11/24"),
            ("del", "fd00:77::11/64"),
        ] {
            settle(&mut monitor).await;
            ip(&format!("addr {change} {addr} dev eth0"));
            let ip = addr.split('/').next().unwrap().parse().unwrap();
            expect(&mut monitor, Notice::Addr { link, ip }).await;
        }
    });
}

#[test]
fn routes_of_the_main_table_are_noticed_with_their_link() {
    in_netns(async || {
        let link = Some(index_of("eth0"));
        let mut monitor = Monitor::open().unwrap();
        for (change, expected) in [
            (
                "route add 10.1.0.0/24 dev eth0",
                route_notice(link, "10.1.0.0/24", 0),
            ),
            (
                "route replace 10.1.0.0/24 dev eth0 proto static",
                route_notice(None, "10.1.0.0/24", 0),
            ),
            ("route del 10.1.0.0/24", route_notice(link, "10.1.0.0/24", 0)),
            (
                "route add default dev eth0 metric 7",
                route_notice(link, "0.0.0.0/0", 7),
            ),
            (
                "-6 route add fd00:9::/64 dev eth0",
                route_notice(link, "fd00:9::/64", 1024),
            ),
            (
                "-6 route del fd00:9::/64",
                route_notice(link, "fd00:9::/64", 1024),
            ),
            (
                "route add blackhole 10.2.0.0/24",
                route_notice(None, "10.2.0.0/24", 0),
            ),
            (
                "-6 route add blackhole fd00:2::/64",
                route_notice(None, "fd00:2::/64", 1024),
            ),
        ] {
            settle(&mut monitor).await;
            ip(change);
            expect(&mut monitor, expected).await;
        }
    });
}

#[test]
fn permanent_neighbours_and_forwarding_entries_are_noticed() {
    in_netns(async || {
        ip("link add vx0 type vxlan id 1 dev eth0 dstport 8472");
        let vx0 = index_of("vx0");
        let mut monitor = Monitor::open().unwrap();
        ip("neigh add 10.1.0.5 lladdr 02:00:00:00:00:05 dev vx0");
        let added = neigh_notice(vx0, neigh("10.1.0.5"), NeighChange::Permanent);
        expect(&mut monitor, added).await;
        ip("neigh del 10.1.0.5 dev vx0");
        let removed = neigh_notice(vx0, neigh("10.1.0.5"), NeighChange::Removed);
        expect(&mut monitor, removed).await;
        bridge("fdb add 02:00:00:00:00:05 dst 192.168.77.5 dev vx0 self permanent");
        let added = neigh_notice(vx0, fdb("02:00:00:00:00:05"), NeighChange::Permanent);
        expect(&mut monitor, added).await;
        bridge("fdb del 02:00:00:00:00:05 dst 192.168.77.5 dev vx0 self");
        let removed = neigh_notice(vx0, fdb("02:00:00:00:00:05"), NeighChange::Removed);
        expect(&mut monitor, removed).await;
    });
}

#[test]
fn what_comes_and_goes_by_itself_is_not_noticed() {
    in_netns(async || {
        let mut monitor = Monitor::open().unwrap();
        settle(&mut monitor).await;
        ip("neigh add 10.1.0.5 lladdr 02:00:00:00:00:05 dev eth0 nud reachable");
        ip("neigh add fd00::5 lladdr 02:00:00:00:00:05 dev eth0 nud stale");
        ip("route add 10.1.0.0/24 dev eth0 table 99");
        assert_eq!(settle(&mut monitor).await, []);
        assert_eq!(monitor.try_next(), None);
    });
}

#[test]
fn a_permanent_neighbour_made_transient_is_noticed_on_a_link_watched_closely() {
    in_netns(async || {
        let link = index_of("eth0");
        ip("neigh add 10.1.0.5 lladdr 02:00:00:00:00:05 dev eth0");
        let mut monitor = Monitor::open().unwrap();
        monitor.watch_closely([link].into());
        ip("neigh replace 10.1.0.5 lladdr 02:00:00:00:00:05 dev eth0 nud reachable");
        let altered = neigh_notice(link, neigh("10.1.0.5"), NeighChange::Transient);
        expect(&mut monitor, altered).await;
    });
}

#[test]
fn a_wait_given_up_loses_nothing() {
    in_netns(async || {
        let link = index_of("eth0");
        let mut monitor = Monitor::open().unwrap();
        settle(&mut monitor).await;
        for _ in 0..20 {
            assert!(timeout(Duration::ZERO, monitor.next()).await.is_err());
        }
        ip("addr add 192.168.77.11/24 dev eth0");
        ip("link set lo up");
        let mut found = false;
        for _ in 0..1000 {
            let taken = timeout(Duration::from_micros(10), monitor.next()).await;
            found |= taken
                == Ok(Notice::Addr {
                    link,
                    ip: [192, 168, 77, 11].into(),
                });
        }
        assert!(found);
    });
}

#[test]
fn a_flood_that_is_read_late_is_reported_as_a_loss_and_the_next_change_is_noticed() {
    in_netns(async || {
        let link = Some(index_of("eth0"));
        let mut monitor = Monitor::open().unwrap();
        settle(&mut monitor).await;
        flood();
        expect(&mut monitor, Notice::Lost).await;
        settle(&mut monitor).await;
        ip("route del 10.0.0.7/32");
        expect(&mut monitor, route_notice(link, "10.0.0.7/32", 0)).await;
    });
}

#[test]
fn a_flood_that_is_read_as_it_comes_is_noticed_and_so_is_the_next_change() {
    in_netns(async || {
        let link = Some(index_of("eth0"));
        let mut monitor = Monitor::open().unwrap();
        settle(&mut monitor).await;
        let writer = thread::spawn(flood);
        let (mut lost, mut routes) = (0_u32, 0_u32);
        loop {
            match timeout(Duration::from_secs(1), monitor.next()).await {
                Ok(Notice::Lost) => lost += 1,
                Ok(Notice::Route { link: through, .. }) if through == link => routes += 1,
                Ok(other) => panic!("{other:?}"),
                Err(_) if writer.is_finished() => break,
                Err(_) => {}
            }
        }
        writer.join().unwrap();
        assert!(lost + routes > 0);
        ip("route del 10.0.0.7/32");
        expect(&mut monitor, route_notice(link, "10.0.0.7/32", 0)).await;
    });
}

/// 50,000 routes.
fn flood() {
    let lines = (0..50_000_u32).map(|n| {
        let [_, b, c, d] = n.to_be_bytes();
        format!("route add 10.{b}.{c}.{d}/32 dev eth0")
    });
    batch("ip", lines);
}
