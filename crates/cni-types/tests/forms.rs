//! Results and configurations against the reference's own output, and against arbitrary input.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code: a panic is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};

use cni_types::{AddResult, CniArgs, Environment, ErrorObject, NetConf, Version};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What the reference's bridge plugin printed for one pod at 1.0.0.
const REFERENCE: &str = include_str!("data/cni-v4-add-result.json");
/// The same for a dual-stack pod.
const REFERENCE_DUAL: &str = include_str!("data/cni-dualstack-add-result.json");

#[test]
fn results_of_the_reference_read_and_render_to_themselves() {
    for text in [REFERENCE, REFERENCE_DUAL] {
        let value: Value = serde_json::from_str(text).unwrap();
        let result = AddResult::parse(&value).unwrap();
        assert_eq!(result.render(Version::V1_0_0).unwrap(), value);
        let (position, eth0) = result.container_interface("eth0").unwrap();
        assert_eq!((position, eth0.name.as_str()), (2, "eth0"));
        assert!(result.container_interface("cni0").is_none());
    }
}

#[test]
fn each_version_has_its_own_form() {
    let value: Value = serde_json::from_str(REFERENCE_DUAL).unwrap();
    let result = AddResult::parse(&value).unwrap();
    let old = result.render(Version::V0_2_0).unwrap();
    assert_eq!(
        old,
        json!({
            "cniVersion": "0.2.0", "dns": {},
            "ip4": {"ip": "10.244.7.2/24", "gateway": "10.244.7.1",
                "routes": [{"dst": "10.244.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "10.244.7.1"}]},
            "ip6": {"ip": "fd00:10:244:7::2/64", "gateway": "fd00:10:244:7::1",
                "routes": [{"dst": "fd00:10:244::/48"}, {"dst": "::/0", "gw": "fd00:10:244:7::1"}]},
        })
    );
    for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
        let form = result.render(version).unwrap();
        assert_eq!(form["cniVersion"], version.as_str());
        assert_eq!(form["dns"], json!({}));
        assert_eq!(form["ips"][0]["version"], "4");
        assert_eq!(form["ips"][1]["version"], "6");
        assert_eq!(form["interfaces"], value["interfaces"]);
    }
}

#[test]
fn members_of_one_one_zero_appear_only_there_and_unknown_ones_stay() {
    let value = json!({
        "cniVersion": "1.1.0", "vendor": {"a": 1},
        "interfaces": [{"name": "eth0", "mac": "aa:bb:cc:dd:ee:ff", "sandbox": "/x", "mtu": 1450,
            "socketPath": "/s", "pciID": "0000:00:1f.6", "colour": "red"}],
        "ips": [{"address": "10.0.0.2/24", "interface": -1}],
        "routes": [{"dst": "10.0.0.0/8", "mtu": 1400, "advmss": 1360, "priority": 5, "table": 100, "scope": 253}],
    });
    let result = AddResult::parse(&value).unwrap();
    assert_eq!(result.render(Version::V1_1_0).unwrap(), value);
    let older = result.render(Version::V1_0_0).unwrap();
    assert_eq!(older["routes"], json!([{"dst": "10.0.0.0/8"}]));
    assert!(older["interfaces"][0].get("mtu").is_none());
    assert_eq!(older["interfaces"][0]["colour"], "red");
    assert_eq!(older["vendor"], json!({"a": 1}));
}

#[test]
fn a_result_without_address_has_no_legacy_form() {
    let result = AddResult::parse(&json!({})).unwrap();
    assert!(result.render(Version::V0_2_0).is_err());
    assert_eq!(
        result.render(Version::V1_0_0).unwrap(),
        json!({"cniVersion": "1.0.0"})
    );
}

#[test]
fn malformed_results_are_refused() {
    for value in [
        json!([]),
        json!({"ips": {}}),
        json!({"ips": [{}]}),
        json!({"ips": [{"address": "10.0.0.1"}]}),
        json!({"ips": [{"address": "10.0.0.1/24", "gateway": "x"}]}),
        json!({"routes": [{"dst": "default"}]}),
        json!({"interfaces": [5]}),
        json!({"dns": {"nameservers": "1.1.1.1"}}),
    ] {
        assert!(AddResult::parse(&value).is_err(), "{value}");
    }
}

fn arb_json() -> impl Strategy<Value = Value> {
    let keys = "name|cniVersion|ips|IPs|address|interfaces|routes|dst|gw|dns|ip4|ip|prevResult|x";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "10\\.0\\.0\\.[0-9]{1,3}/[0-9]{1,2}|[a-z0-9./:]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(keys, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_standard_input_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        drop(NetConf::parse(&bytes));
        drop(cni_types::asked_version(&bytes));
        drop(ErrorObject::parse(&bytes, Version::NEWEST));
    }

    #[test]
    fn arbitrary_json_never_panics(value in arb_json()) {
        if let Ok(conf) = NetConf::parse(value.to_string().as_bytes()) {
            drop((conf.dns(), conf.ipam(), conf.runtime_config(), conf.args_cni()));
        }
        if let Ok(result) = AddResult::parse(&value) {
            for version in Version::ALL {
                let Ok(form) = result.render(version) else { continue };
                let again = AddResult::parse(&form).unwrap();
                if version == Version::V1_1_0 {
                    prop_assert_eq!(&again, &result);
                }
                prop_assert_eq!(again.render(version).unwrap(), form);
            }
        }
    }

    #[test]
    fn arbitrary_environments_never_panic(
        vars in prop::collection::btree_map(
            "CNI_(COMMAND|CONTAINERID|NETNS|IFNAME|ARGS|PATH|NETNS_OVERRIDE)",
            "ADD|DEL|CHECK|GC|STATUS|VERSION|\\PC{0,20}", 0..7),
    ) {
        let vars: BTreeMap<String, String> = vars;
        drop(Environment::from_vars(&vars, &BTreeSet::new()));
    }

    #[test]
    fn arbitrary_args_never_panic(text in "[A-Za-z=;0-9]{0,40}") {
        drop(CniArgs::parse(&text, &["IP"]));
    }
}
