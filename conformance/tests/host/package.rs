use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use conformance::lab::{Binaries, wait_until};

use crate::chroot::{Chroot, succeed};
use crate::files::{differences, files};
use crate::machine::Machine;
use crate::{LONG, PROJECT};

/// What the package has, and how; everything belongs to root.
const INSTALLED: [(&str, u32); 21] = [
    ("etc/default/flanneld", 0o644),
    ("etc/flannel/10-flannel.conflist", 0o644),
    ("usr/bin/flanneld", 0o755),
    ("usr/lib/NetworkManager/conf.d/flannel.conf", 0o644),
    ("usr/lib/cni/bandwidth", 0o755),
    ("usr/lib/cni/bridge", 0o755),
    ("usr/lib/cni/firewall", 0o755),
    ("usr/lib/cni/flannel", 0o755),
    ("usr/lib/cni/host-local", 0o755),
    ("usr/lib/cni/loopback", 0o755),
    ("usr/lib/cni/portmap", 0o755),
    ("usr/lib/cni/tuning", 0o755),
    ("usr/lib/systemd/network/10-flannel.link", 0o644),
    ("usr/lib/systemd/networkd.conf.d/flannel.conf", 0o644),
    ("usr/lib/systemd/system/flanneld.service", 0o644),
    ("usr/lib/sysusers.d/flannel.conf", 0o644),
    ("usr/libexec/flannel/mk-docker-opts.sh", 0o777),
    ("usr/share/doc/flannel-rs/README.md", 0o644),
    ("usr/share/doc/flannel-rs/changelog.Debian.gz", 0o644),
    ("usr/share/doc/flannel-rs/changelog.gz", 0o644),
    ("usr/share/doc/flannel-rs/copyright", 0o644),
];
/// Where a system has what a package may bring; dpkg's own records apart.
const PLACES: [&str; 7] = [
    "etc",
    "opt",
    "run",
    "srv",
    "usr",
    "var/lib/flannel",
    "var/lib/systemd",
];
/// Where a host outside would have it too, had a script left the directory, beside the files themselves.
const OUTSIDE: [&str; 4] = [
    "etc/cni/net.d/10-flannel.conflist",
    "etc/cni/net.d/10-flannel.conflist.kept",
    "usr/lib/cni/bridge.distrib",
    "usr/lib/cni/flannel.distrib",
];
/// A system user stays, as Debian has it.
const USERS: [&str; 4] = ["etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"];

#[test]
fn the_package_is_installed_upgraded_and_purged_without_a_trace() {
    let installed = INSTALLED.iter().map(|(name, _)| *name);
    let looked_at: Vec<_> = installed.chain(OUTSIDE).collect();
    let outside = files(Path::new("/"), &looked_at);
    let chroot = Chroot::new();
    for (revision, name) in [(1, "first.deb"), (2, "second.deb")] {
        revision_of_package(revision, &chroot.root().join("tmp").join(name));
    }
    let before = files(chroot.root(), &PLACES);

    chroot.sh("dpkg --install /tmp/first.deb");
    let installed = files(chroot.root(), &PLACES);
    for (name, mode) in INSTALLED {
        let entry = installed.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!((entry.mode & 0o7777, entry.owner), (mode, (0, 0)), "{name}");
    }
    let listed = chroot.sh("dpkg --listfiles flannel-rs");
    let listed = listed.lines().filter_map(|line| line.strip_prefix('/'));
    let listed = listed.filter(|name| *name != "." && !chroot.root().join(name).is_dir());
    assert_eq!(
        listed.collect::<BTreeSet<_>>(),
        INSTALLED.iter().map(|(name, _)| *name).collect()
    );
    assert_eq!(
        installed["usr/lib/cni/bridge.distrib"],
        before["usr/lib/cni/bridge"]
    );
    assert_eq!(installed["usr/lib/cni/macvlan"], before["usr/lib/cni/macvlan"]);
    assert!(
        chroot
            .sh("getent passwd flannel")
            .ends_with("/usr/sbin/nologin\n")
    );
    let version = chroot.sh("flanneld --version");
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"));
    for plugin in ["flannel", "bridge", "bridge.distrib"] {
        let call = format!("echo '{{\"cniVersion\":\"1.0.0\"}}' | CNI_COMMAND=VERSION /usr/lib/cni/{plugin}");
        assert!(chroot.sh(&call).contains("supportedVersions"), "{plugin}");
    }
    assert!(
        chroot
            .sh("/usr/libexec/flannel/mk-docker-opts.sh -h 2>&1 || true")
            .contains("subnet file")
    );

    chroot.sh("dpkg --install /tmp/first.deb");
    assert_eq!(differences(&files(chroot.root(), &PLACES), &installed), [""; 0]);
    let edited = "FLANNELD_IFACE=eth1\n";
    fs::write(chroot.root().join("etc/default/flanneld"), edited).unwrap();
    chroot.sh("dpkg --install /tmp/second.deb");
    assert!(chroot.sh("dpkg-query --show flannel-rs").ends_with("-2\n"));
    let upgraded = files(chroot.root(), &PLACES);
    assert_eq!(differences(&upgraded, &installed), ["etc/default/flanneld"]);

    chroot.sh("dpkg --remove flannel-rs");
    let removed = files(chroot.root(), &PLACES);
    assert_eq!(removed["etc/default/flanneld"].content, edited.as_bytes());
    assert_eq!(removed["usr/lib/cni/bridge"], before["usr/lib/cni/bridge"]);
    chroot.sh("dpkg --purge flannel-rs");
    let mut left = differences(&files(chroot.root(), &PLACES), &before);
    left.retain(|name| !USERS.contains(&name.trim_end_matches('-')) && name != "etc/.pwd.lock");
    assert_eq!(left, [""; 0]);
    assert!(!chroot.sh("dpkg-divert --list").contains("flannel-rs"));
    assert_eq!(differences(&files(Path::new("/"), &looked_at), &outside), [""; 0]);
}

