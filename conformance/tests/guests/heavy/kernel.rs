use crate::heavy::guests;

#[test]
fn the_guests_run_debians_kernel_and_see_each_other() {
    let mut lab = guests();
    let version = lab.guest(1).unwrap().sh("uname -r").unwrap();
    assert!(version.trim().ends_with("-cloud-amd64"), "{version}");
    lab.wire().capture();
    for target in ["192.168.88.2", "fd00:88::2"] {
        let answered = lab
            .guest(1)
            .unwrap()
            .ping("", target.parse().unwrap(), 2)
            .unwrap();
        assert_eq!(answered, 2, "{target}");
    }
    let capture = lab.wire().captured();
    let addresses = [192, 168, 88, 1, 192, 168, 88, 2];
    assert!(
        capture.count_with(&addresses) >= 2,
        "{} frames",
        capture.frames.len()
    );
}

#[test]
fn a_command_that_hangs_costs_only_its_limit() {
    let mut lab = guests();
    let guest = lab.guest(2).unwrap();
    let error = guest
        .exec("sleep 3", std::time::Duration::from_millis(200))
        .unwrap_err();
    assert!(format!("{error:#}").contains("no answer within"), "{error:#}");
    assert_eq!(guest.sh("echo again").unwrap(), "again\n");
}
