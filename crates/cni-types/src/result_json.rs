use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::cidr::{CidrError, parse_cidr};
use crate::{AddResult, DecodeError, Dns, Interface, IpConfig, Object, ResultRoute, Version};

/// Why a result (a `prevResult`, or what a delegate printed) cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultError {
    /// A member has a wrong type.
    #[error("result: {0}")]
    Decode(DecodeError),
    /// An address or destination is malformed.
    #[error("result: {key} {source}")]
    Cidr {
        /// The member.
        key: &'static str,
        /// What is wrong with it; part of the message.
        source: CidrError,
    },
    /// A gateway is no address.
    #[error("result: {key} {text:?} is not an IP address")]
    Ip {
        /// The member.
        key: &'static str,
        /// The text.
        text: String,
    },
    /// An address or route has no address.
    #[error("result: an entry of {0} has no address")]
    Missing(&'static str),
}

/// Why a result has no form in a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a result without an address has no form in CNI version {0}; use 0.3.0 or newer")]
pub struct RenderError(Version);

impl AddResult {
    /// Reads a result of any version, by its members; absent lists are empty.
    ///
    /// # Errors
    /// A member that the specification knows has a wrong type or form.
    pub fn parse(value: &Value) -> Result<Self, ResultError> {
        let object = Object::from_value("result", value).map_err(ResultError::Decode)?;
        let known = ["cniVersion", "interfaces", "ips", "routes", "dns", "ip4", "ip6"];
        let mut result = Self {
            dns: match object.object("dns").map_err(ResultError::Decode)? {
                Some(dns) => Dns::parse(&dns).map_err(ResultError::Decode)?,
                None => Dns::default(),
            },
            extra: object.without(&known),
            ..Self::default()
        };
        for interface in object.objects("interfaces").map_err(ResultError::Decode)? {
            let parsed = parse_interface(&interface).map_err(ResultError::Decode)?;
            result.interfaces.push(parsed);
        }
        for ip in object.objects("ips").map_err(ResultError::Decode)? {
            result.ips.push(parse_ip(&ip, "address")?);
        }
        for route in object.objects("routes").map_err(ResultError::Decode)? {
            result.routes.push(parse_route(&route)?);
        }
        for family in ["ip4", "ip6"] {
            let Some(legacy) = object.object(family).map_err(ResultError::Decode)? else {
                continue;
            };
            result.ips.push(parse_ip(&legacy, "ip")?);
            for route in legacy.objects("routes").map_err(ResultError::Decode)? {
                result.routes.push(parse_route(&route)?);
            }
        }
        Ok(result)
    }

    /// Writes the result in the form of a version.
    ///
    /// # Errors
    /// Versions before 0.3.0 know no result without an address.
    pub fn render(&self, version: Version) -> Result<Value, RenderError> {
        let mut map = self.extra.clone();
        map.insert("cniVersion".to_owned(), json!(version.as_str()));
        if version >= Version::V0_3_0 {
            let interfaces = self.interfaces.iter().map(|i| i.render(version));
            insert_list(&mut map, "interfaces", interfaces.collect());
            let ips = self.ips.iter().map(|ip| ip.render(version));
            insert_list(&mut map, "ips", ips.collect());
            let routes = self.routes.iter().map(|route| route.render(version));
            insert_list(&mut map, "routes", routes.collect());
        } else {
            let mut found = false;
            for (key, v4) in [("ip4", true), ("ip6", false)] {
                let mut of_family = self.ips.iter().filter(|ip| ip.address.is_ipv4() == v4);
                if let Some(ip) = of_family.next() {
                    map.insert(key.to_owned(), self.render_legacy(ip));
                    found = true;
                }
            }
            if !found {
                return Err(RenderError(version));
            }
        }
        // The reference library prints empty settings below 1.0.0 and omits them from there on.
        if version < Version::V1_0_0 || !self.dns.is_empty() {
            map.insert("dns".to_owned(), self.dns.to_value());
        }
        Ok(Value::Object(map))
    }

    /// The `ip4` or `ip6` object of 0.1.0 and 0.2.0, with the routes of its family.
    fn render_legacy(&self, ip: &IpConfig) -> Value {
        let mut map = Map::new();
        map.insert("ip".to_owned(), json!(ip.address.to_string()));
        insert_ip(&mut map, "gateway", ip.gateway);
        let of_family = |route: &&ResultRoute| route.dst.is_ipv4() == ip.address.is_ipv4();
        let routes = self.routes.iter().filter(of_family);
        let routes = routes.map(|route| route.render(Version::V0_2_0));
        insert_list(&mut map, "routes", routes.collect());
        Value::Object(map)
    }
}

