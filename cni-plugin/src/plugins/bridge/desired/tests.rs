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
set sysctl net/ipv6/conf/cni0/accept_ra 0
set sysctl net/ipv6/conf/veth1/accept_ra 0
set link cni0 up
set link veth1 up
add addr cni0 10.244.7.1/24 broadcast 10.244.7.255
add addr cni0 fd00:10:244:7::1/64 nodad
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
        ]
    );
    assert!(
        dual.addrs
            .iter()
            .all(|(key, addr)| addr.nodad == key.addr.is_ipv6())
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
    route.table = Some(100);
    given.routes = vec![route];
    let refused = Attachment::new(&conf(""), &name("eth0"), &given, MacAddr::new([2; 6]));
    assert!(refused.unwrap_err().to_string().contains("table 100"));
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
