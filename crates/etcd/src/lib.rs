//! A small client of etcd v3: reads, transactions, leases and watches, over one connection at a time.
//!
//! Of several endpoints one is used, and left for the next when it does not answer, has lost its leader or refuses the
//! connection. Every request has a time limit and demands a member that sees its cluster's leader. Passwords and tokens
//! are never printed. The client knows nothing of what is stored, repeats no request that was refused, and never logs:
//! its errors say what happened and what to do.
//!
//! The messages are declared by hand in [`messages`], so that building needs no `protoc`. Start at [`Client`].

mod client;
mod error;
pub mod messages;
mod options;
mod session;
mod watch;

pub use client::Client;
pub use error::{Error, Refusal};
pub use options::{Credentials, Endpoint, EndpointError, Options, TlsFiles};
pub use watch::WatchStream;
