use std::time::{Duration, Instant};

use etcd::messages::{PutRequest, Request, RequestOp, TxnRequest};
use lease_store::{LeaseEvent, LeaseStore};
use net_types::SubnetKey;

use crate::support::{CONFIG, Lab, attrs, in_netns, next, request, snapshot};

const LEASES: u32 = 10_000;

fn putting(number: u32) -> RequestOp {
    let v4 = std::net::Ipv4Addr::from_bits(0x0a00_0000 + (number << 6));
    let key = SubnetKey::new(ipnetwork::Ipv4Network::new(v4, 26).unwrap(), None);
    let mut attrs = attrs(1);
    attrs.public_ip = Some(std::net::Ipv4Addr::from_bits(0xac10_0000 + number));
    RequestOp {
        request: Some(Request::Put(PutRequest {
            key: format!("/coreos.com/network/subnets/{key}").into_bytes(),
            value: attrs.to_json().into_bytes(),
            lease: 0,
        })),
    }
}

#[test]
fn ten_thousand_leases_are_read_in_pages_and_a_storm_of_changes_is_followed() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        let numbers: Vec<_> = (0..LEASES).collect();
        for chunk in numbers.chunks(100) {
            let success = chunk.iter().map(|number| putting(*number)).collect();
            lab.raw
                .0
                .txn(TxnRequest {
                    success,
                    ..TxnRequest::default()
                })
                .await
                .unwrap();
        }
        let store = lab.store();
        let start = Instant::now();
        let mut watch = store.watch().unwrap();
        assert_eq!(snapshot(&mut watch).await.len(), usize::try_from(LEASES).unwrap());
        let listed = start.elapsed();
        println!("listed and decoded {LEASES} leases in {listed:?}");
        let start = Instant::now();
        assert_eq!(store.find(request(CONFIG, 1).attrs.addrs()).await.unwrap(), None);
        println!("again in {:?}", start.elapsed());
        // Generous: the machine may do much else.
        assert!(listed < Duration::from_secs(30), "{listed:?}");
        let start = Instant::now();
        for number in 0..500 {
            let success = vec![putting(number)];
            lab.raw
                .0
                .txn(TxnRequest {
                    success,
                    ..TxnRequest::default()
                })
                .await
                .unwrap();
        }
        println!("500 changes made in {:?}", start.elapsed());
        for _ in 0..500 {
            assert!(matches!(next(&mut watch).await, LeaseEvent::Put(_)));
        }
        println!("and seen {:?} after the first", start.elapsed());
    });
}
