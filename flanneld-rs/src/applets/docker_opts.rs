use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ipnetwork::Ipv4Network;
use net_types::sentence;
use statefile::Durability;

use crate::config::DEFAULT_SUBNET_FILE;

/// Where Docker's unit reads its options (flannel `dist/mk-docker-opts.sh`).
const DEFAULT_DOCKER_FILE: &str = "/run/docker_opts.env";
const DEFAULT_KEY: &str = "DOCKER_OPTS";
const OPTION_PREFIX: &str = "DOCKER_OPT_";
const FILE_MODE: u32 = 0o644;
/// The kernel's main table for IPv4, as text (linux `net/ipv4/fib_trie.c`, `fib_route_seq_show`).
const ROUTES: &str = "/proc/net/route";
/// The route has a gateway (linux `include/uapi/linux/route.h`, `RTF_GATEWAY`).
const HAS_GATEWAY: u32 = 2;

pub(super) const USAGE: &str = "\
usage: mk-docker-opts.sh [-f FLANNEL-ENV-FILE] [-d DOCKER-ENV-FILE] [-i] [-c] [-m] [-k COMBINED-KEY]

Writes options for Docker's daemon, so that it gives its containers addresses of this node's subnet.

  -f FILE  subnet file of flanneld (/run/flannel/subnet.env)
  -d FILE  file to write (/run/docker_opts.env)
  -i       only each option in a variable of its own, as in DOCKER_OPT_MTU=\"--mtu=1450\"
  -c       only all options in one variable
  -k KEY   name of that variable (DOCKER_OPTS)
  -m       leave out --ip-masq";

