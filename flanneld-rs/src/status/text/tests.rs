use std::time::{Duration, SystemTime};

use super::*;
use crate::extension::Tally;
use crate::log::LogCounts;
use crate::status::{
    BackendStatus, CommandTrouble, CommandsStatus, DeviceStatus, LeaseStatus, NodeStatus, Part, PeerCounts,
    RulesStatus, Seen, StoreStatus, Trouble,
};

#[test]
fn a_node_in_trouble_reads_at_a_glance() {
    let peers = vec![peer(1, PeerState::Programmed), peer(2, PeerState::Failing)];
    let expected = "\
flanneld 0.1.0, process 7, up 1h 5s
ready     no: 1 object in the kernel is not as it should be
lease     10.244.9.0/24 at 192.168.77.9, ends in 23h
          announced by another host, with the VTEP MAC 02:00:00:00:00:77
store     out of reach, 3 leases, nothing is removed for now: no route to the store
backend   vxlan over eth0, MTU of pods 1450, 1 peer direct in ipv4
device    flannel.1 ok: VNI 1 port 8472 on eth0 (192.168.77.9), MTU 1450, MAC 02:00:00:00:00:09, checksum offload off
          0 rounds, 0 changes, 0 refused, drift repaired 0
          route 10.244.2.0/24 missing for 12 s: File exists
rules     nftables ok: masquerade yes, accept forwarded no
          0 rounds, 0 changes, 0 refused, drift repaired 0
peers     2: 1 programmed, 0 pending, 1 failing, 0 refused

SUBNET             PUBLIC IP       MAC OR KEY        WAY    STATE      ROUTE   NEIGH   FDB     LAST ERROR
10.244.2.0/24      192.168.77.2    02:00:00:00:00:02 tunnel failing    failing ok      ok      File exists
10.244.1.0/24      192.168.77.1    02:00:00:00:00:01 direct programmed ok      ok      ok
";
    assert_eq!(render(&status(), peers, false, now()), expected);
}

#[test]
fn what_the_log_said_of_the_flags_is_said_again() {
    let mut status = status();
    status.notices = vec!["NETWORK POLICIES ARE NOT ENFORCED: install an engine".to_owned()];
    let text = render(&status, Vec::new(), false, now());
    let third = text.lines().nth(2);
    let expected = "note      NETWORK POLICIES ARE NOT ENFORCED: install an engine";
    assert_eq!(third, Some(expected), "{text}");
}

