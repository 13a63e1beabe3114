//! The unit, as `scripts/install` leaves it, under a real systemd in namespaces of its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conformance::lab::{Binaries, wait_until};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);
const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const SUBNET_FILE: &str = "/run/flannel/subnet.env";

#[test]
fn the_unit_runs_under_systemd_without_root_and_outlives_kills_and_stops() {
    let machine = Machine::boot();
    machine.sh(
        "ip link set lo up
         ip link add eth0 type veth peer name other
         ip address add 192.168.77.11/24 dev eth0
         ip link set eth0 up
         ip link set other up
         ip route add default via 192.168.77.1
         sysctl -qw net.ipv4.ip_forward=1
         /srv/scripts/install --bin-dir /mnt
         install -d -o flannel -g flannel /var/lib/flannel /var/lib/flannel/leases
         echo '{\"Network\":\"10.244.0.0/16\",\"EnableNFTables\":true,\"Backend\":{\"Type\":\"vxlan\"}}' > /var/lib/flannel/leases/config
         printf 'FLANNELD_LEASE_DIR=/var/lib/flannel/leases\nFLANNELD_IP_MASQ=true\n' > /etc/default/flanneld",
    );

    // Type=notify: this returns once the daemon says that it is ready.
    machine.sh("systemctl enable --now flanneld");
    let device = machine.sh("cat /sys/class/net/flannel.1/address");
    let subnet = machine.sh(&format!("cat {SUBNET_FILE}"));
    assert!(subnet.contains("FLANNEL_SUBNET=10.244."), "{subnet}");
    let status = machine.sh("cat /proc/$(systemctl show -p MainPID --value flanneld)/status");
    let field = |name: &str| {
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(name));
        line.map(|rest| rest.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let user = machine.sh("id -u flannel");
    let user = user.trim();
    assert_ne!(user, "0");
    assert_eq!(field("Uid:"), Some([user; 4].join(" ")));
    // CAP_NET_ADMIN (12) alone.
    for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set).as_deref(), Some("0000000000001000"), "{set}");
    }
    assert_eq!(field("NoNewPrivs:").as_deref(), Some("1"));
    machine.sh("flanneld check");

    machine.sh("kill -9 $(systemctl show -p MainPID --value flanneld)");
    wait_until("the daemon to be started again", LONG, || {
        Ok(machine.sh("systemctl show -p NRestarts -p ActiveState --value flanneld | sort") == "1\nactive\n")
    })
    .unwrap();
    machine.sh("systemctl reload flanneld");

    machine.sh("systemctl stop flanneld");
    assert_eq!(machine.sh(&format!("cat {SUBNET_FILE}")), subnet);
    assert_eq!(machine.sh("cat /sys/class/net/flannel.1/address"), device);
    machine.sh("systemctl start flanneld && flanneld check");
    assert_eq!(machine.sh(&format!("cat {SUBNET_FILE}")), subnet);
    assert_eq!(machine.sh("cat /sys/class/net/flannel.1/address"), device);

    machine.sh("/srv/scripts/install --uninstall");
    let left = machine.sh(&format!(
        "ls /etc/systemd/system/flanneld.service /usr/local/bin/flanneld /sys/class/net/flannel.1 {SUBNET_FILE} 2>/dev/null || true
         nft list tables
         systemctl is-active flanneld || true"
    ));
    assert_eq!(left, "inactive\n");
}

/// A system of its own, which systemd runs, on a copy of this one.
struct Machine {
    boot: Child,
    dir: TempDir,
}

impl Machine {
    fn boot() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let binaries = Binaries::find().unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let boot = Command::new("unshare")
            .args([
                "--mount",
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/systemd/boot.sh"),
            ])
            .args([dir.path(), Path::new(PROJECT), binaries.dir()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let machine = Self { boot, dir };
        let booted = wait_until("systemd to have booted", LONG, || {
            if machine.first_process().is_none() {
                return Ok(false);
            }
            let output = machine.command("systemctl is-system-running --wait").output()?;
            Ok(output.stdout == b"running\n")
        });
        let log = || fs::read_to_string(machine.dir.path().join("log")).unwrap();
        booted.unwrap_or_else(|err| panic!("{err}\n{}", log()));
        machine
    }

    /// The number of its systemd.
    fn first_process(&self) -> Option<String> {
        let number = fs::read_to_string(self.dir.path().join("pid")).ok()?;
        number.ends_with('\n').then(|| number.trim().to_owned())
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--all", "--target", &self.first_process().unwrap()])
            .args(["bash", "-euc", script]);
        command
    }

    /// Runs a script there, which must succeed, and returns what it prints.
    #[track_caller]
    fn sh(&self, script: &str) -> String {
        let output = self.command(script).output().unwrap();
        let [said, wrote] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let journal = || {
            let journal = self.command("journalctl --no-pager -n 50").output().unwrap();
            String::from_utf8_lossy(&journal.stdout).into_owned()
        };
        assert!(output.status.success(), "{script}: {said}{wrote}\n{}", journal());
        said.into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // All others there end with the first, and then the script.
        let ended = match self.first_process() {
            Some(number) => Command::new("kill").args(["-KILL", &number]).status().map(drop),
            None => self.boot.kill(),
        };
        if let Err(err) = ended.and_then(|()| self.boot.wait().map(drop)) {
            eprintln!("systemd in its namespaces may go on: {err}");
        }
    }
}
