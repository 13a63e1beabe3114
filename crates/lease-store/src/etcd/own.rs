//! How a node gets its lease and keeps it.

use std::time::Duration;

use ::etcd::Error;
use ::etcd::messages::{
    Compare, CompareResult, CompareTarget, CompareUnion, DeleteRangeRequest, KeyValue, PutRequest,
    RangeRequest, Request, RequestOp, TxnRequest,
};
use flannel_types::{Lease, LeaseAttrs, PublicAddrs, UnixTime, ValidNetConf};
use net_types::SubnetKey;
use tracing::debug;

use super::keys::KeyRange;
use super::listing::{parse_attrs, ranges, reading, revision};
use super::{Store, random, store_error};
use crate::LeaseRequest;
use crate::allocation::{AllocationInput, Decision, allocate, nobody_s};
use crate::error::StoreError;

/// How often a node that was too slow chooses anew, before the caller hears of it.
const MAX_ROUNDS: u32 = 30;
/// The longest pause before the second round; each round waits longer by this.
const PAUSE: Duration = Duration::from_millis(10);

/// A key that was made, and what it is attached to.
struct Created {
    etcd_lease: i64,
    revision: i64,
    expires: UnixTime,
}

impl Store {
    pub(super) async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, StoreError> {
        let valid = request.conf.validated().map_err(|source| StoreError::BadConfig {
            place: format!("{} in etcd", self.keys.config()),
            source,
        })?;
        let mut round = 0;
        loop {
            round += 1;
            match self.try_acquire(&valid, request).await {
                Err(StoreError::Conflict(_) | StoreError::Lost { .. }) if round < MAX_ROUNDS => {}
                result => return result,
            }
            let longest = (PAUSE * round).as_micros().max(1);
            let micros = u64::try_from(u128::from(random()) % longest).unwrap_or(0);
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
    }

    async fn try_acquire(&self, conf: &ValidNetConf, request: &LeaseRequest) -> Result<Lease, StoreError> {
        let listing = match self.recent() {
            Some(listing) => listing,
            None => self.list().await?,
        };
        let node = request.attrs.addrs();
        let mut leases = listing.leases;
        // A subnet is in use although its holder cannot be read.
        leases.extend(listing.malformed.into_keys().map(|key| (key, nobody_s(key))));
        let input = AllocationInput {
            conf,
            leases: &leases,
            node,
            previous: &request.previous,
            now: self.clock.now(),
        };
        let allocation = allocate(&input, &mut random)?;
        for key in allocation.remove {
            self.remove(key, node).await?;
        }
        match allocation.decision {
            Decision::Reuse(key) => self.hold(key, &request.attrs).await,
            Decision::Create(key) => self.create(key, &request.attrs, listing.revision).await,
            Decision::Move { from, to } => self.rename(from, to, &request.attrs, listing.revision).await,
        }
    }

    /// Extends the node's lease and gives it these attributes; a reservation stays one.
    pub(super) async fn hold(&self, key: SubnetKey, attrs: &LeaseAttrs) -> Result<Lease, StoreError> {
        for _ in 0..MAX_ROUNDS {
            let stored = self.own(key, attrs.addrs()).await?;
            let refreshed = self.refresh(key, attrs, &stored).await;
            if let Some(lease) = refreshed.map_err(|err| store_error(&self.keys.lease(key), err))? {
                return Ok(lease);
            }
        }
        Err(StoreError::Conflict(key))
    }

    /// Gives the node's lease other addresses, unless somebody wrote something else there.
    pub(super) async fn readdress(&self, lease: &Lease, to: PublicAddrs) -> Result<Lease, StoreError> {
        let key = lease.key;
        for _ in 0..MAX_ROUNDS {
            let stored = self.read(key).await;
            let stored = stored.map_err(|err| store_error(&self.keys.lease(key), err))?;
            let stored = stored.ok_or(StoreError::Lost { key, holder: None })?;
            let attrs = parse_attrs(&stored.value);
            if attrs.as_ref() != Ok(&lease.attrs) {
                let holder = attrs.ok().and_then(|attrs| attrs.addrs().first());
                return Err(StoreError::Lost { key, holder });
            }
            let moved = self.refresh(key, &lease.attrs.at(to), &stored).await;
            if let Some(lease) = moved.map_err(|err| store_error(&self.keys.lease(key), err))? {
                return Ok(lease);
            }
        }
        Err(StoreError::Conflict(key))
    }

    /// Reads the node's lease.
    async fn own(&self, key: SubnetKey, node: PublicAddrs) -> Result<KeyValue, StoreError> {
        let name = self.keys.lease(key);
        let stored = self.read(key).await.map_err(|err| store_error(&name, err))?;
        let stored = stored.ok_or(StoreError::Lost { key, holder: None })?;
        let attrs = parse_attrs(&stored.value).map_err(|why| StoreError::Malformed {
            place: format!("{name} in etcd"),
            why,
        })?;
        if !attrs.addrs().is_same_node(node) {
            let holder = attrs.addrs().first();
            return Err(StoreError::Lost { key, holder });
        }
        Ok(stored)
    }

    /// Extends a lease; `None` if it changed since it was read.
    async fn refresh(
        &self,
        key: SubnetKey,
        attrs: &LeaseAttrs,
        stored: &KeyValue,
    ) -> Result<Option<Lease>, Error> {
        let value = attrs.to_json().into_bytes();
        let is_changed = stored.value != value;
        let lease = |expires| Lease {
            key,
            attrs: attrs.clone(),
            expires,
        };
        if stored.lease == 0 {
            let done = !is_changed || self.replace(stored, value, 0).await?;
            return Ok(done.then(|| lease(None)));
        }
        let now = self.clock.now();
        if self.client.keep_alive(stored.lease).await? == Some(self.lease_ttl) {
            let done = !is_changed || self.replace(stored, value, stored.lease).await?;
            return Ok(done.then(|| lease(Some(now.plus(self.lease_ttl)))));
        }
        // Its etcd lease ends this moment, or has another life than ours.
        let etcd_lease = new_lease_id();
        let ttl = self.client.grant(etcd_lease, self.lease_ttl).await?;
        let done = self.replace(stored, value, etcd_lease).await?;
        self.revoke_unused(if done { stored.lease } else { etcd_lease })
            .await;
        Ok(done.then(|| lease(Some(now.plus(ttl)))))
    }

    /// Makes a lease for a subnet that nobody held at some revision.
    async fn create(&self, key: SubnetKey, attrs: &LeaseAttrs, chosen_at: i64) -> Result<Lease, StoreError> {
        let created = self.put_new(key, attrs).await;
        let created = created
            .map_err(|err| store_error(&self.keys.lease(key), err))?
            .ok_or(StoreError::Conflict(key))?;
        if self.is_second(key, &created, chosen_at).await? {
            self.revoke(created.etcd_lease).await;
            return Err(StoreError::Conflict(key));
        }
        Ok(Lease {
            key,
            attrs: attrs.clone(),
            expires: Some(created.expires),
        })
    }

    /// Gives the node's lease another name, at one revision. The old key goes first within it: upstream's daemons
    /// handle the events in this order, and would else remove the route that they have just made.
    async fn rename(
        &self,
        from: SubnetKey,
        to: SubnetKey,
        attrs: &LeaseAttrs,
        chosen_at: i64,
    ) -> Result<Lease, StoreError> {
        let stored = self.own(from, attrs.addrs()).await?;
        let renamed = self.try_rename(&stored, to, attrs).await;
        let created = renamed
            .map_err(|err| store_error(&self.keys.lease(to), err))?
            .ok_or(StoreError::Conflict(to))?;
        if self.is_second(to, &created, chosen_at).await? {
            // The shared subnet goes with it: somebody else has the other one, and the next round chooses anew.
            self.remove(to, attrs.addrs()).await?;
            return Err(StoreError::Conflict(to));
        }
        Ok(Lease {
            key: to,
            attrs: attrs.clone(),
            expires: (created.etcd_lease != 0).then_some(created.expires),
        })
    }

    /// Puts a lease in place of another one; `None` if either changed meanwhile. A reservation stays one.
    async fn try_rename(
        &self,
        stored: &KeyValue,
        to: SubnetKey,
        attrs: &LeaseAttrs,
    ) -> Result<Option<Created>, Error> {
        let now = self.clock.now();
        let (etcd_lease, ttl) = if stored.lease == 0 {
            (0, self.lease_ttl)
        } else {
            let etcd_lease = new_lease_id();
            (etcd_lease, self.client.grant(etcd_lease, self.lease_ttl).await?)
        };
        let name = self.keys.lease(to).into_bytes();
        let delete = Request::DeleteRange(DeleteRangeRequest {
            key: stored.key.clone(),
        });
        let request = TxnRequest {
            compare: vec![
                unchanged(stored),
                Compare {
                    result: CompareResult::Equal.into(),
                    target: CompareTarget::Version.into(),
                    key: name.clone(),
                    target_union: Some(CompareUnion::Version(0)),
                    range_end: Vec::new(),
                },
            ],
            success: vec![
                RequestOp {
                    request: Some(delete),
                },
                putting(name, attrs.to_json().into_bytes(), etcd_lease),
            ],
            failure: Vec::new(),
        };
        let answer = self.client.txn(request).await?;
        let unused = if answer.succeeded {
            stored.lease
        } else {
            etcd_lease
        };
        if unused != 0 {
            self.revoke_unused(unused).await;
        }
        Ok(answer.succeeded.then(|| Created {
            etcd_lease,
            revision: revision(&answer),
            expires: now.plus(ttl),
        }))
    }

    /// Puts a lease where no lease of the same IPv4 subnet is; `None` if there is one.
    async fn put_new(&self, key: SubnetKey, attrs: &LeaseAttrs) -> Result<Option<Created>, Error> {
        let (now, etcd_lease) = (self.clock.now(), new_lease_id());
        let ttl = self.client.grant(etcd_lease, self.lease_ttl).await?;
        let KeyRange { first, end } = self.keys.rivals(key);
        let name = self.keys.lease(key).into_bytes();
        let read_it = RangeRequest {
            key: name.clone(),
            ..RangeRequest::default()
        };
        let request = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Version.into(),
                key: first,
                target_union: Some(CompareUnion::Version(0)),
                range_end: end,
            }],
            success: vec![putting(name, attrs.to_json().into_bytes(), etcd_lease)],
            failure: vec![reading(read_it)],
        };
        let answer = self.client.txn(request).await?;
        let mut revision = revision(&answer);
        if !answer.succeeded {
            // It may be there because the transaction was repeated after a first try without an answer.
            let found = ranges(answer).flat_map(|range| range.kvs).next();
            let Some(found) = found.filter(|found| found.lease == etcd_lease) else {
                self.revoke(etcd_lease).await;
                return Ok(None);
            };
            revision = found.create_revision;
        }
        Ok(Some(Created {
            etcd_lease,
            revision,
            expires: now.plus(ttl),
        }))
    }

    /// Whether another lease that overlaps a new one was made before it, and after the subnet was chosen. Of nodes that
    /// choose in the same moment, the second one yields: no condition of a transaction can tell an overlap of IPv6
    /// subnets.
    async fn is_second(&self, key: SubnetKey, created: &Created, chosen_at: i64) -> Result<bool, StoreError> {
        // A cluster that was restored from a backup counts from an earlier revision: what was known then is void.
        if created.revision <= chosen_at {
            return Ok(true);
        }
        let range = self.keys.leases();
        let request = RangeRequest {
            key: range.first,
            range_end: range.end,
            keys_only: true,
            min_create_revision: chosen_at + 1,
            ..RangeRequest::default()
        };
        let answer = self.client.range(request).await;
        let answer = answer.map_err(|err| store_error(self.keys.subnets(), err))?;
        let before = |found: &&KeyValue| found.create_revision < created.revision;
        let others = answer.kvs.iter().filter(before);
        let mut others = others.filter_map(|found| self.keys.parse(&found.key));
        Ok(others.any(|other| other != key && other.overlaps(&key)))
    }

    /// Removes a lease of the node's that it cannot use.
    async fn remove(&self, key: SubnetKey, node: PublicAddrs) -> Result<(), StoreError> {
        let stored = match self.own(key, node).await {
            Err(StoreError::Lost { holder: None, .. }) => return Ok(()),
            stored => stored?,
        };
        let delete = RequestOp {
            request: Some(Request::DeleteRange(DeleteRangeRequest {
                key: stored.key.clone(),
            })),
        };
        let removed = self.change(&stored, delete).await;
        if !removed.map_err(|err| store_error(&self.keys.lease(key), err))? {
            return Err(StoreError::Conflict(key));
        }
        if stored.lease != 0 {
            self.revoke_unused(stored.lease).await;
        }
        Ok(())
    }

    pub(super) async fn read(&self, key: SubnetKey) -> Result<Option<KeyValue>, Error> {
        let request = RangeRequest {
            key: self.keys.lease(key).into_bytes(),
            ..RangeRequest::default()
        };
        Ok(self.client.range(request).await?.kvs.into_iter().next())
    }

    /// Writes a key anew; false if it changed since it was read.
    async fn replace(&self, stored: &KeyValue, value: Vec<u8>, etcd_lease: i64) -> Result<bool, Error> {
        self.change(stored, putting(stored.key.clone(), value, etcd_lease))
            .await
    }

    /// Does something with a key; false if it changed since it was read.
    async fn change(&self, stored: &KeyValue, operation: RequestOp) -> Result<bool, Error> {
        let request = TxnRequest {
            compare: vec![unchanged(stored)],
            success: vec![operation],
            failure: Vec::new(),
        };
        Ok(self.client.txn(request).await?.succeeded)
    }

    /// Ends an etcd lease that no key needs. Somebody may have attached keys of their own to it; without them nothing
    /// depends on its end, so that a failure only lets it live until then.
    async fn revoke_unused(&self, etcd_lease: i64) {
        match self.client.lease_keys(etcd_lease).await {
            Ok(keys) if keys.is_empty() => self.revoke(etcd_lease).await,
            Ok(_) => {}
            Err(err) => debug!(%err, "an unused etcd lease stays until it ends"),
        }
    }

    /// Ends an etcd lease of ours with its key; if that fails, both stay until it ends.
    async fn revoke(&self, etcd_lease: i64) {
        if let Err(err) = self.client.revoke(etcd_lease).await {
            debug!(%err, "an unused etcd lease stays until it ends");
        }
    }
}

/// The condition that a key is as it was read.
fn unchanged(stored: &KeyValue) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: stored.key.clone(),
        target_union: Some(CompareUnion::ModRevision(stored.mod_revision)),
        range_end: Vec::new(),
    }
}

fn putting(key: Vec<u8>, value: Vec<u8>, lease: i64) -> RequestOp {
    RequestOp {
        request: Some(Request::Put(PutRequest { key, value, lease })),
    }
}

/// Chosen by us, so that a request that is repeated makes no second one.
fn new_lease_id() -> i64 {
    // Positive and not zero, as those that etcd chooses.
    i64::try_from(random() >> 1).unwrap_or(i64::MAX).max(1)
}
