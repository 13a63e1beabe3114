//! Reads the facts of this host. What cannot be read is left out: a doctor works with what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flannel_types::SubnetEnv;
use ipnetwork::{IpNetwork, Ipv4Network};
use net_types::{IfName, sentence};
use netlink::inventory::Inventory;
use netlink::{RealKernel, WireguardReport};
use netstate::{Kernel, KernelError, LinkKind, LinkScope, Scope, State};
use nftables::Nftables;
use nftables::iptables::run;

use super::{Facts, is_flannels};
use crate::kernel_version::KernelVersion;
use crate::status::{PeerQuery, command as status_command};
use crate::wireguard_key::KeyFiles;

mod managers;
mod probe;

/// How long a program may take that shows rules.
const PROGRAM_MAX: Duration = Duration::from_secs(20);
/// Modules that flannel may need, and that are there when something uses them.
const MODULES: [&str; 5] = ["vxlan", "wireguard", "ipip", "bridge", "nf_tables"];
/// The kernel parameter that the module br_netfilter adds.
const BR_NETFILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
/// Kernel parameters of each link.
const LINK_SYSCTLS: [&str; 3] = [
    "net/ipv4/conf/LINK/rp_filter",
    "net/ipv4/conf/LINK/forwarding",
    "net/ipv6/conf/LINK/disable_ipv6",
];
/// Shows whether anybody has looked at iptables' own tables; asking for their rules would make them.
const LEGACY_TABLES: &str = "/proc/net/ip_tables_names";

/// The sockets of UDP, of both families.
const UDP_SOCKETS: [&str; 2] = ["/proc/self/net/udp", "/proc/self/net/udp6"];

/// What to read.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The subnet file.
    pub subnet_file: PathBuf,
    /// The daemon's socket.
    pub status_socket: PathBuf,
    /// The files with WireGuard's private key.
    pub key_files: KeyFiles,
    /// How many peers to ask for an answer.
    pub probes: usize,
}

/// Reads the facts.
///
/// # Errors
/// The kernel's links and routes cannot be listed.
pub fn facts(sources: &Sources) -> Result<Facts, KernelError> {
    let mut kernel = RealKernel::open()?;
    let inventory = kernel.inventory()?;
    let state = kernel.observe(&scope(&inventory))?;
    let daemon = status_command::ask(&sources.status_socket, &PeerQuery::default());
    let daemon = daemon.map_err(|err| sentence(&err));
    let kernel_release = text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let probes = match &daemon {
        Ok((status, peers)) => probe::all(status, peers, sources.probes),
        Err(_) => Vec::new(),
    };
    Ok(Facts {
        missing_modules: missing_modules(&kernel_release, &state),
        kernel_release,
        kernel_version: KernelVersion::running(),
        sysctls: sysctls(&state),
        subnet_path: sources.subnet_file.clone(),
        subnet_file: subnet_file(&sources.subnet_file),
        wireguard: wireguard(&mut kernel, &state),
        udp_ports: udp_ports(),
        loose_key_files: sources.key_files.loose(),
        now: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
        drivers: drivers(&state),
        inventory,
        state,
        rules: rules(),
        managers: managers::read(Path::new("/")),
        daemon,
        probes,
    })
}

fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim_end().to_owned())
}

/// All links, the IPv4 addresses and routes on them, and the entries of flannel's devices.
fn scope(inventory: &Inventory) -> Scope {
    let any = Ipv4Network::new(std::net::Ipv4Addr::UNSPECIFIED, 0).map(IpNetwork::V4);
    let any: Vec<_> = any.into_iter().collect();
    let mut scope = Scope::default();
    for link in &inventory.links {
        let flannels = is_flannels(&link.name);
        let of_link = LinkScope {
            addrs_inside: any.clone(),
            neighs: flannels,
            fdb: flannels,
            tx_checksum: flannels,
            routes: true,
            ..LinkScope::default()
        };
        scope.links.insert(link.name.clone(), of_link);
    }
    scope
}

fn subnet_file(path: &Path) -> Option<Result<SubnetEnv, String>> {
    match statefile::read_text(path) {
        Ok(None) => None,
        Ok(Some(text)) => Some(SubnetEnv::parse(&text, path).map_err(|err| err.to_string())),
        Err(err) => Some(Err(sentence(&err))),
    }
}

