//! The stand-in as a program of its own: `fake-apiserver ADDRESS:PORT [--tls ADDRESS:PORT CA_FILE] [FILE]`, with the Nodes
//! of a list that an earlier one answered. With `--tls` the same cluster is served encrypted at a second address, as pods
//! find it, and the certificate of the authority by which it is known is written to a file.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use fake_apiserver::{Cluster, Server, Transport};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            drop(writeln!(std::io::stderr(), "error: {reason}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let Arguments { address, tls, list } = Arguments::read(std::env::args().skip(1))?;
    let cluster = match list {
        Some(path) => {
            let read = std::fs::read(&path).map_err(|err| format!("cannot read {path}: {err}"))?;
            let list = serde_json::from_slice(&read).map_err(|err| format!("{path} is no list: {err}"))?;
            Cluster::with_list(&list)
        }
        None => Cluster::new(),
    };
    let cluster = Arc::new(cluster);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|err| err.to_string())?;
    runtime.block_on(async {
        let mut encrypted = None;
        if let Some((address, ca_file)) = tls {
            let server = start(address, Transport::Tls, &cluster).await?;
            std::fs::write(&ca_file, server.ca_pem().unwrap_or_default())
                .map_err(|err| format!("cannot write {ca_file}: {err}"))?;
            encrypted = Some(server);
        }
        let server = start(address, Transport::Plain, &cluster).await?;
        drop(writeln!(std::io::stdout(), "{}", server.url()));
        std::future::pending::<()>().await;
        drop(encrypted);
        Ok(())
    })
}

async fn start(address: SocketAddr, transport: Transport, cluster: &Arc<Cluster>) -> Result<Server, String> {
    let server = Server::start_on(address, transport, Arc::clone(cluster)).await;
    server.map_err(|err| format!("cannot listen at {address}: {err}"))
}

/// What the command line asks for.
struct Arguments {
    address: SocketAddr,
    tls: Option<(SocketAddr, String)>,
    list: Option<String>,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let usage = "usage: fake-apiserver ADDRESS:PORT [--tls ADDRESS:PORT CA_FILE] [FILE]";
        let address = |word: Option<String>| {
            let address = word.and_then(|text| text.parse::<SocketAddr>().ok());
            address.ok_or_else(|| usage.to_owned())
        };
        let plain = address(words.next())?;
        let mut list = words.next();
        let mut tls = None;
        if list.as_deref() == Some("--tls") {
            tls = Some((address(words.next())?, words.next().ok_or(usage)?));
            list = words.next();
        }
        Ok(Self {
            address: plain,
            tls,
            list,
        })
    }
}
