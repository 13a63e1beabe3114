use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::node::{HEALTH, ask, get, ip, on_a_node, try_get};

const HTTP: &str = "--healthz-port=8081";

#[test]
fn health_is_served_before_there_is_a_configuration_and_readiness_after_the_peers() {
    on_a_node(|node| {
        node.add_peer(2);
        node.start(&[HTTP, "--healthz-ip=127.0.0.1"]);
        node.wait("the server", || try_get("/healthz").is_some());
        assert_eq!(get("/healthz"), (200, "flanneld is running".to_owned()));
        assert_eq!(get("/readyz"), (503, "flanneld is not ready yet".to_owned()));
        assert!(get("/metrics").1.contains("\nflanneld_ready 0\n"));

        node.configure();
        node.wait_ready();

        assert_eq!(get("/readyz?verbose"), (200, "flanneld is ready".to_owned()));
        let (code, page) = get("/metrics");
        assert_eq!(code, 200);
        for line in [
            "flanneld_ready 1",
            "flanneld_leases 2",
            "flanneld_peers{state=\"programmed\"} 1",
            "flanneld_store_connected 1",
            "flanneld_kernel_changes_total{part=\"network\",kind=\"route\"} 1",
        ] {
            assert!(
                page.lines().any(|found| found == line),
                "{line} is not in\n{page}"
            );
        }
        for path in ["/", "/healthz/", "/readyz2", "/debug/pprof"] {
            assert_eq!(get(path).0, 404, "{path}");
        }
        node.stop();
    });
}

#[test]
fn what_somebody_deletes_is_put_back_and_counted() {
    on_a_node(|node| {
        node.configure();
        node.add_peer(2);
        node.start(&[HTTP]);
        node.wait_settled();
        ip("route del 10.244.0.32/28 dev flannel.1");
        ip("neigh del 10.244.0.32 dev flannel.1");
        node.wait("the repair", || {
            let page = get("/metrics").1;
            page.contains("flanneld_drift_repaired_total{part=\"network\",kind=\"route\"} 1")
                && page.contains("flanneld_drift_repaired_total{part=\"network\",kind=\"neigh\"} 1")
        });
        assert_eq!(get("/readyz").0, 200);
    });
}

#[test]
fn readiness_is_lost_while_a_peer_cannot_be_programmed_and_comes_back() {
    on_a_node(|node| {
        node.configure();
        node.start(&[HTTP]);
        node.wait_ready();
        ip("route add 10.244.0.48/28 via 192.168.77.9 dev eth0");
        node.add_peer(3);
        let began = Instant::now();
        node.wait("the loss of readiness", || get("/readyz").0 == 503);
        assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(get("/healthz").0, 200);
        let text = node.print(&["status"]);
        assert!(
            text.contains("ready     no: 1 object in the kernel is not as it should be"),
            "{text}"
        );
        assert!(text.contains("route 10.244.0.48/28"), "{text}");
        assert!(text.contains("failing"), "{text}");
        assert!(
            get("/metrics")
                .1
                .contains("flanneld_kernel_errors_total{part=\"network\",class=\"exists\"}")
        );

        ip("route del 10.244.0.48/28 via 192.168.77.9 dev eth0");
        node.wait("readiness again", || get("/readyz").0 == 200);
    });
}

#[test]
fn the_store_out_of_reach_leaves_the_node_ready_and_is_told() {
    on_a_node(|node| {
        node.configure();
        node.add_peer(2);
        node.start(&[HTTP]);
        node.wait_ready();
        fs::rename(node.file("leases"), node.file("gone")).unwrap();
        node.wait("the loss of the store", || {
            get("/metrics").1.contains("\nflanneld_store_connected 0\n")
        });
        assert_eq!(get("/readyz").0, 200);
        assert!(node.print(&["status"]).contains("store     out of reach"));
        fs::rename(node.file("gone"), node.file("leases")).unwrap();
        node.wait("the store's return", || {
            get("/metrics").1.contains("\nflanneld_store_connected 1\n")
        });
    });
}

#[test]
fn hostile_clients_lock_nobody_out_and_cost_little() {
    on_a_node(|node| {
        node.configure();
        let pid = node.start(&[HTTP]);
        node.wait_ready();
        let before = rss_kib(pid);
        let mut idle = Vec::new();
        for n in 0..500 {
            let mut stream = TcpStream::connect(HEALTH).unwrap();
            let _closed = stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ");
            idle.push(stream);
            if n % 50 == 0 {
                assert_eq!(get("/healthz").0, 200, "with {n} idle clients");
            }
        }
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(1 << 20));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
        for bad in [
            endless.as_str(),
            many.as_str(),
            "POST /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
            "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
            "\0\0\0\0\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            let answer = ask(bad).unwrap();
            assert!(!answer.contains(" 200 "), "{answer}");
        }
        assert!(
            ask("POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap()
                .contains(" 405 ")
        );
        assert_eq!(get("/healthz").0, 200);
        let grown = rss_kib(pid).saturating_sub(before);
        assert!(grown < 2048, "it grew by {grown} KiB");
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        assert!(files < 80, "it has {files} open files");
        drop(idle);
    });
}

#[test]
fn a_port_that_is_taken_ends_the_start_with_a_sentence() {
    on_a_node(|node| {
        node.configure();
        let _taken = std::net::TcpListener::bind(HEALTH).unwrap();
        for args in [
            ["--healthz-ip=127.0.0.1", "--healthz-port=8081"],
            ["--healthz-ip=192.0.2.7", "--healthz-port=8082"],
        ] {
            let lease_dir = format!("--lease-dir={}", node.file("leases").display());
            let output = node.run(&[args[0], args[1], &lease_dir]);
            assert_eq!(output.status.code(), Some(1));
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(text.starts_with("error: cannot serve health on "), "{text}");
            assert!(
                text.contains("choose another --healthz-ip or --healthz-port"),
                "{text}"
            );
            assert!(!node.file("run/subnet.env").exists());
        }
    });
}

fn rss_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