/// What is known to be absent. A part that is built in leaves few traces, so that only a kernel whose modules are
/// installed, and are not this one, is told to miss it.
fn missing_modules(release: &str, state: &State) -> BTreeSet<&'static str> {
    let dir = Path::new("/lib/modules").join(release);
    let installed = ["modules.dep", "modules.builtin"].map(|name| text(dir.join(name)));
    let known = installed.iter().any(Option::is_some);
    let has = |module: &str| {
        let file = format!("/{module}.ko");
        let listed = installed.iter().flatten().any(|list| list.contains(&file));
        listed || Path::new("/sys/module").join(module).exists() || in_use(module, state)
    };
    let absent = MODULES.into_iter().filter(|module| known && !has(module));
    let br_netfilter = (!Path::new(BR_NETFILTER).exists()).then_some("br_netfilter");
    absent.chain(br_netfilter).collect()
}

fn in_use(module: &str, state: &State) -> bool {
    let mut kinds = state.links.values().map(|link| &link.kind);
    match module {
        "vxlan" => kinds.any(|kind| matches!(kind, LinkKind::Vxlan(_))),
        "wireguard" => kinds.any(|kind| *kind == LinkKind::Wireguard),
        "ipip" => kinds.any(|kind| matches!(kind, LinkKind::Ipip(_))),
        "bridge" => kinds.any(|kind| matches!(kind, LinkKind::Bridge)),
        _ => Nftables::open().is_ok_and(|mut nftables| nftables.is_available()),
    }
}

fn wireguard(kernel: &mut RealKernel, state: &State) -> BTreeMap<IfName, WireguardReport> {
    let links = state.links.iter();
    let devices = links.filter(|(_, link)| link.kind == LinkKind::Wireguard);
    let report = |(name, _): (&IfName, _)| {
        let report = kernel.wireguard_report(name).ok()??;
        Some((name.clone(), report))
    };
    devices.filter_map(report).collect()
}

fn udp_ports() -> BTreeSet<u16> {
    let tables = UDP_SOCKETS.into_iter().filter_map(text);
    tables.flat_map(|table| local_ports(&table)).collect()
}

/// The local ports of a table of sockets (`proc_pid_net(5)`): the second column is `ADDRESS:PORT`, in hexadecimal.
fn local_ports(table: &str) -> BTreeSet<u16> {
    let port = |line: &str| {
        let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok()
    };
    table.lines().skip(1).filter_map(port).collect()
}

fn sysctls(state: &State) -> BTreeMap<String, String> {
    let mut paths = vec![
        "net/ipv4/ip_forward".to_owned(),
        "net/ipv4/neigh/default/gc_thresh3".to_owned(),
        "net/ipv4/conf/all/rp_filter".to_owned(),
        "net/ipv6/conf/all/disable_ipv6".to_owned(),
        "net/ipv6/conf/all/forwarding".to_owned(),
        "net/bridge/bridge-nf-call-iptables".to_owned(),
    ];
    let of_link = |name: &IfName| LINK_SYSCTLS.map(|path| path.replace("LINK", name.as_str()));
    paths.extend(state.links.keys().flat_map(of_link));
    let read = |path: String| {
        let value = text(Path::new("/proc/sys").join(&path))?;
        Some((path, value))
    };
    paths.into_iter().filter_map(read).collect()
}

fn drivers(state: &State) -> BTreeMap<IfName, String> {
    let driver = |name: &IfName| {
        let path = Path::new("/sys/class/net")
            .join(name.as_str())
            .join("device/driver");
        let target = fs::read_link(path).ok()?;
        Some((name.clone(), target.file_name()?.to_str()?.to_owned()))
    };
    state.links.keys().filter_map(driver).collect()
}

/// The rules as their own programs show them, where they are installed and this user may see them.
fn rules() -> BTreeMap<&'static str, String> {
    let mut programs: Vec<(&'static str, &[&str])> =
        vec![("nft", &["list", "ruleset"]), ("iptables-save", &[])];
    if text(LEGACY_TABLES).is_some_and(|tables| !tables.is_empty()) {
        programs.push(("iptables-legacy-save", &[]));
    }
    let shown = programs.into_iter().filter_map(|(program, arguments)| {
        let text = run(Path::new(program), arguments, "", PROGRAM_MAX).ok()?;
        Some((program, text))
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_of_sockets_tells_which_ports_are_held() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            \x20 123: 00000000:CA6C 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 17 2 0 0\n\
            \x20 124: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 18 2 0 0\n";
        assert_eq!(local_ports(table), BTreeSet::from([51820, 53]));
        let table6 = "head\n 7: 00000000000000000000000000000000:CA6D 0:0 07\n broken\n";
        assert_eq!(local_ports(table6), BTreeSet::from([51821]));
    }

    /// The kernel has the table that is looked for, and a socket is in it.
    #[test]
    fn a_port_that_somebody_holds_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(udp_ports().contains(&port));
    }
}
