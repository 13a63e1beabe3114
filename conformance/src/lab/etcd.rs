//! The etcd server of a lab, on the underlay's gateway. It is looked at and written to over its JSON gateway.

use std::fs;
use std::process::Stdio;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::base64::{base64, base64_bytes};
use super::http::{ANSWER_LIMIT, Request};
use super::iproute::text;
use super::mounts::{LOG_DIR, SHARED_DIR};
use super::namespaces::command;
use super::process::Process;
use super::underlay::GATEWAY;
use super::wait::wait_until;
use super::{Lab, NET_CONF};
use crate::captures::Entry;

/// The port of etcd's clients (IANA).
const PORT: u16 = 2379;
/// How long the server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(30);
/// etcd takes 128 at most (`--max-txn-ops`).
const CHANGES_PER_TRANSACTION: usize = 100;
/// Below which key configuration and leases are (flannel `main.go`, `etcd-prefix`).
const PREFIX: &str = "/coreos.com/network";

/// Where a node finds the server.
#[must_use]
pub(crate) fn endpoint() -> String {
    format!("http://{GATEWAY}:{PORT}")
}

impl Lab {
    /// Starts etcd, with what it held before if it ran before, and waits until it answers.
    ///
    /// # Errors
    /// Fails when there is no program `etcd`, or when it does not answer in time.
    pub fn start_etcd(&self) -> Result<()> {
        let (data, log) = (
            format!("--data-dir={SHARED_DIR}/etcd"),
            format!("{LOG_DIR}/etcd.log"),
        );
        let urls = endpoint();
        let arguments = [
            "etcd",
            &data,
            &format!("--listen-client-urls={urls}"),
            &format!("--advertise-client-urls={urls}"),
            "--log-level=error",
        ];
        let child = self.holder.namespaces().run(|| {
            let log = fs::File::options().create(true).append(true).open(&log);
            let log = log.context("opening the log of etcd")?;
            let mut etcd = command(&arguments)?;
            etcd.stdin(Stdio::null())
                .stdout(log.try_clone().context("duplicating a log")?)
                .stderr(log);
            etcd.spawn()
                .context("starting etcd (Debian's package etcd-server)")
        })?;
        *self.etcd() = Some(Process::new(child));
        wait_until("etcd to answer", START_LIMIT, || {
            let answer = self.ask_etcd("/v3/kv/range", &json!({ "key": base64(PREFIX.as_bytes()) }));
            Ok(answer.is_ok())
        })?;
        Ok(())
    }

    /// Writes the network configuration that a lab starts with into etcd.
    ///
    /// # Errors
    /// Fails when etcd does not answer.
    pub(super) fn configure_etcd(&self) -> Result<()> {
        let key = base64(format!("{PREFIX}/config").as_bytes());
        self.ask_etcd(
            "/v3/kv/put",
            &json!({ "key": key, "value": base64(NET_CONF.as_bytes()) }),
        )
        .map(drop)
    }

    /// Stops etcd where it is (SIGSTOP), so that it answers nobody and closes nothing. It can be killed all the same.
    ///
    /// # Errors
    /// Fails when it does not run.
    pub fn freeze_etcd(&self) -> Result<()> {
        self.etcd()
            .as_ref()
            .context("no etcd runs")?
            .signal(Signal::SIGSTOP)
    }

    /// Kills etcd (SIGKILL).
    ///
    /// # Errors
    /// Fails when it does not run.
    pub fn kill_etcd(&self) -> Result<()> {
        let mut etcd = self.etcd().take().context("no etcd runs")?;
        etcd.signal(Signal::SIGKILL)?;
        etcd.wait(ANSWER_LIMIT).map(drop)
    }

    /// The server, if one runs.
    pub(super) fn etcd(&self) -> MutexGuard<'_, Option<Process>> {
        self.etcd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a lease, if etcd holds it; the name is that of its subnet, as in `10.5.57.0-24`.
    ///
    /// # Errors
    /// Fails when etcd does not answer.
    pub fn lease_in_etcd(&self, name: &str) -> Result<Option<String>> {
        self.value_in_etcd(&format!("subnets/{name}"))
    }

