use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::node::{LIMIT, Node, ip, on_a_node};

/// systemd's socket is a file, or has a name that begins with `@` (`sd_notify(3)`).
#[test]
fn systemd_is_told_when_pods_can_start_and_when_the_daemon_ends() {
    on_a_node(|node| {
        let path = node.file("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        told_of_start_and_end(node, &by_path, path.to_str().unwrap());
    });
    on_a_node(|node| {
        let name = format!("flanneld-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        told_of_start_and_end(node, &by_name, &format!("@{name}"));
    });
}

fn told_of_start_and_end(node: &mut Node, socket: &UnixDatagram, name: &str) {
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = node.command(&[]);
    node.spawn(command.env("NOTIFY_SOCKET", name));
    node.wait("the daemon to wait for its configuration", || {
        node.log().contains("waiting for the network configuration")
    });
    assert_silent(socket);

    node.configure();
    assert_eq!(heard(socket), "READY=1", "{}", node.log());
    assert!(node.file("run/subnet.env").exists());
    assert!(ip("link show flannel.1").contains("UP"));
    assert!(ip("addr show flannel.1").contains("inet 10.244."));
    assert_silent(socket);

    node.stop();
    assert_eq!(heard(socket), "STOPPING=1", "{}", node.log());
    assert_silent(socket);
}

fn heard(socket: &UnixDatagram) -> String {
    let mut room = [0; 100];
    let length = socket.recv(&mut room).unwrap();
    String::from_utf8(room[..length].to_vec()).unwrap()
}

fn assert_silent(socket: &UnixDatagram) {
    socket.set_nonblocking(true).unwrap();
    let nothing = socket.recv(&mut [0; 100]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    socket.set_nonblocking(false).unwrap();
}
