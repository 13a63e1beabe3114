//! Questions to the servers of a lab, on the underlay's gateway.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::underlay::GATEWAY;

/// How long a server may be silent.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A question to a server.
pub(super) struct Request<'a> {
    pub(super) port: u16,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) content_type: &'a str,
    pub(super) body: &'a str,
}

impl Request<'_> {
    /// Sends it from the calling thread's network namespace, and reads the answer's JSON.
    ///
    /// # Errors
    /// Fails when the server does not answer in time, or with anything but success.
    pub(super) fn send(&self) -> Result<Value> {
        let Self {
            port,
            method,
            path,
            content_type,
            body,
        } = self;
        let mut stream = TcpStream::connect((GATEWAY, *port)).context("connecting to a server of the lab")?;
        stream
            .set_read_timeout(Some(ANSWER_LIMIT))
            .context("limiting a wait")?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .context("asking a server of the lab")?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .context("reading a server's answer")?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if is_success(head) => {
                serde_json::from_str(body).context("reading a server's answer")
            }
            Some(_) | None => bail!("{method} {path} was answered {answer:?}"),
        }
    }
}

/// Whether an answer's status line tells of success (RFC 9112 §4, RFC 9110 §15.3).
fn is_success(head: &str) -> bool {
    let mut words = head.split(' ');
    let version = words.next().unwrap_or_default();
    version.starts_with("HTTP/1") && words.next().is_some_and(|code| code.starts_with('2'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_status_line_tells_of_success() {
        let date = "Date: Sun, 29 Nov 2026 20:00:00 GMT";
        for (line, is) in [
            ("HTTP/1.1 200 OK", true),
            ("HTTP/1.0 201 Created", true),
            ("HTTP/1.1 404 Not Found", false),
            ("HTTP/1.1 500 after 20 tries", false),
            ("SSH-2.0-server 200 OK", false),
            ("", false),
        ] {
            assert_eq!(is_success(&format!("{line}\r\n{date}")), is, "{line}");
        }
    }
}
