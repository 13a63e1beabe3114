//! Plugins with one defect each: the cases that are about it fail, and tell what they saw.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::thread;

use conformance::lab::copy_program;

use crate::support::{KNOWN, REFERENCE, cases, judge, names, ours, told};

/// A program of the reference's that a script stands before.
struct Defect {
    program: &'static str,
    /// What the script does; `$real` is the program.
    script: &'static str,
    /// The ids that are run.
    only: &'static str,
    /// The cases that have to fail, and what one of them sees.
    fails: &'static [&'static str],
    sees: &'static str,
}

const DEFECTS: [Defect; 16] = [
    Defect {
        program: "bridge",
        script: "\"$real\"; status=$?; [ \"$CNI_COMMAND\" != DEL ] || echo done; exit $status",
        only: "ENV-02,DEL-09",
        fails: &[
            "ENV-02 ADD prints the result alone, DEL nothing",
            "DEL-09 nothing is on standard output",
        ],
        sees: "standard output: done",
    },
    Defect {
        program: "host-local",
        script: "[ \"$CNI_COMMAND\" != DEL ] || exit 0; exec \"$real\"",
        only: "DEL-01,CHK-06",
        fails: &[
            "DEL-01 the second and the third DEL succeed, and nothing is left",
            "DEL-01 the list can be deleted again and again, and nothing is left",
        ],
        sees: "+ file /var/lib/cni/networks/conformance/10.88.0.3",
    },
    Defect {
        program: "bridge",
        script: "case \"$CNI_COMMAND\" in ADD | DEL | CHECK | VERSION | '') exec \"$real\" ;; esac",
        only: "ENV-03",
        fails: &["ENV-03 an unknown command is refused by its name"],
        sees: "exit 0",
    },
    Defect {
        program: "bridge",
        script: "if [ \"$CNI_COMMAND\" = CHECK ]; then exit 0; fi; exec \"$real\"",
        only: "CHK",
        fails: &[
            "CHK-01 a configuration before 0.4.0, or of no version, is code 1",
            "CHK-02 without a previous result it is an error",
            "CHK-03 an address that is gone is found",
            "CHK-03 a route that is gone is found",
            "CHK-03 an interface that is down is found",
            "CHK-03 an interface that is gone is found",
            "CHK-03 another MAC is found",
            "CHK-03 a host's end that left its bridge is found",
            "CHK-03 a namespace that is gone is found",
            "CHK-07 a delegate is asked, and its error returned",
        ],
        sees: "exit 0",
    },
    Defect {
        program: "bridge",
        script: "\"$real\" | sed 's/\"cniVersion\": \"0.3.1\"/\"cniVersion\": \"0.4.0\"/'",
        only: "ADD-03,VER-03",
        fails: &["ADD-03 the result tells the version of the configuration, whichever it is"],
        sees: "\"cniVersion\":\"0.4.0\"",
    },
    Defect {
        program: "portmap",
        script: "[ \"$CNI_COMMAND\" != ADD ] || { echo '{\"cniVersion\": \"1.0.0\"}'; exit 0; }; exec \"$real\"",
        only: "ADD-04,PRV-01",
        fails: &[
            "ADD-04 the answer holds the previous result",
            "PRV-01 who has nothing to do passes on what it got",
        ],
        sees: "{\"cniVersion\":\"1.0.0\"}",
    },
    Defect {
        program: "bridge",
        script: "[ \"$CNI_CONTAINERID $CNI_COMMAND\" != 'a ADD' ] || ip -6 route add 2001:db8:7::/64 dev lo; \
                 exec \"$real\"",
        only: "DEL-01,CHK-06",
        fails: &[
            "DEL-01 the second and the third DEL succeed, and nothing is left",
            "DEL-01 the list can be deleted again and again, and nothing is left",
        ],
        sees: "+ route 2001:db8:7::/64 on lo",
    },
    Defect {
        program: "bridge",
        script: "[ \"$CNI_CONTAINERID $CNI_COMMAND\" != 'a ADD' ] || iptables-legacy -A INPUT -s 203.0.113.7 -j ACCEPT; \
                 exec \"$real\"",
        only: "DEL-01,CHK-06",
        fails: &[
            "DEL-01 the second and the third DEL succeed, and nothing is left",
            "DEL-01 the list can be deleted again and again, and nothing is left",
        ],
        sees: "+ rule of iptables -A INPUT -s 203.0.113.7/32 -j ACCEPT",
    },
    Defect {
        program: "bandwidth",
        script: "case \"$CNI_COMMAND\" in ADD) sed 's/\"runtimeConfig\"/\"ignored\"/' | exec \"$real\" ;; \
                 *) exec \"$real\" ;; esac",
        only: "CAP-02,CHN-02",
        fails: &[
            "CAP-02 bandwidth is taken as containerd writes it",
            "CAP-02 both directions are limited, each to its rate",
            "CHN-02 rates are limited at the peer of the container's interface, whatever stands before it",
        ],
        sees: "in []: veth",
    },
    Defect {
        program: "bandwidth",
        script: "sed 's/\"ingressRate\":8000000/\"ingressRate\":9000000/' | \"$real\"",
        only: "CAP-02",
        fails: &["CAP-02 both directions are limited, each to its rate"],
        sees: "in [FromContainer]: veth",
    },
    Defect {
        program: "portmap",
        script: "sed 's/,\"interface\":[0-9]*//g' | \"$real\"",
        only: "CHN-02,CAP-01",
        fails: &["CHN-02 ports lead to the address of the container's interface, whatever stands before it"],
        sees: "192.0.2.9",
    },
    Defect {
        program: "host-local",
        script: "out=$(\"$real\"); status=$?; printf %s \"$out\" | sed 's/\"code\": 999/\"code\": 7/'; exit $status",
        only: "ADD-12,ARG-02",
        fails: &["ADD-12 a pool that is exhausted is told as a matter of time, or in the plugin's own code"],
        sees: "\"code\":7",
    },
    Defect {
        program: "bridge",
        script: "out=$(\"$real\"); status=$?; printf %s \"$out\" | sed 's/\"code\": 999/\"code\": 3/'; exit $status",
        only: "ERR-03",
        fails: &["ERR-03 an ADD that fails beside what an earlier one made is not code 3"],
        sees: "\"code\":3",
    },
    Defect {
        program: "bridge",
        script: "sed 's/\"ipMasq\":true/\"ipMasq\":false/' | \"$real\"",
        only: "CFG-09",
        fails: &["CFG-09 ipMasq makes rules that masquerade, and without it there are none"],
        sees: "networks/conformance/10.88.0.3; + link veth",
    },
    Defect {
        program: "bridge",
        script: "if [ \"$CNI_COMMAND\" = DEL ]; then sed 's/\"prevResult\"/\"dropped\"/' | \"$real\"; \
                 else exec \"$real\"; fi",
        only: "PRV-06",
        fails: &["PRV-06 a delegate gets the previous result with CHECK and with DEL"],
        sees: "\"dropped\":{",
    },
    Defect {
        program: "bridge",
        script: "out=$(\"$real\"); status=$?; [ \"$CNI_COMMAND\" != ADD ] || ip -n a route flush 198.51.100.0/24; \
                 printf %s \"$out\" | sed 's|\"name\": \"cni0\"|\"name\": \"cni0\", \"sandbox\": \"/x\"|'; exit $status",
        only: "ADD-08,RES-05",
        fails: &[
            "ADD-08 a route without a gateway goes by that of address management",
            "RES-05 the container's interface has the path as sandbox, the host's have none",
            "RES-05 bridge, host's end and container's interface stand in this order",
        ],
        sees: "\"sandbox\":\"/x\"",
    },
];

