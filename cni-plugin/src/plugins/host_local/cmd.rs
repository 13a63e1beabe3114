use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_types::{AddResult, Code, ContainerId, IpConfig, NetConf, Target};
use ipnetwork::IpNetwork;
use net_types::IfName;

use super::boot::Boot;
use super::conf::{self, Conf, store_dir};
use super::range::RangeSet;
use super::store::{Holder, Reservation, Store, StoreError, addresses};
use crate::context::Attachments;
use crate::error::{CniError, Failure, Failures};
use crate::plugins::{data_dir, prev_result};

/// What to do when the attachment holds an address already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duplicate {
    /// It is an error: the attachment may be alive.
    Refuse,
    /// Give the same address again: the caller knows that the attachment isn't alive, but was left by a crash.
    Reuse,
    /// As [`Self::Reuse`], but only if more is reserved than this many other attachments can hold: somebody's is then
    /// left over, this one's perhaps. Otherwise nobody's reservations have to be read, which is what most of the time
    /// goes into on a node full of containers.
    IfMoreThan(usize),
}

/// Why host-local gives no address.
#[derive(Debug, thiserror::Error)]
enum AllocateError {
    #[error("failed to allocate for range {range}: {reason}")]
    Range { range: usize, reason: Reason },
    #[error("failed to allocate all requested IPs: {}", join(.0))]
    Unusable(Vec<IpAddr>),
    #[error("failed to find an address added for container {0}")]
    NotReserved(ContainerId),
    #[error("no IP addresses available in range set: {0}")]
    Full(String),
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("no IP addresses available in range set: {0}")]
    Exhausted(String),
    #[error("{ip} has been allocated to {container_id}, duplicate allocation is not allowed")]
    Duplicate { ip: IpAddr, container_id: ContainerId },
    #[error("requested IP address {ip} is not available in range set {set}")]
    Taken { ip: IpAddr, set: String },
    #[error("requested ip {0} is subnet's gateway")]
    Gateway(IpAddr),
}

impl CniError for AllocateError {
    fn code(&self) -> Code {
        match self {
            Self::Range { reason, .. } => match reason {
                Reason::Exhausted(_) => Code::TRY_LATER,
                Reason::Duplicate { .. } | Reason::Taken { .. } => Code::CONFLICT,
                Reason::Gateway(_) => Code::BAD_CONFIG,
            },
            Self::Unusable(_) => Code::BAD_CONFIG,
            Self::NotReserved(_) => Code::CHECK_FAILED,
            Self::Full(_) => Code::NOT_AVAILABLE,
        }
    }
}

fn join(ips: &[IpAddr]) -> String {
    let texts: Vec<_> = ips.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// Reserves one address of each range set; on failure none stays reserved that was not before.
pub(crate) fn add(
    conf: &NetConf,
    args: &str,
    target: &Target,
    duplicate: Duplicate,
) -> Result<AddResult, Failure> {
    let own = Conf::parse(conf, args)?;
    let store = Store::open_or_create(&store_dir(conf)?)?;
    let boot = Boot::current();
    if let Some(boot) = &boot {
        let own = match duplicate {
            Duplicate::Refuse | Duplicate::IfMoreThan(_) => None,
            Duplicate::Reuse => Some(target),
        };
        store.reclaim(boot, own)?;
    }
    let allocate = |known| {
        let mut allocation = Allocation {
            store: &store,
            boot: boot.as_ref(),
            known,
            target,
            duplicate,
            requested: own.requested.clone(),
            made: Vec::new(),
        };
        let ips = allocation.ips(&own.sets);
        if ips.is_err() {
            allocation.roll_back();
        }
        ips
    };
    let ips = match duplicate {
        Duplicate::IfMoreThan(others) => {
            let known = Known::by_names(&store)?;
            if known.taken.len() > others.saturating_mul(own.sets.len()) {
                allocate(Known::by_contents(&store, target)?)
            } else {
                // What crashed writers left may be in the way: reading it all removes that.
                allocate(known).or_else(|_| allocate(Known::by_contents(&store, target)?))
            }
        }
        Duplicate::Refuse | Duplicate::Reuse => allocate(Known::by_contents(&store, target)?),
    };
    Ok(AddResult {
        ips: ips?,
        routes: own.routes,
        dns: own.dns,
        ..AddResult::default()
    })
}

/// What is reserved.
#[derive(Debug)]
struct Known {
    /// For the attachment.
    own: Vec<IpAddr>,
    /// For it and others.
    taken: BTreeSet<IpAddr>,
}

impl Known {
    fn by_contents(store: &Store, target: &Target) -> Result<Self, StoreError> {
        let reservations = store.reservations()?;
        let own = reservations
            .iter()
            .filter(|reservation| reservation.is_of(target));
        Ok(Self {
            own: own.map(|reservation| reservation.ip).collect(),
            taken: addresses(&reservations),
        })
    }

    fn by_names(store: &Store) -> Result<Self, StoreError> {
        Ok(Self {
            own: Vec::new(),
            taken: store.names()?,
        })
    }
}

/// One ADD's way through the range sets.
struct Allocation<'a> {
    store: &'a Store,
    boot: Option<&'a Boot>,
    known: Known,
    target: &'a Target,
    duplicate: Duplicate,
    /// Addresses asked for that no set has given yet.
    requested: Vec<IpAddr>,
    /// Addresses that were reserved by this ADD.
    made: Vec<IpAddr>,
}

