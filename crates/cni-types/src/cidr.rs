use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// A text that is not an address with a prefix length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address with a prefix length, such as 10.244.1.0/24")]
pub struct CidrError(String);

/// Reads an address with its prefix length; host bits are kept.
///
/// Both parts must be there, and the length must be plain digits: netmasks and bare addresses are no CIDR notation.
///
/// # Errors
/// The text has another form.
pub fn parse_cidr(text: &str) -> Result<IpNetwork, CidrError> {
    parse(text).ok_or_else(|| CidrError(text.to_owned()))
}

fn parse(text: &str) -> Option<IpNetwork> {
    let (ip, len) = text.split_once('/')?;
    let digits = (1..=3).contains(&len.len()) && len.bytes().all(|b| b.is_ascii_digit());
    let len = digits.then(|| len.parse::<u8>().ok())??;
    IpNetwork::new(ip.parse::<IpAddr>().ok()?, len).ok()
}

/// The network without its host bits.
#[must_use]
pub fn network_of(net: IpNetwork) -> IpNetwork {
    IpNetwork::new(net.network(), net.prefix()).unwrap_or(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_and_length_are_read_with_their_host_bits() {
        for text in ["10.1.2.3/24", "0.0.0.0/0", "fd00::1/64", "::/0"] {
            assert_eq!(parse_cidr(text).unwrap().to_string(), text);
        }
        let net = network_of(parse_cidr("10.1.2.3/24").unwrap());
        assert_eq!(net.to_string(), "10.1.2.0/24");
    }

    #[test]
    fn other_notations_are_refused() {
        for text in [
            "",
            "10.1.2.3",
            "10.1.2.3/",
            "10.1.2.3/33",
            "10.1.2.3/255.255.255.0",
            "10.1.2.3/+24",
            "010.1.2.3/24",
            "10.1.2/24",
            "fd00::/129",
            "10.1.2.3/24/1",
            " 10.1.2.3/24",
        ] {
            assert!(parse_cidr(text).is_err(), "{text:?}");
        }
    }
}
