//! The command line and the environment as one typed, validated configuration.
//!
//! Flags, defaults and variables are upstream's (flannel `main.go`), plus our own `--lease-dir`, `--mass-loss-grace`,
//! `--status-socket`, `--log-format`, `--portmap-plugin`, `--vxlan-checksum-offload`, `--kube-cache-file` and
//! `--network-policy-engine`. What upstream knows and is not built is refused when the user asks for it; nothing that the user sets is ignored silently. The one
//! exception is `FLANNELD_VERSION`, which has no effect upstream either: a variable shall not keep a daemon from starting
//! by making it print its version.
//!
//! Arguments and environment enter as data, so that nothing here touches the process. Start at [`parse`].

mod cni_conf;
mod command;
mod flags;
mod go_syntax;
mod kube;
mod settings;
mod store;

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use flannel_types::PublicAddrs;
use net_types::IfName;
use regex::bytes::{Regex, RegexBuilder};

use crate::cni_conf::CniConfChoice;
use crate::desired::is_usable_public_ip;
use crate::wireguard_key::KeyFiles;
use settings::{Setting, Settings};
pub use store::{EtcdChoice, StoreChoice};

pub(crate) use kube::DEFAULT_CACHE as DEFAULT_KUBE_CACHE;

/// Where the CNI plugin looks for the subnet file if not told otherwise (flannel `main.go`).
pub(crate) const DEFAULT_SUBNET_FILE: &str = "/run/flannel/subnet.env";
/// Where container runtimes read network configurations (flannel `kube-flannel.yml`).
const DEFAULT_CNI_CONF_DIR: &str = "/etc/cni/net.d";
/// Where runtimes look for plugins, and `flannel install` puts them (containerd, CRI-O, kubelet).
pub(crate) const DEFAULT_PORTMAP_PLUGIN: &str = "/opt/cni/bin/flannel";
/// Name of the status socket beside the subnet file.
pub(crate) const STATUS_SOCKET_NAME: &str = "flanneld.sock";
/// Where health is served if only a port is given (flannel `main.go`).
const DEFAULT_HEALTHZ_IP: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Minutes before expiry at which the lease is renewed (flannel `main.go`).
const DEFAULT_RENEW_MARGIN_MINUTES: u64 = 60;
/// Seconds between two looks at iptables' rules (flannel `main.go`).
const DEFAULT_IPTABLES_RESYNC_SECS: u64 = 5;
/// Seconds that a mass loss of peers is held back.
const DEFAULT_MASS_LOSS_GRACE_SECS: u64 = 60;
/// Longest grace time in seconds: the 24 hours after which the lost peers' own leases have expired anyway.
const MAX_MASS_LOSS_GRACE_SECS: u64 = 24 * 60 * 60;

/// What the command line asks for.
#[derive(Debug, Clone)]
pub enum Invocation {
    /// To run as the node's daemon.
    Run(Box<Config>),
    /// To print what the engine does on the inputs of this record.
    Replay(PathBuf),
    /// To print the version to standard error and exit with status 0.
    PrintVersion,
    /// To print this text and exit with status 0.
    PrintHelp(String),
}

/// Everything the daemon is told from outside at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the leases are kept.
    pub store: StoreChoice,
    /// How to choose the external interface.
    pub iface: IfaceChoice,
    /// Addresses that peers send to, if they are not the interface's own.
    pub public: PublicAddrs,
    /// File that tells the CNI plugin this node's subnet.
    pub subnet_file: PathBuf,
    /// Where the private key of the WireGuard backend is; `WIREGUARD_KEY_FILE` in the environment names the only file.
    pub wireguard_key: KeyFiles,
    /// The runtime's network configuration, if the daemon is to write it.
    pub cni_conf: Option<CniConfChoice>,
    /// How long before its expiry the own lease is renewed; 1 to 1439 minutes.
    pub lease_renew_margin: Duration,
    /// How long a mass loss of peers is held back before they are removed; at most a day.
    pub mass_loss_grace: Duration,
    /// What the node does about packet filter rules.
    pub rules: RulesConfig,
    /// The program that puts back the rules of mapped ports.
    pub portmap_plugin: PathBuf,
    /// Whether packets to addresses of the own subnet that no pod has are dropped.
    pub blackhole: bool,
    /// Whether VXLAN devices may leave checksums to the hardware.
    pub checksum_offload: ChecksumOffload,
    /// How much to log.
    pub log_level: LogLevel,
    /// In which form to log.
    pub log_format: LogFormat,
    /// Where health and metrics are served; port 0 is nowhere.
    pub healthz: SocketAddr,
    /// Where the status is told, if not beside the subnet file.
    pub status_socket: Option<PathBuf>,
    /// Where the engine's inputs are recorded.
    pub record: Option<PathBuf>,
    /// What the flags do that one may not expect, one sentence each, for log and status.
    pub notices: Vec<&'static str>,
}