impl Allocation<'_> {
    fn ips(&mut self, sets: &[RangeSet]) -> Result<Vec<IpConfig>, Failure> {
        let mut ips = Vec::with_capacity(sets.len());
        for (position, set) in sets.iter().enumerate() {
            ips.push(self.ip(position, set)?);
        }
        if self.requested.is_empty() {
            Ok(ips)
        } else {
            Err(AllocateError::Unusable(self.requested.clone()).into())
        }
    }

    fn ip(&mut self, position: usize, set: &RangeSet) -> Result<IpConfig, Failure> {
        let (ip, is_new) = match self.choose(position, set) {
            Ok(chosen) => chosen,
            Err(reason) => {
                let range = position;
                return Err(AllocateError::Range { range, reason }.into());
            }
        };
        if is_new {
            self.store.reserve(ip, self.target)?;
            self.made.push(ip);
            self.store.set_last_reserved(position, ip)?;
        }
        if let Some(boot) = self.boot {
            boot.mark(&self.store.path(ip));
        }
        let range = set.range_of(ip);
        let prefix = range.map_or(if ip.is_ipv4() { 32 } else { 128 }, |range| range.subnet.prefix());
        let address = IpNetwork::new(ip, prefix).unwrap_or(ip.into());
        Ok(IpConfig::new(address, range.map(|range| range.gateway)))
    }

    /// The address to give, and whether it has to be reserved.
    fn choose(&mut self, position: usize, set: &RangeSet) -> Result<(IpAddr, bool), Reason> {
        let in_set = |ip: &IpAddr| set.range_of(*ip).is_some();
        let own = self.known.own.iter().copied().find(in_set);
        let asked_at = self.requested.iter().position(in_set);
        let asked = asked_at.map(|at| self.requested.remove(at));
        match (own, asked) {
            (Some(ip), None) if self.duplicate != Duplicate::Refuse => Ok((ip, false)),
            (Some(ip), Some(asked)) if self.duplicate != Duplicate::Refuse && ip == asked => Ok((ip, false)),
            (Some(ip), _) => Err(Reason::Duplicate {
                ip,
                container_id: self.target.container_id.clone(),
            }),
            (None, Some(asked)) => self.requested_free(asked, set),
            (None, None) => {
                let next = set.next_free(self.store.last_reserved(position), &self.known.taken);
                let (ip, _) = next.ok_or_else(|| Reason::Exhausted(set.to_string()))?;
                Ok((ip, true))
            }
        }
    }

    fn requested_free(&self, ip: IpAddr, set: &RangeSet) -> Result<(IpAddr, bool), Reason> {
        if set.range_of(ip).is_some_and(|range| range.gateway == ip) {
            return Err(Reason::Gateway(ip));
        }
        if self.known.taken.contains(&ip) {
            let set = set.to_string();
            return Err(Reason::Taken { ip, set });
        }
        Ok((ip, true))
    }

    /// Frees what this ADD reserved; the first failure has been reported already, and a reservation that cannot be
    /// removed is found by the DEL.
    fn roll_back(&self) {
        for ip in &self.made {
            drop(self.store.release(*ip));
        }
    }
}

