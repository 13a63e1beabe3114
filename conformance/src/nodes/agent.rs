//! The program on a node: makes pods there and sends and receives in them, as the runner asks over its standard input.
//! At the end of that input, whatever ended the runner or the connection to it, it detaches every pod and ends; so it does
//! when nothing comes for a minute, as where a connection is cut without a word.

mod echo;
mod exchange;
mod icmp;
mod pods;
mod processes;
mod server;
mod shell;
mod stream;

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command};
use nix::ifaddrs::getifaddrs;
use serde::Serialize;
use serde_json::Value;

use super::protocol::{Answer, Greeting, KEEP_ALIVE, Numbered, PROTOCOL, Place, Request};
use crate::lab::on_own_thread;
use pods::Pods;
use stream::Streams;

/// How long the runner may say nothing before it counts as gone: a connection may be cut without an end.
const SILENCE_LIMIT: Duration = KEEP_ALIVE.saturating_mul(4);

/// The subcommand `agent`, which the runner calls.
pub(crate) fn command() -> Command {
    let text = |name: &'static str, default: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("PATH")
            .default_value(default)
    };
    Command::new("agent")
        .about("Serves `conformance nodes` on a node, over standard input and output")
        .hide(true)
        .arg(text("plugin-dir", "/opt/cni/bin"))
        .arg(text("conf", "/etc/cni/net.d"))
}

/// Serves until standard input ends, or says nothing for too long.
///
/// # Errors
/// Fails when standard output is gone, or a pod cannot be detached at the end.
pub(crate) fn run(arguments: &ArgMatches) -> Result<bool> {
    let path = |name: &str| arguments.get_one::<String>(name).cloned().unwrap_or_default();
    let agent = Arc::new(Agent {
        pods: Pods::new(path("plugin-dir"), path("conf")),
        streams: Streams::default(),
        next: AtomicU64::new(1),
        out: Mutex::new(std::io::stdout()),
    });
    agent.print(&Greeting { agent: PROTOCOL })?;
    let requests = requests(BufReader::new(std::io::stdin()));
    // At the end of the input, or when the time is over.
    while let Ok(Numbered { number, request }) = requests.recv_timeout(SILENCE_LIMIT) {
        let agent = Arc::clone(&agent);
        thread::spawn(move || {
            let result = agent.answer(request).map_err(|error| format!("{error:#}"));
            // Whoever does not read any more will close standard input, too.
            agent.print(&Answer { number, result }).ok();
        });
    }
    agent.pods.remove_all()?;
    Ok(true)
}

/// Reads requests on a thread of its own, up to the end of the input or to a line that is none: one cut short is the end
/// of the runner.
fn requests(input: impl BufRead + Send + 'static) -> Receiver<Numbered> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let lines = input.lines().map_while(Result::ok);
        let mut read = lines.map_while(|line| serde_json::from_str(&line).ok());
        // Nobody listens any more when the receiver is gone.
        read.all(|request| tell.send(request).is_ok())
    });
    told
}

struct Agent {
    pods: Pods,
    streams: Streams,
    next: AtomicU64,
    out: Mutex<std::io::Stdout>,
}

impl Agent {
    fn print(&self, what: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(what).context("writing an answer as JSON")?;
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(out, "{text}").context("answering")?;
        out.flush().context("answering")
    }

    fn answer(&self, request: Request) -> Result<Value> {
        match request {
            Request::KeepAlive => Ok(Value::Null),
            Request::Addresses { place } => told(self.within(&place, addresses)?),
            Request::Outward { place } => told(self.within(&place, || Ok(outward()))?),
            Request::Run { place, argv, limit } => told(self.within(&place, || shell::run(&argv, limit))?),
            Request::Read { path } => told(shell::read(&path)?),
            Request::Processes { name } => told(processes::named(&name)?),
            Request::AddPod { name, ports } => told(self.pods.add(&name, &ports)?),
            Request::Listen { place, port } => told(self.within(&place, || server::start(port))?),
            Request::Ask {
                place,
                transport,
                targets,
                size,
            } => {
                let ask = || {
                    let all = targets.iter();
                    Ok(all
                        .map(|target| {
                            exchange::ask(*target, transport, size).map_err(|error| format!("{error:#}"))
                        })
                        .collect::<Vec<_>>())
                };
                told(self.within(&place, ask)?)
            }
            Request::Ping { place, targets, size } => {
                told(self.within(&place, || icmp::ping_all(&targets, size))?)
            }
            Request::Send {
                place,
                target,
                size,
                check,
            } => told(self.within(&place, || exchange::send(target, size, check))?),
            Request::Connections { place, target, count } => {
                told(self.within(&place, || exchange::connections(target, count))?)
            }
            Request::RoundTrips { place, target, count } => {
                told(self.within(&place, || exchange::round_trips(target, count))?)
            }
            Request::StartStream {
                place,
                target,
                interval,
            } => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let socket = self.within(&place, || stream::open(target))?;
                self.streams.start(number, socket, interval)?;
                told(number)
            }
            Request::StopStream { stream } => told(self.streams.stop(stream)?),
        }
    }

    /// Does something in the network namespace of a place, on a thread of its own.
    fn within<T: Send>(&self, place: &Place, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match place {
            Place::Node => on_own_thread(action),
            Place::Pod(name) => self.pods.namespaces(name)?.run(action),
        }
    }
}

fn told(what: impl Serialize) -> Result<Value> {
    serde_json::to_value(what).context("writing an answer as JSON")
}

/// The addresses of all links but the loopback.
fn addresses() -> Result<Vec<(String, IpAddr)>> {
    let all = getifaddrs().context("asking for the addresses")?;
    let found = all.filter_map(|one| {
        let address = one.address?;
        let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))?;
        Some((one.interface_name, ip))
    });
    Ok(found.filter(|(name, _)| name != "lo").collect())
}

/// The addresses that the kernel chooses for packets to the outside: no packet is sent to these (RFC 5737, RFC 3849).
fn outward() -> Vec<IpAddr> {
    let ways: [(IpAddr, IpAddr); 2] = [
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ),
    ];
    let chosen = |(any, outside): (IpAddr, IpAddr)| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(SocketAddr::new(outside, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    ways.into_iter().filter_map(chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_end_with_the_input_and_at_a_line_that_is_none() {
        let good = r#"{"number":7,"request":"KeepAlive"}"#;
        for rest in ["", "{\"number\":8,\"requ", "what\n{}\n"] {
            let told = requests(std::io::Cursor::new(format!("{good}\n{rest}")));
            let numbers: Vec<_> = told.iter().map(|numbered| numbered.number).collect();
            assert_eq!(numbers, [7], "{rest}");
        }
    }
}
