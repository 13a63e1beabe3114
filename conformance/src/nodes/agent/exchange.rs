use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::echo::{Checksum, DRAIN, ECHO, Pattern, SINK, WHO};
use crate::nodes::protocol::{Check, Seen, Sent, Transport};

/// How long a connection may take: longer than the second after which its first packet is sent again.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// How long an answer on a connection may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long sending may stand still.
const SEND_LIMIT: Duration = Duration::from_secs(20);
/// How long the answer to a datagram may take, and how often it is asked for: the first can be lost to the resolution of
/// addresses.
const DATAGRAM_LIMIT: Duration = Duration::from_millis(700);
const DATAGRAM_TRIES: u8 = 5;
/// What is written at a time.
const BLOCK_BYTES: usize = 1 << 16;

/// Asks a server whom it sees.
///
/// # Errors
/// Fails when it does not answer, or not as it should.
pub(super) fn ask(target: SocketAddr, transport: Transport, size: usize) -> Result<Seen> {
    match transport {
        Transport::Tcp => ask_tcp(target),
        Transport::Udp => ask_udp(target, size),
    }
}

fn ask_tcp(target: SocketAddr) -> Result<Seen> {
    let mut stream = connect(target, WHO)?;
    let own = stream.local_addr().context("asking for the own address")?.ip();
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .with_context(|| format!("waiting for the answer of {target}"))?;
    seen(&answer, own)
}

fn ask_udp(target: SocketAddr, size: usize) -> Result<Seen> {
    let socket = datagram_socket(target)?;
    socket
        .set_read_timeout(Some(DATAGRAM_LIMIT))
        .context("limiting a wait")?;
    let own = socket.local_addr().context("asking for the own address")?.ip();
    let question = Pattern::datagram(WHO, size);
    let mut buffer = vec![0; 1 << 16];
    let mut last = None;
    for _ in 0..DATAGRAM_TRIES {
        let exchanged = socket.send(&question).and_then(|_| socket.recv(&mut buffer));
        match exchanged {
            Ok(length) => return check(&question, buffer.get(..length).unwrap_or_default(), own),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).with_context(|| {
            format!("no answer from {target} to {DATAGRAM_TRIES} datagrams of {size} bytes")
        }),
        None => bail!("nothing was sent to {target}"),
    }
}

/// The answer is as long as the question, tells the question's checksum, and goes on with the pattern.
fn check(question: &[u8], answer: &[u8], own: IpAddr) -> Result<Seen> {
    let text = String::from_utf8_lossy(answer);
    let words = text.lines().next().unwrap_or_default();
    let (address, sum) = words.split_once(' ').context("an answer that is none")?;
    if sum != Checksum::of(question).value().to_string() {
        bail!("what arrived is not what was sent");
    }
    let rest = Pattern::datagram(WHO, question.len().max(words.len() + 1));
    let skip = words.len() + 1;
    if answer.len() != rest.len() || answer.get(skip..) != rest.get(skip..) {
        bail!("what came back is not what the server sent");
    }
    seen(address, own)
}

fn seen(answer: &str, own: IpAddr) -> Result<Seen> {
    Ok(Seen {
        by_server: answer
            .parse()
            .with_context(|| format!("the server answered {answer:?}"))?,
        by_client: own.to_canonical(),
    })
}

fn connect(target: SocketAddr, wants: u8) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&target, CONNECT_LIMIT)
        .with_context(|| format!("connecting to {target}"))?;
    stream.set_nodelay(true).context("setting up a connection")?;
    stream
        .set_read_timeout(Some(ANSWER_LIMIT))
        .context("limiting a wait")?;
    stream
        .set_write_timeout(Some(SEND_LIMIT))
        .context("limiting a wait")?;
    stream
        .write_all(&[wants])
        .with_context(|| format!("sending to {target}"))?;
    Ok(stream)
}

/// A socket for datagrams to and from one address.
///
/// # Errors
/// Fails when there is no way to it.
pub(super) fn datagram_socket(target: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if target.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).context("opening a socket")?;
    socket
        .connect(target)
        .with_context(|| format!("finding the way to {target}"))?;
    Ok(socket)
}

/// Sends bytes over one connection, and asks what arrived.
///
/// # Errors
/// Fails when the connection does.
pub(super) fn send(target: SocketAddr, size: u64, check: Check) -> Result<Sent> {
    let wants = match check {
        Check::Contents => SINK,
        Check::Amount => DRAIN,
    };
    let mut stream = connect(target, wants)?;
    let (mut pattern, mut sum, mut left) = (Pattern::new(), Checksum::new(), size);
    let mut block = vec![0; BLOCK_BYTES];
    let start = Instant::now();
    while left > 0 {
        let length = usize::try_from(left).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
        let block = block.get_mut(..length).unwrap_or_default();
        if check == Check::Contents {
            pattern.fill(block);
            sum.take(block);
        }
        stream
            .write_all(block)
            .with_context(|| format!("sending to {target}, {left} of {size} bytes before the end"))?;
        left -= block.len() as u64;
    }
    stream.shutdown(Shutdown::Write).context("ending what is sent")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .with_context(|| format!("waiting for {target} to tell what arrived"))?;
    let took = start.elapsed();
    let (arrived, arrived_sum) = answer.split_once(' ').context("an answer that is none")?;
    Ok(Sent {
        arrived: arrived.parse().context("reading how much arrived")?,
        intact: arrived_sum == sum.value().to_string(),
        took,
    })
}

/// Opens many connections, then asks for an echo on each while all are open; returns how many answered.
///
/// # Errors
/// Fails when a connection cannot be opened.
pub(super) fn connections(target: SocketAddr, count: u16) -> Result<u16> {
    let open =
        |number| connect(target, ECHO).with_context(|| format!("opening connection {number} of {count}"));
    let mut streams = (1..=count).map(open).collect::<Result<Vec<_>>>()?;
    let answered = streams.iter_mut().filter_map(|stream| {
        let mut byte = [7];
        stream.write_all(&byte).ok()?;
        stream.read_exact(&mut byte).ok()
    });
    u16::try_from(answered.count()).context("more answers than connections")
}

/// Sends one byte to and fro over one connection, and returns the time of each turn.
///
/// # Errors
/// Fails when the connection does.
pub(super) fn round_trips(target: SocketAddr, count: u32) -> Result<Vec<Duration>> {
    let mut stream = connect(target, ECHO)?;
    let mut turn = || {
        let start = Instant::now();
        let mut byte = [7];
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        Ok(start.elapsed())
    };
    (0..count)
        .map(|_| turn())
        .collect::<std::io::Result<_>>()
        .with_context(|| format!("sending a byte to {target} and back"))
}
