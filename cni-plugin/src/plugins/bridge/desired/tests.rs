use super::*;
use netstate::{Prune, plan};

/// What the reference's host-local and bridge printed for the captured pods.
const GOLDEN_V4: &str = include_str!("../../../../tests/data/add-result-v4.json");
const GOLDEN_DUAL: &str = include_str!("../../../../tests/data/add-result-dualstack.json");

fn conf(rest: &str) -> Conf {
    let text = format!(r#"{{"cniVersion":"1.0.0","name":"cbr0"{rest}}}"#);
    Conf::parse(&NetConf::parse(text.as_bytes()).unwrap(), "").unwrap()
}

fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

/// What host-local gives: the golden result less what bridge adds.
fn ipam(golden: &str) -> AddResult {
    let mut result = AddResult::parse(&serde_json::from_str(golden).unwrap()).unwrap();
    result.interfaces.clear();
    result.routes.retain(|route| route.gw.is_none());
    result
}

fn attachment(rest: &str, ipam: &AddResult) -> Attachment {
    Attachment::new(&conf(rest), &name("eth0"), ipam, MacAddr::new([2; 6])).unwrap()
}

const SHIPPED: &str = r#","isDefaultGateway":true,"hairpinMode":true,"mtu":1450"#;

fn lines(desired: &State, observed: &State) -> String {
    let ops = plan(desired, observed, Prune::Keep);
    ops.iter().map(|op| format!("{op}\n")).collect()
}

#[test]
fn addresses_and_routes_are_those_of_the_reference() {
    for golden in [GOLDEN_V4, GOLDEN_DUAL] {
        let expected = AddResult::parse(&serde_json::from_str(golden).unwrap()).unwrap();
        let attachment = attachment(SHIPPED, &ipam(golden));
        assert_eq!(attachment.routes, expected.routes);
        let addresses =
            |ips: &[IpConfig]| -> Vec<_> { ips.iter().map(|ip| (ip.address, ip.gateway)).collect() };
        assert_eq!(addresses(&attachment.ips), addresses(&expected.ips));
    }
}

#[test]
fn a_first_pod_makes_bridge_and_pair_in_the_order_that_the_kernel_needs() {
    let attachment = attachment(SHIPPED, &ipam(GOLDEN_DUAL));
    let host = attachment.host(&name("veth1"), MacAddr::new([6; 6]), Some(MacAddr::new([2; 6])));
    let mut observed = State::default();
    for key in host
        .sysctls
        .keys()
        .filter(|key| key.as_str().ends_with("forward") || key.as_str().ends_with("forwarding"))
    {
        observed.sysctls.insert(key.clone(), "0".to_owned());
    }
    assert_eq!(
        lines(&host, &observed),
        "\
add link cni0 bridge mac 02:02:02:02:02:02 mtu 1450 up
add link veth1 veth peer eth0 peermac 0a:58:0a:f4:07:02 netns pod mac 06:06:06:06:06:06 mtu 1450 up master cni0 hairpin
set sysctl net/ipv4/ip_forward 1
set sysctl net/ipv6/conf/all/forwarding 1
set sysctl net/ipv6/conf/cni0/accept_dad 0
set sysctl net/ipv6/conf/cni0/accept_ra 0
set sysctl net/ipv6/conf/veth1/accept_ra 0
set link cni0 up
set link veth1 up
add addr cni0 10.244.7.1/24 broadcast 10.244.7.255
add addr cni0 fd00:10:244:7::1/64
"
    );
}

#[test]
fn the_bridge_that_exists_keeps_its_address_and_mtu() {
    let attachment = attachment(SHIPPED, &ipam(GOLDEN_V4));
    let host = attachment.host(&name("veth1"), MacAddr::new([6; 6]), None);
    let bridge = &host.links[&name("cni0")];
    assert_eq!((bridge.mac, bridge.mtu_bytes), (None, None));
    assert_eq!(bridge.admin, AdminState::Up);
}

#[test]
fn the_pod_gets_the_references_parameters_before_it_is_up() {
    let v4 = attachment(SHIPPED, &ipam(GOLDEN_V4)).pod();
    let keys = |state: &State| -> Vec<String> {
        state
            .sysctls
            .iter()
            .map(|(k, v)| format!("{}={v}", k.as_str()))
            .collect()
    };
    assert_eq!(
        keys(&v4),
        [
            "net/ipv4/conf/eth0/arp_notify=1",
            "net/ipv6/conf/eth0/accept_dad=0"
        ]
    );
    let dual = attachment(SHIPPED, &ipam(GOLDEN_DUAL)).pod();
    assert_eq!(
        keys(&dual),
        [
            "net/ipv4/conf/eth0/arp_notify=1",
            "net/ipv6/conf/eth0/accept_dad=0",
            "net/ipv6/conf/eth0/disable_ipv6=0",
            "net/ipv6/conf/eth0/keep_addr_on_down=1",
            "net/ipv6/conf/eth0/ndisc_notify=1",
            "net/ipv6/conf/lo/disable_ipv6=0",
        ]
    );
}

#[test]
fn gateways_are_computed_only_where_the_bridge_is_one() {
    let mut given = ipam(GOLDEN_V4);
    given.ips[0].gateway = None;
    let plain = attachment("", &given);
    assert!(plain.gateways.is_empty() && plain.ips[0].gateway.is_none());
    let gateway = attachment(r#","isGateway":true"#, &given);
    assert_eq!(gateway.gateways[0].to_string(), "10.244.7.1/24");
    assert_eq!(gateway.routes, given.routes);
    let default = attachment(r#","isDefaultGateway":true"#, &given);
    assert_eq!(default.routes.len(), given.routes.len() + 1);
}

#[test]
fn a_default_route_that_is_given_is_not_doubled() {
    let mut given = ipam(GOLDEN_V4);
    let gateway = "10.244.7.9".parse().unwrap();
    given
        .routes
        .push(ResultRoute::new("0.0.0.0/0".parse().unwrap(), Some(gateway)));
    let attachment = attachment(SHIPPED, &given);
    assert_eq!(attachment.routes, given.routes);
}

#[test]
fn route_attributes_of_one_one_zero_reach_the_kernel_or_are_refused() {
    let mut given = ipam(GOLDEN_V4);
    let mut route = ResultRoute::new("10.9.0.0/16".parse().unwrap(), None);
    route.priority = Some(5);
    route.mtu_bytes = Some(1300);
    given.routes = vec![route.clone()];
    let pod = attachment(r#","isGateway":true"#, &given).pod();
    let (key, made) = pod.routes.iter().next().unwrap();
    assert_eq!((key.metric, made.mtu_bytes), (5, Some(1300)));
    route.table = Some(70_000);
    route.advmss_bytes = Some(1260);
    route.scope = Some(253);
    given.routes = vec![route.clone()];
    let pod = attachment(r#","isGateway":true"#, &given).pod();
    let text = "route 10.9.0.0/16 via 10.244.7.1 dev eth0 proto 3 mtu 1300 advmss 1260 scope 253 table 70000 metric 5";
    assert!(pod.to_string().contains(text), "{pod}");
    // The scope that a route has anyway is none of its own.
    route.scope = Some(0);
    given.routes = vec![route];
    let pod = attachment(r#","isGateway":true"#, &given).pod();
    assert_eq!(pod.routes.values().next().unwrap().scope, None);
    for (key, value) in [
        ("scope", 256),
        ("scope", -1),
        ("table", 1 << 32),
        ("priority", -5),
    ] {
        let mut impossible = ResultRoute::new("10.9.0.0/16".parse().unwrap(), None);
        match key {
            "scope" => impossible.scope = Some(value),
            "table" => impossible.table = Some(value),
            _ => impossible.priority = Some(value),
        }
        given.routes = vec![impossible];
        let refused = Attachment::new(&conf(""), &name("eth0"), &given, MacAddr::new([2; 6]));
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains(&format!("10.9.0.0/16 with {key} {value}")),
            "{text}"
        );
    }
}

#[test]
fn detection_of_duplicates_is_left_to_the_kernel_where_it_is_asked_for() {
    let attachment = attachment(r#","isGateway":true,"enabledad":true"#, &ipam(GOLDEN_DUAL));
    let pod = attachment.pod();
    assert!(
        pod.to_string()
            .contains("sysctl net/ipv6/conf/eth0/accept_dad 1\n")
    );
    assert!(
        pod.to_string()
            .contains("sysctl net/ipv6/conf/eth0/enhanced_dad 1\n")
    );
    let host = attachment.host(&name("veth1"), MacAddr::new([6; 6]), None);
    assert!(
        host.to_string()
            .contains("sysctl net/ipv6/conf/cni0/accept_dad 1\n")
    );
}

#[test]
fn a_disabled_interface_stays_down_and_bare() {
    let attachment = attachment(r#","disableContainerInterface":true"#, &AddResult::default());
    assert_eq!(attachment.pod().to_string(), "link eth0 veth down\n");
}

#[test]
fn the_gateways_of_a_vlan_are_on_its_own_interface_and_the_port_is_isolated_where_asked() {
    let attachment = attachment(
        r#","isGateway":true,"vlan":100,"portIsolation":true"#,
        &ipam(GOLDEN_V4),
    );
    let host = attachment
        .host(&name("veth1"), MacAddr::new([6; 6]), None)
        .to_string();
    assert!(host.contains("addr cni0.100 10.244.7.1/24"), "{host}");
    assert!(
        host.contains("up master cni0 isolated\n") && !host.contains("addr cni0 "),
        "{host}"
    );
}

#[test]
fn a_requested_mac_wins() {
    let with_mac = attachment(
        r#","runtimeConfig":{"mac":"0a:00:00:00:00:07"}"#,
        &ipam(GOLDEN_V4),
    );
    assert_eq!(with_mac.mac.to_string(), "0a:00:00:00:00:07");
    let without = attachment("", &AddResult::default());
    assert_eq!(without.mac, MacAddr::new([2; 6]));
}
