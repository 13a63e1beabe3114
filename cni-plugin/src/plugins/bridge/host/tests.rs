use cni_types::{AddResult, ContainerId, NetConf, NetworkName};
use netstate::{AdminState, VethPeer};
use nix::sched::{CloneFlags, unshare};

use super::super::conf::Conf;
use super::*;

const NO_MAC: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);

/// Runs a test in a network namespace of its own.
fn on_a_node(test: impl FnOnce() + Send) {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        test();
    };
    std::thread::scope(|scope| scope.spawn(inside).join().unwrap());
}

fn veth() -> HostVeth {
    let target = Target {
        container_id: ContainerId::new("a").unwrap(),
        ifname: IfName::new("eth0").unwrap(),
    };
    HostVeth::of(&NetworkName::new("cbr0").unwrap(), &target)
}

fn conf() -> Conf {
    let text = r#"{"cniVersion":"1.0.0","name":"cbr0","type":"bridge","hairpinMode":true}"#;
    Conf::parse(&NetConf::parse(text.as_bytes()).unwrap(), "").unwrap()
}

fn attachment() -> Attachment {
    let ifname = IfName::new("eth0").unwrap();
    Attachment::new(&conf(), &ifname, &AddResult::default(), NO_MAC).unwrap()
}

/// Makes a pair of virtual interfaces that is no bridge's port.
fn make_pair(host: &mut Host, name: &IfName, mac: MacAddr, peer: &str) {
    let peer = VethPeer {
        name: IfName::new(peer).unwrap(),
        mac: None,
        netns: None,
    };
    let link = Link {
        kind: LinkKind::Veth(Some(peer)),
        mac: Some(mac),
        mtu_bytes: None,
        admin: AdminState::Down,
        port: None,
    };
    for result in host.kernel.apply(&[Op::AddLink(name.clone(), link)]) {
        result.unwrap();
    }
}

fn links(host: &mut Host) -> Vec<IfName> {
    let links = host.kernel.inventory().unwrap().links;
    let mut names: Vec<_> = links.into_iter().map(|link| link.name).collect();
    names.retain(|name| name.as_str() != "lo");
    names.sort();
    names
}

#[test]
fn an_interface_whose_making_was_not_acknowledged_is_undone() {
    on_a_node(|| {
        let (mut host, veth) = (Host::open().unwrap(), veth());
        make_pair(&mut host, &veth.names[1], NO_MAC, "stranger");
        make_pair(&mut host, &veth.names[0], veth.mac, "own");
        host.undo(&veth, &Made::default()).unwrap();
        let mut strangers = vec![veth.names[1].clone(), IfName::new("stranger").unwrap()];
        strangers.sort();
        assert_eq!(links(&mut host), strangers);
    });
}

#[test]
fn an_interface_whose_making_was_not_acknowledged_is_completed_by_the_next_pass() {
    on_a_node(|| {
        let (mut host, veth) = (Host::open().unwrap(), veth());
        make_pair(&mut host, &veth.names[0], veth.mac, "eth0");
        let attachment = attachment();
        let own = conf();
        let request = Request {
            own: &own,
            attachment: &attachment,
            veth: &veth,
            bridge_mac: NO_MAC,
        };
        let mut made = Made::default();
        let attached = host
            .attach(&request, Netns::current().unwrap(), &mut made)
            .unwrap();
        assert_eq!(attached.veth, veth.names[0]);
        let observed = observe(&mut host.kernel, &links_only(&veth.names), HOST).unwrap();
        let port = observed.links[&veth.names[0]].port.as_ref().unwrap();
        assert_eq!((port.bridge.as_str(), port.hairpin), ("cni0", true));
        host.undo(&veth, &made).unwrap();
        assert_eq!(links(&mut host), []);
    });
}
