use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use conformance::lab::{BIN_DIR, Namespaces, Node, wait_until};

use crate::support::{Bed, LONG, bare, run_all, started};

const FLAG: &str = "--vxlan-checksum-offload";
const FEATURE: &str = "tx-checksum-ip-generic";
/// Far more than what two sockets hold.
const TRANSFER_BYTES: usize = 32 << 20;

#[test]
fn a_device_that_is_not_to_leave_checksums_to_the_hardware_never_does() {
    let mut bed = started(bare(2), 1);
    assert!(offload(bed.node(1)) && offload(bed.node(2)));

    restart(&mut bed, "off");
    assert!(!offload(bed.node(1)), "the present device is changed in place");
    assert!(offload(bed.node(2)), "another node's is its own business");
    bed.assert_all_ping();
    for (from, to) in [(1, 2), (2, 1)] {
        transfer(
            bed.pod_on(from).namespaces(),
            bed.pod_on(to).namespaces(),
            bed.pod_on(to).address(),
        );
    }
    let shown = run_all(bed.node(1), &[&format!("{BIN_DIR}/flanneld status")]);
    assert!(shown.contains("checksum offload off"), "{shown}");

    run_all(bed.node(1), &[&format!("ethtool -K flannel.1 {FEATURE} on")]);
    wait_until("the drift to be mended", LONG, || Ok(!offload(bed.node(1)))).unwrap();
    run_all(bed.node(1), &["ip link del flannel.1"]);
    wait_until("a new device to be told too", LONG, || {
        Ok(has_device(bed.node(1)) && !offload(bed.node(1)))
    })
    .unwrap();
    bed.assert_all_ping();

    restart(&mut bed, "auto");
    assert!(!offload(bed.node(1)), "what an administrator may have set stays");
    restart(&mut bed, "on");
    assert!(offload(bed.node(1)));
}

/// Restarts the daemon of the first node with a choice.
fn restart(bed: &mut Bed, choice: &str) {
    bed.daemons[0].stop(LONG).unwrap();
    bed.daemons[0] = bed
        .node(1)
        .start_flanneld(&[&format!("{FLAG}={choice}")])
        .unwrap();
}

/// Whether the device leaves checksums to the hardware, by ethtool's own words.
fn offload(node: &Node) -> bool {
    let features = run_all(node, &["ethtool -k flannel.1"]);
    let line = features
        .lines()
        .find(|line| line.trim_start().starts_with(FEATURE));
    line.unwrap_or_else(|| panic!("{features}")).contains(": on")
}

fn has_device(node: &Node) -> bool {
    node.ip(&["link", "show", "flannel.1"]).is_ok()
}

/// Sends a stream from one pod to another and compares what arrives.
fn transfer(from: &Namespaces, to: &Namespaces, address: Ipv4Addr) {
    let sent: Vec<u8> = (0..TRANSFER_BYTES).map(|at| at.to_le_bytes()[at % 3]).collect();
    let listener = to.run(|| Ok(TcpListener::bind((address, 0))?)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut received = Vec::new();
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            stream.read_to_end(&mut received).unwrap();
            received
        });
        let stream = from.run(|| Ok(TcpStream::connect_timeout(&(address, port).into(), LONG)?));
        stream.unwrap().write_all(&sent).unwrap();
        receiver.join().unwrap()
    });
    assert!(
        received == sent,
        "{} of {} bytes arrived whole",
        received.len(),
        sent.len()
    );
}