    /// A value below the prefix, named as in [`Self::put_in_etcd`], if etcd holds it.
    ///
    /// # Errors
    /// Fails when etcd does not answer.
    pub fn value_in_etcd(&self, name: &str) -> Result<Option<String>> {
        let key = base64(format!("{PREFIX}/{name}").as_bytes());
        let answer = self.ask_etcd("/v3/kv/range", &json!({ "key": key }))?;
        let value = answer.pointer("/kvs/0/value").and_then(Value::as_str);
        let text = |encoded| String::from_utf8(base64_bytes(encoded)?).context("a value of etcd is no text");
        value.map(text).transpose()
    }

    /// All keys below the prefix, in their order.
    ///
    /// # Errors
    /// Fails when etcd does not answer.
    pub fn entries_in_etcd(&self) -> Result<Vec<Entry>> {
        let below = format!("{PREFIX}/");
        // The first key behind all of them: `0` follows `/`.
        let behind = format!("{PREFIX}0");
        let range = json!({ "key": base64(below.as_bytes()), "range_end": base64(behind.as_bytes()) });
        let answer = self.ask_etcd("/v3/kv/range", &range)?;
        let found = answer.get("kvs").and_then(Value::as_array);
        let entry = |object: &Value| {
            let text = |key| {
                let bytes = base64_bytes(text(object, key))?;
                String::from_utf8(bytes).with_context(|| format!("a {key} of etcd is no text"))
            };
            let key = text("key")?;
            Ok(Entry {
                name: key.strip_prefix(&below).unwrap_or(&key).to_owned(),
                value: text("value")?,
                ttl_secs: self.granted_in_etcd(object.get("lease"))?,
            })
        };
        found.into_iter().flatten().map(entry).collect()
    }

    /// How long an etcd lease was granted for, in seconds.
    fn granted_in_etcd(&self, lease: Option<&Value>) -> Result<Option<u64>> {
        let Some(id) = lease else { return Ok(None) };
        let answer = self.ask_etcd("/v3/lease/timetolive", &json!({ "ID": id }))?;
        let granted = text(&answer, "grantedTTL").parse();
        granted
            .map(Some)
            .context("reading how long a lease of etcd lasts")
    }

    /// Writes a value below the prefix, as another daemon would: the configuration as `config`, a lease as
    /// `subnets/10.5.57.0-24`, which etcd removes when its time is over.
    ///
    /// # Errors
    /// Fails when etcd does not answer.
    pub fn put_in_etcd(&self, name: &str, value: &str, ttl: Option<Duration>) -> Result<()> {
        let key = base64(format!("{PREFIX}/{name}").as_bytes());
        let mut request = json!({ "key": key, "value": base64(value.as_bytes()) });
        if let (Some(ttl), Some(request)) = (ttl, request.as_object_mut()) {
            let granted = self.ask_etcd("/v3/lease/grant", &json!({ "TTL": ttl.as_secs().to_string() }))?;
            let id = granted.get("ID").context("etcd granted no lease")?;
            request.insert("lease".to_owned(), id.clone());
        }
        self.ask_etcd("/v3/kv/put", &request).map(drop)
    }

    /// Writes many values below the prefix, a hundred in each transaction; none of them ends. What has no value is removed.
    ///
    /// # Errors
    /// Fails when etcd does not answer.
    pub fn change_in_etcd(&self, values: &[(String, Option<String>)]) -> Result<()> {
        let change = |(name, value): &(String, Option<String>)| {
            let key = base64(format!("{PREFIX}/{name}").as_bytes());
            match value {
                Some(value) => {
                    json!({ "requestPut": { "key": key, "value": base64(value.as_bytes()) } })
                }
                None => json!({ "requestDeleteRange": { "key": key } }),
            }
        };
        for some in values.chunks(CHANGES_PER_TRANSACTION) {
            let changes: Vec<_> = some.iter().map(change).collect();
            self.ask_etcd("/v3/kv/txn", &json!({ "success": changes }))?;
        }
        Ok(())
    }

    /// Removes a lease from etcd, as a person would.
    ///
    /// # Errors
    /// Fails when etcd does not answer.
    pub fn remove_lease_from_etcd(&self, name: &str) -> Result<()> {
        let key = base64(format!("{PREFIX}/subnets/{name}").as_bytes());
        self.ask_etcd("/v3/kv/deleterange", &json!({ "key": key }))
            .map(drop)
    }

    fn ask_etcd(&self, path: &str, request: &Value) -> Result<Value> {
        self.holder.namespaces().net_only()?.run(|| {
            let body = request.to_string();
            let request = Request {
                port: PORT,
                method: "POST",
                path,
                content_type: "application/json",
                body: &body,
            };
            request.send()
        })
    }
}
