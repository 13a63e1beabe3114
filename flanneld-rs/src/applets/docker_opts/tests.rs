use super::*;

const SUBNET_ENV: &str =
    "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.57.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

fn asked(flags: &str) -> Option<Asked> {
    Asked::parse(flags.split_whitespace().map(OsString::from))
}

fn rendered(flags: &str, env: &str) -> Result<String, String> {
    let vars = assignments(env).into_iter().collect();
    asked(flags).unwrap().render(&vars)
}

/// What flannel's `dist/mk-docker-opts.sh` of 2026-08 writes for the same input (run under Debian's dash).
#[test]
fn the_output_is_upstreams() {
    let table = [
        (
            "",
            SUBNET_ENV.to_owned(),
            "DOCKER_OPT_BIP=\"--bip=10.5.57.1/24\"\nDOCKER_OPT_IPMASQ=\"--ip-masq=false\"\n\
             DOCKER_OPT_MTU=\"--mtu=1450\"\n\
             DOCKER_OPTS=\" --bip=10.5.57.1/24 --ip-masq=false --mtu=1450\"\n",
        ),
        (
            "-i",
            SUBNET_ENV.replace("true", "false"),
            "DOCKER_OPT_BIP=\"--bip=10.5.57.1/24\"\nDOCKER_OPT_IPMASQ=\"--ip-masq=true\"\n\
             DOCKER_OPT_MTU=\"--mtu=1450\"\n",
        ),
        (
            "-c -m -k OPTS",
            SUBNET_ENV.to_owned(),
            "OPTS=\" --bip=10.5.57.1/24 --mtu=1450\"\n",
        ),
        (
            "-ck OPTS",
            format!("{SUBNET_ENV}OPTS=--debug\nDOCKER_OPT_A=--a\n"),
            "OPTS=\"--debug  --a --bip=10.5.57.1/24 --ip-masq=false --mtu=1450\"\n",
        ),
        ("", String::new(), "DOCKER_OPTS=\"\"\n"),
    ];
    for (flags, env, expected) in table {
        assert_eq!(rendered(flags, &env).as_deref(), Ok(expected), "{flags}");
    }
}

#[test]
fn a_bad_masquerading_value_is_refused_unless_it_does_not_matter() {
    let env = SUBNET_ENV.replace("true", "maybe");
    assert_eq!(
        rendered("", &env),
        Err("Invalid value of FLANNEL_IPMASQ: maybe".to_owned())
    );
    assert!(rendered("-m", &env).is_ok());
}

#[test]
fn flags_are_read_as_getopts_reads_them() {
    let all = asked("-f/a -d /b -icmk KEY").unwrap();
    assert_eq!(
        (all.subnet_file.as_path(), all.docker_file.as_path()),
        (Path::new("/a"), Path::new("/b"))
    );
    assert_eq!(
        (all.individual, all.combined, all.ip_masq, all.key.as_str()),
        (true, true, false, "KEY")
    );
    for flags in ["-h", "-?", "-x", "-k", "-k 1X", "-k a-b", "-f"] {
        assert_eq!(asked(flags), None, "{flags}");
    }
}

#[test]
fn the_file_is_written_whole_and_a_link_is_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let (subnet_env, target, link) = (
        dir.path().join("env"),
        dir.path().join("out"),
        dir.path().join("link"),
    );
    fs::write(&subnet_env, SUBNET_ENV).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    for path in [&target, &link] {
        let args = [
            OsString::from("-c"),
            "-f".into(),
            subnet_env.clone().into(),
            "-d".into(),
            path.clone().into(),
        ];
        run(args, []).unwrap();
        let text = fs::read_to_string(&target).unwrap();
        assert_eq!(
            text,
            "DOCKER_OPTS=\" --bip=10.5.57.1/24 --ip-masq=false --mtu=1450\"\n"
        );
        fs::remove_file(&target).unwrap();
    }
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_subnet_that_leads_to_a_gateway_is_refused() {
    let subnet = "10.5.57.1/24".parse().unwrap();
    let hex = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
    let line = |dst, flags, mask| {
        format!(
            "eth0\t{}\t{}\t{flags}\t0\t0\t0\t{}\t0\t0\t0",
            hex(dst),
            hex([10, 0, 0, 1]),
            hex(mask)
        )
    };
    let mask = [255, 255, 255, 0];
    for harmless in [
        line([10, 5, 57, 0], "0001", mask),
        line([10, 5, 58, 0], "0003", mask),
        line([10, 5, 57, 0], "0003", [255, 255, 0, 0]),
        "Iface Destination Gateway Flags".to_owned(),
    ] {
        assert_eq!(refuse_routed(subnet, &harmless), Ok(()), "{harmless}");
    }
    assert_eq!(
        refuse_routed(subnet, &line([10, 5, 57, 0], "0003", mask)),
        Err("Your routing table already contains the subnet: 10.5.57.0/24 via 10.0.0.1 dev eth0".to_owned())
    );
}
