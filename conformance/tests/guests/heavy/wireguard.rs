use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::heavy::guests;

/// The test of the crate `netlink`, which asserts more where the kernel has WireGuard; the newest that was built beside
/// this program.
const TEST: &str = "wireguard-";

pub(crate) fn test_programs() -> Vec<PathBuf> {
    let this = std::env::current_exe().unwrap();
    let built = fs::read_dir(this.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_test = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(TEST) && path.extension().is_none()
    };
    let newest = built
        .filter(is_test)
        .max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    newest.into_iter().collect()
}

#[test]
fn wireguard_devices_and_peers_are_set_up_over_generic_netlink() {
    let programs = test_programs();
    let [program] = programs.as_slice() else {
        panic!("first build it: cargo test -p netlink --test wireguard --no-run");
    };
    let name = program.file_name().unwrap().to_string_lossy().into_owned();
    let mut lab = guests();
    let guest = lab.guest(1).unwrap();
    // The kernel loads the module by itself, as for any program.
    let answer = guest
        .exec(&format!("/opt/cni/bin/{name} && lsmod"), Duration::from_secs(60))
        .unwrap();
    assert_eq!(answer.status, 0, "{}{}", answer.stdout, answer.stderr);
    assert!(answer.stdout.contains("wireguard"), "{}", answer.stdout);
}
