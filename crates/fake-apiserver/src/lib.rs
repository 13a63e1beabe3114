//! Test support: a Kubernetes API server that knows Nodes, and namespaces with pods in them.
//!
//! It answers as a kube-apiserver 1.36 with etcd 3.6 was measured to: lists in chunks, watches with bookmarks and
//! streaming lists, 410 in either form, strategic-merge patches with their merge keys, the status subresource, write-once
//! fields, conflicts, and rights. And it fails on demand. It has no controllers and no kubelets: nobody gives Nodes their
//! subnets but who makes them, and pods run if somebody runs them; a command in a pod is handed on to where its Node says
//! that its kubelet is. Below `/stand-in/` it is told what to do; those requests need no rights.
//!
//! Start at [`Server::start`], or run the binary, which a lab of namespaces uses.

mod cluster;
mod control;
mod exec;
mod faults;
mod merge;
mod node;
mod reply;
mod role;
mod serve;
mod tls;
mod watch;
mod workloads;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_rustls::TlsAcceptor;

pub use cluster::{Cluster, Logged};
pub use faults::{Fault, Trouble};
pub use node::{NodeShape, many, node_name};
pub use role::Role;

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    cluster: Arc<Cluster>,
    ca_pem: Option<String>,
    task: JoinHandle<()>,
}

/// Whether connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// They are not.
    Plain,
    /// They are, with a certificate that an authority of the server's own has signed.
    Tls,
}

impl Server {
    /// Starts a server at this address; port 0 is any.
    ///
    /// # Errors
    /// The address is taken, or no certificate can be made.
    pub async fn start(address: SocketAddr, transport: Transport) -> io::Result<Self> {
        Self::start_on(address, transport, Arc::new(Cluster::new())).await
    }

    /// Starts a server at this address with what an earlier one knew.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_on(
        address: SocketAddr,
        transport: Transport,
        cluster: Arc<Cluster>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let identity = match transport {
            Transport::Plain => None,
            Transport::Tls => Some(tls::identity(address.ip())?),
        };
        let (acceptor, ca_pem) = identity.unzip();
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&cluster)));
        Ok(Self {
            address,
            cluster,
            ca_pem,
            task,
        })
    }

    /// What the server knows, and what it is told to do.
    #[must_use]
    pub const fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.ca_pem.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate of the authority that signed the server's own, if it has one.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The connections that are open; they end with the server.
#[derive(Default)]
struct Open(Vec<AbortHandle>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, cluster: Arc<Cluster>) {
    let mut open = Open::default();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        open.0.retain(|connection| !connection.is_finished());
        let connection = serve_one(stream, acceptor.clone(), Arc::clone(&cluster));
        open.0.push(tokio::spawn(connection).abort_handle());
    }
}

async fn serve_one(stream: TcpStream, acceptor: Option<TlsAcceptor>, cluster: Arc<Cluster>) {
    let service = service_fn(move |request| {
        let cluster = Arc::clone(&cluster);
        async move { serve::answer(cluster, request).await }
    });
    // Whoever goes away in the middle is no error of the server's.
    match acceptor {
        None => drop(
            http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await,
        ),
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                drop(
                    http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await,
                );
            }
        }
    }
}
