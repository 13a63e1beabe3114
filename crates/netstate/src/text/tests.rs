use super::TextError;
use crate::{ObjectKey, Op, State};

const STATE: &str = "\
link cni0 bridge mtu 1450 up
link eth0 physical mac 02:00:00:00:00:01 mtu 1500 up
link flannel.1 vxlan vni 1 port 8472 local 192.168.77.11 parent eth0 nolearning mac e6:2c:26:5a:4c:4a mtu 1450 up
link veth1 veth peer eth0 peermac 0a:58:0a:f4:04:02 netns pod down master cni0 hairpin isolated
addr eth0 192.168.77.11/24 broadcast 192.168.77.255
addr flannel.1 10.244.4.0/32
addr flannel.1 fd00::1/128 nodad
route 0.0.0.0/0 via 192.168.77.1 dev eth0 proto 3 src 192.168.77.11 table 100 metric 7
route 10.244.0.0/16 blackhole proto 3 metric 100
route 10.244.5.0/24 dev cni0 proto 3 mtu 1400 advmss 1360 scope 0
route 10.244.84.0/24 via 10.244.84.0 dev flannel.1 onlink proto 3
neigh flannel.1 10.244.84.0 mac 72:e5:67:00:44:8c
fdb flannel.1 72:e5:67:00:44:8c remote 192.168.77.13
sysctl net/ipv4/tcp_rmem \"4096\\u{9}131072\\u{9}6291456\"
sysctl net/ipv6/conf/flannel.1/accept_ra 0
";

#[test]
fn a_state_reads_back_as_it_prints() {
    let state: State = STATE.parse().unwrap();
    assert_eq!(state.to_string().lines().count(), STATE.lines().count());
    assert_eq!(state.to_string().parse::<State>().unwrap(), state);
    for line in STATE.lines() {
        assert!(state.to_string().contains(line), "{line}\nin\n{state}");
    }
}

#[test]
fn changes_read_back_as_they_print() {
    for text in [
        "add link cni0 bridge down",
        "replace link cni0 bridge down",
        "set link flannel.1 mtu 1450",
        "set link flannel.1 up",
        "set link flannel.1 nolearning",
        "set link flannel.1 notxcsum",
        "add link flannel.1 vxlan vni 1 port 8472 nolearning gbp notxcsum up",
        "add link flannel.1 vxlan vni 1 port 8472 nolearning txcsum down",
        "set link flannel.1 local 10.0.0.1",
        "set link flannel.ipip ipiplocal 10.0.0.1",
        "add link flannel.ipip ipip local 10.0.0.1 mtu 1480 up",
        "add link flannel.ipip ipip down",
        "set link veth1 master cni0 hairpin",
        "set link veth1 master cni0 isolated",
        "del link flannel.1",
        "add addr flannel.1 10.244.4.0/32",
        "del addr flannel.1 10.244.4.0/32",
        "replace route 10.244.84.0/24 via 10.244.84.0 dev flannel.1 onlink proto 3",
        "del route fd00::/64 dev cni0 proto 3 metric 1024",
        "set neigh flannel.1 10.244.84.0 mac 72:e5:67:00:44:8c",
        "del neigh flannel.1 10.244.84.0",
        "del fdb flannel.1 72:e5:67:00:44:8c remote 192.168.77.13",
        "set sysctl net/ipv4/ip_forward 1",
    ] {
        assert_eq!(text.parse::<Op>().unwrap().to_string(), text);
    }
}

#[test]
fn objects_read_back_as_they_print() {
    for text in [
        "link flannel.1",
        "addr flannel.1 10.244.4.0/32",
        "route 10.244.84.0/24 table 100 metric 5",
        "neigh flannel.1 10.244.84.0",
        "fdb flannel.1 72:e5:67:00:44:8c remote 192.168.77.13",
        "sysctl net/ipv4/ip_forward",
    ] {
        assert_eq!(text.parse::<ObjectKey>().unwrap().to_string(), text);
    }
}

#[test]
fn attributes_come_in_any_order_and_comments_are_skipped() {
    let state: State = "\n# a route\n route 10.0.0.0/8  proto 3 metric 4 dev eth0\n"
        .parse()
        .unwrap();
    assert_eq!(state.to_string(), "route 10.0.0.0/8 dev eth0 proto 3 metric 4\n");
}

#[test]
fn errors_name_the_word() {
    for (text, message) in [
        (
            "mod link a up",
            "\"mod link\" stands where add, set, replace or del with an object that knows it is expected",
        ),
        (
            "set link a mtu x",
            "\"x\" stands where a number in range is expected",
        ),
        (
            "del link a b",
            "\"b\" stands where the end of the line is expected",
        ),
        (
            "add addr a",
            "the text ends where an address with its prefix length is expected",
        ),
        ("add route 10.0.0.0/8 dev a", "\"route\" needs proto"),
        ("add link a bridge up up", "\"up\" is given twice"),
        (
            "add link a bridge up vni 1",
            "\"vni\" stands where an attribute of this kind of object is expected",
        ),
        ("del link \"a", "\"del link \\\"a\" is not a properly quoted word"),
        (
            "del link a/b",
            "\"a/b\" stands where the name of a link is expected",
        ),
    ] {
        assert_eq!(text.parse::<Op>().unwrap_err().to_string(), message, "{text}");
    }
}

#[test]
fn an_error_in_a_state_names_the_line() {
    let error = "link a bridge up\naddr a 10.0.0.1/33\n"
        .parse::<State>()
        .unwrap_err();
    assert!(matches!(error, TextError::Line { number: 2, .. }));
    let error = "link a bridge up\nlink a bridge up\n"
        .parse::<State>()
        .unwrap_err();
    assert!(matches!(error, TextError::Line { number: 2, .. }));
}
