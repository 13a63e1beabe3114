/// One flag of the command line; the table [`FLAGS`] is the only place that knows them all.
pub(super) struct Flag {
    /// Upstream's name, without dashes.
    pub(super) name: &'static str,
    /// What follows the name.
    pub(super) form: Form,
    /// Shown in the help text; empty for none.
    pub(super) default: &'static str,
    /// Under which heading the help text lists it.
    pub(super) group: &'static str,
    /// What it means, for the help text.
    pub(super) help: &'static str,
    /// Whether setting it has an effect.
    pub(super) support: Support,
}

/// How a flag takes its value, after Go's `flag` package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A boolean: bare, or with `=` and a value.
    Switch,
    /// A whole number; the text names its unit in the help text.
    Number(&'static str),
    /// One text; given twice, the last one counts.
    Text(&'static str),
    /// Any number of texts, in order.
    List(&'static str),
}

/// Whether a flag is built, and what to say when it is not.
pub(super) enum Support {
    /// Its value is honoured.
    Built,
    /// Only a value that asks for nothing is accepted.
    NotYet {
        /// The values that ask for nothing, besides the empty one.
        idle: &'static [&'static str],
        /// What the user can do instead.
        way_out: &'static str,
    },
}

const fn not_yet(idle: &'static [&'static str], way_out: &'static str) -> Support {
    Support::NotYet { idle, way_out }
}

const LEASES: &str = "Leases";
const RUNTIME: &str = "Container runtime";
const INTERFACE: &str = "External interface";
const TRAFFIC: &str = "Traffic rules";
const HEALTH: &str = "Health";
const ETCD: &str = "etcd lease store";
const KUBE: &str = "Kubernetes lease store";
pub(super) const GENERAL: &str = "General";

const USE_VERBOSITY: &str = "leave it out and set the log level with -v, from 0 to 5";

