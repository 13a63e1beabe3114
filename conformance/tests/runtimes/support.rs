use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use conformance::lab::{
    BIN_DIR, Binaries, CNI_CONF_DIR, Flanneld, Lab, LabConfig, Namespaces, Node, Store, wait_until,
};
use nix::mount::{MsFlags, mount};

/// The machine may be busy.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// One attempt to connect.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Where a runtime of the lab finds the plugins.
pub(crate) const PLUGIN_DIR: &str = "/run/cni-bin";
/// The list that is installed on hosts.
const CONFLIST: &str = include_str!("../../../deploy/cni/10-flannel.conflist");
/// The port of a container's server, and the host's port that leads there.
pub(crate) const PORT: u16 = 80;
pub(crate) const HOST_PORT: u16 = 8080;

/// Two nodes on which everything is there but the daemon.
pub(crate) fn nodes() -> Lab {
    let lab = nodes_on(Store::Directory);
    for node in lab.nodes() {
        fs::write(node.file("/run/list"), CONFLIST).unwrap();
        run(
            node,
            &[&format!("{BIN_DIR}/flannel"), "install", "--dir", PLUGIN_DIR],
        );
    }
    lab
}

/// Two nodes with what runtimes need of a host, and no network that they are told of.
pub(crate) fn nodes_on(store: Store) -> Lab {
    let config = LabConfig {
        nodes: 2,
        binaries: Binaries::find().unwrap(),
    };
    let lab = Lab::on(store, &config).unwrap();
    for node in lab.nodes() {
        let mounted = node.namespaces().run(|| {
            let none = None::<&str>;
            mount(
                Some("none"),
                "/sys/fs/cgroup",
                Some("cgroup2"),
                MsFlags::empty(),
                none,
            )
            .context("mounting cgroup2")?;
            // Podman keeps locks there.
            mount(Some("none"), "/dev/shm", Some("tmpfs"), MsFlags::empty(), none)
                .context("mounting memory on /dev/shm")
        });
        mounted.unwrap();
        fs::remove_file(conflist(node)).unwrap();
    }
    lab
}

/// Where the programs are that an image is made of.
pub(crate) fn programs() -> PathBuf {
    Binaries::find().unwrap().dir().to_owned()
}

/// Starts the daemons, and waits until they have told the runtimes of the network.
pub(crate) fn start_daemons(lab: &Lab) -> Vec<Flanneld> {
    let flags = ["--ip-masq", "--cni-conf-src=/run/list"];
    let daemons = lab
        .nodes()
        .iter()
        .map(|node| node.start_flanneld(&flags).unwrap());
    let daemons = daemons.collect();
    for node in lab.nodes() {
        wait_until("the conflist", LONG, || Ok(conflist(node).exists())).unwrap();
    }
    daemons
}

pub(crate) fn conflist(node: &Node) -> PathBuf {
    node.file(CNI_CONF_DIR).join("10-flannel.conflist")
}

/// Makes the root of a pod: busybox as a program that does nothing.
pub(crate) fn make_root(root: &Path) {
    for dir in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("Debian's package busybox-static");
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("busybox", root.join("bin/sleep")).unwrap();
}

/// What a container runs.
pub(crate) const IDLE: [&str; 2] = ["/bin/sleep", "1000000"];

/// The network namespaces that runtimes made on a node.
pub(crate) fn netns_files(node: &Node) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(node.file("/run/netns")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The network namespace that was made since; a server in it says this name to whoever connects, for as long as the tests
/// run.
pub(crate) fn serve(node: &Node, before: &BTreeSet<PathBuf>, name: &'static str) -> Namespaces {
    let after = netns_files(node);
    let mut new = after.difference(before);
    let (Some(file), None) = (new.next(), new.next()) else {
        panic!("{before:?} became {after:?}");
    };
    let inside = Namespaces::of_netns_file(file).unwrap();
    let listener = inside.run(|| TcpListener::bind(("0.0.0.0", PORT)).context("listening"));
    let listener = listener.unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // Who has hung up does not want to know.
            stream.map(|mut stream| stream.write_all(name.as_bytes())).ok();
        }
    });
    inside
}

/// Connects from a namespace until somebody answers, who must be the right one.
pub(crate) fn assert_reaches(from: &Namespaces, address: &str, port: u16, name: &str) {
    let target = SocketAddr::new(address.parse().unwrap(), port);
    let mut said = String::new();
    let answered = wait_until(&target.to_string(), LONG, || {
        let asked = from.run(|| {
            let mut stream = TcpStream::connect_timeout(&target, ANSWER_LIMIT).context("connecting")?;
            stream
                .set_read_timeout(Some(ANSWER_LIMIT))
                .context("limiting a wait")?;
            let mut text = String::new();
            stream.read_to_string(&mut text).context("reading")?;
            Ok(text)
        });
        said = asked.unwrap_or_default();
        Ok(!said.is_empty())
    });
    answered.unwrap();
    assert_eq!(said, name);
}

/// Runs a program on a node that must succeed, and returns what it prints.
pub(crate) fn run(node: &Node, argv: &[&str]) -> String {
    let output = node.exec(argv).unwrap();
    assert_success(&output, argv);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(crate) fn assert_success(output: &Output, argv: &[&str]) {
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{argv:?}: {}: {words}", output.status);
}

/// Everything that attaching a container may leave: links, rules, and the plugins' and the runtime's files.
pub(crate) fn traces(node: &Node) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let links = node.json(&["ip", "-j", "link"]).unwrap();
    found.extend(links.iter().map(|link| format!("link {}", link["ifname"])));
    // In order: a rule's number of occurrences counts as well.
    found.insert(format!(
        "rules\n{}",
        run(node, &["nft", "--stateless", "list", "ruleset"])
    ));
    for dir in ["/var/lib/cni", "/run/cni", "/run/netns", "/var/run/netns"] {
        let files = node.exec(&["find", dir, "-type", "f"]).unwrap();
        let files = String::from_utf8(files.stdout).unwrap();
        let kept = |path: &&str| !path.contains("lock") && !path.contains("last_reserved_ip");
        found.extend(files.lines().filter(kept).map(str::to_owned));
    }
    found
}

/// Looks until a container has left nothing, which a runtime may do in the background.
pub(crate) fn assert_without_trace(node: &Node, before: &BTreeSet<String>) {
    let gone = wait_until("the container's traces to go", LONG, || {
        Ok(traces(node) == *before)
    });
    if gone.is_err() {
        assert_eq!(traces(node), *before);
    }
}