#[test]
fn a_device_has_what_its_kind_has() {
    let mut status = status();
    let device = status.node.device.as_mut().unwrap();
    device.name = "flannel.ipip".to_owned();
    (device.vni, device.port, device.mac, device.tx_checksum) = (None, None, None, None);
    let text = render(&status, Vec::new(), false, now());
    let expected = "\ndevice    flannel.ipip ok: on eth0 (192.168.77.9), MTU 1450\n";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn peers_of_wireguard_are_told_with_where_and_when_they_were_heard() {
    let by_key = |n, seen| PeerStatus {
        vtep_mac: None,
        public_key: Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned()),
        seen,
        ..peer(n, PeerState::Programmed)
    };
    let seen = |last_handshake| Seen {
        endpoint: Some("192.168.77.1:51820".parse().unwrap()),
        last_handshake,
        received_bytes: 0,
        sent_bytes: 0,
    };
    let peers = vec![
        by_key(1, Some(seen(Some(1_700_000_000 - 100)))),
        by_key(2, Some(seen(None))),
        by_key(3, None),
    ];
    let expected = "
SUBNET             PUBLIC IP       KEY               STATE      ENDPOINT              HANDSHAKE     LAST ERROR
10.244.1.0/24      192.168.77.1    AAECAwQFBgcICQoL… programmed 192.168.77.1:51820    1m 40s ago
10.244.2.0/24      192.168.77.2    AAECAwQFBgcICQoL… programmed 192.168.77.1:51820    never
10.244.3.0/24      192.168.77.3    AAECAwQFBgcICQoL… programmed -                     -
";
    let text = render(&status(), peers, false, now());
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn commands_that_fail_are_told_with_their_last_words_and_their_next_try() {
    let mut status = status();
    status.node.commands = Some(CommandsStatus {
        added: Tally { ok: 4, failed: 3 },
        removed: Tally { ok: 1, failed: 0 },
        waiting: 2,
        running: Some("SubnetRemoveCommand for 10.244.3.0-24".to_owned()),
        troubles: vec![CommandTrouble {
            command: "SubnetAddCommand".to_owned(),
            lease: "10.244.2.0-24".to_owned(),
            error: "exit status: 2: File exists".to_owned(),
            attempts: 3,
            secs: 4,
            again_secs: 2,
        }],
    });
    let text = render(&status, Vec::new(), false, now());
    let expected = "
commands  4 add and 1 remove did their work, 3 failed; 2 waiting; SubnetRemoveCommand for 10.244.3.0-24 runs
          SubnetAddCommand for 10.244.2.0-24 failed 3 times in 4 s, next try in 2 s: exit status: 2: File exists
";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn of_many_peers_those_in_trouble_and_twenty_more_are_listed() {
    let mut peers: Vec<_> = (0..200).map(|n| peer(n, PeerState::Programmed)).collect();
    peers.extend((200..230).map(|n| peer(n, PeerState::Refused)));
    let text = render(&status(), peers.clone(), false, now());
    assert_eq!(text.matches(" refused ").count(), 30, "{text}");
    assert_eq!(text.matches(" programmed ").count(), 20, "{text}");
    assert!(text.ends_with("and 180 more (--all lists them, --peer TEXT those that match)\n"));
    let text = render(&status(), peers, true, now());
    assert_eq!(text.matches(" programmed ").count(), 200, "{text}");
}

#[test]
fn what_a_lease_holds_does_not_steer_the_terminal() {
    let mut hostile = peer(1, PeerState::Refused);
    hostile.error = Some("its backend is \u{1b}[2J".to_owned());
    assert!(!render(&status(), vec![hostile], false, now()).contains('\u{1b}'));
}

#[test]
fn what_a_lease_holds_does_not_begin_a_line() {
    let mut hostile = peer(1, PeerState::Refused);
    hostile.error = Some("its backend is \nready     yes\r\u{85}forged".to_owned());
    let text = render(&status(), vec![hostile], false, now());
    assert_eq!(
        text.lines().filter(|line| line.starts_with("ready")).count(),
        1,
        "{text}"
    );
    assert!(!text.contains(['\r', '\u{85}']), "{text}");
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn peer(n: u8, state: PeerState) -> PeerStatus {
    let failing = state == PeerState::Failing;
    PeerStatus {
        subnet: format!("10.244.{n}.0/24"),
        public_ip: Some([192, 168, 77, n].into()),
        vtep_mac: Some(format!("02:00:00:00:00:{n:02x}")),
        public_key: None,
        way: Some(if failing { PeerWay::Tunnel } else { PeerWay::Direct }),
        state,
        route: if failing { Part::Failing } else { Part::Ok },
        neigh: Part::Ok,
        fdb: Part::Ok,
        wireguard: Part::None,
        seen: None,
        error: failing.then(|| "File exists".to_owned()),
        attempts: u32::from(failing),
    }
}

fn status() -> Status {
    let mut node = NodeStatus {
        reason: Some("1 object in the kernel is not as it should be".to_owned()),
        lease: Some(LeaseStatus {
            subnet: "10.244.9.0/24".to_owned(),
            public_ip: Some([192, 168, 77, 9].into()),
            expires: Some(1_700_000_000 + 23 * 3600),
            renewals: 0,
            renewals_failed: 0,
            shared_with: Some("the VTEP MAC 02:00:00:00:00:77".to_owned()),
        }),
        store: StoreStatus {
            leases: 3,
            error: Some("no route to the store".to_owned()),
            ..StoreStatus::default()
        },
        backend: Some(BackendStatus {
            name: "vxlan".to_owned(),
            link: "eth0".to_owned(),
            pod_mtu_bytes: 1450,
            direct_peers: [("ipv4".to_owned(), 1)].into(),
        }),
        device: Some(DeviceStatus {
            name: "flannel.1".to_owned(),
            vni: Some(1),
            port: Some(8472),
            mac: Some("02:00:00:00:00:09".to_owned()),
            public_key: None,
            tx_checksum: Some(false),
            mtu_bytes: 1450,
            parent: "eth0".to_owned(),
            local: [192, 168, 77, 9].into(),
            network: "10.244.0.0/16".to_owned(),
            state: Part::Ok,
        }),
        peers: PeerCounts {
            programmed: 1,
            failing: 1,
            ..PeerCounts::default()
        },
        rules: Some(RulesStatus {
            mode: "nftables".to_owned(),
            masquerade: true,
            forward: false,
            state: Part::Ok,
            kernel: KernelStatus::default(),
        }),
        ..NodeStatus::default()
    };
    node.kernel.troubles = vec![Trouble {
        object: "route 10.244.2.0/24".to_owned(),
        secs: 12,
        error: Some("File exists".to_owned()),
    }];
    Status {
        version: "0.1.0".to_owned(),
        pid: 7,
        uptime_secs: 3605,
        node,
        notices: Vec::new(),
        log: LogCounts::default(),
    }
}