/// What the node does about packet filter rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RulesConfig {
    /// Whether traffic that leaves the pod network is masqueraded.
    pub masquerade: bool,
    /// Whether its source ports are then chosen at random where the host can do that.
    pub fully_random: bool,
    /// Whether rules accept the pod network's forwarded traffic.
    pub forward: bool,
    /// How often the rules are looked at where the kernel gives no notice of their changes; at least a second.
    pub audit_interval: Duration,
}

/// How the user wants the external interface chosen, as the interface flags say.
#[derive(Debug, Clone, Default)]
pub struct IfaceChoice {
    /// Interfaces by name or address, in the order of preference.
    pub ifaces: Vec<IfaceRef>,
    /// Patterns on an interface's address, then on its name; tried after `ifaces`, in order.
    pub regexes: Vec<Regex>,
    /// The interface that routes to this address; tried last.
    pub can_reach: Option<IpAddr>,
}

impl IfaceChoice {
    /// Whether no interface flag is given, so that the public address or the default route decides.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ifaces.is_empty() && self.regexes.is_empty() && self.can_reach.is_none()
    }
}

/// An interface as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfaceRef {
    /// The interface that has this address.
    Ip(IpAddr),
    /// The interface of this name.
    Name(IfName),
}

/// Whether VXLAN devices may leave checksums to the hardware (ethtool's `tx-checksum-ip-generic`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumOffload {
    /// Not on a kernel that is known to get them wrong; on others the device is left as it is.
    Auto,
    /// They may.
    On,
    /// They may not: each is computed before the packet is sent, and large packets are cut up before the tunnel.
    Off,
}

/// How much to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// State changes.
    Info,
    /// Decisions too.
    Debug,
    /// Messages too.
    Trace,
}

/// In which form to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Why the daemon cannot start as it was called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A flag is unknown, or it or its environment variable has a value of the wrong form.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// The usage line to print after it.
        usage: String,
    },
    /// The user asks for something that is not built.
    #[error("{option} is not supported yet: {way_out}")]
    NotSupported {
        /// The flag or variable.
        option: String,
        /// What to do instead.
        way_out: &'static str,
    },
    /// The renewal margin is not within the life of a lease; the text up to the colon is upstream's.
    #[error(
        "Invalid subnet-lease-renew-margin option, out of acceptable range: {option} is {minutes} minutes and must \
         be from 1 to 1439"
    )]
    RenewMargin {
        /// The flag or variable.
        option: String,
        /// Its value.
        minutes: i64,
    },
    /// The grace time is negative or longer than a day.
    #[error("{option} is {seconds} seconds and must be from 0 to {MAX_MASS_LOSS_GRACE_SECS}")]
    MassLossGrace {
        /// The flag or variable.
        option: String,
        /// Its value.
        seconds: i64,
    },
    /// Two lease stores are chosen.
    #[error(
        "--lease-dir and {option} exclude each other: leases are kept in a directory, in etcd or in Kubernetes"
    )]
    TwoStores {
        /// The flag or variable that has a meaning for another store only.
        option: String,
    },
    /// Nothing tells which Node of the cluster this is; the text up to the colon is upstream's.
    #[error(
        "env variables POD_NAME and POD_NAMESPACE must be set: or else NODE_NAME, to tell which Node this is"
    )]
    NoIdentity,
    /// Of two flags that belong together, one is missing.
    #[error("--{given} has a meaning with --{missing} only: give both or none")]
    Incomplete {
        /// The one that is given, without dashes.
        given: &'static str,
        /// The other one.
        missing: &'static str,
    },
}

impl ConfigError {
    /// The status to exit with: 2 if the command line or environment could not be understood, 1 if it was refused.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            Self::NotSupported { .. }
            | Self::RenewMargin { .. }
            | Self::MassLossGrace { .. }
            | Self::TwoStores { .. }
            | Self::NoIdentity
            | Self::Incomplete { .. } => 1,
        }
    }

    fn usage(message: String) -> Self {
        Self::Usage {
            message,
            usage: format!("Usage: {}", command::USAGE),
        }
    }
}

impl FromStr for IfaceRef {
    type Err = net_types::IfNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .map(Self::Ip)
            .or_else(|_| text.parse().map(Self::Name))
    }
}

