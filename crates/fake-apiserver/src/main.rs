//! The stand-in as a program of its own: `fake-apiserver ADDRESS:PORT`.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use fake_apiserver::{Server, Transport};

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
    let usage = "usage: fake-apiserver ADDRESS:PORT";
    let address: SocketAddr = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .ok_or(usage)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|err| err.to_string())?;
    runtime.block_on(async {
        let server = Server::start(address, Transport::Plain).await;
        let server = server.map_err(|err| format!("cannot listen at {address}: {err}"))?;
        drop(writeln!(std::io::stdout(), "{}", server.url()));
        std::future::pending::<()>().await;
        Ok(())
    })
}