/// Every flag with upstream's name and default, and ours in addition (flannel `main.go`).
pub(super) static FLAGS: &[Flag] = &[
    Flag {
        name: "lease-dir",
        form: Form::Text("DIR"),
        default: "",
        group: LEASES,
        help: "Keep the leases in this directory, shared by all nodes; DIR/config holds the network configuration",
        support: Support::Built,
    },
    Flag {
        name: "subnet-file",
        form: Form::Text("FILE"),
        default: super::DEFAULT_SUBNET_FILE,
        group: LEASES,
        help: "File that tells the CNI plugin this node's subnet",
        support: Support::Built,
    },
    Flag {
        name: "subnet-lease-renew-margin",
        form: Form::Number("MINUTES"),
        default: "60",
        group: LEASES,
        help: "Renew the own lease this long before it expires, 1 to 1439",
        support: Support::Built,
    },
    Flag {
        name: "mass-loss-grace",
        form: Form::Number("SECONDS"),
        default: "60",
        group: LEASES,
        help: "When most peers vanish at once, keep them programmed this long, 0 to 86400",
        support: Support::Built,
    },
    Flag {
        name: "cni-conf-src",
        form: Form::Text("FILE"),
        default: "",
        group: RUNTIME,
        help: "Network configuration list to give to the container runtime once pods can start; none if not given",
        support: Support::Built,
    },
    Flag {
        name: "cni-conf-dir",
        form: Form::Text("DIR"),
        default: super::DEFAULT_CNI_CONF_DIR,
        group: RUNTIME,
        help: "Where it is written, as 10-flannel.conflist",
        support: Support::Built,
    },
    Flag {
        name: "cni-conf-remove-on",
        form: Form::Text("SIGNAL"),
        default: "none",
        group: RUNTIME,
        help: "Remove it again when this signal ends the daemon: SIGINT, SIGTERM or none",
        support: Support::Built,
    },
    Flag {
        name: "iface",
        form: Form::List("NAME|IP"),
        default: "",
        group: INTERFACE,
        help: "Interface for traffic between nodes, by name or address; repeatable, the first match counts",
        support: Support::Built,
    },
    Flag {
        name: "iface-regex",
        form: Form::List("REGEX"),
        default: "",
        group: INTERFACE,
        help: "The same by a pattern on its address, then on its name; repeatable, tried after --iface",
        support: Support::Built,
    },
    Flag {
        name: "iface-can-reach",
        form: Form::Text("IP"),
        default: "",
        group: INTERFACE,
        help: "The interface that routes to this address; tried last",
        support: Support::Built,
    },
    Flag {
        name: "public-ip",
        form: Form::Text("IPv4"),
        default: "",
        group: INTERFACE,
        help: "Address that the other nodes send to, if it is not the interface's own",
        support: Support::Built,
    },
    Flag {
        name: "public-ipv6",
        form: Form::Text("IPv6"),
        default: "",
        group: INTERFACE,
        help: "The same for IPv6",
        support: Support::Built,
    },
    Flag {
        name: "ip-masq",
        form: Form::Switch,
        default: "",
        group: TRAFFIC,
        help: "Masquerade traffic that leaves the pod network",
        support: Support::Built,
    },
    Flag {
        name: "ip-masq-fully-random-disable",
        form: Form::Switch,
        default: "",
        group: TRAFFIC,
        help: "Masquerade without fully random source ports",
        support: Support::Built,
    },
    Flag {
        name: "iptables-forward-rules",
        form: Form::Switch,
        default: "true",
        group: TRAFFIC,
        help: "Accept forwarded traffic from and to the pod network",
        support: Support::Built,
    },
    Flag {
        name: "iptables-resync",
        form: Form::Number("SECONDS"),
        default: "5",
        group: TRAFFIC,
        help: "Look after the traffic rules this often",
        support: Support::Built,
    },
    Flag {
        name: "portmap-plugin",
        form: Form::Text("FILE"),
        default: super::DEFAULT_PORTMAP_PLUGIN,
        group: TRAFFIC,
        help: "This plugin puts back the rules of mapped ports that somebody flushed",
        support: Support::Built,
    },
    Flag {
        name: "ip-blackhole-route",
        form: Form::Switch,
        default: "",
        group: TRAFFIC,
        help: "Drop traffic to addresses of this node's subnet that no pod has",
        support: Support::Built,
    },
    Flag {
        name: "vxlan-checksum-offload",
        form: Form::Text("CHOICE"),
        default: "auto",
        group: TRAFFIC,
        help: "Whether VXLAN devices leave checksums to the hardware: on, off, or auto: off on kernels that get them wrong",
        support: Support::Built,
    },
    Flag {
        name: "healthz-ip",
        form: Form::Text("IP"),
        default: "0.0.0.0",
        group: HEALTH,
        help: "Address of the health server",
        support: Support::Built,
    },
    Flag {
        name: "healthz-port",
        form: Form::Number("PORT"),
        default: "0",
        group: HEALTH,
        help: "Port of the health server, 0 for none",
        support: Support::Built,
    },
    Flag {
        name: "status-socket",
        form: Form::Text("FILE"),
        default: "",
        group: HEALTH,
        help: "Socket that flanneld status asks, if not flanneld.sock beside the subnet file",
        support: Support::Built,
    },
    Flag {
        name: "etcd-endpoints",
        form: Form::Text("URL[,URL]"),
        default: super::store::DEFAULT_ETCD_ENDPOINTS,
        group: ETCD,
        help: "Servers of the cluster; it keeps the leases where no other store is chosen",
        support: Support::Built,
    },
    Flag {
        name: "etcd-prefix",
        form: Form::Text("KEY"),
        default: super::store::DEFAULT_ETCD_PREFIX,
        group: ETCD,
        help: "Key under which configuration and leases live",
        support: Support::Built,
    },
    Flag {
        name: "etcd-keyfile",
        form: Form::Text("FILE"),
        default: "",
        group: ETCD,
        help: "Key of the client certificate, PEM",
        support: Support::Built,
    },
    Flag {
        name: "etcd-certfile",
        form: Form::Text("FILE"),
        default: "",
        group: ETCD,
        help: "Client certificate, PEM",
        support: Support::Built,
    },
    Flag {
        name: "etcd-cafile",
        form: Form::Text("FILE"),
        default: "",
        group: ETCD,
        help: "Certificate authorities of https:// servers, PEM; the system's if not given",
        support: Support::Built,
    },
    Flag {
        name: "etcd-username",
        form: Form::Text("NAME"),
        default: "",
        group: ETCD,
        help: "User name",
        support: Support::Built,
    },
    Flag {
        name: "etcd-password",
        form: Form::Text("PASSWORD"),
        default: "",
        group: ETCD,
        help: "Password; FLANNELD_ETCD_PASSWORD keeps it off the process list",
        support: Support::Built,
    },
    Flag {
        name: "kube-subnet-mgr",
        form: Form::Switch,
        default: "",
        group: KUBE,
        help: "Keep the leases on the cluster's Node objects",
        support: Support::Built,
    },
    Flag {
        name: "kube-api-url",
        form: Form::Text("URL"),
        default: "",
        group: KUBE,
        help: "API server, if it is not the one of the kubeconfig or the pod",
        support: Support::Built,
    },
    Flag {
        name: "kubeconfig-file",
        form: Form::Text("FILE"),
        default: "",
        group: KUBE,
        help: "How to reach the API server from outside a pod",
        support: Support::Built,
    },
    Flag {
        name: "kube-annotation-prefix",
        form: Form::Text("PREFIX"),
        default: "flannel.alpha.coreos.com",
        group: KUBE,
        help: "Prefix of the annotations on Node objects",
        support: Support::Built,
    },
    Flag {
        name: "net-config-path",
        form: Form::Text("FILE"),
        default: super::kube::DEFAULT_NET_CONFIG,
        group: KUBE,
        help: "Network configuration",
        support: Support::Built,
    },
    Flag {
        name: "set-node-network-unavailable",
        form: Form::Switch,
        default: "true",
        group: KUBE,
        help: "Set the Node condition NetworkUnavailable to false when ready",
        support: Support::Built,
    },
    Flag {
        name: "kube-cache-file",
        form: Form::Text("FILE"),
        default: super::kube::DEFAULT_CACHE,
        group: KUBE,
        help: "Last known state of the Nodes, for a start while the API server is out of reach",
        support: Support::Built,
    },
    Flag {
        name: "network-policy-engine",
        form: Form::Text("NAME"),
        default: "",
        group: KUBE,
        help: "Who enforces network policies in this cluster; without one the log warns that nobody does",
        support: Support::Built,
    },
    Flag {
        name: "v",
        form: Form::Number("LEVEL"),
        default: "0",
        group: GENERAL,
        help: "Log verbosity: 0 state changes, 1 to 4 decisions too, 5 and above every message",
        support: Support::Built,
    },
    Flag {
        name: "log-format",
        form: Form::Text("FORMAT"),
        default: "text",
        group: GENERAL,
        help: "Form of the log: text, or json with one object a line",
        support: Support::Built,
    },
    Flag {
        name: "record",
        form: Form::Text("FILE"),
        default: "",
        group: GENERAL,
        help: "Record what the kernel holds and should hold, up to 64 MiB, so that a run can be replayed",
        support: Support::Built,
    },
    Flag {
        name: "replay",
        form: Form::Text("FILE"),
        default: "",
        group: GENERAL,
        help: "With --dry-run: print what flanneld does on the inputs of a record, and exit",
        support: Support::Built,
    },
    Flag {
        name: "dry-run",
        form: Form::Switch,
        default: "",
        group: GENERAL,
        help: "With --replay: change nothing",
        support: Support::Built,
    },
    Flag {
        name: "vmodule",
        form: Form::Text("PATTERN=N,..."),
        default: "",
        group: GENERAL,
        help: "Log verbosity of single source files",
        support: not_yet(&[], USE_VERBOSITY),
    },
    Flag {
        name: "log_backtrace_at",
        form: Form::Text("FILE:LINE"),
        default: "",
        group: GENERAL,
        help: "Log a backtrace at a source line",
        support: not_yet(&[":0"], USE_VERBOSITY),
    },
    Flag {
        name: "version",
        form: Form::Switch,
        default: "",
        group: GENERAL,
        help: "Print the version to standard error and exit",
        support: Support::Built,
    },
];

impl Flag {
    /// The flag of this name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        FLAGS.iter().find(|flag| flag.name == name)
    }

    /// Whether it can be set by a variable. What makes the daemon print something instead of running cannot.
    pub(super) fn has_variable(&self) -> bool {
        !matches!(self.name, "version" | "replay" | "dry-run")
    }

    /// The environment variable that stands for it (flannel `main.go`, `flagutil.SetFlagsFromEnv`).
    pub(super) fn variable(&self) -> String {
        format!("FLANNELD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}
