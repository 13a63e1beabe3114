use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Debian's packages of the programs that take part: peers, and what the labs are made with.
const PACKAGES: [&str; 6] = [
    "containernetworking-plugins",
    "etcd-server",
    "iperf3",
    "iproute2",
    "iptables",
    "nftables",
];

/// Where, and with what, a report was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    processor: String,
    cores: usize,
    /// With its unit.
    memory: String,
    kernel: String,
    load_before: String,
    load_after: String,
    versions: Vec<(String, String)>,
}

impl Machine {
    /// Looks at the machine before anything is measured, and asks the programs for their versions; `commit` is what
    /// ours were built from, where that is known.
    pub(super) fn look(bin_dir: &Path, peer_dir: Option<&Path>, commit: Option<&str>) -> Self {
        let ours = |name: &str, arguments: &[&str]| {
            let version = said(&bin_dir.join(name), arguments);
            let commit = commit.map(|commit| format!(", commit {commit}"));
            (name.to_owned(), version + &commit.unwrap_or_default())
        };
        let mut versions = vec![ours("flanneld", &["--version"]), ours("flannel", &[])];
        if let Some(dir) = peer_dir {
            let place = format!("in {}", dir.display());
            versions.push(("peer bridge, host-local, portmap".to_owned(), place));
        }
        versions.extend(packages());
        Self {
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory: memory(&read("/proc/meminfo")),
            kernel: read("/proc/sys/kernel/osrelease"),
            load_before: load(),
            load_after: String::new(),
            versions,
        }
    }

    /// Notes the load at the end.
    pub(super) fn finish(&mut self) {
        self.load_after = load();
    }

    pub(super) fn as_json(&self) -> Value {
        json!({
            "processor": self.processor, "cores": self.cores, "memory": self.memory, "kernel": self.kernel,
            "load_before": self.load_before, "load_after": self.load_after, "versions": self.versions,
        })
    }

    /// The machine in a line.
    pub(super) fn line(&self) -> String {
        format!(
            "{}, {} cores, {} of memory, Linux {}, load {} before and {} after",
            self.processor, self.cores, self.memory, self.kernel, self.load_before, self.load_after
        )
    }

    /// What took part, and of which version each was.
    pub(super) fn versions(&self) -> &[(String, String)] {
        &self.versions
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("machine   {}\n", self.line());
        for (name, version) in &self.versions {
            text.push_str(&format!("version   {name}: {version}\n"));
        }
        text
    }
}

/// The versions of those packages that are installed.
fn packages() -> Vec<(String, String)> {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${Package} ${Version}\n"]).args(PACKAGES);
    query.stdin(Stdio::null());
    // It fails where one is missing, and tells of the others all the same.
    let told = query.output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&told).into_owned();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter(|(_, version)| !version.is_empty())
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect()
}

/// The memory of the machine from `/proc/meminfo` (proc(5)), in GiB.
fn memory(meminfo: &str) -> String {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.map_or_else(
        || "an unknown amount".to_owned(),
        |kib: u32| format!("{:.1} GiB", f64::from(kib) / 1024.0 / 1024.0),
    )
}

fn processor() -> String {
    let text = read("/proc/cpuinfo");
    let model = text
        .lines()
        .filter(|line| line.starts_with("model name"))
        .find_map(|line| line.split_once(':'));
    model.map_or_else(
        || "unknown processor".to_owned(),
        |(_, name)| name.trim().to_owned(),
    )
}

/// The load averages of the last 1, 5 and 15 minutes.
fn load() -> String {
    read("/proc/loadavg")
        .split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The first line that a program prints, or that there is none.
fn said(program: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_remove("CNI_COMMAND")
        .stdin(Stdio::null());
    let output = command
        .output()
        .map(|output| [output.stdout, output.stderr].concat());
    let text = String::from_utf8_lossy(&output.unwrap_or_default()).into_owned();
    let line = text.lines().find(|line| !line.trim().is_empty());
    line.unwrap_or("unknown").trim().to_owned()
}

#[cfg(test)]
impl Machine {
    /// A machine whose every text is this one.
    pub(super) fn of(text: &str) -> Self {
        let text = || text.to_owned();
        Self {
            processor: text(),
            cores: 2,
            memory: text(),
            kernel: text(),
            load_before: text(),
            load_after: text(),
            versions: vec![(text(), text())],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_gibibytes() {
        let meminfo = "MemTotal:        8042120 kB\nMemFree:         1 kB\n";
        assert_eq!(memory(meminfo), "7.7 GiB");
        assert_eq!(memory("MemTotal: much\n"), "an unknown amount");
    }

    #[test]
    fn this_machine_and_what_ours_were_built_from_are_told() {
        let dir = Path::new("/nonexistent");
        let text = Machine::look(dir, Some(dir), Some("0123abc")).text();
        let kernel = read("/proc/sys/kernel/osrelease");
        assert!(text.contains(&format!("Linux {kernel}, load ")), "{text}");
        assert!(text.contains("flanneld: unknown, commit 0123abc\n"), "{text}");
        assert!(text.contains("in /nonexistent\n"), "{text}");
    }
}
