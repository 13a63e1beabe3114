//! How long a small message and its answer take, over plain sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::cpu::{self, Pair};
use crate::lab::Namespaces;

/// A message; the answer is the same.
const BYTES: usize = 64;
/// Round trips that are not counted: addresses are resolved, connections are tracked and caches filled by them.
const FIRST: usize = 50;
/// Round trips of one turn.
const COUNTED: usize = 500;
/// No answer takes longer.
const LIMIT: Duration = Duration::from_secs(5);

/// A port at which nobody listens in a lab (RFC 863), and how long its refusal may take.
const DISCARD: u16 = 9;
const PATIENCE: Duration = Duration::from_millis(200);

/// Where both ends are.
#[derive(Clone, Copy)]
pub(super) struct Ends<'a> {
    pub(super) client: &'a Namespaces,
    pub(super) server: &'a Namespaces,
    /// The server's address.
    pub(super) address: IpAddr,
}

/// Round trips of UDP, in microseconds.
///
/// # Errors
/// Fails when an answer does not come in time.
pub(super) fn udp(ends: Ends<'_>) -> Result<Vec<f64>> {
    between(ends, udp_server, udp_client)
}

/// Round trips of TCP on one connection, in microseconds.
///
/// # Errors
/// Fails when an answer does not come in time.
pub(super) fn tcp(ends: Ends<'_>) -> Result<Vec<f64>> {
    between(ends, tcp_server, tcp_client)
}

/// Whether an address is reached from the calling thread's network namespace: nobody listens, and it says so.
pub(super) fn answers(address: IpAddr) -> bool {
    let nobody = SocketAddr::new(address, DISCARD);
    TcpStream::connect_timeout(&nobody, PATIENCE).is_err_and(|err| err.kind() == ErrorKind::ConnectionRefused)
}

/// Runs both ends, each in its namespaces; the server tells where it listens. Both are on one processor: to wake another,
/// which may be a sleeping one of a virtual machine, takes longer than the whole way of a packet.
fn between(
    ends: Ends<'_>,
    server: fn(IpAddr, &Sender<SocketAddr>) -> Result<()>,
    client: fn(SocketAddr) -> Result<Vec<f64>>,
) -> Result<Vec<f64>> {
    let (listening, listens) = channel();
    let processor = Pair::look()?.client;
    thread::scope(|scope| {
        let serving = scope.spawn(move || {
            ends.server.run(move || {
                cpu::stay_on(processor)?;
                server(ends.address, &listening)
            })
        });
        let measured = match listens.recv() {
            Ok(target) => ends.client.run(|| {
                cpu::stay_on(processor)?;
                client(target)
            }),
            Err(_) => Ok(Vec::new()),
        };
        let served = serving
            .join()
            .map_err(|_| anyhow!("an answering thread panicked"))?;
        // What the client met is the cause of what the server did.
        let measured = measured?;
        served.map(|()| measured)
    })
}

fn timed(mut exchange: impl FnMut(&mut [u8; BYTES]) -> Result<()>) -> Result<Vec<f64>> {
    let mut message = [0; BYTES];
    let mut micros = Vec::with_capacity(COUNTED);
    for number in 0..FIRST + COUNTED {
        let begun = Instant::now();
        exchange(&mut message)?;
        let took = begun.elapsed().as_secs_f64() * 1e6;
        if number >= FIRST {
            micros.push(took);
        }
    }
    Ok(micros)
}

fn udp_client(target: SocketAddr) -> Result<Vec<f64>> {
    let socket = udp_socket(SocketAddr::new(unspecified(target.ip()), 0))?;
    socket.connect(target).context("addressing the other end")?;
    timed(|message| {
        socket.send(message).context("sending")?;
        socket.recv(message).map(drop).context("waiting for an answer")
    })
}

fn tcp_client(target: SocketAddr) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect_timeout(&target, LIMIT).context("connecting")?;
    at_once(&stream)?;
    timed(|message| {
        stream.write_all(message).context("sending")?;
        stream.read_exact(message).context("waiting for an answer")
    })
}

fn udp_server(address: IpAddr, listening: &Sender<SocketAddr>) -> Result<()> {
    let socket = udp_socket(SocketAddr::new(address, 0))?;
    tell(listening, socket.local_addr())?;
    let mut message = [0; BYTES];
    for _ in 0..FIRST + COUNTED {
        let (length, from) = socket.recv_from(&mut message).context("waiting for a message")?;
        let answer = message.get(..length).unwrap_or_default();
        socket.send_to(answer, from).context("answering")?;
    }
    Ok(())
}

fn tcp_server(address: IpAddr, listening: &Sender<SocketAddr>) -> Result<()> {
    tcp_server_within(LIMIT, address, listening)
}

/// A server that waits so long for a client.
fn tcp_server_within(limit: Duration, address: IpAddr, listening: &Sender<SocketAddr>) -> Result<()> {
    let listener = TcpListener::bind((address, 0)).context("listening")?;
    // The kernel waits no longer for a connection either (socket(7)).
    let micros = i64::try_from(limit.as_micros()).context("the limit is too long")?;
    setsockopt(&listener, sockopt::ReceiveTimeout, &TimeVal::microseconds(micros))
        .context("setting a limit")?;
    tell(listening, listener.local_addr())?;
    let (mut stream, _) = listener.accept().context("waiting for a connection")?;
    at_once(&stream)?;
    let mut message = [0; BYTES];
    for _ in 0..FIRST + COUNTED {
        stream.read_exact(&mut message).context("waiting for a message")?;
        stream.write_all(&message).context("answering")?;
    }
    Ok(())
}

fn tell(listening: &Sender<SocketAddr>, address: std::io::Result<SocketAddr>) -> Result<()> {
    let address = address.context("asking for the own port")?;
    listening.send(address).context("telling the own port")
}

fn udp_socket(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("binding {address}"))?;
    socket.set_read_timeout(Some(LIMIT)).context("setting a limit")?;
    Ok(socket)
}

fn at_once(stream: &TcpStream) -> Result<()> {
    stream
        .set_nodelay(true)
        .context("asking for small packets at once")?;
    stream.set_read_timeout(Some(LIMIT)).context("setting a limit")
}

fn unspecified(of: IpAddr) -> IpAddr {
    match of {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Server = fn(IpAddr, &Sender<SocketAddr>) -> Result<()>;
    type Client = fn(SocketAddr) -> Result<Vec<f64>>;

    #[test]
    fn both_protocols_measure_every_round_trip_in_both_families() {
        let both: [(Server, Client); 2] = [(udp_server, udp_client), (tcp_server, tcp_client)];
        for address in ["127.0.0.1", "::1"].map(|text| text.parse().unwrap()) {
            for (server, client) in both {
                let (listening, listens) = channel();
                let serving = thread::spawn(move || server(address, &listening));
                let micros = client(listens.recv().unwrap()).unwrap();
                serving.join().unwrap().unwrap();
                assert_eq!(micros.len(), COUNTED);
                assert!(micros.iter().all(|micros| *micros > 0.0));
            }
        }
    }

    #[test]
    fn an_address_that_refuses_is_reached() {
        assert!(answers("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_server_that_nobody_comes_to_ends() {
        let (listening, _listens) = channel();
        let begun = Instant::now();
        let limit = Duration::from_millis(100);
        assert!(tcp_server_within(limit, "127.0.0.1".parse().unwrap(), &listening).is_err());
        assert!((limit..LIMIT).contains(&begun.elapsed()));
    }
}
