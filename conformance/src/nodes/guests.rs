//! Nodes that are QEMU guests with Debian's own kernel.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::absence::{Absence, Part, of_link_in_words};
use super::connection::{Carrier, Connection};
use super::inventory::{Host, Inventory};
use super::lab::{DAEMON_FLAGS, HIDING, NET_CONF};
use super::remote::{Remote, side_by_side};
use crate::counted::counted;
use crate::guest::{Guest, GuestLab};
use crate::lab::runtime::{CONFLIST, conflist};
use crate::lab::{Binaries, CNI_BIN_DIR};
use crate::report::Checked;

/// How much slower guests are whose instructions a program runs: a tenth of the traffic, ten times the limits.
const EMULATED: u32 = 10;
/// A default route in each family to nobody, as nodes have one: by it they know their own address.
const WAY_OUT: &str = "ip route add default via 192.168.88.254 dev eth0
    ip -6 route add default via fd00:88::fe dev eth0";
/// Where the guest keeps what becomes of its agent.
const STATUS: &str = "/run/agent.status";
const PID: &str = "/run/agent.pid";
/// What an agent's first line of input tells: that the host's end is there.
const GO: &str = "go";
/// Before a look whether the agent has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// How long the guest's shell may take for one look.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// Guests with the programs of this project on them.
pub(super) struct GuestNodes {
    lab: Shared,
    count: u8,
    kernel: String,
    /// The guests' path of this program.
    agent: String,
}

/// The guests, of whom one at a time is spoken to by its shell.
type Shared = Arc<Mutex<GuestLab>>;

impl GuestNodes {
    /// Boots guests with a daemon on each; the network configuration is as for a lab.
    ///
    /// # Errors
    /// Fails without root, QEMU, etcd, the kernel's package or the programs, and when a daemon does not start.
    pub(super) fn start(count: u8, bin_dir: Option<PathBuf>, net_conf: Option<&str>) -> Result<Self> {
        let binaries = bin_dir.as_deref().map_or_else(Binaries::find, Binaries::in_dir)?;
        let this = std::env::current_exe().context("finding the running program's own path")?;
        let name = this.file_name().unwrap_or_default().to_string_lossy();
        let agent = format!("{CNI_BIN_DIR}/{name}");
        let mut lab = GuestLab::start(count, &binaries, &[this])?;
        lab.lab()
            .put_in_etcd("config", net_conf.unwrap_or(NET_CONF), None)?;
        for number in 1..=count {
            let guest = lab.guest(number)?;
            // Host ports are portmap's, which is the same program.
            guest.sh(&format!(
                "set -e; {WAY_OUT}; ln -sf flannel {CNI_BIN_DIR}/portmap"
            ))?;
            guest.write(CONFLIST, &conflist(true).to_string())?;
            guest.start_flanneld(&DAEMON_FLAGS.join(" "))?;
        }
        let kernel = lab.guest(1)?.sh("uname -r")?.trim().to_owned();
        Ok(Self {
            lab: Arc::new(Mutex::new(lab)),
            count,
            kernel,
            agent,
        })
    }

    /// Has the first guest hide its pods behind its own address on the way to pods elsewhere.
    ///
    /// # Errors
    /// Fails when the guest does.
    pub(super) fn hide(&self) -> Result<()> {
        let mut lab = locked(&self.lab);
        lab.guest(1)?.sh(&format!("nft '{HIDING}'")).map(drop)
    }

    /// Ends the daemon of a guest, and starts it after this long.
    fn daemon_away(&self, node: usize, time: Duration) -> Checked<()> {
        let number = number(node)?;
        locked(&self.lab).guest(number)?.stop_flanneld()?;
        // The guests' shells are free meanwhile.
        thread::sleep(time);
        let flags = DAEMON_FLAGS.join(" ");
        Ok(locked(&self.lab).guest(number)?.start_flanneld(&flags)?)
    }