#[test]
fn each_defect_fails_the_cases_that_are_about_it_and_no_other() {
    // Side by side, because most of the time is waited: what is left might still go by itself.
    for some in DEFECTS.chunks(4) {
        thread::scope(|scope| {
            for defect in some {
                scope.spawn(|| is_found(defect));
            }
        });
    }
}

fn is_found(defect: &Defect) {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path(), defect);
    // What is known of the plugins themselves is no news.
    let run = judge(dir.path(), &["--only", defect.only, "--known", KNOWN]);
    let wanted: BTreeSet<_> = defect.fails.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(
        names(&run.report, "failed"),
        wanted,
        "{}\n{}",
        defect.script,
        told(&run.report)
    );
    assert!(!run.good);
    let failed = cases(&run.report, "failed");
    let sees = |case: &&serde_json::Value| case["observed"].as_str().unwrap().contains(defect.sees);
    assert!(failed.iter().any(sees), "{}", told(&run.report));
}

/// The reference's plugins know neither verb, so that these cases fail on ours alone.
#[test]
fn status_and_gc_that_do_nothing_fail_their_cases() {
    let (dir, real) = (tempfile::tempdir().unwrap(), ours());
    fs::create_dir(dir.path().join("real")).unwrap();
    copy_program(&real.path().join("flannel"), &dir.path().join("real/flannel")).unwrap();
    symlink("real/flannel", dir.path().join("portmap")).unwrap();
    let script =
        "#!/bin/sh\ncase \"$CNI_COMMAND\" in GC | STATUS) exit 0 ;; esac\nexec \"${0%/*}/real/flannel\"\n";
    program(&dir.path().join("flannel"), script);
    let run = judge(dir.path(), &["--only=STA,GC", "--jobs=8"]);
    let wanted = [
        "GC-01 a configuration before 1.1.0, or of no version, is code 1",
        "GC-02 what is not valid goes, what is valid stays",
        "GC-02 the list is taken by the key of the specification alone",
        "GC-02 the list is taken by the key of the tag spec-v1.1.0 alone",
        "GC-03 null is the empty list of libcni",
        "GC-05 what a delegate fails in is told",
        "GC-06 a delegate is called",
        "GC-08 GC and ADDs at the same time do each other no harm",
        "STA-01 a configuration before 1.1.0, or of no version, is code 1",
        "STA-03 flannel without subnet file is not available",
        "STA-05 a delegate is asked, and its error returned",
        "STA-05 a delegate that is nowhere is an error",
    ];
    let wanted: BTreeSet<_> = wanted.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(names(&run.report, "failed"), wanted, "{}", told(&run.report));
}

#[test]
fn a_difference_that_is_known_but_not_there_fails_the_run() {
    let known = tempfile::NamedTempFile::new().unwrap();
    fs::write(
        known.path(),
        "DEL-09 | bridge | nothing is on standard output | it was so once\n",
    )
    .unwrap();
    let run = judge(
        REFERENCE.as_ref(),
        &["--only=DEL-09", "--known", known.path().to_str().unwrap()],
    );
    assert_eq!((run.good, cases(&run.report, "stale").len()), (false, 1));
}

/// The reference's plugins, one of them behind a script.
fn install(dir: &Path, defect: &Defect) {
    for name in ["bridge", "host-local", "portmap", "loopback", "bandwidth"] {
        let real = format!("{REFERENCE}/{name}");
        if name == defect.program {
            program(
                &dir.join(name),
                &format!("#!/bin/sh\nreal={real}\n{}\n", defect.script),
            );
        } else {
            symlink(real, dir.join(name)).unwrap();
        }
    }
}

fn program(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
