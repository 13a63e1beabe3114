use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const FLANNELD: &str = env!("CARGO_BIN_EXE_flanneld");
pub(crate) const NET_CONF: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
pub(crate) const HEALTH: &str = "127.0.0.1:8081";
/// The machine may be busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A node: the namespace of the calling thread, a lease directory, and perhaps a daemon.
pub(crate) struct Node {
    dir: Arc<tempfile::TempDir>,
    log: &'static str,
    daemon: Option<Child>,
}

/// Runs a test on a node whose interface eth0 has 192.168.77.1.
pub(crate) fn on_a_node(test: impl FnOnce(&mut Node) + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        ip("link add eth0 type veth peer name wire");
        ip("link set wire up");
        ip("link set eth0 up");
        ip("addr add 192.168.77.1/24 dev eth0");
        ip("route add default via 192.168.77.254 dev eth0");
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("leases/subnets")).unwrap();
        test(&mut Node {
            dir: Arc::new(dir),
            log: "log",
            daemon: None,
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// What ip prints that ends well.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

impl Node {
    /// The same node for a second daemon.
    pub(crate) fn beside(node: &Self) -> Self {
        Self {
            dir: Arc::clone(&node.dir),
            log: "log2",
            daemon: None,
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn configure(&self) {
        self.configure_with(NET_CONF);
    }

    pub(crate) fn configure_with(&self, conf: &str) {
        fs::write(self.file("leases/config.new"), conf).unwrap();
        fs::rename(self.file("leases/config.new"), self.file("leases/config")).unwrap();
    }

    /// The lease of node `n`, whose subnet is the one of 16 addresses with this number in 10.244.0.0/16.
    pub(crate) fn add_peer(&self, n: u16) {
        let [high, low] = n.to_be_bytes();
        let lease = format!(
            r#"{{"PublicIP":"192.168.{high}.{low}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:{high:02x}:{low:02x}"}},"Expiration":"2099-01-01T00:00:00Z"}}"#
        );
        let name = format!("10.244.{}.{}-28", n / 16, n % 16 * 16);
        fs::write(self.file("leases/.new"), lease).unwrap();
        fs::rename(self.file("leases/.new"), self.file("leases/subnets").join(name)).unwrap();
    }

    /// A command that runs flanneld with this node's files.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(FLANNELD);
        command.args(arguments).stdin(Stdio::null());
        command.arg(format!("--subnet-file={}", self.file("run/subnet.env").display()));
        command
    }

    pub(crate) fn start(&mut self, arguments: &[&str]) -> u32 {
        let mut command = self.command(arguments);
        self.spawn(&mut command)
    }

    pub(crate) fn spawn(&mut self, command: &mut Command) -> u32 {
        command.arg(format!("--lease-dir={}", self.file("leases").display()));
        self.spawn_on_store(command)
    }

    /// Runs a command that names its own store.
    pub(crate) fn spawn_on_store(&mut self, command: &mut Command) -> u32 {
        let log = fs::File::create(self.file(self.log)).unwrap();
        let daemon = command.stderr(log).spawn().unwrap();
        self.daemon.insert(daemon).id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.file(self.log)).unwrap()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command prints that ends well.
    pub(crate) fn print(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + LIMIT;
        while !done() {
            assert!(Instant::now() < end, "{what} took too long:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn wait_ready(&self) {
        self.wait("readiness", || {
            try_get("/readyz").is_some_and(|(code, _)| code == 200)
        });
    }

    /// Waits until the daemon is ready and has seen that all is as it should be: what is missing then, somebody removed.
    pub(crate) fn wait_settled(&self) {
        self.wait_ready();
        let mut before = None;
        self.wait("the last look at the network", || {
            std::thread::sleep(Duration::from_millis(200));
            let now = rounds_of("network");
            before.replace(now) == Some(now)
        });
    }

    /// Ends the daemon as systemd would.
    pub(crate) fn stop(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        kill(
            Pid::from_raw(i32::try_from(daemon.id()).unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        assert!(daemon.wait().unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }
}

/// Status and body of an answer.
pub(crate) fn get(path: &str) -> (u16, String) {
    try_get(path).unwrap_or_else(|| panic!("no answer for {path}"))
}

pub(crate) fn try_get(path: &str) -> Option<(u16, String)> {
    let answer = ask(&format!(
        "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
    ))?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some((code, body.to_owned()))
}

/// What the health server sends back for these bytes.
pub(crate) fn ask(request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(HEALTH).ok()?;
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // The server may have closed already.
    let _closed = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// How often the daemon has looked at its network or its rules, and changed them where needed.
pub(crate) fn rounds_of(part: &str) -> u32 {
    let page = get("/metrics").1;
    let name = format!("flanneld_reconcile_duration_seconds_count{{part=\"{part}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}
