use proptest::prelude::*;

use super::*;

const DUAL_STACK: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.79.1/24\n\
    FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:1c::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

fn parse(text: &str) -> Result<SubnetEnv, SubnetEnvError> {
    SubnetEnv::parse(text, Path::new("/run/flannel/subnet.env"))
}

#[test]
fn the_plugins_reader_tolerates_lists_unknown_keys_and_windows_line_ends() {
    let text = "# comment\r\nFLANNEL_NETWORK=10.244.0.0/16,10.245.0.0/16\r\n\r\nOTHER=1=2\r\nFLANNEL_SUBNET=10.244.79.1/24\r\n\
        FLANNEL_MTU=9000\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false";
    let env = parse(text).unwrap();
    assert_eq!(env.networks.len(), 2);
    assert_eq!(env.subnet.unwrap().to_string(), "10.244.79.1/24");
    assert_eq!((env.mtu, env.ip_masq), (1450, false));
    assert!(
        env.render()
            .starts_with("FLANNEL_NETWORK=10.244.0.0/16,10.245.0.0/16\n")
    );
}

#[test]
fn missing_keys_are_listed_in_the_references_words() {
    let error = |text: &str| parse(text).unwrap_err().to_string();
    assert_eq!(
        error("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.79.1/24\n"),
        "/run/flannel/subnet.env is missing FLANNEL_MTU, FLANNEL_IPMASQ"
    );
    assert_eq!(
        error(""),
        "/run/flannel/subnet.env is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, \
         FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ"
    );
}

#[test]
fn a_malformed_known_key_is_a_clean_error() {
    let error = |text: &str| parse(text).unwrap_err().to_string();
    assert_eq!(
        error("FLANNEL_MTU"),
        "/run/flannel/subnet.env has no = after FLANNEL_MTU"
    );
    assert_eq!(
        error("FLANNEL_SUBNET=10.244.79.1\n"),
        "/run/flannel/subnet.env: FLANNEL_SUBNET is \"10.244.79.1\", which is not an IPv4 subnet"
    );
    for line in [
        "FLANNEL_MTU=",
        "FLANNEL_MTU=-1",
        "FLANNEL_MTU=+1450",
        "FLANNEL_MTU=4294967296",
        "FLANNEL_IPMASQ=yes",
        "FLANNEL_NETWORK=",
        "FLANNEL_NETWORK=10.244.0.0/16,",
        "FLANNEL_IPV6_NETWORK=10.244.0.0/16",
        "FLANNEL_IPV6_SUBNET=fd00::/129",
    ] {
        let text = format!("{DUAL_STACK}{line}\n");
        assert!(
            matches!(parse(&text), Err(SubnetEnvError::Malformed { .. })),
            "{line}"
        );
    }
}

#[test]
fn the_gateway_is_the_subnets_first_host() {
    assert_eq!(
        gateway_v4("10.5.57.0/24".parse().unwrap()).to_string(),
        "10.5.57.1/24"
    );
    assert_eq!(
        gateway_v6("fd00:10:5:46::/64".parse().unwrap()).to_string(),
        "fd00:10:5:46::1/64"
    );
}

#[test]
fn previous_subnets_are_read_without_host_bits() {
    let previous = PreviousSubnets::parse(DUAL_STACK);
    assert_eq!(previous.subnet.unwrap().to_string(), "10.244.79.0/24");
    assert_eq!(previous.ipv6_subnet.unwrap().to_string(), "fd00:10:244:1c::/64");
    assert_eq!(previous.network.unwrap().to_string(), "10.244.0.0/16");
}

#[test]
fn previous_subnets_that_are_lists_or_broken_count_as_absent() {
    let previous = PreviousSubnets::parse(
        "FLANNEL_NETWORK=10.244.0.0/16,10.245.0.0/16\nFLANNEL_SUBNET=10.244.79.1\nFLANNEL_IPV6_NETWORK\nFLANNEL_IPV6_SUBNET=x",
    );
    assert_eq!(previous, PreviousSubnets::default());
}

proptest! {
    #[test]
    fn no_text_makes_the_readers_panic(text in "(FLANNEL_(NETWORK|SUBNET|IPV6_NETWORK|IPV6_SUBNET|MTU|IPMASQ)?=?[0-9a-f.:/,]*\n|.*)*") {
        drop(parse(&text));
        let _ = PreviousSubnets::parse(&text);
    }

    #[test]
    fn every_file_round_trips(
        v4 in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..3), v6 in prop::collection::vec((any::<u128>(), 0_u8..=128), 1..3),
        mtu in any::<u32>(), ip_masq in any::<bool>(),
    ) {
        let env = SubnetEnv {
            networks: v4.iter().map(|(bits, len)| Ipv4Network::new((*bits).into(), *len).unwrap()).collect(),
            subnet: v4.first().map(|(bits, len)| Ipv4Network::new((*bits).into(), *len).unwrap()),
            ipv6_networks: v6.iter().map(|(bits, len)| Ipv6Network::new((*bits).into(), *len).unwrap()).collect(),
            ipv6_subnet: v6.first().map(|(bits, len)| Ipv6Network::new((*bits).into(), *len).unwrap()),
            mtu,
            ip_masq,
        };
        prop_assert_eq!(parse(&env.render()), Ok(env));
    }
}
