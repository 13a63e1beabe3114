use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use flannel_types::{IpNet, Lease, PreviousSubnets, SubnetPool, UnixTime, ValidNetConf};
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
    /// The node's public address; leases that carry it are its own.
    pub public_ip: Ipv4Addr,
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
}

/// Why there is no subnet for the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocationError {
    /// Every subnet of a pool is taken.
    #[error("out of subnets")]
    OutOfSubnets,
    /// IPv4 is switched off, and leases are named by their IPv4 subnet.
    #[error("leases need an IPv4 subnet")]
    Ipv4Required,
}

impl From<AllocationError> for StoreError {
    fn from(err: AllocationError) -> Self {
        match err {
            AllocationError::OutOfSubnets => Self::OutOfSubnets,
            AllocationError::Ipv4Required => Self::Ipv4Required,
        }
    }
}

/// Chooses a node's subnet: its own lease where it still fits, else the previous subnet where free, else one of the
/// first hundred free ones, each family on its own.
///
/// Another node's expired lease is taken over only when nothing else is free, so that a node that was off for long
/// finds its subnet again. Reservations (leases without an end) are never taken.
///
/// # Errors
/// A pool is exhausted, or IPv4 is switched off.
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
    let others = || {
        input
            .leases
            .values()
            .filter(|lease| lease.attrs.public_ip != input.public_ip)
    };
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
    remove.extend(input.leases.keys().filter(|other| overlap(**other, key)));
    Ok(Allocation {
        decision: Decision::Create(key),
        remove,
    })
}

impl AllocationInput<'_> {
    fn own(&self) -> impl Iterator<Item = &Lease> {
        self.leases
            .values()
            .filter(|lease| lease.attrs.public_ip == self.public_ip)
    }

    /// The node's own lease that fits, a live one first; an expired one only if nobody's live lease overlaps it.
    fn reusable(&self) -> Option<SubnetKey> {
        let fitting = || self.own().filter(|lease| self.fits(lease.key));
        let live = fitting().find(|lease| self.is_live(lease));
        let expired = || {
            fitting().find(|own| {
                let mut live = self.leases.values().filter(|other| self.is_live(other));
                !live.any(|other| overlap(other.key, own.key))
            })
        };
        live.or_else(expired).map(|lease| lease.key)
    }

    fn is_live(&self, lease: &Lease) -> bool {
        lease.expires.is_none_or(|end| end > self.now)
    }

    /// Whether a lease's subnets are those that the configuration hands out, in exactly the enabled families.
    fn fits(&self, key: SubnetKey) -> bool {
        let v6_fits = match (self.conf.ipv6(), key.v6()) {
            (Some(pool), Some(subnet)) => pool.holds(subnet),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        v6_fits && self.conf.ipv4().is_some_and(|pool| pool.holds(key.v4()))
    }

    fn choose(
        &self,
        taken: &[SubnetKey],
        random: &mut dyn FnMut() -> u64,
    ) -> Result<SubnetKey, AllocationError> {
        let pool = self.conf.ipv4().ok_or(AllocationError::Ipv4Required)?;
        let subnets = taken.iter().map(SubnetKey::v4);
        let v4 = choose_subnet(pool, subnets, self.previous.subnet, random)?;
        let v6 = match self.conf.ipv6() {
            None => None,
            Some(pool) => {
                let subnets = taken.iter().filter_map(SubnetKey::v6);
                Some(choose_subnet(pool, subnets, self.previous.ipv6_subnet, random)?)
            }
        };
        Ok(SubnetKey::new(v4, v6))
    }
}

pub(crate) fn overlap(a: SubnetKey, b: SubnetKey) -> bool {
    let v6 = a.v6().zip(b.v6());
    a.v4().overlaps_with(b.v4()) || v6.is_some_and(|(a, b)| a.overlaps_with(b))
}

fn choose_subnet<N: IpNet>(
    pool: &SubnetPool<N>,
    taken: impl Iterator<Item = N>,
    previous: Option<N>,
    random: &mut dyn FnMut() -> u64,
) -> Result<N, AllocationError> {
    let mut taken: Vec<_> = taken
        .map(|subnet| (subnet.first_bits(), subnet.last_bits()))
        .collect();
    let previous = previous.map(N::masked).filter(|subnet| {
        let (first, last) = (subnet.first_bits(), subnet.last_bits());
        pool.holds(*subnet) && !taken.iter().any(|(from, to)| *from <= last && first <= *to)
    });
    if let Some(subnet) = previous {
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
