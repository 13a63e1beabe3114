use serde_json::json;

use crate::heavy::{BRIDGE_VLANS, clean, guests, run_test_program};

fn conf(range: &str, keys: &serde_json::Value) -> String {
    let mut conf = json!({
        "cniVersion": "1.0.0", "name": "vlans", "type": "bridge", "bridge": "cni5",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": range}]]},
    });
    conf.as_object_mut()
        .unwrap()
        .extend(keys.as_object().unwrap().clone());
    conf.to_string()
}

#[test]
fn pods_are_in_their_vlan_and_a_trunk_carries_its_own() {
    let mut lab = guests();
    let guest = lab.guest(2).unwrap();
    clean(guest);
    let red = conf("10.1.0.0/24", &json!({"vlan": 100, "preserveDefaultVlan": false}));
    let blue = conf("10.2.0.0/24", &json!({"vlan": 200, "preserveDefaultVlan": false}));
    let trunk = conf(
        "10.3.0.0/24",
        &json!({"vlanTrunk": [{"id": 100}, {"minID": 300, "maxID": 302}]}),
    );
    guest.add_pod("red1", &red).unwrap();
    let red2 = guest.add_pod("red2", &red).unwrap()[0];
    guest.add_pod("blue", &blue).unwrap();
    guest.add_pod("trunk", &trunk).unwrap();
    assert_eq!(guest.ping("red1", red2, 2).unwrap(), 2);

    // Another VLAN is not reached even with an address in its range.
    guest.sh("ip -n blue addr add 10.1.0.99/24 dev eth0").unwrap();
    assert_eq!(guest.ping("blue", red2, 2).unwrap(), 0);

    // A pod on a trunk tags by itself.
    guest
        .sh("ip -n trunk link add link eth0 name eth0.100 type vlan id 100
             ip -n trunk addr add 10.1.0.98/24 dev eth0.100
             ip -n trunk link set eth0.100 up")
        .unwrap();
    assert_eq!(guest.ping("trunk", red2, 2).unwrap(), 2);
    let vlans = guest.sh("bridge vlan show").unwrap();
    for vlan in ["100 PVID Egress Untagged", "200 PVID Egress Untagged", "300-302"] {
        let compressed = vlan.split('-').all(|part| vlans.contains(part));
        assert!(compressed, "{vlan} is not in\n{vlans}");
    }
    for (pod, conf) in [("red1", &red), ("red2", &red), ("blue", &blue), ("trunk", &trunk)] {
        guest.delete_pod(pod, conf).unwrap();
    }
    clean(guest);
}

/// Each of the tests that need VLANs says that it had them.
#[test]
fn what_the_plugin_sets_up_for_vlans_is_there_and_goes() {
    const NEED_VLANS: usize = 4;
    let mut lab = guests();
    let said = run_test_program(lab.guest(2).unwrap(), BRIDGE_VLANS, "");
    assert_eq!(said.matches("bridges know VLANs").count(), NEED_VLANS, "{said}");
}
