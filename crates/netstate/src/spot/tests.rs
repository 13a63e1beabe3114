use super::*;

const ONE: &str = "
    link flannel.1 bridge up
    addr flannel.1 10.244.0.0/32
    route 10.244.1.0/24 dev flannel.1 proto 3
    route 10.244.2.0/24 dev flannel.1 proto 3
    neigh flannel.1 10.244.1.0 mac 02:00:00:00:00:01
    fdb flannel.1 02:00:00:00:00:01 remote 192.168.77.1
    fdb flannel.1 02:00:00:00:00:02 remote 192.168.77.2
    fdb other.1 02:00:00:00:00:02 remote 192.168.77.2";

#[test]
fn a_state_is_its_frame_and_what_stands_at_its_spots() {
    let state = state(ONE);
    let mut again = state.frame();
    assert_eq!(
        (again.links.len(), again.addrs.len(), again.routes.len()),
        (1, 1, 0)
    );
    again.absorb(state.at(&state.spots()));
    assert_eq!(again, state);
    for spot in state.spots() {
        again.clear_at(&spot);
    }
    assert_eq!(again, state.frame());
}

#[test]
fn states_differ_at_the_spots_where_one_holds_more_or_something_else() {
    let one = state(ONE);
    let mut other = state(
        "link flannel.1 bridge up
         addr flannel.1 10.244.0.0/32
         route 10.244.1.0/24 dev flannel.1 proto 4
         route 10.244.3.0/24 dev flannel.1 proto 3
         neigh flannel.1 10.244.1.0 mac 02:00:00:00:00:01
         fdb flannel.1 02:00:00:00:00:01 remote 192.168.77.1
         fdb flannel.1 02:00:00:00:00:02 remote 192.168.77.9
         fdb flannel.1 02:00:00:00:00:02 remote fd00:77::2
         fdb other.1 02:00:00:00:00:02 remote 192.168.77.2",
    );
    let spots = one.differing_spots(&other);
    let route = |dst: &str| {
        let key = other.routes.keys().chain(one.routes.keys());
        let mut of_dst = key.filter(|key| key.dst.to_string() == dst);
        Spot::Route(of_dst.next().unwrap().clone())
    };
    let expected = [
        route("10.244.1.0/24"),
        route("10.244.2.0/24"),
        route("10.244.3.0/24"),
        Spot::Fdb("flannel.1".parse().unwrap(), "02:00:00:00:00:02".parse().unwrap()),
    ];
    assert_eq!(spots, expected.into());
    assert_eq!(other.differing_spots(&one), spots);
    let every: BTreeSet<_> = one.spots().union(&other.spots()).cloned().collect();
    for spot in every {
        assert_eq!(one.agrees_at(&other, &spot), !spots.contains(&spot), "{spot:?}");
    }
    spots.iter().for_each(|spot| other.clear_at(spot));
    other.absorb(one.at(&spots));
    assert_eq!(other, one);
}

fn state(text: &str) -> State {
    text.parse().unwrap()
}
