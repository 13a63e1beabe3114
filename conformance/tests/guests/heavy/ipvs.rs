//! A node whose services are IPVS's, as kube-proxy sets them up in that mode: a device that is down carries their addresses,
//! and answers of pods on the same bridge come through the kernel because br_netfilter sends them there.

use std::net::IpAddr;

use conformance::guest::{Guest, POD_CONF};

use crate::heavy::{
    LIMIT, PROGRAM_LIMIT, configure, end_with_pods, guests, loses_nothing, reaches, restart, start_with_pods,
};

const CONF: &str = r#"{"Network":"10.244.0.0/16","EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#;

/// A service, and what a cloud's load balancer sends to by an address of the nodes' own network.
const SERVICE: &str = "10.96.0.10";
const BALANCED: &str = "192.168.88.200";

const RULES: &str = "nft list table ip flannel-ipv4";
const CHECK: &str = "/opt/cni/bin/flanneld check --probes=0; true";

#[test]
fn pods_reach_a_service_of_ipvs_on_both_nodes_through_a_restart_and_its_device_is_left_alone() {
    let mut lab = guests();
    let flags = format!("{} --ip-masq", configure(&lab, "ipvs", CONF));
    let backends = start_with_pods(&mut lab, &flags).map(|addresses| addresses[0]);
    for number in 1..=2 {
        serve(lab.guest(number).unwrap());
    }
    let guest = lab.guest(1).unwrap();
    reaches(guest, backends[1], 56);
    guest
        .wait_for(&format!("{RULES} | grep masquerade"), LIMIT)
        .unwrap();
    guest.sh("modprobe -a br_netfilter ip_vs ip_vs_rr").unwrap();
    let before = (guest.sh(RULES).unwrap(), findings(guest));
    add_service(guest, &backends);
    let client = guest.add_pod("client", POD_CONF).unwrap()[0];

    // Each backend in its turn, and each sees the pod itself.
    let expected = [1, 2].map(|number| format!("{number} [::ffff:{client}]"));
    assert_eq!(in_turn(ask(guest, "ip netns exec client", 2)), expected);
    // What the node itself sends has the service's address, which the other node knows no way to: flanneld's rules give it
    // that of the tunnel's device. The backend on the same node is kube-proxy's rules' to care for.
    let own = guest
        .sh("ip -4 -o addr show flannel.1 | sed 's|.* inet \\([0-9.]*\\)/.*|\\1|'")
        .unwrap();
    weigh(guest, backends[0], 0);
    assert_eq!(ask(guest, "", 1), [format!("2 [::ffff:{}]", own.trim())]);
    weigh(guest, backends[0], 1);

    loses_nothing(&mut lab, 1, backends[1], |lab| {
        let guest = lab.guest(1).unwrap();
        begin_to_ask(guest);
        restart(guest, &flags);
        let answers = answers_until_now(guest);
        assert!(
            answers.iter().all(|answer| expected.contains(answer)),
            "{answers:?}"
        );
    });
    let guest = lab.guest(1).unwrap();
    assert_eq!((guest.sh(RULES).unwrap(), findings(guest)), before);
    guest.sh(SERVICE_IS_THERE).unwrap();
    guest.delete_pod("client", POD_CONF).unwrap();
    another_interface_is_chosen(guest);
    guest.start_flanneld(&flags).unwrap();
    end_with_pods(&mut lab);
}

const SERVICE_IS_THERE: &str = "ip addr show kube-ipvs0 | grep -F 10.96.0.10/32 &&
    ip link show kube-ipvs0 | grep 'state DOWN' &&
    test $(/opt/cni/bin/ipvsadm -Ln | grep -c Masq) = 2";

