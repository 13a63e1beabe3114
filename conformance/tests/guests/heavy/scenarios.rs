use std::fs;
use std::path::Path;

use conformance::guest::Guest;

use crate::heavy::{SCENARIOS, guests, run_test_program};

/// The backends whose scenarios are left out on a kernel without their driver, as this machine's may be.
const FAMILIES: [&str; 2] = ["ipip_", "wireguard_"];

#[test]
fn what_the_daemon_keeps_of_wireguard_and_ipip_holds_on_a_kernel_that_has_them() {
    let mut lab = guests();
    let guest = lab.guest(1).unwrap();
    let count = send_scenarios(guest);
    let said = run_test_program(
        guest,
        SCENARIOS,
        "--exact every_scenario_holds_on_the_real_kernel",
    );
    assert!(said.contains(&format!("{count} scenarios\n")), "{count}: {said}");
}

/// Writes the scenarios of the families into the guest, where their program looks for them, and returns how many they are.
fn send_scenarios(guest: &mut Guest) -> usize {
    // The program was built from the same tree as this one, and knows its own part of it by the path there.
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = tree.join("flanneld-rs/tests/scenarios");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files
        .filter(|file| {
            let name = file.file_name().unwrap().to_string_lossy();
            FAMILIES.iter().any(|family| name.starts_with(family))
        })
        .collect();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        guest.write(file.to_str().unwrap(), &text).unwrap();
    }
    for family in FAMILIES {
        assert!(files.iter().any(|file| file.to_string_lossy().contains(family)));
    }
    files.len()
}
