//! Leases and devices for the tests of this crate.

use std::net::Ipv4Addr;

use flannel_types::{Lease, LeaseAttrs, UnixTime, VXLAN_TYPE, VxlanData, WIREGUARD_TYPE, WireguardData};
use ipnetwork::IpNetwork;
use net_types::{MacAddr, SubnetKey, Vni, WgPublicKey, WgSecret};

use crate::desired::{Carrier, IpipDevice, Peer, Side, Underlay, VxlanDevice, WireguardDevice};
use crate::node::{CarrierSettings, SideSettings, VxlanSettings};

/// The VXLAN device of node 250.
pub(crate) fn device() -> VxlanDevice {
    VxlanDevice {
        name: "flannel.1".parse().unwrap(),
        vni: Vni::DEFAULT,
        port: 8472,
        learning: false,
        gbp: false,
        tx_checksum: None,
        mac: mac(250),
        mtu_bytes: 1450,
        parent: "eth0".parse().unwrap(),
    }
}

/// IPv4's side of node 250.
pub(crate) fn side() -> Side {
    Side {
        network: "10.244.0.0/16".parse().unwrap(),
        subnet: subnet(250),
        local: public_ip(250).into(),
        public_ip: public_ip(250).into(),
        carrier: Carrier::Vxlan(device()),
    }
}

/// IPv6's side of node 250.
pub(crate) fn side_v6() -> Side {
    Side {
        network: "fd00:10:244::/48".parse().unwrap(),
        subnet: "fd00:10:244:fa::/64".parse().unwrap(),
        local: "fd00:77::fa".parse().unwrap(),
        public_ip: "fd00:77::fa".parse().unwrap(),
        carrier: Carrier::Vxlan(VxlanDevice {
            name: "flannel-v6.1".parse().unwrap(),
            mac: mac_v6(250),
            mtu_bytes: 1430,
            ..device()
        }),
    }
}

/// The same side with the backend host-gw.
pub(crate) fn host_gw(side: Side) -> Side {
    Side {
        carrier: Carrier::HostGw("eth0".parse().unwrap()),
        ..side
    }
}

/// The same side with the backend ipip.
pub(crate) fn ipip(side: Side) -> Side {
    let device = IpipDevice {
        name: "flannel.ipip".parse().unwrap(),
        mtu_bytes: 1480,
    };
    Side {
        carrier: Carrier::Ipip(device),
        ..side
    }
}

/// The same side with the backend WireGuard and a device of its own.
pub(crate) fn wireguard(side: Side) -> Side {
    let (name, listen_port, underlay) = if side.is_ipv6() {
        ("flannel-wg-v6", 51821, Underlay::Ipv6)
    } else {
        ("flannel-wg", 51820, Underlay::Ipv4)
    };
    let device = WireguardDevice {
        name: name.parse().unwrap(),
        private_key: WgSecret::new([250; 32]),
        public_key: wireguard_key(250),
        listen_port,
        preshared_key: Some(WgSecret::new([7; 32])),
        keepalive_secs: 0,
        underlay,
        mtu_bytes: 1420,
    };
    Side {
        carrier: Carrier::Wireguard(device),
        ..side
    }
}

/// The same side with a WireGuard device that both families share.
pub(crate) fn shared_wireguard(side: Side, underlay: Underlay) -> Side {
    let own = wireguard(side);
    let device = own.wireguard().unwrap().clone();
    let device = WireguardDevice {
        name: "flannel-wg".parse().unwrap(),
        listen_port: 51820,
        underlay,
        ..device
    };
    Side {
        carrier: Carrier::Wireguard(device),
        ..own
    }
}

/// The public key of node `n`.
pub(crate) fn wireguard_key(n: u8) -> WgPublicKey {
    WgPublicKey::new([n; 32])
}

/// The lease of node `n` in dual stack of the backend WireGuard, with a device for each family.
pub(crate) fn wireguard_lease(n: u8) -> Lease {
    let mut lease = dual_lease(n, None);
    let data = |port| {
        let data = WireguardData {
            public_key: wireguard_key(n),
            port: Some(port),
        };
        Some(data.to_json())
    };
    lease.attrs.backend_type = WIREGUARD_TYPE.to_owned();
    lease.attrs.backend_data = data(51820);
    lease.attrs.backend_v6_data = data(51821);
    lease
}

/// The settings of node 250 in one family, as far as they are fixed before its lease is held.
pub(crate) fn side_settings(side: Side) -> SideSettings {
    let carrier = match side.carrier {
        Carrier::HostGw(_) => CarrierSettings::HostGw,
        Carrier::Wireguard(device) => CarrierSettings::Wireguard(device),
        Carrier::Ipip(device) => CarrierSettings::Ipip(device),
        Carrier::Alloc => CarrierSettings::Alloc,
        Carrier::Extension => CarrierSettings::Extension,
        Carrier::Vxlan(device) => CarrierSettings::Vxlan(VxlanSettings {
            device: device.name,
            vni: device.vni,
            port: device.port,
            learning: device.learning,
            gbp: device.gbp,
            mtu_bytes: device.mtu_bytes,
            random_mac: device.mac,
        }),
    };
    SideSettings {
        network: side.network,
        local: side.local,
        public_ip: side.public_ip,
        carrier,
    }
}

/// The IPv4 subnet of node `n`.
pub(crate) fn subnet(n: u8) -> IpNetwork {
    key(n).v4().unwrap().into()
}

/// What the lease of node `n` makes of it in IPv4.
pub(crate) fn peer(n: u8) -> Peer {
    Peer {
        lease: key(n),
        public_ip: public_ip(n).into(),
        vtep_mac: Some(mac(n)),
        wireguard: None,
    }
}

/// The VTEP MAC of node `n` for IPv6.
pub(crate) fn mac_v6(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 6, n])
}

/// The lease of node `n` in dual stack.
pub(crate) fn dual_lease(n: u8, expires: Option<u64>) -> Lease {
    let mut lease = lease(n, expires);
    let data = VxlanData {
        vni: Vni::DEFAULT,
        vtep_mac: mac_v6(n),
    };
    lease.key = format!("{}&fd00:10:244:{n:x}::-64", lease.key).parse().unwrap();
    lease.attrs.public_ipv6 = Some(format!("fd00:77::{n:x}").parse().unwrap());
    lease.attrs.backend_v6_data = Some(data.to_json());
    lease
}

/// The key of node `n`.
pub(crate) fn key(n: u8) -> SubnetKey {
    format!("10.244.{n}.0-24").parse().unwrap()
}

/// The public address of node `n`.
pub(crate) fn public_ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, n)
}

/// The VTEP MAC of node `n`.
pub(crate) fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n])
}

/// The lease of node `n`.
pub(crate) fn lease(n: u8, expires: Option<u64>) -> Lease {
    let data = VxlanData {
        vni: Vni::DEFAULT,
        vtep_mac: mac(n),
    };
    let attrs = LeaseAttrs {
        public_ip: Some(public_ip(n)),
        public_ipv6: None,
        backend_type: VXLAN_TYPE.to_owned(),
        backend_data: Some(data.to_json()),
        backend_v6_data: None,
    };
    Lease {
        key: key(n),
        attrs,
        expires: expires.map(UnixTime::from_secs),
    }
}