/// Frees every address of an attachment. Needs no valid ranges and creates nothing.
///
/// `noted` is all that it was given, if somebody took note of that: then only these reservations are read. If one is not
/// the attachment's, all are.
pub(crate) fn del(conf: &NetConf, target: &Target, noted: &[IpAddr]) -> Result<(), Failure> {
    let Some(store) = Store::open(&store_dir(conf)?)? else {
        return Ok(());
    };
    if !holds_all(&store, target, noted)? {
        return release_where(&store, |reservation| reservation.is_of(target));
    }
    let mut failures = Failures::default();
    for ip in noted {
        failures.note(store.release(*ip));
    }
    failures.into_result()
}

/// Whether the addresses are some, and each is reserved for the attachment.
fn holds_all(store: &Store, target: &Target, ips: &[IpAddr]) -> Result<bool, StoreError> {
    for ip in ips {
        if !store.holds(*ip, target)? {
            return Ok(false);
        }
    }
    Ok(!ips.is_empty())
}

/// The addresses that the attachment holds.
pub(crate) fn held(conf: &NetConf, target: &Target) -> Result<Vec<IpAddr>, Failure> {
    let all = all(conf)?;
    let own = all.iter().filter(|reservation| reservation.is_of(target));
    Ok(own.map(|reservation| reservation.ip).collect())
}

/// Fails unless the attachment holds the addresses of its result that are out of the ranges, one in each family perhaps;
/// any address, if there are none.
pub(crate) fn check(conf: &NetConf, target: &Target) -> Result<(), Failure> {
    let mut given = prev_result::required(conf).map_or_else(|_| Vec::new(), |result| result.addresses());
    if !given.is_empty() {
        let sets = conf::range_sets(conf, &conf::ipam(conf)?)?;
        given.retain(|ip| sets.iter().any(|set| set.range_of(*ip).is_some()));
    }
    let is_held = if given.is_empty() {
        !held(conf, target)?.is_empty()
    } else {
        match Store::open(&store_dir(conf)?)? {
            Some(store) => holds_all(&store, target, &given)?,
            None => false,
        }
    };
    if is_held {
        Ok(())
    } else {
        Err(AllocateError::NotReserved(target.container_id.clone()).into())
    }
}

/// Fails unless every range set has a free address.
pub(crate) fn status(conf: &NetConf) -> Result<(), Failure> {
    let sets = conf::range_sets(conf, &conf::ipam(conf)?)?;
    data_dir::require_room(&store_dir(conf)?)?;
    let full = |taken: &BTreeSet<IpAddr>| sets.iter().find(|set| set.next_free(None, taken).is_none());
    let names = match Store::open(&store_dir(conf)?)? {
        Some(store) => store.names()?,
        None => BTreeSet::new(),
    };
    if full(&names).is_none() {
        return Ok(());
    }
    match full(&addresses(&all(conf)?)) {
        None => Ok(()),
        Some(full) => Err(AllocateError::Full(full.to_string()).into()),
    }
}

/// The gateways of the networks that addresses are given out of, where a set leaves no choice.
pub(crate) fn gateways(conf: &NetConf) -> Result<Vec<IpNetwork>, Failure> {
    let sets = conf::range_sets(conf, &conf::ipam(conf)?)?;
    let single = sets.iter().filter_map(RangeSet::single);
    Ok(single
        .filter_map(|range| IpNetwork::new(range.gateway, range.subnet.prefix()).ok())
        .collect())
}

