use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use proptest::prelude::*;

use super::flags::{FLAGS, Flag, Form, Support};
use super::*;

mod kube;
mod store;
mod unbuilt;
mod values;

const LEASES: &str = "--lease-dir=/leases";

/// Upstream's flags with their defaults (flannel `main.go`).
const UPSTREAM: &[(&str, &str)] = &[
    ("etcd-endpoints", "http://127.0.0.1:4001,http://127.0.0.1:2379"),
    ("etcd-prefix", "/coreos.com/network"),
    ("etcd-keyfile", ""),
    ("etcd-certfile", ""),
    ("etcd-cafile", ""),
    ("etcd-username", ""),
    ("etcd-password", ""),
    ("iface", ""),
    ("iface-regex", ""),
    ("iface-can-reach", ""),
    ("subnet-file", "/run/flannel/subnet.env"),
    ("public-ip", ""),
    ("public-ipv6", ""),
    ("subnet-lease-renew-margin", "60"),
    ("ip-masq", ""),
    ("ip-masq-fully-random-disable", ""),
    ("kube-subnet-mgr", ""),
    ("kube-api-url", ""),
    ("kubeconfig-file", ""),
    ("kube-annotation-prefix", "flannel.alpha.coreos.com"),
    ("net-config-path", "/etc/kube-flannel/net-conf.json"),
    ("set-node-network-unavailable", "true"),
    ("healthz-ip", "0.0.0.0"),
    ("healthz-port", "0"),
    ("iptables-resync", "5"),
    ("iptables-forward-rules", "true"),
    ("ip-blackhole-route", ""),
    ("version", ""),
    ("v", "0"),
    ("vmodule", ""),
    ("log_backtrace_at", ""),
];

#[test]
fn every_flag_of_upstream_is_known_with_its_default() {
    let help = help();
    for (name, default) in UPSTREAM {
        let flag = Flag::find(name).unwrap_or_else(|| panic!("{name} is missing"));
        let (_, text) = help
            .split_once(&format!(" --{name} "))
            .or_else(|| help.split_once(&format!(" --{name}[")))
            .unwrap();
        let line = text.lines().nth(1).unwrap();
        assert!(
            default.is_empty() || line.contains(&format!("[default: {default}]")),
            "{line}"
        );
        assert_eq!(
            line.contains("not supported yet"),
            matches!(flag.support, Support::NotYet { .. }),
            "{line}"
        );
    }
    let ours = [
        "lease-dir",
        "mass-loss-grace",
        "cni-conf-src",
        "cni-conf-dir",
        "cni-conf-remove-on",
        "portmap-plugin",
        "vxlan-checksum-offload",
        "status-socket",
        "kube-cache-file",
        "network-policy-engine",
        "log-format",
        "record",
        "replay",
        "dry-run",
    ];
    let others = FLAGS
        .iter()
        .map(|flag| flag.name)
        .filter(|name| !UPSTREAM.iter().any(|(known, _)| known == name));
    assert_eq!(others.collect::<Vec<_>>(), ours);
}

#[test]
fn defaults_hold_when_only_the_lease_directory_is_given() {
    let config = run(&[LEASES]);
    assert_eq!(directory(&config), Path::new("/leases"));
    assert_eq!(config.subnet_file, PathBuf::from("/run/flannel/subnet.env"));
    assert_eq!(config.lease_renew_margin, Duration::from_mins(60));
    assert_eq!(config.mass_loss_grace, Duration::from_mins(1));
    assert_eq!(
        (config.log_level, config.log_format),
        (LogLevel::Info, LogFormat::Text)
    );
    assert_eq!(config.healthz, "0.0.0.0:0".parse().unwrap());
    assert_eq!(config.public.v4, None);
    assert!(config.iface.ifaces.is_empty() && config.iface.regexes.is_empty());
    assert_eq!(config.iface.can_reach, None);
}