/// Does what `mk-docker-opts.sh` does, with its flags and its output (flannel `dist/mk-docker-opts.sh`).
pub(super) fn run(
    args: impl IntoIterator<Item = OsString>,
    vars: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(), String> {
    let asked = Asked::parse(args).ok_or_else(|| USAGE.to_owned())?;
    let text = |os: OsString| os.into_string().ok();
    let mut vars: BTreeMap<String, String> = vars
        .into_iter()
        .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
        .collect();
    let file = statefile::read_text(&asked.subnet_file).map_err(|err| sentence(&err))?;
    vars.extend(file.as_deref().map(assignments).unwrap_or_default());
    let rendered = asked.render(&vars)?;
    write(&asked.docker_file, &rendered)
        .map_err(|err| format!("cannot write {}: {err}", asked.docker_file.display()))?;
    match vars.get("FLANNEL_SUBNET").and_then(|subnet| subnet.parse().ok()) {
        Some(subnet) => refuse_routed(subnet, &fs::read_to_string(ROUTES).unwrap_or_default()),
        None => Ok(()),
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    subnet_file: PathBuf,
    docker_file: PathBuf,
    key: String,
    individual: bool,
    combined: bool,
    ip_masq: bool,
}

impl Asked {
    /// Reads flags as getopts(1p) does; `None` for those that it does not know, and for a call for help.
    fn parse(args: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut asked = Self {
            subnet_file: DEFAULT_SUBNET_FILE.into(),
            docker_file: DEFAULT_DOCKER_FILE.into(),
            key: DEFAULT_KEY.to_owned(),
            individual: false,
            combined: false,
            ip_masq: true,
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let arg = arg.into_string().ok()?;
            let Some(flags) = arg.strip_prefix('-').filter(|flags| !flags.is_empty()) else {
                break;
            };
            if flags == "-" {
                break;
            }
            let mut rest = flags.chars();
            while let Some(flag) = rest.next() {
                match flag {
                    'i' => asked.individual = true,
                    'c' => asked.combined = true,
                    'm' => asked.ip_masq = false,
                    'f' | 'd' | 'k' => {
                        let attached = std::mem::replace(&mut rest, "".chars()).as_str();
                        let value = match attached {
                            "" => args.next()?.into_string().ok()?,
                            attached => attached.to_owned(),
                        };
                        match flag {
                            'f' => asked.subnet_file = value.into(),
                            'd' => asked.docker_file = value.into(),
                            _ => asked.key = value,
                        }
                    }
                    _ => return None,
                }
            }
        }
        if !asked.individual && !asked.combined {
            (asked.individual, asked.combined) = (true, true);
        }
        is_variable(&asked.key).then_some(asked)
    }

    /// The file's text: the options that the variables say, those that are in the environment already included.
    fn render(&self, vars: &BTreeMap<String, String>) -> Result<String, String> {
        let value = |name: &str| {
            vars.get(name)
                .map(String::as_str)
                .filter(|value| !value.is_empty())
        };
        let inherited = vars.iter().filter(|(name, _)| name.starts_with(OPTION_PREFIX));
        let mut options: BTreeMap<String, String> = inherited
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mut set = |name: &str, value: String| options.insert(format!("{OPTION_PREFIX}{name}"), value);
        if let Some(subnet) = value("FLANNEL_SUBNET") {
            set("BIP", format!("--bip={subnet}"));
        }
        if let Some(mtu) = value("FLANNEL_MTU") {
            set("MTU", format!("--mtu={mtu}"));
        }
        // Docker masquerades where flanneld does not.
        match value("FLANNEL_IPMASQ").filter(|_| self.ip_masq) {
            None => {}
            Some("true") => drop(set("IPMASQ", "--ip-masq=false".to_owned())),
            Some("false") => drop(set("IPMASQ", "--ip-masq=true".to_owned())),
            Some(other) => return Err(format!("Invalid value of FLANNEL_IPMASQ: {other}")),
        }
        let mut text = String::new();
        if self.individual {
            text.extend(
                options
                    .iter()
                    .map(|(name, value)| format!("{name}=\"{value}\"\n")),
            );
        }
        if self.combined {
            let mut all = value(&self.key)
                .map(|before| format!("{before} "))
                .unwrap_or_default();
            all.extend(options.values().map(|option| format!(" {option}")));
            text += &format!("{}=\"{all}\"\n", self.key);
        }
        Ok(text)
    }
}

/// Whether a shell would take it for the name of a variable.
fn is_variable(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(is_part) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// The variables that a file of assignments sets.
fn assignments(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter_map(|line| line.trim().split_once('='));
    lines
        .map(|(name, value)| (name.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
        .collect()
}

/// Replaces a file; what is a link or no file, such as `/dev/stdout`, is written to.
fn write(path: &Path, text: &str) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => return fs::write(path, text),
        Err(err) if err.kind() != ErrorKind::NotFound => return Err(err),
        Ok(_) | Err(_) => {}
    }
    let mode = fs::metadata(path).map_or(FILE_MODE, |found| found.permissions().mode());
    statefile::replace(path, text.as_bytes(), mode, Durability::Crash)
        .map_err(|err| io::Error::other(sentence(&err)))
}

/// A subnet that leads to a gateway is another node's: Docker could not use it.
fn refuse_routed(subnet: Ipv4Network, routes: &str) -> Result<(), String> {
    for line in routes.lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [link, dst, gateway, flags, _, _, _, mask, ..] = fields.as_slice() else {
            continue;
        };
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        // The kernel prints the bytes of an address as the machine reads a number.
        let addr = |text: &str| number(text).map(|bits| Ipv4Addr::from(bits.to_ne_bytes()));
        let is_same = addr(dst) == Some(subnet.network()) && addr(mask) == Some(subnet.mask());
        if is_same && number(flags).is_some_and(|flags| flags & HAS_GATEWAY != 0) {
            let (network, length) = (subnet.network(), subnet.prefix());
            let gateway = addr(gateway).unwrap_or(Ipv4Addr::UNSPECIFIED);
            return Err(format!(
                "Your routing table already contains the subnet: {network}/{length} via {gateway} dev {link}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
