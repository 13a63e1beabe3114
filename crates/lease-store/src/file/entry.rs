use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flannel_types::go_json::Object;
use flannel_types::{Lease, LeaseAttrs, UnixTime};
use net_types::SubnetKey;

/// The last second of the year 9999, the latest that RFC 3339 can express.
const LAST_SECOND: u64 = 253_402_300_799;

/// The text of a lease's file: its value in etcd with the member `Expiration` added; a reservation has none.
pub(super) fn render(lease: &Lease) -> String {
    let mut text = lease.attrs.to_json();
    if let Some(end) = lease.expires {
        let end = UNIX_EPOCH + Duration::from_secs(end.secs().min(LAST_SECOND));
        text.truncate(text.len().saturating_sub("}".len()));
        text.push_str(&format!(
            ",\"Expiration\":\"{}\"}}",
            humantime::format_rfc3339_seconds(end)
        ));
    }
    text.push('\n');
    text
}

/// Reads the text of a lease's file, or says what is wrong with it.
pub(super) fn parse(key: SubnetKey, text: &str) -> Result<Lease, String> {
    let attrs = LeaseAttrs::parse(text).map_err(|err| err.to_string())?;
    let expiration = Object::parse("the lease", text).and_then(|object| object.string("Expiration"));
    let expires = match expiration.map_err(|err| err.to_string())? {
        None => None,
        Some(text) => Some(moment(&text).ok_or_else(|| {
            format!("Expiration of the lease is {text:?}, which is not a UTC time of the form 2031-05-28T09:30:00Z")
        })?),
    };
    Ok(Lease { key, attrs, expires })
}

fn moment(text: &str) -> Option<UnixTime> {
    humantime::parse_rfc3339(text)
        .ok()
        .map(|time: SystemTime| time.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> SubnetKey {
        "10.5.57.0-24".parse().unwrap()
    }

    fn lease(expires: Option<u64>) -> Lease {
        let value = r#"{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"vxlan"}"#;
        let attrs = LeaseAttrs::parse(value).unwrap();
        Lease {
            key: key(),
            attrs,
            expires: expires.map(UnixTime::from_secs),
        }
    }

    #[test]
    fn the_expiry_follows_the_value_that_etcd_would_hold() {
        assert_eq!(
            render(&lease(Some(1_900_000_000))),
            "{\"PublicIP\":\"192.168.77.1\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\
             \"Expiration\":\"2030-03-17T17:46:40Z\"}\n"
        );
    }

    #[test]
    fn a_reservation_has_no_expiry() {
        let text = render(&lease(None));
        assert_eq!(
            text,
            "{\"PublicIP\":\"192.168.77.1\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\"}\n"
        );
        assert_eq!(parse(key(), &text), Ok(lease(None)));
    }

    #[test]
    fn an_expiry_that_is_no_utc_time_is_named() {
        for end in [
            "tomorrow",
            "2031-01-01T00:00:00+02:00",
            "2031-01-01",
            "2031-13-01T00:00:00Z",
        ] {
            let text = format!(r#"{{"PublicIP":"192.168.77.1","Expiration":"{end}"}}"#);
            assert!(
                parse(key(), &text)
                    .unwrap_err()
                    .starts_with("Expiration of the lease is"),
                "{end}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_lease_round_trips(end in prop::option::of(0..=LAST_SECOND)) {
            prop_assert_eq!(parse(key(), &render(&lease(end))), Ok(lease(end)));
        }

        #[test]
        fn no_expiry_is_too_late_to_be_written(end in any::<u64>()) {
            prop_assert!(parse(key(), &render(&lease(Some(end)))).is_ok());
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in any::<String>()) {
            drop(parse(key(), &text));
        }
    }
}