/// A value of each flag that differs from the default.
const SAMPLES: &[(&str, &str)] = &[
    ("lease-dir", "/tmp/l"),
    ("subnet-file", "-odd/file"),
    ("subnet-lease-renew-margin", "0x10"),
    ("mass-loss-grace", "7"),
    ("cni-conf-src", "/cni.json"),
    ("cni-conf-dir", "/net.d"),
    ("cni-conf-remove-on", "SIGTERM"),
    ("iface", "192.0.2.1"),
    ("iface-regex", "eth[0-9]=?"),
    ("iface-can-reach", "198.51.100.9"),
    ("public-ip", "203.0.113.5"),
    ("public-ipv6", "2001:db8::5"),
    ("ip-masq", "true"),
    ("ip-masq-fully-random-disable", "true"),
    ("iptables-forward-rules", "false"),
    ("ip-blackhole-route", "true"),
    ("iptables-resync", "60"),
    ("portmap-plugin", "/usr/lib/cni/flannel"),
    ("vxlan-checksum-offload", "off"),
    ("v", "3"),
    ("etcd-endpoints", "https://etcd-1:2379,http://[fd00::1]:4001"),
    ("etcd-prefix", "/flannel/network"),
    ("etcd-cafile", "/ca"),
    ("etcd-keyfile", "/key"),
    ("etcd-certfile", "/crt"),
    ("etcd-username", "flannel"),
    ("etcd-password", "offen"),
    ("healthz-ip", "127.0.0.1"),
    ("healthz-port", "8081"),
    ("status-socket", "/run/s"),
    ("log-format", "json"),
    ("record", "/run/r"),
    ("kube-subnet-mgr", "true"),
    ("kube-api-url", "https://192.0.2.1:6443"),
    ("kubeconfig-file", "/k"),
    ("kube-annotation-prefix", "example.org/net"),
    ("net-config-path", "/n"),
    ("set-node-network-unavailable", "false"),
    ("kube-cache-file", "/c"),
    ("network-policy-engine", "kube-router"),
];

/// What a store in Kubernetes needs.
const NODE: (&str, &str) = ("NODE_NAME", "n1");

#[test]
fn every_built_flag_reads_alike_in_each_syntax_and_from_the_environment() {
    let built = FLAGS
        .iter()
        .filter(|flag| matches!(flag.support, Support::Built) && flag.has_variable());
    for flag in built {
        let (name, value) = *SAMPLES.iter().find(|(name, _)| *name == flag.name).unwrap();
        let beside: &[&str] = match name {
            "etcd-keyfile" => &["--etcd-certfile=/crt"],
            "etcd-certfile" => &["--etcd-keyfile=/key"],
            "etcd-username" => &["--etcd-password=offen"],
            "etcd-password" => &["--etcd-username=flannel"],
            "lease-dir" | "kube-subnet-mgr" => &[],
            "net-config-path" | "set-node-network-unavailable" | "network-policy-engine" => {
                &["--kube-subnet-mgr"]
            }
            _ if name.starts_with("kube") => &["--kube-subnet-mgr"],
            "cni-conf-dir" | "cni-conf-remove-on" => &["--cni-conf-src=/a"],
            _ if name.starts_with("etcd-") => &[],
            _ => &[LEASES],
        };
        let sample = format!("--{name}={value}");
        let run = |args: &[&str]| run_with(args, &[NODE]);
        let expected = format!("{:?}", run(&[beside, &[sample.as_str()]].concat()));
        let apart = [
            vec![format!("-{name}"), value.to_owned()],
            vec![format!("--{name}"), value.to_owned()],
        ];
        let together = [
            vec![format!("-{name}={value}")],
            vec![format!("--{name}={value}"), "--".to_owned()],
        ];
        let apart = apart.into_iter().filter(|_| flag.form != Form::Switch);
        for args in apart.chain(together) {
            let args: Vec<&str> = beside
                .iter()
                .copied()
                .chain(args.iter().map(String::as_str))
                .collect();
            assert_eq!(format!("{:?}", run(&args)), expected, "{args:?}");
        }
        let from_environment = run_with(beside, &[(&flag.variable(), value), NODE]);
        assert_eq!(format!("{from_environment:?}"), expected, "{name}");
        let without = parse_args(beside, &[NODE]);
        assert_ne!(
            without.ok().and_then(debug_of_run),
            Some(expected),
            "{name} has no effect"
        );
    }
}

#[test]
fn a_record_is_replayed_only_when_nothing_is_to_be_changed_and_never_by_a_variable() {
    let both = parse_args(&["--replay=/r", "--dry-run"], &[]).unwrap();
    assert!(matches!(both, Invocation::Replay(path) if path == Path::new("/r")));
    for (given, missing) in [("replay=/r", "dry-run"), ("dry-run", "replay")] {
        let text = parse_args(&[&format!("--{given}")], &[]).unwrap_err().to_string();
        assert!(
            text.ends_with(&format!("--{missing} only: give both or none")),
            "{text}"
        );
    }
    run_with(
        &[LEASES],
        &[("FLANNELD_REPLAY", "/r"), ("FLANNELD_DRY_RUN", "true")],
    );
}