impl fmt::Display for IfaceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl LogLevel {
    /// The level for a klog verbosity, as upstream's `-v` takes it.
    fn from_verbosity(verbosity: i64) -> Self {
        match verbosity {
            ..=0 => Self::Info,
            1..=4 => Self::Debug,
            5.. => Self::Trace,
        }
    }
}

/// Looks up a variable of the environment.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Reads the arguments after the program's name, and looks up `FLANNELD_*` variables with `env`.
///
/// # Errors
/// Says which flag or variable is unknown, of the wrong form, out of range or not built, or which flags
/// contradict each other; [`ConfigError::exit_code`] is the status to exit with.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Invocation, ConfigError> {
    let args = go_syntax::normalise(args).map_err(|error| ConfigError::usage(error.to_string()))?;
    let program = OsString::from("flanneld");
    let matches = match command::command().try_get_matches_from(std::iter::once(program).chain(args)) {
        Ok(matches) => matches,
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            return Ok(Invocation::PrintHelp(error.render().to_string()));
        }
        Err(error) => return Err(ConfigError::usage(error.kind().to_string())),
    };
    let arguments = Settings::from_arguments(&matches);
    if asks_for_version(&arguments)? {
        return Ok(Invocation::PrintVersion);
    }
    if let Some(record) = replayed(&arguments)? {
        return Ok(Invocation::Replay(record));
    }
    config(&arguments.with_environment(env), env).map(|config| Invocation::Run(Box::new(config)))
}

fn asks_for_version(arguments: &Settings) -> Result<bool, ConfigError> {
    arguments.one("version").map_or(Ok(false), Setting::boolean)
}

/// The record that the command line asks to replay. No variable does: it would keep a daemon from starting.
fn replayed(arguments: &Settings) -> Result<Option<PathBuf>, ConfigError> {
    let dry_run = arguments.one("dry-run").map_or(Ok(false), Setting::boolean)?;
    let incomplete = |given, missing| Err(ConfigError::Incomplete { given, missing });
    match (arguments.path("replay")?, dry_run) {
        (Some(record), true) => Ok(Some(record)),
        (Some(_), false) => incomplete("replay", "dry-run"),
        (None, true) => incomplete("dry-run", "replay"),
        (None, false) => Ok(None),
    }
}

fn config(settings: &Settings, env: Environment<'_>) -> Result<Config, ConfigError> {
    settings.check_support()?;
    let store = store::store_choice(settings, env)?;
    let mut notices = kube::notices(settings)?;
    notices.extend(store.notice());
    Ok(Config {
        iface: iface_choice(settings)?,
        public: PublicAddrs {
            v4: settings.one("public-ip").map(public_ip).transpose()?,
            v6: settings.one("public-ipv6").map(public_ipv6).transpose()?,
        },
        subnet_file: settings
            .path("subnet-file")?
            .unwrap_or_else(|| DEFAULT_SUBNET_FILE.into()),
        wireguard_key: KeyFiles::named(env("WIREGUARD_KEY_FILE")),
        cni_conf: cni_conf::choice(settings)?,
        lease_renew_margin: lease_renew_margin(settings)?,
        mass_loss_grace: mass_loss_grace(settings)?,
        rules: rules(settings)?,
        portmap_plugin: settings
            .path("portmap-plugin")?
            .unwrap_or_else(|| DEFAULT_PORTMAP_PLUGIN.into()),
        blackhole: settings
            .one("ip-blackhole-route")
            .map_or(Ok(false), Setting::boolean)?,
        checksum_offload: settings
            .one("vxlan-checksum-offload")
            .map_or(Ok(ChecksumOffload::Auto), checksum_offload)?,
        log_level: LogLevel::from_verbosity(settings.one("v").map_or(Ok(0), Setting::number)?),
        log_format: settings
            .one("log-format")
            .map_or(Ok(LogFormat::Text), log_format)?,
        healthz: healthz(settings)?,
        status_socket: settings.path("status-socket")?,
        record: settings.path("record")?,
        store,
        notices,
    })
}

fn rules(settings: &Settings) -> Result<RulesConfig, ConfigError> {
    let switch = |name, default| settings.one(name).map_or(Ok(default), Setting::boolean);
    Ok(RulesConfig {
        masquerade: switch("ip-masq", false)?,
        fully_random: !switch("ip-masq-fully-random-disable", false)?,
        forward: switch("iptables-forward-rules", true)?,
        audit_interval: rules_audit_interval(settings)?,
    })
}

