use cni_types::{Code, DecodeError, NetConf, Object};
use net_types::{IfName, IfNameError, MacAddr};
use netstate::AdminState;

use super::vlan::{VlanError, Vlans};
use crate::error::CniError;
use crate::requested_mac::{RequestedMacError, requested_mac};

const DEFAULT_BRIDGE: &str = "cni0";

/// The MTUs that a veth pair can have: the kernel's `ETH_MIN_MTU` and `ETH_MAX_MTU`.
const MTU_RANGE_BYTES: std::ops::RangeInclusive<u32> = 68..=65535;

/// The keys of bridge's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conf {
    pub(crate) bridge: IfName,
    pub(crate) gateway: Gateway,
    pub(crate) on_conflict: OnConflict,
    /// `None` leaves it to the kernel.
    pub(crate) mtu_bytes: Option<u32>,
    pub(crate) port: PortMode,
    /// Whether the bridge takes in every frame.
    pub(crate) promiscuous: bool,
    pub(crate) vlans: Option<Vlans>,
    /// The link of the host that has the gateways' addresses: the bridge, or its interface in the containers' VLAN.
    pub(crate) gateway_link: IfName,
    pub(crate) dad: Dad,
    /// The state of the container's interface; one that is down can have no addresses.
    pub(crate) container: AdminState,
    /// The container's hardware address, if the runtime asks for one.
    pub(crate) mac: Option<MacAddr>,
}

/// Whether the bridge is the containers' gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gateway {
    No,
    /// It has the gateway's addresses.
    Yes,
    /// And the containers' default routes lead there.
    Default,
}

/// What the bridge does with frames of the attachment's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortMode {
    /// Whether a container reaches its own service through the bridge.
    pub(crate) hairpin: bool,
    /// Whether containers on isolated ports do not reach each other.
    pub(crate) isolated: bool,
}

/// Detection of duplicate IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dad {
    /// Nobody else can have an address that was reserved, so the detection would only cost seconds.
    Skip,
    /// It is made, and its end waited for.
    Run,
}

/// What to do with another address of the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnConflict {
    /// It stays, unless nobody is attached who could use it.
    Refuse,
    Replace,
}

/// Why bridge cannot work with a configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfError {
    #[error("{0}")]
    Decode(DecodeError),
    #[error("bridge: {0}")]
    Bridge(IfNameError),
    #[error("mtu {0} is not between 68 and 65535")]
    Mtu(i64),
    #[error("{0}")]
    Mac(RequestedMacError),
    #[error("{0}")]
    Vlan(VlanError),
    #[error(
        "the gateway's interface in the VLAN cannot be called {name:?}: {reason}; give the bridge a shorter name"
    )]
    GatewayLink { name: String, reason: IfNameError },
    #[error("cannot set hairpin mode and promiscuous mode at the same time")]
    HairpinAndPromiscuous,
    #[error("cannot use IPAM when DisableContainerInterface flag is set")]
    AddressOfDisabled,
}

impl CniError for ConfError {
    fn code(&self) -> Code {
        match self {
            Self::Decode(_) => Code::DECODING,
            Self::Mac(error) => error.code(),
            Self::Vlan(error) => error.code(),
            Self::Bridge(_)
            | Self::Mtu(_)
            | Self::GatewayLink { .. }
            | Self::HairpinAndPromiscuous
            | Self::AddressOfDisabled => Code::BAD_CONFIG,
        }
    }
}

impl Conf {
    /// Reads everything that an ADD needs; `args` is `CNI_ARGS`.
    pub(crate) fn parse(conf: &NetConf, args: &str) -> Result<Self, ConfError> {
        let object = &conf.object;
        let flag = |key| {
            object
                .bool(key)
                .map(Option::unwrap_or_default)
                .map_err(ConfError::Decode)
        };
        let gateway = match (flag("isGateway")?, flag("isDefaultGateway")?) {
            (_, true) => Gateway::Default,
            (true, false) => Gateway::Yes,
            (false, false) => Gateway::No,
        };
        let on_conflict = if flag("forceAddress")? {
            OnConflict::Replace
        } else {
            OnConflict::Refuse
        };
        let port = PortMode {
            hairpin: flag("hairpinMode")?,
            isolated: flag("portIsolation")?,
        };
        let promiscuous = flag("promiscMode")?;
        if port.hairpin && promiscuous {
            return Err(ConfError::HairpinAndPromiscuous);
        }
        let bridge = bridge_name(object)?;
        let vlans = Vlans::parse(object).map_err(ConfError::Vlan)?;
        Ok(Self {
            gateway_link: gateway_link(&bridge, gateway, vlans.as_ref())?,
            bridge,
            gateway,
            on_conflict,
            mtu_bytes: mtu(object)?,
            port,
            promiscuous,
            vlans,
            dad: if flag("enabledad")? { Dad::Run } else { Dad::Skip },
            container: container(conf, flag("disableContainerInterface")?)?,
            mac: requested_mac(conf, args, None).map_err(ConfError::Mac)?,
        })
    }
}

/// The bridge that a configuration names.
pub(crate) fn bridge_name(object: &Object) -> Result<IfName, ConfError> {
    let name = object.string("bridge").map_err(ConfError::Decode)?;
    let name = name.filter(|text| !text.is_empty()).unwrap_or(DEFAULT_BRIDGE);
    IfName::new(name).map_err(ConfError::Bridge)
}

