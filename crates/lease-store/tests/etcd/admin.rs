//! What an administrator does, over etcd's JSON gateway: another way than the one under test.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

/// Posts a request to a server's second port and returns the answer; the body must be JSON.
pub fn post(port: u16, path: &str, token: Option<&str>, body: &str) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let token = token.map_or_else(String::new, |token| format!("Authorization: {token}\r\n"));
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: localhost\r\n{token}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{path}: {answer}");
    serde_json::from_str(body).unwrap()
}

/// How many etcd leases there are.
pub fn etcd_leases(port: u16) -> usize {
    let answer = post(port, "/v3/lease/leases", None, "{}");
    answer["leases"].as_array().map_or(0, Vec::len)
}

/// What is left of an etcd lease's life, in seconds.
pub fn ttl(port: u16, id: i64) -> u64 {
    let answer = post(
        port,
        "/v3/lease/timetolive",
        None,
        &format!("{{\"ID\":\"{id}\"}}"),
    );
    answer["TTL"].as_str().unwrap().parse().unwrap()
}

/// Throws away all revisions before the current one.
pub fn compact(port: u16) {
    let answer = post(port, "/v3/kv/range", None, "{\"key\":\"AA==\"}");
    let revision = answer["header"]["revision"].as_str().unwrap();
    post(
        port,
        "/v3/kv/compaction",
        None,
        &format!("{{\"revision\":\"{revision}\",\"physical\":true}}"),
    );
}

/// Makes the users `root` (password `geheim`) and `flannel` (password `offen`), of which the second may use the usual
/// prefix, and switches authentication on.
pub fn enable_auth(port: u16) {
    let base = |path: &str, body: &str| post(port, path, None, body);
    base("/v3/auth/user/add", r#"{"name":"root","password":"geheim"}"#);
    base("/v3/auth/role/add", r#"{"name":"root"}"#);
    base("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#);
    base("/v3/auth/user/add", r#"{"name":"flannel","password":"offen"}"#);
    base("/v3/auth/role/add", r#"{"name":"flannel"}"#);
    // "/coreos.com/network/" to "/coreos.com/network0" in base 64.
    base(
        "/v3/auth/role/grant",
        r#"{"name":"flannel","perm":{"permType":"READWRITE","key":"L2NvcmVvcy5jb20vbmV0d29yay8=","range_end":"L2NvcmVvcy5jb20vbmV0d29yazA="}}"#,
    );
    base("/v3/auth/user/grant", r#"{"user":"flannel","role":"flannel"}"#);
    base("/v3/auth/enable", "{}");
}
