use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::extension::OwnFacts;
use crate::testing::key;

#[test]
fn a_command_is_told_of_the_peer_in_its_arguments_its_environment_and_its_input() {
    let bed = Bed::new();
    let script =
        bed.script("echo \"args $*\"; echo \"env $SUBNET $PUBLIC_IP $IPV6SUBNET.\"; cat; echo words >&2");
    let said = bed
        .run(&bed.add(&format!(
            "{script} ${{SUBNET}} via=$PUBLIC_IP $IPV6SUBNET. $NOTHING"
        )))
        .unwrap();
    assert_eq!(
        said.output,
        "args 10.244.1.0/24 via=192.168.77.1 . \nenv 10.244.1.0/24 192.168.77.1 .\nthe data"
    );
    assert!(said.words.ends_with("the data; words"), "{}", said.words);
}

#[test]
fn the_command_at_the_start_is_told_of_this_node() {
    let bed = Bed::new();
    let own = OwnFacts {
        network: "10.244.0.0/16".to_owned(),
        subnet: "10.244.1.0/24".to_owned(),
        ..OwnFacts::default()
    };
    let command = Command {
        line: "echo $NETWORK $SUBNET .$PUBLIC_IPV6".to_owned(),
        job: Job::PostStartup(own),
    };
    assert_eq!(bed.run(&command).unwrap().output, "10.244.0.0/16 10.244.1.0/24 .");
    assert_eq!(bed.ran(), []);
}

#[test]
fn a_failure_has_the_last_words_and_absent_programs_are_named() {
    let bed = Bed::new();
    let script = bed.script("echo begun; echo 'no such route' >&2; exit 2");
    let absent = bed.dir.path().join("absent").display().to_string();
    for (line, words) in [
        (script, "exit status: 2: begun; no such route".to_owned()),
        ("false".to_owned(), "exit status: 1: it said nothing".to_owned()),
        (
            absent.clone(),
            format!("cannot run {absent:?}: No such file or directory (os error 2)"),
        ),
    ] {
        let failed = bed.run(&bed.add(&line)).unwrap_err();
        assert_eq!(sentence(&failed), words);
    }
}

#[test]
fn what_is_to_go_into_the_lease_must_fit_and_other_output_need_not() {
    let bed = Bed::new();
    let script = bed.script("head -c 70000 /dev/zero | tr '\\0' x");
    let pre = Command {
        line: script.clone(),
        job: Job::PreStartup,
    };
    let failed = bed.run(&pre).unwrap_err();
    assert!(matches!(failed, CommandError::TooMuch), "{failed}");
    let said = bed.run(&bed.add(&script)).unwrap();
    assert!(said.words.chars().count() < 400, "{}", said.words);
}

#[test]
fn what_was_run_is_known_to_the_next_run_until_it_is_undone() {
    let bed = Bed::new();
    let (good, bad) = (bed.script("exit 0"), bed.script("exit 1"));
    bed.run(&bed.add(&good)).unwrap();
    assert_eq!(bed.ran(), [Stage::Inherited], "the command is another one");
    assert_eq!(bed.recalled(&good, false), [Stage::Done]);
    assert_eq!(bed.recalled(&good, true), [Stage::Inherited]);
    let mode = fs::metadata(bed.records.path(key(1)))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    bed.run(&bed.remove(&bad, false)).unwrap_err();
    assert_eq!(
        bed.recalled(&good, false),
        [Stage::Inherited],
        "half of it may be undone"
    );
    bed.run(&bed.remove(&bad, true)).unwrap_err();
    assert_eq!(bed.ran(), [], "nobody tries again");

    bed.run(&bed.add(&bad)).unwrap_err();
    assert_eq!(bed.recalled(&bad, false), [Stage::Inherited]);
    bed.run(&bed.remove(&good, false)).unwrap();
    assert_eq!(bed.ran(), []);
    // Nothing is run for a blank line, and it is known all the same that there is nothing to do.
    bed.run(&bed.add(" ")).unwrap();
    assert_eq!(bed.recalled(" ", false), [Stage::Done]);
}