#[test]
fn every_boolean_takes_the_spellings_of_go_and_its_value_only_after_equals() {
    for flag in FLAGS
        .iter()
        .filter(|flag| flag.form == Form::Switch && flag.has_variable())
    {
        for off in ["0", "f", "F", "FALSE", "false", "False"] {
            run(&[LEASES, &format!("-{}={off}", flag.name)]);
            run_with(&[LEASES], &[(&flag.variable(), off)]);
        }
        for on in ["=1", "=t", "=T", "=TRUE", "=true", "=True", ""] {
            let outcome = parse_args(&[LEASES, &format!("--{}{on}", flag.name)], &[]);
            match outcome {
                Ok(_) => assert!(matches!(flag.support, Support::Built)),
                // Beside a directory.
                Err(ConfigError::TwoStores { .. }) => assert_eq!(flag.name, "kube-subnet-mgr"),
                Err(error) => assert!(matches!(error, ConfigError::NotSupported { .. }), "{error}"),
            }
        }
        for wrong in ["yes", "on", "2", "tRUE", " true"] {
            assert_usage(
                &[LEASES, &format!("--{}={wrong}", flag.name)],
                "true or false is expected",
            );
        }
        assert_usage(
            &[LEASES, &format!("--{}", flag.name), "false"],
            &format!("a boolean takes its value after =, as in --{}=false", flag.name),
        );
    }
}

#[test]
fn the_command_line_wins_over_the_environment_and_empty_variables_do_not_count() {
    let env = [
        ("FLANNELD_PUBLIC_IP", "192.0.2.1"),
        ("FLANNELD_IFACE", "eth1"),
        ("FLANNELD_V", ""),
    ];
    let config = run_with(&[LEASES, "--public-ip=192.0.2.2", "--iface", "eth0"], &env);
    assert_eq!(config.public.v4, Some(Ipv4Addr::new(192, 0, 2, 2)));
    assert_eq!(names(&config), ["eth0"]);
    assert_eq!(config.log_level, LogLevel::Info);
}

#[test]
fn an_empty_flag_on_the_command_line_hides_the_variable_and_means_the_default() {
    let config = run_with(&[LEASES, "--public-ip="], &[("FLANNELD_PUBLIC_IP", "192.0.2.1")]);
    assert_eq!(config.public.v4, None);
    assert!(names(&run(&[LEASES, "--iface="])).is_empty());
}

#[test]
fn a_variable_gives_a_repeatable_flag_one_value_and_the_command_line_several() {
    let config = run(&[LEASES, "-iface=eth1", "-iface", "10.0.0.1", "--iface=eth0"]);
    assert_eq!(names(&config), ["eth1", "10.0.0.1", "eth0"]);
    let config = run_with(&[LEASES], &[("FLANNELD_IFACE_REGEX", "eth0,eth1")]);
    assert_eq!(
        config.iface.regexes.iter().map(Regex::as_str).collect::<Vec<_>>(),
        ["eth0,eth1"]
    );
    let error = parse_args(&[LEASES], &[("FLANNELD_IFACE", "eth0,enp0s31f6,eth1")]).unwrap_err();
    assert!(error.to_string().contains("FLANNELD_IFACE"), "{error}");
}

#[test]
fn the_last_value_of_a_single_flag_counts() {
    assert_eq!(
        run(&[LEASES, "-v=1", "-v=9", "--v", "0"]).log_level,
        LogLevel::Info
    );
    assert_eq!(directory(&run(&["--lease-dir=/a", LEASES])), Path::new("/leases"));
}

#[test]
fn what_the_command_line_gets_wrong_exits_2_with_the_usage() {
    for (args, message) in [
        (&["--frobnicate"][..], "unknown flag --frobnicate"),
        (&["-ifaces=eth0"], "unknown flag --ifaces"),
        (&["--Iface=eth0"], "unknown flag --Iface"),
        (&["--if=eth0"], "unknown flag --if"),
        (&["-vv"], "unknown flag --vv"),
        (&["-iface"], "flag --iface needs a value, as in --iface=VALUE"),
        (
            &["-", "x"],
            r#"argument "-" belongs to no flag: flanneld takes flags only, or first of all status, check or cleanup"#,
        ),
        (
            &["eth0"],
            r#"argument "eth0" belongs to no flag: flanneld takes flags only, or first of all status, check or cleanup"#,
        ),
        (
            &["--ip-masq", "eth0"],
            r#"argument "eth0" belongs to no flag: flanneld takes flags only, or first of all status, check or cleanup"#,
        ),
        (
            &["--", "--iface=eth0"],
            r#"argument "--iface=eth0" belongs to no flag: flanneld takes flags only, or first of all status, check or cleanup"#,
        ),
        (
            &["---iface=x"],
            r#"argument "---iface" is not a flag: a name must follow its one or two dashes"#,
        ),
        (
            &["--=x"],
            r#"argument "--" is not a flag: a name must follow its one or two dashes"#,
        ),
        (
            &["-=x"],
            r#"argument "-" is not a flag: a name must follow its one or two dashes"#,
        ),
    ] {
        let error = parse_args(args, &[]).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), (message, 2));
        let ConfigError::Usage { usage, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(
            usage,
            "Usage: flanneld [FLAG]... (flanneld --help lists the flags)"
        );
    }
}

