//! Real etcd servers on the loopback of a test's own network namespace.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long a server may take to answer, on a machine that does much else.
const START_LIMIT: Duration = Duration::from_secs(60);

/// One etcd server; it ends with this value.
pub struct Member {
    child: Option<Child>,
    dir: TempDir,
    arguments: Vec<String>,
    port: u16,
    tls: bool,
}

/// Files that let a server speak TLS.
pub struct ServerTls<'a> {
    pub certificate: &'a Path,
    pub key: &'a Path,
    /// Whom a client's certificate must be from, if it must have one.
    pub client_authority: Option<&'a Path>,
}

impl Member {
    /// Starts a server of its own on port 2379, with a second port for the test itself.
    pub fn start() -> Self {
        Self::start_with(&[], None)
    }

    pub fn start_with(extra: &[&str], tls: Option<&ServerTls<'_>>) -> Self {
        let mut member = Self::prepare("m1", 2379, "m1=http://127.0.0.1:2380", extra, tls);
        member.restart();
        member
    }

    /// Prepares a server; its peer port follows its port, and 10,000 above is the port for the test itself.
    pub fn prepare(
        name: &str,
        port: u16,
        cluster: &str,
        extra: &[&str],
        tls: Option<&ServerTls<'_>>,
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let urls = format!(
            "{scheme}://127.0.0.1:{port},{scheme}://127.0.0.1:{}",
            port + 10_000
        );
        let peer = format!("http://127.0.0.1:{}", port + 1);
        let mut arguments: Vec<String> = [
            ("name", name),
            ("data-dir", dir.path().join("data").to_str().unwrap()),
            ("listen-client-urls", &urls),
            ("advertise-client-urls", &urls),
            ("listen-peer-urls", &peer),
            ("initial-advertise-peer-urls", &peer),
            ("initial-cluster", cluster),
            ("heartbeat-interval", "50"),
            ("election-timeout", "500"),
            ("log-level", "error"),
        ]
        .iter()
        .map(|(flag, value)| format!("--{flag}={value}"))
        .collect();
        if let Some(tls) = tls {
            arguments.push(format!("--cert-file={}", tls.certificate.display()));
            arguments.push(format!("--key-file={}", tls.key.display()));
            if let Some(authority) = tls.client_authority {
                arguments.push("--client-cert-auth".to_owned());
                arguments.push(format!("--trusted-ca-file={}", authority.display()));
            }
        }
        arguments.extend(extra.iter().map(|argument| (*argument).to_owned()));
        Self {
            child: None,
            dir,
            arguments,
            port,
            tls: tls.is_some(),
        }
    }

    /// Starts the server, and waits until it listens.
    pub fn restart(&mut self) {
        self.spawn();
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(
                start.elapsed() < START_LIMIT,
                "etcd does not listen: {}",
                self.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the server without waiting.
    pub fn spawn(&mut self) {
        let log = fs::File::create(self.log_path()).unwrap();
        let mut etcd = Command::new("/usr/bin/etcd");
        etcd.args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(etcd.spawn().unwrap());
    }

    /// Kills the server (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Takes away all that the server holds; it must not run.
    pub fn wipe(&self) {
        fs::remove_dir_all(self.dir.path().join("data")).unwrap();
    }

    /// Stops the server in its tracks: connections stay, and nothing answers.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.port)
    }

    /// Where the test itself asks, whatever is done to the other port.
    pub fn own_url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.port + 10_000)
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
