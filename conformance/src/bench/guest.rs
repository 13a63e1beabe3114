//! The data plane measured in a guest, whose kernel is Debian's own and has the drivers that this one may lack.
//!
//! The guest runs this very program, on nodes in namespaces as here. Under emulation its figures tell nothing by themselves;
//! those of two kinds of path, measured in turns on the same kernel, compare as they do anywhere.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{BenchConfig, progress};
use crate::guest::{Guest, GuestLab};
use crate::lab::CNI_BIN_DIR;
use crate::report::Written;

/// What the measurements need of the host's programs beyond what every guest has; busybox's `sleep` knows no infinity.
const HOST_PROGRAMS: [&str; 5] = ["iperf3", "ss", "nice", "sleep", "timeout"];
const HOST_DIR: &str = "/usr/bin";
/// Where the guest keeps the report in its forms, its progress, and at the end the status.
const DIR: &str = "/run/bench";
/// The longest run, of 50 rounds on all wires, under emulation.
const LIMIT: Duration = Duration::from_secs(12 * 3600);
/// How long a form of the report takes to be handed over: a page with plots is half a megabyte.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(60);
/// The pause between two looks at the progress.
const PAUSE_SECS: u8 = 2;

/// Measures in a guest, and tells the report in the forms that were asked for.
///
/// # Errors
/// Fails as [`GuestLab::start`], without iperf3 or ss, and with what the guest said when it could not measure.
pub(super) fn measure(config: &BenchConfig) -> Result<bool> {
    let this = std::env::current_exe().context("finding this program")?;
    let host = HOST_PROGRAMS.iter().map(|name| Path::new(HOST_DIR).join(name));
    let programs: Vec<_> = host.chain([this.clone()]).collect();
    progress("in a guest, which boots now")?;
    let mut lab = GuestLab::start(1, &config.binaries, &programs)?;
    let guest = lab.guest(1)?;
    guest.sh(&start(&this, config)).context("starting in the guest")?;
    follow(guest)?;
    let mut form = |name: &str| -> Result<String> {
        let answer = guest.exec(&format!("cat {DIR}/{name}"), HAND_OVER_LIMIT)?;
        Ok(answer.stdout)
    };
    let (text, json, page) = (form("text")?, form("json")?, form("html")?);
    Written::of([(config.json.as_ref(), json), (config.html.as_ref(), page)]).show(&text)?;
    Ok(true)
}

/// The commands that start this program in the guest. The lab looks for programs in the usual places alone, and hides
/// the plugins' directory; busybox stands in for what is nowhere else, but not as the shell, which would prefer its own `ip`.
fn start(this: &Path, config: &BenchConfig) -> String {
    let name = this.file_name().unwrap_or_default().to_string_lossy();
    let quick = if config.quick { "--quick" } else { "" };
    let commit = config.commit.as_deref();
    let commit = commit.map(|id| format!("--commit={id}")).unwrap_or_default();
    format!(
        "set -e
         mkdir -p /usr/local/bin {DIR}
         for applet in $(ls /usr/lib/busybox); do
             [ -e /usr/sbin/$applet ] || [ -e {CNI_BIN_DIR}/$applet ] || ln -sf /usr/lib/busybox/busybox /usr/local/bin/$applet
         done
         ln -sf /usr/sbin/dash /usr/local/bin/sh
         cd {CNI_BIN_DIR}
         cp -f {programs} /usr/local/bin/
         (
             status=0
             ./{name} bench net --bin-dir={CNI_BIN_DIR} --runs={runs} {quick} {commit} \\
                 --json={DIR}/json --html={DIR}/html >{DIR}/text 2>{DIR}/progress </dev/null || status=$?
             echo $status >{DIR}/status
         ) >/dev/null 2>&1 &",
        programs = HOST_PROGRAMS.join(" "),
        runs = config.runs,
    )
}

/// Hands on the guest's progress until it has measured.
fn follow(guest: &mut Guest) -> Result<()> {
    let (begun, mut told) = (Instant::now(), 0);
    while begun.elapsed() < LIMIT {
        let status = guest.sh(&format!(
            "sleep {PAUSE_SECS}; cat {DIR}/status 2>/dev/null || true"
        ))?;
        let said = guest.sh(&format!("cat {DIR}/progress"))?;
        for line in said.lines().skip(told) {
            if let Some(what) = line.strip_prefix("measuring ") {
                progress(what.trim_end_matches(" …"))?;
            }
        }
        told = said.lines().count();
        match status.trim() {
            "" => {}
            "0" => return Ok(()),
            other => bail!("in the guest the measurement ended with {other}: {}", said.trim()),
        }
    }
    bail!(
        "the guest has not measured within {} hours",
        LIMIT.as_secs() / 3600
    )
}