/// Has the pod of a guest answer with the guest's number and the address that the request came from.
fn serve(guest: &mut Guest) {
    let number = guest.number();
    let answer = format!(
        "#!/usr/sbin/dash\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\necho {number} $REMOTE_ADDR\n"
    );
    guest.write("/run/www/cgi-bin/who", &answer).unwrap();
    guest
        .sh("chmod 755 /run/www/cgi-bin/who
             ip netns exec pod busybox httpd -f -p 8080 -h /run/www >/dev/null 2>&1 </dev/null &
             echo $! >/run/httpd.pid")
        .unwrap();
    let listens = "ip netns exec pod busybox netstat -ltn | grep :8080";
    guest.wait_for(listens, LIMIT).unwrap();
}

/// As kube-proxy does it (kubernetes `pkg/proxy/ipvs/proxier.go`).
fn add_service(guest: &mut Guest, backends: &[IpAddr; 2]) {
    let [one, two] = backends;
    guest
        .sh(&format!(
            "set -e
             echo 1 >/proc/sys/net/ipv4/vs/conntrack
             ip link add kube-ipvs0 type dummy
             ip addr add {SERVICE}/32 dev kube-ipvs0
             ip addr add {BALANCED}/32 dev kube-ipvs0
             /opt/cni/bin/ipvsadm -A -t {SERVICE}:80 -s rr
             /opt/cni/bin/ipvsadm -a -t {SERVICE}:80 -r {one}:8080 -m
             /opt/cni/bin/ipvsadm -a -t {SERVICE}:80 -r {two}:8080 -m"
        ))
        .unwrap();
}

/// Sets how much of the service's requests a backend gets.
fn weigh(guest: &mut Guest, backend: IpAddr, weight: u8) {
    guest
        .sh(&format!(
            "/opt/cni/bin/ipvsadm -e -t {SERVICE}:80 -r {backend}:8080 -m -w {weight}"
        ))
        .unwrap();
}

/// One request to the service, in the shell's words; prints what was answered.
fn request(inside: &str) -> String {
    format!(
        "printf 'GET /cgi-bin/who HTTP/1.0\\r\\n\\r\\n' |
         {inside} timeout 20 busybox nc -w 10 {SERVICE} 80 | tail -n 1"
    )
}

fn ask(guest: &mut Guest, inside: &str, count: usize) -> Vec<String> {
    let requests = vec![request(inside); count].join("\n");
    let answer = guest.exec(&requests, PROGRAM_LIMIT).unwrap();
    answer.stdout.lines().map(str::to_owned).collect()
}

fn in_turn(mut answers: Vec<String>) -> Vec<String> {
    answers.sort();
    answers
}

/// Has the pod ask again and again, until two requests are answered and some more on the way.
fn begin_to_ask(guest: &mut Guest) {
    let request = request("ip netns exec client");
    guest
        .sh(&format!(
            "rm -f /run/enough
             (while test ! -e /run/enough; do {request} | grep . || echo nothing; done) >/run/asked 2>/dev/null </dev/null &
             true"
        ))
        .unwrap();
    guest.wait_for("test $(wc -l </run/asked) -ge 2", LIMIT).unwrap();
}

/// Waits until requests that begin from now on are answered, and returns all answers.
fn answers_until_now(guest: &mut Guest) -> Vec<String> {
    let count = "wc -l </run/asked";
    let before: usize = guest.sh(count).unwrap().trim().parse().unwrap();
    let enough = format!("test $({count}) -ge {}", before + 3);
    guest.wait_for(&enough, LIMIT).unwrap();
    guest.sh("touch /run/enough").unwrap();
    let asked = guest.sh("cat /run/asked").unwrap();
    asked.lines().map(str::to_owned).collect()
}

/// What `flanneld check` finds, by names.
fn findings(guest: &mut Guest) -> Vec<String> {
    let check = guest.sh(CHECK).unwrap();
    assert!(
        !check.contains("kube-ipvs0") && !check.contains(SERVICE),
        "{check}"
    );
    let names = check
        .split_whitespace()
        .filter(|word| word.starts_with('[') && word.ends_with(']'));
    names.map(str::to_owned).collect()
}

/// However the interface is looked for, it is not the one with the services' addresses.
fn another_interface_is_chosen(guest: &mut Guest) {
    guest.stop_flanneld().unwrap();
    guest.sh("ip route add default via 192.168.88.2").unwrap();
    guest.write("/run/chosen/config", CONF).unwrap();
    for flag in [
        "",
        "--iface-regex='^192[.]168[.]88[.]'",
        "--iface-can-reach=192.168.88.2",
    ] {
        let log = guest
            .sh(&format!(
                "/opt/cni/bin/flanneld {flag} --lease-dir=/run/chosen >/run/chosen/log 2>&1 </dev/null &
                 for i in $(seq 200); do grep -q 'external interface' /run/chosen/log && break; usleep 100000; done
                 kill $!; wait $!; cat /run/chosen/log"
            ))
            .unwrap();
        assert!(
            log.contains("external interface link=eth0 local=192.168.88.1 "),
            "{flag}: {log}"
        );
    }
    guest.sh("ip route del default; rm -r /run/chosen").unwrap();
}