#[test]
fn a_misspelt_flag_does_not_show_its_value() {
    for args in [
        &["--etcd-pasword=geheim"][..],
        &["--etcd-pasword", "geheim"],
        &["---etcd-password=geheim"],
    ] {
        let error = parse_args(args, &[]).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("geheim"), "{error}");
    }
}

#[test]
fn the_version_is_asked_for_on_the_command_line_only() {
    for args in [
        &["--version"][..],
        &["-version=T"],
        &["-v=1", "-version", "--ip-masq"],
    ] {
        assert!(
            matches!(parse_args(args, &[]), Ok(Invocation::PrintVersion)),
            "{args:?}"
        );
    }
    run(&[LEASES, "--version=false"]);
    run_with(&[LEASES], &[("FLANNELD_VERSION", "true")]);
    assert_usage(&["--version=maybe"], "invalid value \"maybe\" for --version");
    assert_usage(&["--version", "--frobnicate"], "unknown flag");
}

#[test]
fn the_help_names_every_flag_under_a_heading_and_the_environment_rule() {
    for spelling in ["-h", "--help", "-help"] {
        assert!(matches!(
            parse_args(&[spelling], &[]),
            Ok(Invocation::PrintHelp(_))
        ));
    }
    let help = help();
    assert!(
        help.starts_with("Gives the pods of all nodes one flat network"),
        "{help}"
    );
    for part in [
        "Leases:",
        "External interface:",
        "Traffic rules:",
        "Health:",
        "FLANNELD_PUBLIC_IP=192.0.2.1",
    ] {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
    assert!(
        !help.contains("[default: false]") && !help.contains("[default: ]"),
        "{help}"
    );
}

#[test]
fn no_two_flags_share_a_name_or_a_variable() {
    let variables: BTreeMap<String, &str> = FLAGS.iter().map(|flag| (flag.variable(), flag.name)).collect();
    assert_eq!(variables.len(), FLAGS.len());
    command::command().debug_assert();
}

proptest! {
    #[test]
    fn arbitrary_arguments_never_panic(
        args in prop::collection::vec(argument(), 0..6),
        value in prop::option::of(prop::collection::vec(any::<u8>(), 0..12)),
    ) {
        let env = |_: &str| value.clone().map(OsString::from_vec);
        match parse(args, &env) {
            Ok(_) => {}
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

/// Anything at all, and more often something close to a flag.
fn argument() -> impl Strategy<Value = OsString> {
    let names: Vec<&'static str> = FLAGS.iter().map(|flag| flag.name).collect();
    let flag = (
        0..4usize,
        prop::sample::select(names),
        prop::option::of("[ -~]{0,8}"),
    )
        .prop_map(|(dashes, name, value)| {
            let value = value.map(|value| format!("={value}")).unwrap_or_default();
            OsString::from(format!("{}{name}{value}", "-".repeat(dashes)))
        });
    let noise = prop::collection::vec(any::<u8>(), 0..12).prop_map(OsString::from_vec);
    prop_oneof![3 => flag, 1 => noise, 1 => Just(OsString::from("--")), 1 => Just(OsString::from("-h"))]
}

fn parse_args(args: &[&str], env: &[(&str, &str)]) -> Result<Invocation, ConfigError> {
    let look_up = |name: &str| {
        env.iter()
            .find(|(variable, _)| *variable == name)
            .map(|(_, value)| OsString::from(value))
    };
    parse(args.iter().map(OsString::from), &look_up)
}

fn run(args: &[&str]) -> Config {
    run_with(args, &[])
}

fn run_with(args: &[&str], env: &[(&str, &str)]) -> Config {
    match parse_args(args, env) {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("{args:?} {env:?}: {other:?}"),
    }
}

fn assert_usage(args: &[&str], part: &str) {
    let error = parse_args(args, &[]).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    assert!(error.to_string().contains(part), "{args:?}: {error}");
}

fn names(config: &Config) -> Vec<String> {
    config.iface.ifaces.iter().map(ToString::to_string).collect()
}

fn help() -> String {
    match parse_args(&["--help"], &[]) {
        Ok(Invocation::PrintHelp(help)) => help,
        other => panic!("{other:?}"),
    }
}

fn directory(config: &Config) -> &Path {
    let StoreChoice::Directory(dir) = &config.store else {
        panic!("{:?}", config.store);
    };
    dir
}

fn debug_of_run(invocation: Invocation) -> Option<String> {
    match invocation {
        Invocation::Run(config) => Some(format!("{config:?}")),
        Invocation::Replay(_) | Invocation::PrintVersion | Invocation::PrintHelp(_) => None,
    }
}
