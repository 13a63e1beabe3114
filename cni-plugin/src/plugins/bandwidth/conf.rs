use cni_types::{Code, DecodeError, NetConf, Object};
use netlink::tc::TokenBucket;

use crate::error::CniError;

/// How long a packet may wait at most (containernetworking/plugins `ifb_creator.go`, `latencyInMillis`).
const LATENCY_MS: u64 = 25;

/// Length of the kernel's tick in nanoseconds (linux `pkt_sched.h`, `PSCHED_SHIFT`).
const TICK_NS: u128 = 64;

const BITS_PER_BYTE: u64 = 8;
const US_PER_SEC: u128 = 1_000_000;

/// The members of a limit, in the configuration itself or under `runtimeConfig.bandwidth`.
const KEYS: [&str; 6] = [
    "ingressRate",
    "ingressBurst",
    "egressRate",
    "egressBurst",
    "shapedSubnets",
    "unshapedSubnets",
];

/// The limits of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Conf {
    /// For what the container receives.
    pub(crate) ingress: Option<Limit>,
    /// For what the container sends.
    pub(crate) egress: Option<Limit>,
}

/// A limit in one direction. At least a byte a second, and a byte at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    rate_bytes_per_sec: u64,
    burst_bytes: u32,
}

/// Why a configuration holds no limits that can be set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfError {
    #[error("{0}")]
    Decode(DecodeError),
    #[error("{direction}: if rate is set, burst must also be set")]
    NoBurst { direction: &'static str },
    #[error("{direction}: if burst is set, rate must also be set")]
    NoRate { direction: &'static str },
    #[error("{direction}: burst of {bits} bits cannot be more than 4GB")]
    BurstTooLarge { direction: &'static str, bits: u64 },
    #[error("{direction}: rate and burst are in bits, and must be at least 8")]
    LessThanAByte { direction: &'static str },
    #[error("{key} {value} is not supported by this plugin; limits hold for all subnets")]
    Subnets { key: &'static str, value: String },
}

impl CniError for ConfError {
    fn code(&self) -> Code {
        match self {
            Self::Decode(_) => Code::DECODING,
            Self::NoBurst { .. }
            | Self::NoRate { .. }
            | Self::BurstTooLarge { .. }
            | Self::LessThanAByte { .. } => Code::BAD_CONFIG,
            Self::Subnets { .. } => Code::UNSUPPORTED_FIELD,
        }
    }
}

impl Conf {
    /// Reads the limits. The configuration's own count before the runtime's: an administrator's limit is not the pod's
    /// to lift (containernetworking/plugins `main.go`, `getBandwidth`).
    pub(crate) fn parse(conf: &NetConf) -> Result<Self, ConfError> {
        let is_own = KEYS.iter().any(|key| conf.object.get(key).is_some());
        if is_own {
            return Self::of(&conf.object);
        }
        let runtime = conf.runtime_config().map_err(ConfError::Decode)?;
        match runtime.object("bandwidth").map_err(ConfError::Decode)? {
            Some(entry) => Self::of(&entry),
            None => Ok(Self::default()),
        }
    }

    /// Whether there is nothing to limit.
    pub(crate) fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    fn of(entry: &Object) -> Result<Self, ConfError> {
        let conf = Self {
            ingress: Limit::of(entry, "ingress", "ingressRate", "ingressBurst")?,
            egress: Limit::of(entry, "egress", "egressRate", "egressBurst")?,
        };
        for key in ["shapedSubnets", "unshapedSubnets"] {
            let subnets = entry.strings(key).map_err(ConfError::Decode)?;
            if !subnets.is_empty() && !conf.is_unlimited() {
                let value = subnets.join(",");
                return Err(ConfError::Subnets { key, value });
            }
        }
        Ok(conf)
    }
}

impl Limit {
    /// Reads one direction. Zero and absent mean no limit; the bounds are the reference's, and containerd's burst of
    /// 2³² - 1 bits is within them.
    fn of(
        entry: &Object,
        direction: &'static str,
        rate_key: &'static str,
        burst_key: &'static str,
    ) -> Result<Option<Self>, ConfError> {
        let (rate, bits) = (number(entry, rate_key)?, number(entry, burst_key)?);
        match (rate, bits) {
            (0, 0) => return Ok(None),
            (_, 0) => return Err(ConfError::NoBurst { direction }),
            (0, _) => return Err(ConfError::NoRate { direction }),
            _ => {}
        }
        let burst = u32::try_from(bits / BITS_PER_BYTE).ok();
        let burst_bytes = burst
            .filter(|bytes| *bytes < u32::MAX)
            .ok_or(ConfError::BurstTooLarge { direction, bits })?;
        let rate_bytes_per_sec = rate / BITS_PER_BYTE;
        if rate_bytes_per_sec == 0 || burst_bytes == 0 {
            return Err(ConfError::LessThanAByte { direction });
        }
        Ok(Some(Self {
            rate_bytes_per_sec,
            burst_bytes,
        }))
    }

    /// The bucket with the reference's values, so far as these fit: its size is counted in ticks, after whole
    /// microseconds, in 32 bits. A burst that would take longer than the 275 s that these hold is as large as they
    /// allow; in the reference it wraps around, and may come out smaller than a packet.
    pub(crate) fn bucket(&self) -> TokenBucket {
        let us = self.burst_us();
        // Where the rate is so high that not one microsecond remains, the nanoseconds count.
        let ns = if us == 0 {
            self.burst_bytes_times(US_PER_SEC * 1000)
        } else {
            us * 1000
        };
        let burst_ticks = u32::try_from(ns / TICK_NS).unwrap_or(u32::MAX).max(1);
        let waiting = u128::from(self.rate_bytes_per_sec) * u128::from(LATENCY_MS) / 1000;
        let limit = waiting + u128::from(self.burst_bytes);
        TokenBucket {
            rate_bytes_per_sec: self.rate_bytes_per_sec,
            burst_ticks,
            limit_bytes: u32::try_from(limit).unwrap_or(u32::MAX),
        }
    }

    /// Whether a bucket is of this limit, made by this plugin or by the reference.
    pub(crate) fn is_made_by(&self, found: &TokenBucket) -> bool {
        let ours = self.bucket();
        let of_reference = TokenBucket {
            burst_ticks: self.wrapped_ticks(),
            ..ours
        };
        [ours, of_reference].contains(found)
    }

    /// The ticks as the reference has them on a machine whose conversions wrap around.
    fn wrapped_ticks(&self) -> u32 {
        let low = |value: u128| u32::try_from(value % (1 << 32)).unwrap_or(0);
        low(u128::from(low(self.burst_us())) * 1000 / TICK_NS)
    }

    /// How long the burst takes to fill.
    fn burst_us(&self) -> u128 {
        self.burst_bytes_times(US_PER_SEC)
    }

    fn burst_bytes_times(&self, factor: u128) -> u128 {
        u128::from(self.burst_bytes) * factor / u128::from(self.rate_bytes_per_sec.max(1))
    }
}

fn number(entry: &Object, key: &'static str) -> Result<u64, ConfError> {
    let Some(value) = entry.get(key) else {
        return Ok(0);
    };
    value.as_u64().ok_or_else(|| {
        ConfError::Decode(DecodeError::Type {
            key: key.to_owned(),
            expected: "a whole number that is not negative",
            found: value.to_string(),
        })
    })
}

#[cfg(test)]
mod tests;