/// The networks that the configuration routes to the containers' gateways.
pub(crate) fn routed(conf: &NetConf) -> Result<Vec<IpNetwork>, Failure> {
    let own = Conf::parse(conf, "")?;
    Ok(own.routes.iter().map(|route| route.dst).collect())
}

/// Frees every address whose attachment is not valid; one without interface name is valid with its container.
pub(crate) fn gc(conf: &NetConf, valid: &Attachments) -> Result<(), Failure> {
    let Some(store) = Store::open(&store_dir(conf)?)? else {
        return Ok(());
    };
    release_where(&store, |reservation| !valid.holds(reservation))
}

/// Whether an attachment's interface is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detached {
    Yes,
    /// It may be one that cannot be told from others.
    Unknown,
}

/// Detaches every attachment that holds an address and is not valid, and frees the address of what is detached. Goes
/// on over failures.
///
/// What may still be attached keeps its address, or another container would be cut off: a reservation without interface
/// name, and one whose interface cannot be told. The container's DEL frees it, which names interface and namespace.
pub(crate) fn gc_detaching(
    conf: &NetConf,
    valid: &Attachments,
    mut detach: impl FnMut(&Target) -> Result<Detached, Failure>,
) -> Result<(), Failure> {
    let mut failures = Failures::default();
    let all = all(conf)?;
    let stale = all.iter().filter(|reservation| !valid.holds(reservation));
    let mut detached: BTreeSet<_> = stale.filter_map(attachment).collect();
    detached.retain(|target| match detach(target) {
        Ok(detached) => detached == Detached::Yes,
        Err(failure) => failures.note(Err(failure)),
    });
    if let Some(store) = Store::open(&store_dir(conf)?)? {
        let is_detached = |target| detached.contains(&target);
        failures.note(release_where(&store, |reservation| {
            attachment(reservation).is_some_and(is_detached)
        }));
    }
    failures.into_result()
}

/// Whom the reserved addresses are for.
pub(crate) fn all_holders(conf: &NetConf) -> Result<Vec<Holder>, Failure> {
    let all = all(conf)?.into_iter();
    Ok(all.filter_map(|reservation| reservation.holder).collect())
}

/// The attachments that hold an address, so far as their reservations name them.
pub(crate) fn attachments(conf: &NetConf) -> Result<BTreeSet<Target>, Failure> {
    Ok(all(conf)?.iter().filter_map(attachment).collect())
}

/// The names of a container's interfaces that hold an address.
pub(crate) fn holders(conf: &NetConf, container_id: &ContainerId) -> Result<Vec<IfName>, Failure> {
    let targets = all(conf)?;
    let targets = targets.iter().filter_map(attachment);
    let own = targets.filter(|target| target.container_id == *container_id);
    Ok(own.map(|target| target.ifname).collect())
}

fn attachment(reservation: &Reservation) -> Option<Target> {
    let holder = reservation.holder.as_ref()?;
    Some(Target {
        container_id: ContainerId::new(&holder.container_id).ok()?,
        ifname: IfName::new(holder.ifname.as_deref()?).ok()?,
    })
}

impl Attachments {
    /// Whether a reservation is of a valid attachment; one without interface name is valid with its container. What is
    /// no reservation is nobody's to free.
    fn holds(&self, reservation: &Reservation) -> bool {
        let of_valid = |holder: &Holder| self.0.iter().any(|target| holder.is(target));
        reservation.holder.as_ref().is_none_or(of_valid)
    }
}

fn all(conf: &NetConf) -> Result<Vec<Reservation>, Failure> {
    match Store::open(&store_dir(conf)?)? {
        Some(store) => Ok(store.reservations()?),
        None => Ok(Vec::new()),
    }
}

/// Frees addresses, each even if another cannot be freed.
fn release_where(store: &Store, is_meant: impl Fn(&Reservation) -> bool) -> Result<(), Failure> {
    let mut failures = Failures::default();
    for reservation in store.reservations()? {
        if is_meant(&reservation) {
            failures.note(store.release(reservation.ip));
        }
    }
    failures.into_result()
}
