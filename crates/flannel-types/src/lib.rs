//! Every format Flannel reads or writes, as plain data.
//!
//! The network configuration, the value of a lease and the subnet file are contracts with other programs: other
//! flanneld nodes, etcd's contents, the CNI plugin, people's own files. This crate reads what the reference reads,
//! writes what it writes byte for byte, and turns everything else into an error that names the offending key. It
//! never does I/O and never panics on any input.
//!
//! Start at [`NetConf::parse`], [`LeaseAttrs`] and [`SubnetEnv`]; [`go_json`] holds the JSON rules that all readers
//! share.

mod cidr;
pub mod go_json;
mod lease;
mod net_conf;
mod subnet_env;

pub use cidr::IpNet;
pub use lease::{
    ExtensionData, Lease, LeaseAttrs, LeaseValueError, PublicAddrs, UnixTime, VxlanData, WireguardData,
};
pub use net_conf::{
    ALLOC_TYPE, Backend, EXTENSION_TYPE, Extension, Family, HOST_GW_TYPE, IPIP_TYPE, NetConf, NetConfError,
    Secret, SubnetPool, VXLAN_TYPE, ValidNetConf, Vxlan, WIREGUARD_TYPE, Wireguard, WireguardMode,
};
pub use subnet_env::{PreviousSubnets, SubnetEnv, SubnetEnvError, gateway_v4, gateway_v6};
