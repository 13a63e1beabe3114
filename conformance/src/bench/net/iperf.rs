//! Throughput, as iperf3 measures it.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::cpu::Pair;

/// The port of its servers: iperf3's own.
pub(super) const PORT: u16 = 5201;
/// How long one measurement sends.
pub(super) const SECONDS: &str = "1";
/// Stands before both programs: they come first, whatever else the machine does.
pub(super) const FIRST: [&str; 3] = ["nice", "-n", "-15"];
/// A client that hangs ends after so many seconds.
const LIMIT_SECONDS: &str = "20";

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// What is sent, in how many flows at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) protocol: Protocol,
    pub(super) flows: u8,
}

/// What is measured on every path, in this order.
pub(super) const LOADS: [Load; 4] = [
    load(Protocol::Tcp, 1),
    load(Protocol::Tcp, 8),
    load(Protocol::Udp, 1),
    load(Protocol::Udp, 8),
];

const fn load(protocol: Protocol, flows: u8) -> Load {
    Load { protocol, flows }
}

impl Load {
    pub(super) fn name(self) -> String {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        format!("{protocol} ×{}", self.flows)
    }

    /// The client's command. UDP is sent as fast as it goes; what does not arrive is not counted.
    pub(super) fn client(self, address: &str, udp_bytes: u16, processors: Pair) -> Vec<String> {
        let ends = format!("{},{}", processors.client, processors.server);
        let (port, flows, bytes) = (PORT.to_string(), self.flows.to_string(), udp_bytes.to_string());
        let mut argv = vec!["timeout", LIMIT_SECONDS];
        argv.extend(FIRST);
        argv.extend(["iperf3", "--json", "--client", address]);
        argv.extend([
            "--port",
            &port,
            "--time",
            SECONDS,
            "--parallel",
            &flows,
            "--affinity",
            &ends,
        ]);
        match self.protocol {
            // Whatever the machine's own is: one that paces itself would measure its timers.
            Protocol::Tcp => argv.extend(["--congestion", "cubic"]),
            Protocol::Udp => argv.extend(["--udp", "--bitrate", "0", "--length", &bytes]),
        }
        argv.into_iter().map(str::to_owned).collect()
    }
}

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Carried {
    pub(super) gigabits: f64,
    pub(super) seconds: f64,
}

/// Looks whether iperf3 is there.
///
/// # Errors
/// Fails with what to install when it is not.
pub(super) fn look() -> Result<()> {
    let mut iperf = Command::new("iperf3");
    iperf.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    match iperf.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("iperf3 does not run ({status})"),
        Err(err) => Err(err)
            .context("throughput is measured with iperf3: install the package iperf3, as scripts/bench does"),
    }
}

/// Whether the server has not yet done with its last client, so that the next has to come again.
pub(super) fn is_busy(text: &str) -> bool {
    let report: Value = serde_json::from_str(text).unwrap_or_default();
    let error = report.get("error").and_then(Value::as_str);
    error.is_some_and(|error| error.contains("the server is busy"))
}

/// Reads a client's report (`iperf3 --json`, version 3.12): what the receiver saw of all flows together.
///
/// # Errors
/// Fails with iperf3's own words when it could not measure, and when nothing arrived.
pub(super) fn parse(text: &str) -> Result<Carried> {
    let report: Value =
        serde_json::from_str(text).with_context(|| format!("reading what iperf3 printed: {text:?}"))?;
    if let Some(error) = report.get("error") {
        bail!("iperf3: {}", error.as_str().unwrap_or("an error without words"));
    }
    let number = |name: &str| report.pointer(&format!("/end/sum_received/{name}"))?.as_f64();
    let (bytes, seconds) = number("bytes")
        .zip(number("seconds"))
        .context("iperf3 tells nothing of what was received")?;
    if bytes <= 0.0 || seconds <= 0.0 {
        bail!("iperf3: nothing was received in {seconds} s");
    }
    Ok(Carried {
        gigabits: bytes * 8.0 / 1e9,
        seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of a report of iperf 3.12, `-u -b 0 -l 1350 -P 2`, without the single flows.
    const UDP: &str = r#"{"start":{},"intervals":[],"end":{
        "sum":{"start":0,"end":1.000166,"seconds":1.000166,"bytes":131868000,"bits_per_second":1054893365.1,
            "jitter_ms":0.0067,"lost_packets":28390,"packets":97680,"lost_percent":29.06,"sender":true},
        "sum_sent":{"start":0,"end":1.000048,"seconds":1.000048,"bytes":131868000,"packets":97680,"sender":true},
        "sum_received":{"start":0,"end":1.000166,"seconds":1.000166,"bytes":93541500,"bits_per_second":748207797.5,
            "lost_packets":28390,"packets":97680,"lost_percent":29.06,"sender":false}}}"#;
    const TCP: &str = r#"{"end":{
        "sum_sent":{"seconds":1.008026,"bytes":2207252480,"retransmits":0,"sender":true},
        "sum_received":{"seconds":1.010033,"bytes":2207121408,"bits_per_second":17481578586.0,"sender":true}}}"#;
    const REFUSED: &str =
        r#"{"start":{},"intervals":[],"end":{},"error":"unable to connect to server: Connection refused"}"#;

    #[test]
    fn what_the_receiver_saw_is_taken() {
        let udp = parse(UDP).unwrap();
        assert!((udp.gigabits - 0.748_332).abs() < 1e-6 && (udp.seconds - 1.000_166).abs() < 1e-9);
        let tcp = parse(TCP).unwrap();
        assert!((tcp.gigabits - 17.656_971_264).abs() < 1e-6 && (tcp.seconds - 1.010_033).abs() < 1e-9);
    }

    #[test]
    fn errors_and_empty_reports_are_told() {
        let nothing = r#"{"end":{"sum_received":{"seconds":1.0,"bytes":0}}}"#;
        for (text, words) in [
            (REFUSED, "iperf3: unable to connect to server: Connection refused"),
            (r#"{"end":{}}"#, "iperf3 tells nothing of what was received"),
            (nothing, "iperf3: nothing was received in 1 s"),
            (
                "Segmentation fault",
                "reading what iperf3 printed: \"Segmentation fault\"",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn a_busy_server_is_told_from_a_failing_one() {
        let busy = r#"{"end":{},"error":"the server is busy running a test. try again later"}"#;
        assert!(is_busy(busy));
        for other in [UDP, REFUSED, "Segmentation fault"] {
            assert!(!is_busy(other), "{other}");
        }
    }

    #[test]
    fn udp_packets_have_the_same_size_on_every_path() {
        let line = |load: Load| {
            load.client("10.244.1.2", 1350, Pair { client: 2, server: 5 })
                .join(" ")
        };
        let [tcp, _, _, udp] = LOADS;
        assert_eq!(
            line(tcp),
            "timeout 20 nice -n -15 iperf3 --json --client 10.244.1.2 --port 5201 --time 1 --parallel 1 --affinity 2,5 --congestion cubic"
        );
        assert_eq!(
            line(udp),
            "timeout 20 nice -n -15 iperf3 --json --client 10.244.1.2 --port 5201 --time 1 --parallel 8 --affinity 2,5 --udp --bitrate 0 --length 1350"
        );
    }
}
