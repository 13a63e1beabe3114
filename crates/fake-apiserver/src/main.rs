//! The stand-in as a program of its own: `fake-apiserver ADDRESS:PORT [FILE]`, with the Nodes of a list that an earlier
//! one answered.

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
    let usage = "usage: fake-apiserver ADDRESS:PORT [FILE]";
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().and_then(|text| text.parse().ok());
    let address: SocketAddr = address.ok_or(usage)?;
    let cluster = match arguments.next() {
        Some(path) => {
            let read = std::fs::read(&path).map_err(|err| format!("cannot read {path}: {err}"))?;
            let list = serde_json::from_slice(&read).map_err(|err| format!("{path} is no list: {err}"))?;
            Cluster::with_list(&list)
        }
        None => Cluster::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|err| err.to_string())?;
    runtime.block_on(async {
        let server = Server::start_on(address, Transport::Plain, Arc::new(cluster)).await;
        let server = server.map_err(|err| format!("cannot listen at {address}: {err}"))?;
        drop(writeln!(std::io::stdout(), "{}", server.url()));
        std::future::pending::<()>().await;
        Ok(())
    })
}