#[test]
fn the_packages_unit_waits_for_its_configuration_and_follows_upgrade_and_removal() {
    let machine = Machine::boot();
    for (revision, name) in [(1, "first.deb"), (2, "second.deb")] {
        send(&machine, revision, name);
    }
    machine.sh("ip link set lo up
         ip link add eth0 type veth peer name other
         ip address add 192.168.77.11/24 dev eth0
         ip link set eth0 up
         ip link set other up
         ip route add default via 192.168.77.1
         # A container's image may forbid that packages start anything.
         rm -f /usr/sbin/policy-rc.d
         mkdir -p /etc/cni/net.d
         echo former > /etc/cni/net.d/10-flannel.conflist
         dpkg --install /tmp/first.deb");
    let state = || machine.sh("systemctl is-enabled flanneld || true; systemctl is-active flanneld || true");
    assert_eq!(state(), "disabled\ninactive\n");
    let conflist = || machine.sh("cat /etc/cni/net.d/10-flannel.conflist");
    assert_eq!(
        conflist(),
        "former\n",
        "no pod is for a network that is not there"
    );

    machine.sh(
        "install -d -o flannel -g flannel /var/lib/flannel /var/lib/flannel/leases
         echo '{\"Network\":\"10.244.0.0/16\",\"EnableNFTables\":true,\"Backend\":{\"Type\":\"vxlan\"}}' > /var/lib/flannel/leases/config
         printf 'FLANNELD_LEASE_DIR=/var/lib/flannel/leases\nFLANNELD_IP_MASQ=true\n' > /etc/default/flanneld
         systemctl enable --now flanneld",
    );
    assert_eq!(
        conflist(),
        include_str!("../../../deploy/cni/10-flannel.conflist")
    );
    let process = || machine.sh("systemctl show -p MainPID --value flanneld");
    let first = process();
    let device = || machine.sh("cat /sys/class/net/flannel.1/address");
    let address = device();

    machine.sh("dpkg --install /tmp/second.deb");
    assert_eq!(state(), "enabled\nactive\n");
    assert_ne!(process(), first, "the new program runs");
    assert_eq!(device(), address);

    // Without its leases the daemon is not ready, and the upgrade ends all the same.
    machine.sh("mv /var/lib/flannel/leases/config /var/lib/flannel/leases/later");
    let said = machine.sh("dpkg --install /tmp/second.deb 2>&1");
    assert!(said.contains("flanneld is not ready yet"), "{said}");
    machine.sh("mv /var/lib/flannel/leases/later /var/lib/flannel/leases/config");
    let ready = wait_until("the daemon to go on", LONG, || Ok(state() == "enabled\nactive\n"));
    ready.unwrap();

    // With what it was configured with still there, too.
    machine.sh("dpkg --remove flannel-rs");
    assert_eq!(conflist(), "former\n");
    machine.sh("dpkg --install /tmp/second.deb; systemctl enable --now flanneld");
    assert!(conflist().contains("portmap"));
    machine.sh("dpkg --remove flannel-rs");
    assert_eq!(conflist(), "former\n");
    let gone = wait_until("the unit to be gone", LONG, || {
        let gone = "! systemctl is-active flanneld && ! [ -e /sys/class/net/flannel.1 ] && ! nft list tables | grep -q .";
        Ok(machine.command(gone).output()?.status.success())
    });
    gone.unwrap();
    machine.sh("dpkg --purge flannel-rs");
    let left = machine.sh(
        "ls -d /etc/flannel /etc/default/flanneld /run/flannel /etc/systemd/system/*/flanneld.service 2>/dev/null || true
         ls -A /var/lib/flannel
         dpkg-divert --list | grep flannel-rs || true",
    );
    assert_eq!(left, "leases\n", "other nodes may share them");
}

/// Puts a revision of the package onto a machine, which has a /tmp of its own.
fn send(machine: &Machine, revision: u8, name: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    revision_of_package(revision, file.path());
    let mut command = machine.command(&format!("cat > /tmp/{name}"));
    let status = command.stdin(File::open(file.path()).unwrap()).status().unwrap();
    assert!(status.success(), "{name}");
}

/// Writes the package, as another revision of it than the first if that is asked for; not compressed, to save time.
fn revision_of_package(revision: u8, file: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("package");
    succeed(
        Command::new("dpkg-deb")
            .arg("--raw-extract")
            .arg(package())
            .arg(&root),
    );
    let control = root.join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    let version = concat!("Version: ", env!("CARGO_PKG_VERSION"), "-1\n");
    assert!(text.contains(version), "{text}");
    let text = text.replace(version, &version.replace("-1\n", &format!("-{revision}\n")));
    fs::write(&control, text).unwrap();
    succeed(
        Command::new("dpkg-deb")
            .args(["-Znone", "--build"])
            .arg(&root)
            .arg(file),
    );
}

/// Makes the package once.
fn package() -> &'static Path {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    PACKAGE.get_or_init(|| {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("flannel-rs.deb");
        succeed(
            Command::new(format!("{PROJECT}/scripts/package"))
                .arg("--bin-dir")
                .arg(Binaries::find().unwrap().dir())
                .arg("--out")
                .arg(&file),
        );
        file
    })
}
