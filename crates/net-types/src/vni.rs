use std::fmt;

use serde::{Deserialize, Serialize};

/// A VXLAN network identifier, 24 bits wide (RFC 7348 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

/// A number that does not fit into 24 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("VNI {0} is larger than 16777215")]
pub struct VniError(u32);

impl Vni {
    /// The VNI that flannel uses unless net-conf names another.
    pub const DEFAULT: Self = Self(1);

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniError;

    fn try_from(value: u32) -> Result<Self, Self::Error> {
        if value < 1 << 24 {
            Ok(Self(value))
        } else {
            Err(VniError(value))
        }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_24_bits_fit() {
        assert_eq!(Vni::try_from(0xff_ffff).unwrap().get(), 0xff_ffff);
        assert_eq!(Vni::try_from(0x100_0000), Err(VniError(0x100_0000)));
    }
}
