use std::collections::{BTreeMap, BTreeSet};

use flannel_types::{
    IpNet, Lease, LeaseAttrs, PreviousSubnets, PublicAddrs, SubnetPool, UnixTime, ValidNetConf,
};
use net_types::SubnetKey;

use crate::error::StoreError;

/// Of how many free subnets one is chosen at random (flannel `pkg/subnet/etcd/local_manager.go`, `allocateSubnet`):
/// nodes that start together seldom choose the same.
const MAX_CANDIDATES: usize = 100;

/// All that the choice of a node's subnet depends on, but for chance.
#[derive(Debug, Clone, Copy)]
pub struct AllocationInput<'a> {
    /// The configuration.
    pub conf: &'a ValidNetConf,
    /// Every lease in the store, the expired ones included.
    pub leases: &'a BTreeMap<SubnetKey, Lease>,
    /// The node's public addresses; leases that carry them are its own.
    pub node: PublicAddrs,
    /// The subnets of an earlier run, preferred where free.
    pub previous: &'a PreviousSubnets,
    /// The present.
    pub now: UnixTime,
}

/// The choice of a node's subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The subnet.
    pub decision: Decision,
    /// Leases to remove before the subnet is claimed: the node's own that no longer fit the configuration, and
    /// expired ones whose subnet is taken over.
    pub remove: BTreeSet<SubnetKey>,
}

/// Where the node's subnet comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The node's own lease, to be written anew.
    Reuse(SubnetKey),
    /// A subnet that nobody holds.
    Create(SubnetKey),
    /// The node's own lease under another name, because a family was switched on or off: the subnet that both names
    /// have is never without a lease, and no peer needs to notice.
    Move {
        /// The name it has.
        from: SubnetKey,
        /// The name it gets, which nobody holds.
        to: SubnetKey,
    },
}

/// Why there is no subnet for the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocationError {
    /// Every subnet of a pool is taken.
    #[error("out of subnets")]
    OutOfSubnets,
}

impl From<AllocationError> for StoreError {
    fn from(err: AllocationError) -> Self {
        match err {
            AllocationError::OutOfSubnets => Self::OutOfSubnets,
        }
    }
}

/// Chooses a node's subnet: its own lease where it still fits, else what it holds of it in either family, else the
/// previous subnet where free, else one of the first hundred free ones, each family on its own.
///
/// Another node's expired lease is taken over only when nothing else is free, so that a node that was off for long
/// finds its subnet again. Reservations (leases without an end) are never taken.
///
/// # Errors
/// A pool is exhausted.
pub fn allocate(
    input: &AllocationInput<'_>,
    random: &mut dyn FnMut() -> u64,
) -> Result<Allocation, AllocationError> {
    let mut remove: BTreeSet<_> = input
        .own()
        .filter(|lease| !input.fits(lease.key))
        .map(|lease| lease.key)
        .collect();
    if let Some(key) = input.reusable() {
        return Ok(Allocation {
            decision: Decision::Reuse(key),
            remove,
        });
    }
    let others = || input.leases.values().filter(|lease| !input.is_own(lease));
    let taken: Vec<_> = others().map(|lease| lease.key).collect();
    let key = match input.choose(&taken, random) {
        Err(AllocationError::OutOfSubnets) => {
            let live: Vec<_> = others()
                .filter(|lease| input.is_live(lease))
                .map(|lease| lease.key)
                .collect();
            input.choose(&live, random)?
        }
        result => result?,
    };
    remove.extend(input.leases.keys().filter(|other| other.overlaps(&key)));
    let decision = match input.own().find(|lease| shares_subnet(lease.key, key)) {
        Some(own) => Decision::Move {
            from: own.key,
            to: key,
        },
        None => Decision::Create(key),
    };
    if let Decision::Move { from, .. } = decision {
        remove.remove(&from);
    }
    Ok(Allocation { decision, remove })
}

/// A lease that stands for one that cannot be read: its subnet is in use.
pub(crate) const fn nobody_s(key: SubnetKey) -> Lease {
    Lease {
        key,
        attrs: LeaseAttrs {
            public_ip: None,
            public_ipv6: None,
            backend_type: String::new(),
            backend_data: None,
            backend_v6_data: None,
        },
        expires: None,
    }
}