    /// Starts the agent of a guest, and what hands it the guest's serial port.
    fn agent(&self, number: u8) -> Result<Host> {
        let [channel, words] = {
            let mut lab = locked(&self.lab);
            let guest = lab.guest(number)?;
            let pipes = guest.pipes()?;
            guest.sh(&script(&self.agent))?;
            pipes
        };
        let reads = channel.try_clone().context("duplicating a socket")?;
        let carrier = InGuest {
            lab: Arc::clone(&self.lab),
            number,
        };
        let connection = Connection {
            stdin: Box::new(Input(channel)),
            stdout: Box::new(reads),
            stderr: Box::new(words),
            carrier: Box::new(carrier),
        };
        let name = format!("guest{number}");
        Remote::start(&name, connection, format!("{GO}\n").as_bytes()).map(Host::with_agent)
    }
}

/// What a guest's shell does to start an agent: it waits until the host's end of the port is there, and keeps how the agent
/// ended. Then it says a word that no agent says, by which the host knows that nothing more comes.
fn script(agent: &str) -> String {
    format!(
        "rm -f {STATUS}
         {{
             for try in $(seq 600); do
                 read -r word <&4 && [ \"$word\" = {GO} ] && break
                 usleep 100000
             done
             status=1
             if [ \"$word\" = {GO} ]; then
                 {agent} agent --plugin-dir {CNI_BIN_DIR} <&4 >&4 2>&5 &
                 echo $! >{PID}
                 wait $!
                 status=$?
             fi
             echo $status >{STATUS}.new
             mv {STATUS}.new {STATUS}
             echo ended >&4
         }} 4<>$(ls /dev/vport*p2) 5>$(ls /dev/vport*p3) </dev/null >/dev/null 2>&1 &"
    )
}

/// A guest's number by its place among all nodes.
fn number(node: usize) -> Result<u8> {
    u8::try_from(node + 1).context("a node that there is not")
}

fn locked(lab: &Shared) -> MutexGuard<'_, GuestLab> {
    lab.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An agent's standard input: its end is the end of the connection.
struct Input(UnixStream);

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        // Where it has ended already there is nothing to shut down.
        self.0.shutdown(Shutdown::Write).ok();
    }
}

/// An agent in a guest, which is looked after by the guest's shell.
#[derive(Debug)]
struct InGuest {
    lab: Shared,
    number: u8,
}

impl InGuest {
    fn guest<T>(&self, action: impl FnOnce(&mut Guest) -> Result<T>) -> Result<T> {
        action(locked(&self.lab).guest(self.number)?)
    }
}

impl Carrier for InGuest {
    fn ended(&mut self) -> Result<Option<bool>> {
        // Each look takes from the agent the only processor that the guest has.
        thread::sleep(LOOK_PAUSE);
        let answer = self.guest(|guest| guest.exec(&format!("cat {STATUS}"), LOOK_LIMIT))?;
        Ok((answer.status == 0).then(|| answer.stdout.trim() == "0"))
    }

    fn kill(&mut self) -> Result<()> {
        self.guest(|guest| guest.sh(&format!("kill -9 $(cat {PID})")))
            .map(drop)
    }
}

impl Inventory for GuestNodes {
    fn title(&self) -> String {
        format!("{} with Linux {}", counted(self.count, "guest"), self.kernel)
    }

    fn start(&self, _pods_per_node: u8) -> Result<Vec<Host>> {
        side_by_side(1..=self.count, |number| self.agent(number))
    }

    fn restart_daemon(&self, node: usize, _agent: &Remote) -> Checked<()> {
        self.daemon_away(node, Duration::ZERO)
    }

    fn away<'a>(&'a self, part: Part, _agent: &'a Remote, time: Duration) -> Checked<Absence<'a>> {
        Ok(match part {
            Part::Store => Box::new(move || {
                locked(&self.lab).lab().kill_etcd()?;
                thread::sleep(time);
                Ok(locked(&self.lab).lab().start_etcd()?)
            }),
            // By the guest's own shell: programs find none.
            Part::Link(node) => Box::new(move || {
                let script = of_link_in_words("eth0", time);
                locked(&self.lab).guest(number(node)?)?.sh(&script)?;
                Ok(())
            }),
            Part::Daemon(node) => Box::new(move || self.daemon_away(node, time)),
        })
    }

    fn slowdown(&self) -> u32 {
        if locked(&self.lab).is_emulated() {
            EMULATED
        } else {
            1
        }
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn may_break(&self) -> bool {
        true
    }
}
