use super::*;
use crate::extension::{Command, ExtensionSettings, Facts, Job, Ran, Said, Stage as RanStage};
use crate::status::PeerState;

const CONF: &str = "{\"Network\": \"10.244.0.0/16\", \"Backend\": {\"Type\": \"extension\"}}";

#[test]
fn the_commands_at_the_start_run_before_and_after_the_lease_is_acquired() {
    let mut node = Node::new(extension_settings(Some("pre"), Some("post"), &[]));
    let pre = start(&mut node);
    assert_eq!((pre.line.as_str(), &pre.job), ("pre", &Job::PreStartup));
    let said = Said {
        output: "a \"word\"".to_owned(),
        words: String::new(),
    };
    let actions = node.handle(at(1), Event::CommandDone(Ok(said)));
    let [Action::AcquireLease(attrs)] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(attrs.backend_type, "extension");
    assert_eq!(attrs.backend_data.as_deref(), Some(r#""a \"word\"""#));
    let acquired = node.handle(at(1), Event::LeaseAcquired(Ok(extension_lease(250, ""))));
    let [Action::RunCommand(post)] = acquired.as_slice() else {
        panic!("{acquired:?}")
    };
    assert_eq!(post.line, "post");
    assert_eq!(
        post.job.variables(),
        [
            ("NETWORK", "10.244.0.0/16"),
            ("SUBNET", "10.244.250.0/24"),
            ("IPV6SUBNET", ""),
            ("PUBLIC_IP", "192.168.77.250"),
            ("PUBLIC_IPV6", ""),
        ]
    );
    assert_eq!(node.subnet_env(), None);
    let actions = node.handle(at(1), Event::CommandDone(Ok(Said::default())));
    assert!(actions.contains(&Action::WatchLeases), "{actions:?}");
    assert!(node.subnet_env().is_some());
}

#[test]
fn a_command_at_the_start_that_fails_ends_the_daemon() {
    let mut node = Node::new(extension_settings(Some("pre"), None, &[]));
    start(&mut node);
    let ended = node.handle(at(1), Event::CommandDone(Err("exit status: 1: no".to_owned())));
    let reason = StopReason::Command {
        command: "PreStartupCommand",
        reason: "exit status: 1: no".to_owned(),
    };
    assert_eq!(
        reason.to_string(),
        "the PreStartupCommand in the network configuration failed: exit status: 1: no"
    );
    assert_eq!(ended, [Action::Stop(reason)]);

    let mut node = Node::new(extension_settings(None, Some("post"), &[]));
    asks_for_lease(&mut node, State::default(), None);
    node.handle(at(1), Event::LeaseAcquired(Ok(extension_lease(250, ""))));
    let ended = node.handle(at(1), Event::CommandDone(Err("no".to_owned())));
    assert!(
        matches!(ended.as_slice(), [Action::Stop(StopReason::Command { command, .. })] if *command == "PostStartupCommand"),
        "{ended:?}"
    );
}

#[test]
fn each_usable_lease_has_a_command_and_what_fails_is_told_until_it_works() {
    let mut bad = extension_lease(3, "");
    bad.attrs.backend_data = Some("{\"VNI\":1}".to_owned());
    let mut bench = holding(&[], &[extension_lease(1, "\"one\""), bad, lease(4, None)]);
    let command = run_of(&bench.run(|_, _| {})).unwrap();
    let facts = Facts {
        subnet: "10.244.1.0/24".to_owned(),
        public_ip: "192.168.77.1".to_owned(),
        data: "one".to_owned(),
        ..Facts::default()
    };
    assert_eq!(
        (command.line.as_str(), command.job.input().as_str()),
        ("add", "one\n")
    );
    assert_eq!(command.job, Job::SubnetAdd { lease: key(1), facts });
    let counts = bench.node.status(bench.clock()).peers;
    assert_eq!((counts.pending, counts.refused, counts.programmed), (1, 2, 0));

    bench.now = Duration::from_secs(10);
    bench.deliver(Event::CommandDone(Err("exit status: 2: no".to_owned())));
    let status = bench.node.status(bench.clock());
    assert_eq!((status.ready, status.peers.failing), (false, 1));
    let trouble = &status.commands.unwrap().troubles[0];
    assert_eq!(
        (
            trouble.command.as_str(),
            trouble.lease.as_str(),
            trouble.error.as_str(),
            trouble.attempts
        ),
        ("SubnetAddCommand", "10.244.1.0-24", "exit status: 2: no", 1)
    );
    let peers = bench.node.peers_after(None, 10);
    let (_, peer) = peers.iter().find(|(lease, _)| *lease == key(1)).unwrap();
    assert_eq!(
        peer.error.as_deref(),
        Some("SubnetAddCommand: exit status: 2: no")
    );
    assert_eq!(
        (peer.state, peer.attempts, peer.way),
        (PeerState::Failing, 1, None)
    );

    let due = bench.node.wake_at(bench.clock()).unwrap();
    assert_eq!(due, Duration::from_millis(10_500));
    bench.now = due;
    // Somebody else may have done it before.
    for name in ["SubnetRemoveCommand", "SubnetAddCommand"] {
        assert_eq!(run_of(&bench.tick()).unwrap().job.name(), name);
        bench.deliver(Event::CommandDone(Ok(Said::default())));
    }
    bench.run(|_, _| {});
    let status = bench.node.status(bench.clock());
    assert_eq!(
        (status.ready, status.peers.programmed),
        (true, 1),
        "{:?}",
        status.reason
    );
}

#[test]
fn a_ready_node_whose_command_fails_for_some_time_is_not_ready() {
    let mut bench = holding(&[], &[]);
    bench.run(|_, _| {});
    assert_eq!(bench.node.readiness(bench.now), Ok(()));
    bench.put(extension_lease(1, ""));
    assert!(run_of(&bench.run(|_, _| {})).is_some());
    bench.deliver(Event::CommandDone(Err("no".to_owned())));
    assert_eq!(bench.node.readiness(bench.now + Duration::from_secs(5)), Ok(()));
    let reason = bench
        .node
        .readiness(bench.now + Duration::from_secs(6))
        .unwrap_err();
    assert_eq!(
        reason.to_string(),
        "SubnetAddCommand for 10.244.1.0-24 has failed for 6 s: no"
    );
}

#[test]
fn a_lease_that_says_something_else_is_undone_as_it_was_and_done_as_it_is() {
    let mut bench = holding(&[], &[extension_lease(1, "\"one\"")]);
    assert_eq!(
        told(&bench.run(|_, _| {})),
        Some(("SubnetAddCommand", "one".to_owned()))
    );
    bench.deliver(Event::CommandDone(Ok(Said::default())));
    bench.put(extension_lease(1, "\"two\""));
    assert_eq!(
        told(&bench.run(|_, _| {})),
        Some(("SubnetRemoveCommand", "one".to_owned()))
    );
    bench.deliver(Event::CommandDone(Ok(Said::default())));
    assert_eq!(
        told(&bench.run(|_, _| {})),
        Some(("SubnetAddCommand", "two".to_owned()))
    );
    bench.deliver(Event::CommandDone(Ok(Said::default())));
    bench.deliver(Event::Lease(LeaseEvent::Remove(key(1))));
    assert_eq!(
        told(&bench.run(|_, _| {})),
        Some(("SubnetRemoveCommand", "two".to_owned()))
    );
}

#[test]
fn what_an_earlier_run_did_is_undone_only_once_the_store_is_trusted() {
    // The store does not know this node, and most leases are gone.
    let mut node = Node::new(extension_settings(None, None, &[1, 2]));
    asks_for_lease(&mut node, State::default(), None);
    let mut bench = Bench::asking(node);
    let own = extension_lease(250, "");
    bench.deliver(Event::LeaseAcquired(Ok(own.clone())));
    bench.deliver(snapshot(&[own, extension_lease(1, "")]));
    assert_eq!(told(&bench.run(|_, _| {})), None);
    bench.now = Duration::from_secs(60);
    assert_eq!(told(&bench.tick()), Some(("SubnetRemoveCommand", String::new())));
}

/// A node that holds its lease, with these leases of others, and what commands of an earlier run did.
fn holding(ran: &[u8], others: &[Lease]) -> Bench {
    let mut node = Node::new(extension_settings(None, None, ran));
    let own = extension_lease(250, "");
    let attrs = asks_for_lease(&mut node, State::default(), Some(own.clone()));
    assert_eq!(attrs.backend_data, None);
    let mut bench = Bench::asking(node);
    bench.deliver(Event::LeaseAcquired(Ok(own.clone())));
    let leases: Vec<_> = others.iter().cloned().chain([own]).collect();
    bench.deliver(snapshot(&leases));
    bench
}

fn extension_settings(pre: Option<&str>, post: Option<&str>, ran: &[u8]) -> Settings {
    let side = Side {
        carrier: Carrier::Extension,
        ..side()
    };
    let facts = |n: u8| Facts {
        subnet: subnet(n).to_string(),
        public_ip: public_ip(n).to_string(),
        ..Facts::default()
    };
    let ran = ran.iter().map(|n| {
        let stage = RanStage::Done;
        (
            key(*n),
            Ran {
                facts: facts(*n),
                stage,
            },
        )
    });
    Settings {
        extension: Some(ExtensionSettings {
            pre_startup: pre.map(str::to_owned),
            post_startup: post.map(str::to_owned),
            subnet_add: "add".to_owned(),
            subnet_remove: "remove".to_owned(),
            ran: ran.collect(),
        }),
        ..settings_of(&[side], CONF)
    }
}

fn extension_lease(n: u8, data: &str) -> Lease {
    let mut lease = lease(n, None);
    lease.attrs.backend_type = "extension".to_owned();
    lease.attrs.backend_data = (!data.is_empty()).then(|| data.to_owned());
    lease
}

/// Starts a node whose first command runs before it asks for its lease.
fn start(node: &mut Node) -> Command {
    node.handle(at(0), Event::Start);
    node.handle(at(0), Event::Observed(Ok(State::default())));
    let actions = node.handle(at(0), Event::LeaseFound(Ok(None)));
    assert_eq!(actions.len(), 1, "{actions:?}");
    run_of(&actions).unwrap()
}

fn run_of(actions: &[Action]) -> Option<Command> {
    let mut runs = actions.iter().filter_map(|action| {
        let Action::RunCommand(command) = action else {
            return None;
        };
        Some(command.clone())
    });
    let run = runs.next();
    assert!(runs.next().is_none(), "{actions:?}");
    run
}

/// The command that is to run, with the data of its lease.
fn told(actions: &[Action]) -> Option<(&'static str, String)> {
    let command = run_of(actions)?;
    Some((command.job.name(), command.job.input().trim().to_owned()))
}
