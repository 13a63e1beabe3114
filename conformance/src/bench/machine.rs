use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Where, and with what, a report was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    load_before: String,
    load_after: String,
    versions: Vec<(String, String)>,
}

impl Machine {
    /// Looks at the machine before anything is measured, and asks the programs for their versions.
    pub(super) fn look(bin_dir: &Path, peer_dir: Option<&Path>) -> Self {
        let mut versions = vec![
            (
                "flanneld".to_owned(),
                said(&bin_dir.join("flanneld"), &["--version"]),
            ),
            ("flannel".to_owned(), said(&bin_dir.join("flannel"), &[])),
        ];
        if let Some(dir) = peer_dir {
            let query = ["-W", "-f", "${Version}", "containernetworking-plugins"];
            let package = said(Path::new("dpkg-query"), &query);
            versions.push((
                "peer bridge + host-local".to_owned(),
                format!("{} (containernetworking-plugins {package})", dir.display()),
            ));
        }
        Self {
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
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
            "processor": self.processor, "cores": self.cores, "kernel": self.kernel,
            "load_before": self.load_before, "load_after": self.load_after, "versions": self.versions,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "machine   {}, {} cores, Linux {}, load {} before and {} after\n",
            self.processor, self.cores, self.kernel, self.load_before, self.load_after
        );
        for (name, version) in &self.versions {
            text.push_str(&format!("version   {name}: {version}\n"));
        }
        text
    }
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
