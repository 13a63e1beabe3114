//! VLANs of a bridge's ports: `vlan`, `vlanTrunk` and `preserveDefaultVlan`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use cni_types::{Code, DecodeError, Object};
use netlink::PortVlans;

use crate::error::CniError;

/// The VLANs that a port can be in (IEEE 802.1Q).
const IDS: RangeInclusive<i64> = 1..=4094;

/// What the attachment's port shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vlans {
    pub(crate) of_port: PortVlans,
    /// Whether it also stays in the VLAN that every port of the bridge begins in.
    pub(crate) with_default: bool,
}

/// Why there is no such port.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VlanError {
    #[error("{0}")]
    Decode(DecodeError),
    #[error("invalid VLAN ID {0} (must be between 0 and 4094)")]
    Id(i64),
    #[error("incorrect trunk {key} parameter {value} (must be between 1 and 4094)")]
    TrunkId { key: &'static str, value: i64 },
    #[error("minID {min} is greater than maxID {max} in trunk parameter")]
    Reversed { min: i64, max: i64 },
    #[error("minID and maxID should be configured simultaneously, {0} is missing")]
    HalfRange(&'static str),
    #[error("cannot set vlan and vlanTrunk at the same time")]
    AccessAndTrunk,
}

impl CniError for VlanError {
    fn code(&self) -> Code {
        match self {
            Self::Decode(_) => Code::DECODING,
            Self::Id(_)
            | Self::TrunkId { .. }
            | Self::Reversed { .. }
            | Self::HalfRange(_)
            | Self::AccessAndTrunk => Code::BAD_CONFIG,
        }
    }
}

impl Vlans {
    /// Reads the keys; `None` when the configuration asks for no VLAN.
    pub(crate) fn parse(object: &Object) -> Result<Option<Self>, VlanError> {
        let access = access(object)?;
        let trunk = trunk(object)?;
        let of_port = match (access, trunk.is_empty()) {
            (None, true) => return Ok(None),
            (Some(vlan), true) => PortVlans::Access(vlan),
            (None, false) => PortVlans::Trunk(ranges(&trunk)),
            (Some(_), false) => return Err(VlanError::AccessAndTrunk),
        };
        let with_default = object.bool("preserveDefaultVlan").map_err(VlanError::Decode)?;
        Ok(Some(Self {
            of_port,
            with_default: with_default.unwrap_or(true),
        }))
    }

    /// The VLAN of a port that knows only one.
    pub(crate) const fn access(&self) -> Option<u16> {
        match self.of_port {
            PortVlans::Access(vlan) => Some(vlan),
            PortVlans::Trunk(_) => None,
        }
    }
}

fn access(object: &Object) -> Result<Option<u16>, VlanError> {
    match object.int("vlan").map_err(VlanError::Decode)? {
        None | Some(0) => Ok(None),
        Some(given) => {
            let id = u16::try_from(given).ok().filter(|_| IDS.contains(&given));
            id.map(Some).ok_or(VlanError::Id(given))
        }
    }
}

fn trunk(object: &Object) -> Result<BTreeSet<u16>, VlanError> {
    let mut all = BTreeSet::new();
    for item in object.objects("vlanTrunk").map_err(VlanError::Decode)? {
        match (trunk_id(&item, "minID")?, trunk_id(&item, "maxID")?) {
            (Some(min), Some(max)) if min > max => {
                return Err(VlanError::Reversed {
                    min: min.into(),
                    max: max.into(),
                });
            }
            (Some(min), Some(max)) => all.extend(min..=max),
            (None, Some(_)) => return Err(VlanError::HalfRange("minID")),
            (Some(_), None) => return Err(VlanError::HalfRange("maxID")),
            (None, None) => {}
        }
        all.extend(trunk_id(&item, "id")?);
    }
    Ok(all)
}

fn trunk_id(item: &Object, key: &'static str) -> Result<Option<u16>, VlanError> {
    let Some(value) = item.int(key).map_err(VlanError::Decode)? else {
        return Ok(None);
    };
    let id = u16::try_from(value).ok().filter(|_| IDS.contains(&value));
    id.map(Some).ok_or(VlanError::TrunkId { key, value })
}

/// Neighbouring numbers as ranges: the kernel takes them so, and a full trunk fits into one request.
fn ranges(ids: &BTreeSet<u16>) -> Vec<RangeInclusive<u16>> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for id in ids {
        match ranges.last_mut() {
            Some(last) if last.end().checked_add(1) == Some(*id) => *last = *last.start()..=*id,
            Some(_) | None => ranges.push(*id..=*id),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object::parse(text.as_bytes()).unwrap()
    }

    fn parse(text: &str) -> Result<Option<Vlans>, VlanError> {
        Vlans::parse(&object(text))
    }

    #[test]
    fn no_vlan_is_asked_for_by_defaults() {
        for text in [
            "{}",
            r#"{"vlan":0}"#,
            r#"{"vlan":null,"vlanTrunk":null}"#,
            r#"{"vlanTrunk":[]}"#,
            r#"{"vlanTrunk":[{}],"preserveDefaultVlan":false}"#,
        ] {
            assert_eq!(parse(text).unwrap(), None, "{text}");
        }
    }

    #[test]
    fn an_access_port_keeps_the_default_vlan_unless_told_otherwise() {
        let vlans = parse(r#"{"vlan":100}"#).unwrap().unwrap();
        assert_eq!((vlans.access(), vlans.with_default), (Some(100), true));
        let vlans = parse(r#"{"VLAN":4094,"preserveDefaultVlan":false}"#)
            .unwrap()
            .unwrap();
        assert_eq!((vlans.access(), vlans.with_default), (Some(4094), false));
    }

    #[test]
    fn a_trunk_is_told_by_its_ranges() {
        let text =
            r#"{"vlanTrunk":[{"minID":10,"maxID":12},{"id":5},{"minID":13,"maxID":13,"id":20},{"id":11}]}"#;
        let vlans = parse(text).unwrap().unwrap();
        assert_eq!(vlans.of_port, PortVlans::Trunk(vec![5..=5, 10..=13, 20..=20]));
        assert_eq!(vlans.access(), None);
        let full = parse(r#"{"vlanTrunk":[{"minID":1,"maxID":4094}]}"#)
            .unwrap()
            .unwrap();
        assert_eq!(full.of_port, PortVlans::Trunk(vec![1..=4094]));
    }

    #[test]
    fn impossible_numbers_are_refused_in_the_references_words() {
        for (text, code, words) in [
            (
                r#"{"vlan":4095}"#,
                7,
                "invalid VLAN ID 4095 (must be between 0 and 4094)",
            ),
            (r#"{"vlan":-1}"#, 7, "invalid VLAN ID -1"),
            (r#"{"vlan":"5"}"#, 6, "must be a whole number"),
            (r#"{"vlanTrunk":{}}"#, 6, "must be an array"),
            (r#"{"vlanTrunk":[{"id":0}]}"#, 7, "incorrect trunk id parameter"),
            (
                r#"{"vlanTrunk":[{"minID":5,"maxID":9999}]}"#,
                7,
                "incorrect trunk maxID parameter",
            ),
            (r#"{"vlanTrunk":[{"minID":5}]}"#, 7, "maxID is missing"),
            (r#"{"vlanTrunk":[{"maxID":5}]}"#, 7, "minID is missing"),
            (
                r#"{"vlanTrunk":[{"minID":6,"maxID":5}]}"#,
                7,
                "is greater than maxID",
            ),
            (
                r#"{"vlan":5,"vlanTrunk":[{"id":6}]}"#,
                7,
                "cannot set vlan and vlanTrunk",
            ),
            (
                r#"{"vlan":5,"preserveDefaultVlan":1}"#,
                6,
                "must be true or false",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.code().0, code, "{text}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
