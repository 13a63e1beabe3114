//! What makes a guest a node: the daemon, and pods.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::machine::Guest;
use crate::lab::{CNI_BIN_DIR, SUBNET_FILE, etcd_endpoint};

/// How long the daemon may take until its subnet file is there.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Where the guest keeps the daemon's process id and log.
const PID_FILE: &str = "/run/flanneld.pid";
const LOG: &str = "/run/flanneld.log";

/// The configuration of pods that only the network matters for.
pub const POD_CONF: &str =
    r#"{"cniVersion":"1.0.0","name":"cbr0","type":"flannel","delegate":{"isDefaultGateway":true}}"#;

impl Guest {
    /// Starts the node daemon on the lab's etcd, and waits until it has written the subnet file.
    ///
    /// # Errors
    /// Fails with the end of its log when it does not in time.
    pub fn start_flanneld(&mut self, flags: &str) -> Result<()> {
        let endpoint = etcd_endpoint();
        self.sh(&format!(
            "rm -f {SUBNET_FILE}
             {CNI_BIN_DIR}/flanneld --iface=eth0 --etcd-endpoints={endpoint} {flags} </dev/null >>{LOG} 2>&1 &
             echo $! >{PID_FILE}"
        ))?;
        let written = format!("test -s {SUBNET_FILE} || {{ sleep 0.2; tail -n 5 {LOG}; false; }}");
        self.wait_for(&written, START_LIMIT).map(drop)
    }

    /// Ends the daemon with SIGTERM and waits for its end.
    ///
    /// # Errors
    /// Fails when it does not run, or does not end within seconds.
    pub fn stop_flanneld(&mut self) -> Result<()> {
        self.sh(&format!(
            "pid=$(cat {PID_FILE}) && kill $pid || exit 1
             for i in $(seq 100); do kill -0 $pid 2>/dev/null || exit 0; usleep 100000; done
             exit 1"
        ))
        .map(drop)
    }

    /// What the daemon has logged.
    ///
    /// # Errors
    /// Fails when the guest does not answer.
    pub fn flanneld_log(&mut self) -> Result<String> {
        self.sh(&format!("cat {LOG}"))
    }

    /// Attaches a new pod with a plugin's configuration, and returns its addresses.
    ///
    /// # Errors
    /// Fails with what the plugin printed.
    pub fn add_pod(&mut self, pod: &str, conf: &str) -> Result<Vec<IpAddr>> {
        self.sh(&format!("ip netns add {pod}"))?;
        let result = self.call_plugin("ADD", pod, conf)?;
        let result: Value = serde_json::from_str(&result).context("reading a plugin's result")?;
        let ips = result.get("ips").and_then(Value::as_array);
        let addresses = ips.into_iter().flatten().filter_map(|ip| {
            let (address, _) = ip.get("address")?.as_str()?.split_once('/')?;
            address.parse().ok()
        });
        Ok(addresses.collect())
    }

    /// Detaches a pod and removes it.
    ///
    /// # Errors
    /// Fails with what the plugin printed.
    pub fn delete_pod(&mut self, pod: &str, conf: &str) -> Result<()> {
        self.call_plugin("DEL", pod, conf)?;
        self.sh(&format!("ip netns del {pod}")).map(drop)
    }

    fn call_plugin(&mut self, verb: &str, pod: &str, conf: &str) -> Result<String> {
        let parsed: Value = serde_json::from_str(conf).context("reading a plugin's configuration")?;
        let Some(plugin) = parsed.get("type").and_then(Value::as_str) else {
            bail!("a plugin's configuration without a type: {conf}");
        };
        self.write("/run/conf", conf)?;
        self.sh(&format!(
            "export CNI_COMMAND={verb} CNI_CONTAINERID={pod} CNI_NETNS=/run/netns/{pod} CNI_IFNAME=eth0 \
             CNI_PATH={CNI_BIN_DIR}
             {CNI_BIN_DIR}/flannel {plugin} </run/conf"
        ))
    }

    /// Pings from a pod, or from the node itself for an empty name; how many of the requests were answered.
    ///
    /// # Errors
    /// Fails when the guest does not answer, or `ping` prints something else.
    pub fn ping(&mut self, pod: &str, target: IpAddr, count: u32) -> Result<u32> {
        let inside = if pod.is_empty() {
            String::new()
        } else {
            format!("ip netns exec {pod} ")
        };
        let seconds = u64::from(count) + 10;
        let answer = self.exec(
            &format!("{inside}busybox ping -c {count} -W 2 {target}"),
            Duration::from_secs(seconds + 20),
        )?;
        let received = answer.stdout.lines().find_map(|line| {
            line.split_once(" packets received")?
                .0
                .rsplit(' ')
                .next()?
                .parse()
                .ok()
        });
        received.with_context(|| format!("ping printed {}{}", answer.stdout, answer.stderr))
    }
}