fn parse_interface(object: &Object) -> Result<Interface, DecodeError> {
    let text = |key| {
        object
            .string(key)
            .map(|found| found.filter(|t| !t.is_empty()).map(str::to_owned))
    };
    Ok(Interface {
        name: object.string("name")?.unwrap_or_default().to_owned(),
        mac: text("mac")?,
        mtu_bytes: object.int("mtu")?,
        sandbox: text("sandbox")?,
        socket_path: text("socketPath")?,
        pci_id: text("pciID")?,
        extra: object.without(&["name", "mac", "mtu", "sandbox", "socketPath", "pciID"]),
    })
}

fn parse_ip(object: &Object, address_key: &'static str) -> Result<IpConfig, ResultError> {
    let text = object.string(address_key).map_err(ResultError::Decode)?;
    let text = text.ok_or(ResultError::Missing("ips"))?;
    Ok(IpConfig {
        address: parse_cidr(text).map_err(|source| ResultError::Cidr {
            key: address_key,
            source,
        })?,
        gateway: parse_address(object, "gateway")?,
        interface: object.int("interface").map_err(ResultError::Decode)?,
        // What is no key of its form may be one of another form.
        extra: object.without(&[
            address_key,
            "address",
            "gateway",
            "interface",
            "version",
            "routes",
        ]),
    })
}

fn parse_route(object: &Object) -> Result<ResultRoute, ResultError> {
    let int = |key| object.int(key).map_err(ResultError::Decode);
    let dst = object.string("dst").map_err(ResultError::Decode)?;
    let dst = dst.ok_or(ResultError::Missing("routes"))?;
    Ok(ResultRoute {
        dst: parse_cidr(dst).map_err(|source| ResultError::Cidr { key: "dst", source })?,
        gw: parse_address(object, "gw")?,
        mtu_bytes: int("mtu")?,
        advmss_bytes: int("advmss")?,
        priority: int("priority")?,
        table: int("table")?,
        scope: int("scope")?,
        extra: object.without(&["dst", "gw", "mtu", "advmss", "priority", "table", "scope"]),
    })
}

impl ResultRoute {
    /// Reads a route of a configuration or result.
    ///
    /// # Errors
    /// A member has a wrong type or form.
    pub fn parse(object: &Object) -> Result<Self, ResultError> {
        parse_route(object)
    }

    fn render(&self, version: Version) -> Value {
        let mut map = self.extra.clone();
        map.insert("dst".to_owned(), json!(self.dst.to_string()));
        insert_ip(&mut map, "gw", self.gw);
        if version >= Version::V1_1_0 {
            insert_int(&mut map, "mtu", self.mtu_bytes);
            insert_int(&mut map, "advmss", self.advmss_bytes);
            insert_int(&mut map, "priority", self.priority);
            insert_int(&mut map, "table", self.table);
            insert_int(&mut map, "scope", self.scope);
        }
        Value::Object(map)
    }
}

impl Interface {
    fn render(&self, version: Version) -> Value {
        let mut map = self.extra.clone();
        map.insert("name".to_owned(), json!(self.name));
        insert_text(&mut map, "mac", self.mac.as_deref());
        insert_text(&mut map, "sandbox", self.sandbox.as_deref());
        if version >= Version::V1_1_0 {
            insert_int(&mut map, "mtu", self.mtu_bytes);
            insert_text(&mut map, "socketPath", self.socket_path.as_deref());
            insert_text(&mut map, "pciID", self.pci_id.as_deref());
        }
        Value::Object(map)
    }
}

impl IpConfig {
    fn render(&self, version: Version) -> Value {
        let mut map = self.extra.clone();
        map.insert("address".to_owned(), json!(self.address.to_string()));
        insert_ip(&mut map, "gateway", self.gateway);
        insert_int(&mut map, "interface", self.interface);
        if version < Version::V1_0_0 {
            let family = if self.address.is_ipv4() { "4" } else { "6" };
            map.insert("version".to_owned(), json!(family));
        }
        Value::Object(map)
    }
}

fn parse_address(object: &Object, key: &'static str) -> Result<Option<IpAddr>, ResultError> {
    let text = object.string(key).map_err(ResultError::Decode)?;
    let parsed = text.filter(|t| !t.is_empty()).map(|text| {
        text.parse().map_err(|_| ResultError::Ip {
            key,
            text: text.to_owned(),
        })
    });
    parsed.transpose()
}

fn insert_list(map: &mut Map<String, Value>, key: &str, list: Vec<Value>) {
    if !list.is_empty() {
        map.insert(key.to_owned(), Value::Array(list));
    }
}

fn insert_text(map: &mut Map<String, Value>, key: &str, text: Option<&str>) {
    if let Some(text) = text {
        map.insert(key.to_owned(), json!(text));
    }
}

fn insert_int(map: &mut Map<String, Value>, key: &str, number: Option<i64>) {
    if let Some(number) = number {
        map.insert(key.to_owned(), json!(number));
    }
}

fn insert_ip(map: &mut Map<String, Value>, key: &str, ip: Option<IpAddr>) {
    if let Some(ip) = ip {
        map.insert(key.to_owned(), json!(ip.to_string()));
    }
}
