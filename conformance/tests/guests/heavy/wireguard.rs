use crate::heavy::{WIREGUARD, guests, run_test_program};

#[test]
fn wireguard_devices_and_peers_are_set_up_over_generic_netlink() {
    let mut lab = guests();
    let said = run_test_program(lab.guest(1).unwrap(), WIREGUARD, "");
    // The kernel loads the module by itself, as for any program.
    assert!(said.contains("\nwireguard "), "{said}");
}
