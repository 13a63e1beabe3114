use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::etcd::Error;
use ::etcd::messages::{
    KeyValue, RangeRequest, RangeResponse, Request, RequestOp, Response, TxnRequest, TxnResponse,
};
use flannel_types::{Lease, LeaseAttrs, NetConf};
use net_types::SubnetKey;

use super::{Store, store_error};
use crate::error::StoreError;

/// How many leases are read at once; a page takes about 200 kB.
const PAGE: i64 = 1000;
/// How long a listing counts as recent.
const RECENT: Duration = Duration::from_secs(2);
/// How often a listing begins anew because its revision was compacted away meanwhile.
const MAX_LISTINGS: u32 = 5;

/// All that the store holds, as of one revision.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) revision: i64,
    pub(super) config: Option<KeyValue>,
    /// None says when it ends.
    pub(super) leases: BTreeMap<SubnetKey, Lease>,
    /// Leases whose value cannot be read.
    pub(super) malformed: BTreeMap<SubnetKey, Malformed>,
    /// Keys that are not those of leases.
    pub(super) strangers: Vec<String>,
}

/// A lease whose value cannot be read.
#[derive(Debug)]
pub(super) struct Malformed {
    pub(super) why: String,
    pub(super) mod_revision: i64,
}

impl Store {
    /// Keeps a listing for [`Self::recent`].
    pub(super) fn keep(&self, listing: Listing) {
        *self.lock_recent() = Some((Instant::now(), listing));
    }

    /// What was read a moment ago and kept, once. Who writes by it must do so under conditions, as ever: etcd has gone
    /// on meanwhile.
    pub(super) fn recent(&self) -> Option<Listing> {
        let (at, listing) = self.lock_recent().take()?;
        (at.elapsed() < RECENT).then_some(listing)
    }

    fn lock_recent(&self) -> MutexGuard<'_, Option<(Instant, Listing)>> {
        // No change leaves it half done, so a panic elsewhere spoils nothing.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads everything, in pages that are all of one revision.
    pub(super) async fn list(&self) -> Result<Listing, StoreError> {
        let mut left = MAX_LISTINGS;
        loop {
            left -= 1;
            match self.list_once().await {
                Err(Error::Compacted { .. }) if left > 0 => {}
                listing => return listing.map_err(|err| store_error(self.keys.subnets(), err)),
            }
        }
    }

    async fn list_once(&self) -> Result<Listing, Error> {
        let range = self.keys.leases();
        let config = RangeRequest {
            key: self.keys.config().into_bytes(),
            ..RangeRequest::default()
        };
        let mut page = RangeRequest {
            key: range.first,
            range_end: range.end,
            limit: PAGE,
            ..RangeRequest::default()
        };
        let request = TxnRequest {
            success: vec![reading(config), reading(page.clone())],
            ..TxnRequest::default()
        };
        let answer = self.client.txn(request).await?;
        let mut listing = Listing {
            revision: revision(&answer),
            ..Listing::default()
        };
        page.revision = listing.revision;
        let mut ranges = ranges(answer);
        listing.config = ranges.next().and_then(|config| config.kvs.into_iter().next());
        let mut leases = ranges.next().unwrap_or_default();
        loop {
            // The successor of the last key of this page.
            let next = leases.kvs.last().map(|last| [last.key.as_slice(), &[0]].concat());
            leases.kvs.into_iter().for_each(|found| listing.add(self, found));
            let (true, Some(next)) = (leases.more, next) else {
                return Ok(listing);
            };
            page.key = next;
            leases = self.client.range(page.clone()).await?;
        }
    }

    pub(super) fn parse_config(&self, found: &KeyValue) -> Result<NetConf, StoreError> {
        let place = format!("{} in etcd", self.keys.config());
        let text = std::str::from_utf8(&found.value).map_err(|err| StoreError::Unusable {
            place: place.clone(),
            source: err.into(),
        })?;
        let parsed = NetConf::parse(text).and_then(|conf| conf.validated().map(|_| conf));
        parsed.map_err(|source| StoreError::BadConfig { place, source })
    }

    pub(super) fn config_missing(&self) -> StoreError {
        StoreError::ConfigMissing {
            place: format!("{} in etcd", self.keys.config()),
        }
    }
}

impl Listing {
    fn add(&mut self, store: &Store, found: KeyValue) {
        let Some(key) = store.keys.parse(&found.key) else {
            self.strangers
                .push(String::from_utf8_lossy(&found.key).into_owned());
            return;
        };
        match parse_attrs(&found.value) {
            Ok(attrs) => {
                let expires = None;
                self.leases.insert(key, Lease { key, attrs, expires });
            }
            Err(why) => {
                let mod_revision = found.mod_revision;
                self.malformed.insert(key, Malformed { why, mod_revision });
            }
        }
    }
}

/// Reads the value of a lease, or says what is wrong with it.
pub(super) fn parse_attrs(value: &[u8]) -> Result<LeaseAttrs, String> {
    let text = std::str::from_utf8(value).map_err(|_| "it is no text".to_owned())?;
    LeaseAttrs::parse(text).map_err(|err| err.to_string())
}

/// A transaction's operation that reads.
pub(super) fn reading(range: RangeRequest) -> RequestOp {
    RequestOp {
        request: Some(Request::Range(range)),
    }
}

/// The revision of a transaction.
pub(super) fn revision(answer: &TxnResponse) -> i64 {
    answer.header.map_or(0, |header| header.revision)
}

/// What a transaction read.
pub(super) fn ranges(answer: TxnResponse) -> impl Iterator<Item = RangeResponse> {
    answer.responses.into_iter().filter_map(|op| match op.response {
        Some(Response::Range(range)) => Some(range),
        Some(Response::Put(_) | Response::DeleteRange(_)) | None => None,
    })
}