#[test]
fn what_is_about_to_be_done_is_written_down_before_it_is_begun() {
    let bed = Bed::new();
    let path = bed.records.path(key(1));
    let script = bed.script(&format!("cat {}", path.display()));
    let said = bed.run(&bed.add(&script)).unwrap();
    let record: Record = serde_json::from_str(&said.output).unwrap();
    assert_eq!((record.done, record.facts), (false, facts()));
    fs::remove_file(&path).unwrap();
    fs::remove_dir(path.parent().unwrap()).unwrap();
    fs::write(path.parent().unwrap(), "in the way").unwrap();
    let failed = bed.run(&bed.add("true")).unwrap_err();
    assert!(matches!(failed, CommandError::File(_)), "{failed}");
}

#[test]
fn what_is_of_another_boot_is_forgotten_and_what_is_no_record_is_left_alone() {
    let bed = Bed::new();
    bed.run(&bed.add("true")).unwrap();
    let strange = bed.records.dir.join("notes.json");
    fs::write(&strange, "{}").unwrap();
    fs::create_dir(bed.records.path(key(2))).unwrap();
    fs::write(bed.records.path(key(3)), [0xff]).unwrap();
    let later = Records {
        boot: "another".to_owned(),
        ..bed.records.clone()
    };
    assert_eq!(bed.records.leases().unwrap(), [key(1)]);
    assert_eq!(later.leases().unwrap(), []);
    assert_eq!(later.recall("true", false).unwrap(), BTreeMap::new());
    assert!(!bed.records.path(key(1)).exists() && strange.exists());
}

#[test]
fn what_others_may_have_undone_is_looked_after_again() {
    let bed = Bed::new();
    bed.records.distrust().unwrap();
    assert!(!bed.records.dir.exists());
    bed.run(&bed.add("true")).unwrap();
    assert_eq!(bed.recalled("true", false), [Stage::Done]);
    bed.records.distrust().unwrap();
    assert_eq!(bed.recalled("true", false), [Stage::Inherited]);
}

#[test]
fn what_goes_into_the_lease_is_not_shown() {
    let bed = Bed::new();
    let script = bed.script("echo secret; echo told >&2");
    let command = Command {
        line: script,
        job: Job::PreStartup,
    };
    let said = bed.run(&command).unwrap();
    assert_eq!((said.output.as_str(), said.words.as_str()), ("secret", "told"));
}

/// A directory with the records and scripts of a test.
struct Bed {
    dir: tempfile::TempDir,
    records: Records,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::beside(&dir.path().join("subnet.env")).unwrap();
        Self { dir, records }
    }

    /// A program of its own: a file that another test's process still holds open for writing could not be run.
    fn script(&self, body: &str) -> String {
        let number = fs::read_dir(self.dir.path()).unwrap().count();
        let path = self.dir.path().join(format!("script-{number}"));
        fs::write(&path, body).unwrap();
        format!("/bin/sh {}", path.display())
    }

    fn add(&self, line: &str) -> Command {
        Command {
            line: line.to_owned(),
            job: Job::SubnetAdd {
                lease: key(1),
                facts: facts(),
            },
        }
    }

    fn remove(&self, line: &str, is_last: bool) -> Command {
        Command {
            line: line.to_owned(),
            job: Job::SubnetRemove {
                lease: key(1),
                facts: facts(),
                is_last,
            },
        }
    }

    fn run(&self, command: &Command) -> Result<Said, CommandError> {
        self.records.run(command)
    }

    fn ran(&self) -> Vec<Stage> {
        self.recalled("another command", false)
    }

    fn recalled(&self, subnet_add: &str, is_remade: bool) -> Vec<Stage> {
        let ran = self.records.recall(subnet_add, is_remade).unwrap();
        ran.into_values()
            .map(|ran| {
                assert_eq!(ran.facts, facts());
                ran.stage
            })
            .collect()
    }
}

fn facts() -> Facts {
    Facts {
        subnet: "10.244.1.0/24".to_owned(),
        public_ip: "192.168.77.1".to_owned(),
        data: "the data".to_owned(),
        ..Facts::default()
    }
}
