//! The CNI specification as data: what a runtime hands to a plugin, and what a plugin hands back.
//!
//! A call arrives as environment variables ([`Environment`]), `CNI_ARGS` ([`CniArgs`]) and a JSON document on
//! standard input ([`NetConf`]); it ends with a result ([`AddResult`]) or an error object ([`ErrorObject`]), each in
//! the form of the configuration's [`Version`]. Every rule here is one of the specification's or, where runtimes
//! depend on it, of its reference library: keys match without regard to case, `null` is an absent key, of duplicate
//! keys the last wins.
//!
//! This crate never does I/O and knows no plugin. Start at [`Environment`] and [`NetConf`].

mod args;
mod cidr;
mod conf;
mod dns;
mod env;
mod error;
mod hashed_name;
mod ids;
mod object;
mod result;
mod result_json;
mod version;

pub use args::{ArgsError, CniArgs};
pub use cidr::{CidrError, network_of, parse_cidr};
pub use conf::{ConfError, NetConf, asked_version};
pub use dns::Dns;
pub use env::{Call, EnvError, Environment, Target};
pub use error::{Code, ErrorObject};
pub use hashed_name::hashed_name;
pub use ids::{ContainerId, IdError, NetworkName};
pub use object::{DecodeError, Object};
pub use result::{AddResult, Interface, IpConfig, ResultRoute};
pub use result_json::{RenderError, ResultError};
pub use version::{Version, VersionError, version_answer};
