//! A large cluster.

use lease_store::LeaseEvent;

use crate::support::{Bed, next, watching};

#[tokio::test]
async fn five_thousand_nodes_of_ten_kilobytes_are_read_with_either_kind_of_list() {
    let bed = Bed::new().await;
    fake_apiserver::many(5_000, 10_000).for_each(|node| bed.cluster().put_node(&node));
    for has_streaming_lists in [true, false] {
        bed.cluster().set_streaming_lists(has_streaming_lists);
        let store = bed.store();
        let start = std::time::Instant::now();
        let mut watch = watching(&bed, &store).await;
        let LeaseEvent::Snapshot { leases, .. } = next(&mut watch).await else {
            panic!("no snapshot");
        };
        assert_eq!(leases.len(), 5_001);
        println!("streaming lists {has_streaming_lists}: {:?}", start.elapsed());
    }
}