impl AllocationInput<'_> {
    fn own(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values().filter(|lease| self.is_own(lease))
    }

    fn is_own(&self, lease: &Lease) -> bool {
        lease.attrs.addrs().is_same_node(self.node)
    }

    /// The node's own lease that fits, a live one first; an expired one only if nobody's live lease overlaps it. Of several
    /// it is that of the previous subnet: the others may be of a node that had this one's address, as where two swap theirs.
    fn reusable(&self) -> Option<SubnetKey> {
        let fitting = || self.own().filter(|lease| self.fits(lease.key));
        let live = fitting()
            .filter(|lease| self.is_live(lease))
            .min_by_key(|lease| !self.previous.has_of(lease.key));
        let expired = || {
            fitting().find(|own| {
                let mut live = self.leases.values().filter(|other| self.is_live(other));
                !live.any(|other| other.key.overlaps(&own.key))
            })
        };
        live.or_else(expired).map(|lease| lease.key)
    }

    fn is_live(&self, lease: &Lease) -> bool {
        lease.expires.is_none_or(|end| end > self.now)
    }

    /// Whether a lease's subnets are those that the configuration hands out, in exactly the enabled families.
    fn fits(&self, key: SubnetKey) -> bool {
        fits_in(self.conf.ipv4(), key.v4()) && fits_in(self.conf.ipv6(), key.v6())
    }

    fn choose(
        &self,
        taken: &[SubnetKey],
        random: &mut dyn FnMut() -> u64,
    ) -> Result<SubnetKey, AllocationError> {
        let own = || self.own().map(|lease| lease.key);
        let v4 = choose_in(
            self.conf.ipv4(),
            taken.iter().filter_map(SubnetKey::v4),
            own().filter_map(|key| key.v4()).chain(self.previous.subnet),
            random,
        )?;
        let v6 = choose_in(
            self.conf.ipv6(),
            taken.iter().filter_map(SubnetKey::v6),
            own().filter_map(|key| key.v6()).chain(self.previous.ipv6_subnet),
            random,
        )?;
        // A valid configuration has a family.
        SubnetKey::of(v4, v6).ok_or(AllocationError::OutOfSubnets)
    }
}

/// Whether a subnet is one that a pool hands out, or neither is there.
fn fits_in<N: IpNet>(pool: Option<&SubnetPool<N>>, subnet: Option<N>) -> bool {
    match (pool, subnet) {
        (Some(pool), Some(subnet)) => pool.holds(subnet),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Whether two names have a subnet in common as it is.
fn shares_subnet(one: SubnetKey, other: SubnetKey) -> bool {
    one.v4().is_some() && one.v4() == other.v4() || one.v6().is_some() && one.v6() == other.v6()
}

/// Chooses a subnet in one family, if it is on.
fn choose_in<N: IpNet>(
    pool: Option<&SubnetPool<N>>,
    taken: impl Iterator<Item = N>,
    preferred: impl Iterator<Item = N>,
    random: &mut dyn FnMut() -> u64,
) -> Result<Option<N>, AllocationError> {
    pool.map(|pool| choose_subnet(pool, taken, preferred, random))
        .transpose()
}

fn choose_subnet<N: IpNet>(
    pool: &SubnetPool<N>,
    taken: impl Iterator<Item = N>,
    preferred: impl Iterator<Item = N>,
    random: &mut dyn FnMut() -> u64,
) -> Result<N, AllocationError> {
    let mut taken: Vec<_> = taken
        .map(|subnet| (subnet.first_bits(), subnet.last_bits()))
        .collect();
    let mut preferred = preferred.map(N::masked);
    let is_free = |subnet: &N| {
        let (first, last) = (subnet.first_bits(), subnet.last_bits());
        pool.holds(*subnet) && !taken.iter().any(|(from, to)| *from <= last && first <= *to)
    };
    if let Some(subnet) = preferred.find(is_free) {
        return Ok(subnet);
    }
    taken.sort_unstable();
    let candidates = free_subnets(pool, &taken);
    let count = u64::try_from(candidates.len()).unwrap_or(u64::MAX);
    let index = random()
        .checked_rem(count)
        .and_then(|index| usize::try_from(index).ok());
    index
        .and_then(|index| candidates.get(index).copied())
        .ok_or(AllocationError::OutOfSubnets)
}

/// The first free subnets of a pool in one pass over the sorted ranges that are taken.
fn free_subnets<N: IpNet>(pool: &SubnetPool<N>, taken: &[(u128, u128)]) -> Vec<N> {
    let mut free = Vec::new();
    let mut taken = taken.iter().peekable();
    let mut subnet = pool.first();
    while pool.holds(subnet) && free.len() < MAX_CANDIDATES {
        while taken.next_if(|(_, to)| *to < subnet.first_bits()).is_some() {}
        let occupied_to = taken
            .peek()
            .filter(|(from, _)| *from <= subnet.last_bits())
            .map(|(_, to)| *to);
        if occupied_to.is_none() {
            free.push(subnet);
        }
        let last = occupied_to.unwrap_or(0).max(subnet.last_bits());
        let next = last
            .checked_add(1)
            .and_then(|start| N::containing(start, pool.subnet_len()));
        let Some(next) = next else { break };
        subnet = next;
    }
    free
}

#[cfg(test)]
mod tests;
