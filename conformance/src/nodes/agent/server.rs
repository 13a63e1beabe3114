use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};

use super::echo::{Checksum, DRAIN, ECHO, ECHOED, Pattern, SINK, WHO};

/// Of a thread that serves one connection: many are open at the same time.
const STACK_BYTES: usize = 256 << 10;
/// Room for the largest datagram.
const DATAGRAM_BYTES: usize = 1 << 16;
/// Room for what arrives while the machine is busy elsewhere, in bytes.
const RECEIVE_BUFFER: usize = 8 << 20;
/// How often a free port is looked for that TCP and UDP both have.
const PORT_TRIES: u8 = 20;

/// Starts to serve on a port of the calling thread's network namespace in TCP and UDP, in both families where there are
/// both; on any free port when it is 0. Returns the port.
///
/// # Errors
/// Fails when the port is taken.
pub(super) fn start(port: u16) -> Result<u16> {
    let (listener, socket) = sockets(port)?;
    let port = listener.local_addr().context("asking for a port")?.port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // Who has hung up does not want to be served.
            let Ok(stream) = stream else { continue };
            let serve = move || serve(stream).ok();
            // Without a thread the client sees its connection end.
            thread::Builder::new().stack_size(STACK_BYTES).spawn(serve).ok();
        }
    });
    thread::spawn(move || {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            // An error is one that a former answer met on its way.
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let answer = buffer.get(..length).and_then(|bytes| answer(bytes, peer.ip()));
            // What cannot be sent is missed by the client.
            answer.map(|answer| socket.send_to(&answer, peer).ok());
        }
    });
    Ok(port)
}

fn sockets(port: u16) -> Result<(TcpListener, UdpSocket)> {
    let mut tries = if port == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let listener = listen(port)?;
        let own = listener.local_addr().context("asking for a port")?;
        match UdpSocket::bind(own) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && tries > 0 => {}
            socket => {
                let socket = socket.context("opening a server's port for UDP")?;
                make_room(&socket, RECEIVE_BUFFER)?;
                return Ok((listener, socket));
            }
        }
    }
}

/// Gives a socket room for packets that wait, in bytes; in an unprivileged pod as much as its node allows
/// (`net.core.rmem_max`).
///
/// # Errors
/// Fails when the kernel refuses both.
pub(super) fn make_room(socket: &UdpSocket, bytes: usize) -> Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &bytes)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &bytes))
        .context("making room for packets")
}

/// Both families with one socket, or IPv4 alone on a kernel that has no IPv6.
fn listen(port: u16) -> Result<TcpListener> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let only = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    TcpListener::bind(both)
        .or_else(|_| TcpListener::bind(only))
        .with_context(|| format!("listening on port {port}"))
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?.ip().to_canonical();
    let mut wants = [0];
    stream.read_exact(&mut wants)?;
    match wants {
        [WHO] => stream.write_all(peer.to_string().as_bytes()),
        [ECHO] => {
            let mut buffer = vec![0; 1024];
            loop {
                let length = stream.read(&mut buffer)?;
                if length == 0 {
                    return Ok(());
                }
                stream.write_all(buffer.get(..length).unwrap_or_default())?;
            }
        }
        [wants @ (SINK | DRAIN)] => {
            let (mut buffer, mut total, mut sum) = (vec![0; 1 << 17], 0_u64, Checksum::new());
            loop {
                let length = stream.read(&mut buffer)?;
                if length == 0 {
                    break;
                }
                let bytes = buffer.get(..length).unwrap_or_default();
                if wants == SINK {
                    sum.take(bytes);
                }
                total += bytes.len() as u64;
            }
            write!(stream, "{total} {}", sum.value())
        }
        _ => Ok(()),
    }
}

/// The answer to a datagram: as long as it was itself, so that both ways carry the same.
fn answer(bytes: &[u8], peer: IpAddr) -> Option<Vec<u8>> {
    match *bytes.first()? {
        WHO => {
            let words = format!("{} {}\n", peer.to_canonical(), Checksum::of(bytes).value());
            let mut answer = Pattern::datagram(WHO, bytes.len().max(words.len()));
            answer
                .iter_mut()
                .zip(words.bytes())
                .for_each(|(old, new)| *old = new);
            Some(answer)
        }
        ECHO => {
            let mut answer = bytes.to_vec();
            answer.iter_mut().take(1).for_each(|first| *first = ECHOED);
            Some(answer)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_is_a_question_to_another_server() {
        let peer = IpAddr::from([10, 0, 0, 1]);
        for question in [
            Pattern::datagram(WHO, 64),
            Pattern::datagram(ECHO, 64),
            vec![WHO],
            vec![ECHO],
        ] {
            let given = answer(&question, peer).unwrap();
            assert!(given.len() >= question.len());
            assert_eq!(answer(&given, peer), None, "{given:?}");
        }
        assert_eq!(answer(&[], peer), None);
    }
}
