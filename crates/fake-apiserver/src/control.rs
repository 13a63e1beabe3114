//! What the server is told over HTTP, for those that run it as a program.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::faults::Fault;
use crate::node::{many, node_name};
use crate::reply::{self, Reply};
use crate::role::Role;

#[derive(Deserialize)]
struct Many {
    count: u32,
    #[serde(default)]
    bytes: usize,
}

#[derive(Deserialize)]
struct Heartbeats {
    /// Of how many of the Nodes that `many` made.
    count: u32,
    /// How long it takes to go once around.
    #[serde(default = "five_minutes")]
    round_secs: u64,
}

#[derive(Deserialize)]
struct Allowed {
    token: String,
    role: Role,
}

#[derive(Deserialize)]
struct Forbidden {
    token: String,
}

const fn five_minutes() -> u64 {
    300
}

/// `/stand-in/ORDER`, with what the order needs as JSON in the body:
///
/// ```text
/// many          {"count":5000,"bytes":10000}    makes Nodes, those of [`many`]
/// node          a Node                          makes it, or replaces it, without any check
/// patch         {"name":N,"patch":P}            changes a Node, without any check
/// heartbeats    {"count":5000,"round_secs":300} lets Nodes say that they live, from now on
/// allow         {"token":T,"role":"flannel"}    makes a bearer token known: see [`Cluster::allow`]
/// forbid        {"token":T}                     forgets it
/// fault         a [`Fault`]                     lets something go wrong
/// faults/clear, compact, restart
/// requests                                      answers all requests since the last time
/// ```
pub(crate) fn obey(cluster: &Arc<Cluster>, order: &str, body: &[u8]) -> Reply {
    match carry_out(cluster, order, body) {
        Ok(answer) => reply::json(200, answer),
        Err(message) => reply::refuse(400, "BadRequest", &message),
    }
}

fn carry_out(cluster: &Arc<Cluster>, order: &str, body: &[u8]) -> Result<Bytes, String> {
    match order {
        "many" => {
            let Many { count, bytes } = parse(body)?;
            many(count, bytes).for_each(|node| cluster.put_node(&node));
        }
        "node" => cluster.put(parse(body)?),
        "patch" => {
            let order: Value = parse(body)?;
            let name = order.get("name").and_then(Value::as_str).unwrap_or_default();
            let patch = order.get("patch").cloned().unwrap_or_default();
            if !cluster.patch_node(name, &patch) {
                return Err(format!("there is no Node {name:?}"));
            }
        }
        "heartbeats" => {
            let Heartbeats { count, round_secs } = parse(body)?;
            tokio::spawn(beat(Arc::clone(cluster), count, Duration::from_secs(round_secs)));
        }
        "allow" => {
            let Allowed { token, role } = parse(body)?;
            cluster.allow(&token, role);
        }
        "forbid" => cluster.forbid(&parse::<Forbidden>(body)?.token),
        "fault" => cluster.add_fault(parse::<Fault>(body)?),
        "faults/clear" => cluster.clear_faults(),
        "compact" => cluster.compact(),
        "restart" => cluster.restart(),
        "requests" => {
            let log = serde_json::to_vec(&cluster.take_log()).map_err(|err| err.to_string())?;
            return Ok(Bytes::from(log));
        }
        _ => return Err(format!("there is no order {order:?}")),
    }
    Ok(Bytes::from_static(b"{}"))
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|err| err.to_string())
}

/// Goes on until the server ends.
async fn beat(cluster: Arc<Cluster>, count: u32, round: Duration) {
    let mut ticks = tokio::time::interval(round / count.max(1));
    for number in (1..=count).cycle() {
        ticks.tick().await;
        cluster.heartbeat(&node_name(number));
    }
}