/// The reference's name for it: the bridge's, a dot and the VLAN.
fn gateway_link(bridge: &IfName, gateway: Gateway, vlans: Option<&Vlans>) -> Result<IfName, ConfError> {
    match (gateway, vlans.and_then(Vlans::access)) {
        (Gateway::Yes | Gateway::Default, Some(vlan)) => {
            let name = format!("{bridge}.{vlan}");
            IfName::new(&name).map_err(|reason| ConfError::GatewayLink { name, reason })
        }
        (Gateway::No, _) | (Gateway::Yes | Gateway::Default, None) => Ok(bridge.clone()),
    }
}

fn container(conf: &NetConf, is_disabled: bool) -> Result<AdminState, ConfError> {
    let ipam = conf.ipam().map_err(ConfError::Decode)?.unwrap_or_default();
    let manager = ipam.string("type").map_err(ConfError::Decode)?;
    match (is_disabled, manager.is_some_and(|name| !name.is_empty())) {
        (true, true) => Err(ConfError::AddressOfDisabled),
        (true, false) => Ok(AdminState::Down),
        (false, _) => Ok(AdminState::Up),
    }
}

fn mtu(object: &Object) -> Result<Option<u32>, ConfError> {
    match object.int("mtu").map_err(ConfError::Decode)? {
        None | Some(0) => Ok(None),
        Some(given) => {
            let mtu = u32::try_from(given).ok();
            let mtu = mtu.filter(|mtu| MTU_RANGE_BYTES.contains(mtu));
            mtu.map(Some).ok_or(ConfError::Mtu(given))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netconf(rest: &str) -> NetConf {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"net","type":"bridge"{rest}}}"#);
        NetConf::parse(text.as_bytes()).unwrap()
    }

    fn parse(rest: &str, args: &str) -> Result<Conf, ConfError> {
        Conf::parse(&netconf(rest), args)
    }

    #[test]
    fn defaults_are_the_references() {
        let conf = parse("", "").unwrap();
        assert_eq!(conf.bridge.as_str(), "cni0");
        assert_eq!(conf.gateway, Gateway::No);
        assert_eq!(conf.on_conflict, OnConflict::Refuse);
        assert_eq!((conf.mtu_bytes, conf.mac, &conf.vlans), (None, None, &None));
        assert_eq!(
            (conf.port.hairpin, conf.port.isolated, conf.promiscuous),
            (false, false, false)
        );
        assert_eq!((conf.dad, conf.container), (Dad::Skip, AdminState::Up));
        assert_eq!(conf.gateway_link, conf.bridge);
    }

    #[test]
    fn a_default_gateway_is_a_gateway() {
        assert_eq!(parse(r#","isGateway":true"#, "").unwrap().gateway, Gateway::Yes);
        let both = parse(r#","isGateway":false,"isDefaultGateway":true"#, "");
        assert_eq!(both.unwrap().gateway, Gateway::Default);
    }

    #[test]
    fn the_nearest_way_to_ask_for_a_mac_wins() {
        let args = "MAC=0a:00:00:00:00:01";
        let mac = |rest: &str| parse(rest, args).unwrap().mac.unwrap().to_string();
        assert_eq!(mac(""), "0a:00:00:00:00:01");
        assert_eq!(
            mac(r#","args":{"cni":{"mac":"0A:00:00:00:00:02"}}"#),
            "0a:00:00:00:00:02"
        );
        let both =
            r#","args":{"cni":{"mac":"0a:00:00:00:00:02"}},"runtimeConfig":{"mac":"0a:00:00:00:00:03"}"#;
        assert_eq!(mac(both), "0a:00:00:00:00:03");
        for (args, code) in [("MAC=x", 7), ("MAC=ff:ff:ff:ff:ff:ff", 7), ("MAC", 4)] {
            assert_eq!(parse("", args).unwrap_err().code().0, code, "{args}");
        }
    }

    #[test]
    fn the_gateway_of_a_vlan_has_an_interface_of_its_own() {
        let link = |rest: &str| parse(rest, "").unwrap().gateway_link.to_string();
        assert_eq!(link(r#","isGateway":true,"vlan":100"#), "cni0.100");
        assert_eq!(link(r#","vlan":100"#), "cni0");
        assert_eq!(link(r#","isGateway":true,"vlanTrunk":[{"id":5}]"#), "cni0");
        assert_eq!(link(r#","bridge":"twelve-bytes","vlan":100"#), "twelve-bytes");
    }

    #[test]
    fn flags_are_read_each_for_itself() {
        let conf = parse(r#","portIsolation":true,"promiscMode":true,"enabledad":true"#, "").unwrap();
        assert_eq!(
            (conf.port.isolated, conf.promiscuous, conf.dad),
            (true, true, Dad::Run)
        );
        let conf = parse(r#","disableContainerInterface":true,"ipam":{}"#, "").unwrap();
        assert_eq!(conf.container, AdminState::Down);
    }

    #[test]
    fn impossible_values_are_refused() {
        for rest in [
            r#","mtu":67"#,
            r#","mtu":-1"#,
            r#","mtu":65536"#,
            r#","bridge":"a/b""#,
            r#","hairpinMode":true,"promiscMode":true"#,
            r#","disableContainerInterface":true,"ipam":{"type":"static"}"#,
            r#","vlan":5000"#,
            r#","bridge":"twelve-bytes","isGateway":true,"vlan":100"#,
        ] {
            assert_eq!(parse(rest, "").unwrap_err().code().0, 7, "{rest}");
        }
        assert_eq!(parse(r#","mtu":"1450""#, "").unwrap_err().code().0, 6);
        assert_eq!(parse(r#","hairpinMode":1"#, "").unwrap_err().code().0, 6);
    }
}
