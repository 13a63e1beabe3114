//! What is sent back.

use std::io;

use http::Response;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::body::Bytes;
use serde_json::json;

/// A body that is there, or one that comes.
pub(crate) type ReplyBody = Either<Full<Bytes>, Channel<Bytes, io::Error>>;
pub(crate) type Reply = Response<ReplyBody>;

pub(crate) fn json(code: u16, body: Bytes) -> Reply {
    let mut reply = Response::new(Either::Left(Full::new(body)));
    *reply.status_mut() = code.try_into().unwrap_or_default();
    let kind = http::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply
}

/// A refusal as Kubernetes words it (`Status`, meta/v1).
pub(crate) fn status(code: u16, reason: &str, message: &str) -> Bytes {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    Bytes::from(status.to_string())
}

pub(crate) fn refuse(code: u16, reason: &str, message: &str) -> Reply {
    json(code, status(code, reason, message))
}

pub(crate) fn refuse_for_now(code: u16, retry_after: Option<u64>) -> Reply {
    let mut reply = refuse(code, "ScriptedFault", "this was asked for");
    if let Some(secs) = retry_after {
        reply.headers_mut().insert(RETRY_AFTER, secs.into());
    }
    reply
}

/// A body that comes piece by piece.
pub(crate) fn stream(body: Channel<Bytes, io::Error>) -> Reply {
    let mut reply = Response::new(Either::Right(body));
    let kind = http::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply
}
