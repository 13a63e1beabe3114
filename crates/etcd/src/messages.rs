//! The messages of etcd's API that are needed, with the field numbers of etcd `api/etcdserverpb/rpc.proto`,
//! `api/mvccpb/kv.proto`. Fields that are not needed are left out: protobuf readers skip them.

use prost::{Enumeration, Message, Oneof};

/// What every answer begins with.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ResponseHeader {
    /// Which cluster answered.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// The store's revision when it answered.
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

/// A key with its value.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeyValue {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The revision that made the key.
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// The revision that changed it last.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// The value.
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
    /// The etcd lease that the key ends with; 0 for none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// Asks for the keys from `key` to before `range_end`; without an end, for one key.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RangeRequest {
    /// The first key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The key after the last one.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    /// How many keys at most; 0 for all.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// As of which revision; 0 for the latest.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    /// Whether values are left out.
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
    /// Only keys that were made at this revision or later; 0 for all.
    #[prost(int64, tag = "12")]
    pub min_create_revision: i64,
}

/// Answers a [`RangeRequest`], in the order of the keys.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RangeResponse {
    /// When.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The keys.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    /// Whether there are more than the limit.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// Sets a key.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PutRequest {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// Its value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    /// The etcd lease that it ends with; 0 for none.
    #[prost(int64, tag = "3")]
    pub lease: i64,
}

/// Answers a [`PutRequest`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct PutResponse {}

/// Deletes a key.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeleteRangeRequest {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

/// Answers a [`DeleteRangeRequest`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct DeleteRangeResponse {}

/// How a [`Compare`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum CompareResult {
    /// Both are the same.
    Equal = 0,
}

/// What a [`Compare`] looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum CompareTarget {
    /// How often the key was set since it was made; 0 if there is none.
    Version = 0,
    /// The revision that changed it last.
    Mod = 2,
}

/// The number that a [`Compare`] compares with.
#[derive(Clone, Copy, PartialEq, Eq, Oneof)]
pub enum CompareUnion {
    /// For [`CompareTarget::Version`].
    #[prost(int64, tag = "4")]
    Version(i64),
    /// For [`CompareTarget::Mod`].
    #[prost(int64, tag = "6")]
    ModRevision(i64),
}

/// A condition on a key, or on every key of a range; a range without keys is as one key that does not exist.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Compare {
    /// How.
    #[prost(enumeration = "CompareResult", tag = "1")]
    pub result: i32,
    /// What.
    #[prost(enumeration = "CompareTarget", tag = "2")]
    pub target: i32,
    /// The key, or the first one.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// With what.
    #[prost(oneof = "CompareUnion", tags = "4, 6")]
    pub target_union: Option<CompareUnion>,
    /// The key after the last one; empty for one key (etcd 3.3 and later).
    #[prost(bytes = "vec", tag = "64")]
    pub range_end: Vec<u8>,
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RequestOp {
    /// Which.
    #[prost(oneof = "Request", tags = "1, 2, 3")]
    pub request: Option<Request>,
}

/// The kinds of operations.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum Request {
    /// Reads.
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    /// Sets.
    #[prost(message, tag = "2")]
    Put(PutRequest),
    /// Deletes.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
}

/// What one operation of a transaction answered.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ResponseOp {
    /// Which.
    #[prost(oneof = "Response", tags = "1, 2, 3")]
    pub response: Option<Response>,
}

/// The kinds of answers.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum Response {
    /// To [`Request::Range`].
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    /// To [`Request::Put`].
    #[prost(message, tag = "2")]
    Put(PutResponse),
    /// To [`Request::DeleteRange`].
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeResponse),
}

/// Carries out one list of operations if all conditions hold, else the other, in one step.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TxnRequest {
    /// The conditions.
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// What to do when they hold.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    /// What to do when they don't.
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

/// Answers a [`TxnRequest`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TxnResponse {
    /// When.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Whether the conditions held.
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    /// The operations' answers in their order.
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<ResponseOp>,
}

/// One request on a watch's stream.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WatchRequest {
    /// Which.
    #[prost(oneof = "WatchRequestUnion", tags = "1")]
    pub request_union: Option<WatchRequestUnion>,
}

/// The kinds of requests on a watch's stream.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum WatchRequestUnion {
    /// Begins to watch.
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
}

/// Asks for all changes of a key or range from a revision on.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WatchCreateRequest {
    /// The key, or the first one.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The key after the last one; empty for one key.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    /// The first revision of interest.
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    /// Whether to be told the revision now and then although nothing changes.
    #[prost(bool, tag = "4")]
    pub progress_notify: bool,
    /// Whether answers that are too large may come in pieces.
    #[prost(bool, tag = "8")]
    pub fragment: bool,
}

/// News on a watch's stream.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WatchResponse {
    /// When.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The watch that this belongs to; they are numbered from 0 in the order of their creation.
    #[prost(int64, tag = "2")]
    pub watch_id: i64,
    /// Whether this only says that the watch has begun.
    #[prost(bool, tag = "3")]
    pub created: bool,
    /// Whether the watch has ended.
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    /// If it ended for this: the oldest revision that is still there.
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    /// Why it ended.
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    /// Whether more pieces follow.
    #[prost(bool, tag = "7")]
    pub fragment: bool,
    /// The changes, oldest first.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

/// One change of a key.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Event {
    /// What happened.
    #[prost(enumeration = "EventType", tag = "1")]
    pub r#type: i32,
    /// The key; when it was deleted, without its value.
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum EventType {
    /// It was set.
    Put = 0,
    /// It was deleted, or its lease ended.
    Delete = 1,
}

/// Makes an etcd lease.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct LeaseGrantRequest {
    /// Its life in seconds.
    #[prost(int64, tag = "1")]
    pub ttl: i64,
    /// Its number.
    #[prost(int64, tag = "2")]
    pub id: i64,
}

/// Answers a [`LeaseGrantRequest`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct LeaseGrantResponse {
    /// Its number.
    #[prost(int64, tag = "2")]
    pub id: i64,
    /// Its life in seconds, perhaps longer than asked for.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

/// Ends an etcd lease and deletes its keys.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct LeaseRevokeRequest {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// Answers a [`LeaseRevokeRequest`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct LeaseRevokeResponse {}

/// Lets an etcd lease's life begin anew.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct LeaseKeepAliveRequest {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// Answers a [`LeaseKeepAliveRequest`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct LeaseKeepAliveResponse {
    /// Its life in seconds from here on; 0 if there is no such lease.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

/// Asks for the state of an etcd lease.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct LeaseTimeToLiveRequest {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Whether its keys are of interest.
    #[prost(bool, tag = "2")]
    pub keys: bool,
}

/// Answers a [`LeaseTimeToLiveRequest`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LeaseTimeToLiveResponse {
    /// What is left of its life in seconds; -1 if there is no such lease.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
    /// The keys that end with it.
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub keys: Vec<Vec<u8>>,
}

/// Proves who asks.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub(crate) struct AuthenticateRequest {
    /// The user.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// The password.
    #[prost(string, tag = "2")]
    pub(crate) password: String,
}

/// Answers an [`AuthenticateRequest`].
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub(crate) struct AuthenticateResponse {
    /// What to show with every further request.
    #[prost(string, tag = "2")]
    pub(crate) token: String,
}

impl std::fmt::Debug for AuthenticateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthenticateRequest(…)")
    }
}

impl std::fmt::Debug for AuthenticateResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthenticateResponse(…)")
    }
}