fn rules_audit_interval(settings: &Settings) -> Result<Duration, ConfigError> {
    let Some(setting) = settings.one("iptables-resync") else {
        return Ok(Duration::from_secs(DEFAULT_IPTABLES_RESYNC_SECS));
    };
    let seconds = u64::try_from(setting.number()?)
        .ok()
        .filter(|seconds| *seconds > 0);
    let seconds = seconds.ok_or_else(|| setting.invalid("a number of seconds from 1 on is expected"))?;
    Ok(Duration::from_secs(seconds))
}

fn iface_choice(settings: &Settings) -> Result<IfaceChoice, ConfigError> {
    Ok(IfaceChoice {
        ifaces: settings.all("iface").map(iface_ref).collect::<Result<_, _>>()?,
        regexes: settings
            .all("iface-regex")
            .map(iface_regex)
            .collect::<Result<_, _>>()?,
        can_reach: settings
            .one("iface-can-reach")
            .map(|setting| setting.parsed("an IP address", |text| text.parse().ok()))
            .transpose()?,
    })
}

fn iface_ref(setting: &Setting) -> Result<IfaceRef, ConfigError> {
    setting
        .text()?
        .parse()
        .map_err(|error| setting.invalid(&format!("{error}")))
}

/// A pattern in Go's meaning of it: classes such as `\d` are ASCII, and `^` and `$` are the whole text's ends.
fn iface_regex(setting: &Setting) -> Result<Regex, ConfigError> {
    let pattern = setting.text()?;
    RegexBuilder::new(pattern)
        .unicode(false)
        .build()
        .map_err(|error| setting.invalid(&last_line(&error)))
}

/// The reason without the drawing that points into the pattern: an error is one sentence.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let reason = text.lines().next_back().unwrap_or_default();
    reason.strip_prefix("error: ").unwrap_or(reason).to_owned()
}

fn public_ip(setting: &Setting) -> Result<Ipv4Addr, ConfigError> {
    setting.parsed("the IPv4 address of one host", |text| {
        text.parse()
            .ok()
            .filter(|ip: &Ipv4Addr| is_usable_public_ip((*ip).into()))
    })
}

fn public_ipv6(setting: &Setting) -> Result<Ipv6Addr, ConfigError> {
    setting.parsed("the IPv6 address of one host, not a link-local one,", |text| {
        text.parse()
            .ok()
            .filter(|ip: &Ipv6Addr| is_usable_public_ip((*ip).into()))
    })
}

fn log_format(setting: &Setting) -> Result<LogFormat, ConfigError> {
    setting.parsed("text or json", |text| match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    })
}

fn checksum_offload(setting: &Setting) -> Result<ChecksumOffload, ConfigError> {
    setting.parsed("auto, on or off", |text| match text {
        "auto" => Some(ChecksumOffload::Auto),
        "on" => Some(ChecksumOffload::On),
        "off" => Some(ChecksumOffload::Off),
        _ => None,
    })
}

fn healthz(settings: &Settings) -> Result<SocketAddr, ConfigError> {
    let ip = settings
        .one("healthz-ip")
        .map_or(Ok(DEFAULT_HEALTHZ_IP), |setting| {
            setting.parsed("an IP address", |text| text.parse().ok())
        })?;
    let port = settings.one("healthz-port").map_or(Ok(0), |setting| {
        setting.parsed("a port from 0 to 65535", |text| {
            go_syntax::go_int(text).and_then(|port| u16::try_from(port).ok())
        })
    })?;
    Ok(SocketAddr::new(ip, port))
}

fn lease_renew_margin(settings: &Settings) -> Result<Duration, ConfigError> {
    let Some(setting) = settings.one("subnet-lease-renew-margin") else {
        return Ok(Duration::from_mins(DEFAULT_RENEW_MARGIN_MINUTES));
    };
    let minutes = setting.number()?;
    let accepted = u64::try_from(minutes)
        .ok()
        .filter(|minutes| (1..=1439).contains(minutes));
    accepted
        .map(Duration::from_mins)
        .ok_or_else(|| ConfigError::RenewMargin {
            option: setting.origin.to_string(),
            minutes,
        })
}

fn mass_loss_grace(settings: &Settings) -> Result<Duration, ConfigError> {
    let Some(setting) = settings.one("mass-loss-grace") else {
        return Ok(Duration::from_secs(DEFAULT_MASS_LOSS_GRACE_SECS));
    };
    let seconds = setting.number()?;
    let accepted = u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds <= MAX_MASS_LOSS_GRACE_SECS);
    accepted
        .map(Duration::from_secs)
        .ok_or_else(|| ConfigError::MassLossGrace {
            option: setting.origin.to_string(),
            seconds,
        })
}

#[cfg(test)]
mod tests;
