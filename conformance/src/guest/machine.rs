//! One guest: a QEMU process, and the channel by which it runs commands.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::accelerator::Accelerator;
use super::wire::{guest_socket, hub_socket};
use crate::lab::{Namespaces, Process, base64, base64_bytes, command};

/// A guest's memory in MiB. Its whole file system is in it, and at the boot the image as well; the host gives what is used.
const MEMORY_MIB: u32 = 1024;
/// The kind of the guest's file system: of the two that an image can be unpacked into, the one that may take more than half of
/// the memory (linux `init/do_mounts.c`, `init_rootfs`), as programs with their symbols do.
const ROOT: &str = "rootfstype=ramfs";
/// Has the kernel believe in its timer: on a busy host an emulated one may seem broken, and the kernel would panic (linux
/// `arch/x86/kernel/apic/io_apic.c`, `check_timer`).
const TIMER: &str = "no_timer_check";
/// How long a guest may take until it runs commands; it takes 5 to 10 s under software emulation.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// How long a command of [`Guest::sh`] may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A running guest; it is killed when this value is dropped.
#[derive(Debug)]
pub struct Guest {
    number: u8,
    /// Held for its end.
    _process: Process,
    commands: ChildStdin,
    lines: Receiver<String>,
    asked: u64,
    console: PathBuf,
    /// The host's ends of the further ports.
    pipes: [PathBuf; PIPES.len()],
}

/// The further serial ports of a guest, each a socket on the host.
const PIPES: [&str; 2] = ["two", "three"];

/// What a command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its exit status.
    pub status: u8,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Where things of a guest are, as seen from inside the lab's namespaces.
pub(super) struct Places<'a> {
    pub(super) accelerator: Accelerator,
    pub(super) kernel: &'a Path,
    pub(super) image: &'a Path,
    /// The directory of the wire's sockets and the consoles' logs.
    pub(super) dir: &'a str,
    /// The same directory, as the host sees it.
    pub(super) dir_outside: &'a Path,
}

impl Guest {
    /// Starts a guest inside namespaces; it is not ready yet.
    ///
    /// # Errors
    /// Fails when there is no QEMU.
    pub(super) fn boot(lab: &Namespaces, number: u8, places: &Places<'_>) -> Result<Self> {
        let mut qemu = command(&arguments(number, places))?;
        qemu.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = lab
            .spawn(qemu)
            .context("starting a guest (Debian's package qemu-system-x86)")?;
        let commands = child.stdin.take().context("QEMU has no input")?;
        let answers = child.stdout.take().context("QEMU has no output")?;
        let (sender, lines) = channel();
        thread::Builder::new()
            .name(format!("guest-{number}"))
            .spawn(move || forward(answers, &sender))
            .context("starting a thread")?;
        Ok(Self {
            number,
            _process: Process::new(child),
            commands,
            lines,
            asked: 0,
            console: places.dir_outside.join(console(number)),
            pipes: PIPES.map(|name| places.dir_outside.join(pipe(name, number))),
        })
    }

    /// Waits until the guest runs commands, and returns how long its kernel has been running.
    ///
    /// # Errors
    /// Fails with the end of the console's log when it does not in time.
    pub(super) fn ready(&mut self) -> Result<Duration> {
        let answer = self.answer(0, BOOT_LIMIT).with_context(|| self.last_words())?;
        let seconds: f64 = answer
            .stdout
            .split_whitespace()
            .next()
            .context("a guest without an uptime")?
            .parse()
            .context("reading a guest's uptime")?;
        Ok(Duration::from_secs_f64(seconds))
    }

    /// The guest's number in its lab, from 1.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Runs commands of the shell, and returns what they leave, whatever their status.
    ///
    /// # Errors
    /// Fails when the guest does not answer in time.
    pub fn exec(&mut self, commands: &str, limit: Duration) -> Result<Answer> {
        self.asked += 1;
        let line = format!("{} {}\n", self.asked, base64(commands.as_bytes()));
        let sent = self
            .commands
            .write_all(line.as_bytes())
            .and_then(|()| self.commands.flush());
        sent.with_context(|| format!("sending a command to guest {}", self.number))?;
        self.answer(self.asked, limit)
            .with_context(|| format!("guest {}: {commands}\n{}", self.number, self.last_words()))
    }

    /// Runs commands of the shell, the last of which must succeed, and returns what they print.
    ///
    /// # Errors
    /// Fails with what they complain about when they fail.
    pub fn sh(&mut self, commands: &str) -> Result<String> {
        let answer = self.exec(commands, COMMAND_LIMIT)?;
        if answer.status != 0 {
            bail!(
                "guest {}: `{commands}` ended with {}: {}{}",
                self.number,
                answer.status,
                answer.stdout,
                answer.stderr
            );
        }
        Ok(answer.stdout)
    }

    /// Looks again and again until commands succeed, and returns how long that took.
    ///
    /// # Errors
    /// Fails with what they complained about last when the limit passes first.
    pub fn wait_for(&mut self, commands: &str, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let answer = self.exec(commands, COMMAND_LIMIT)?;
            if answer.status == 0 {
                return Ok(start.elapsed());
            }
            if start.elapsed() >= limit {
                bail!(
                    "guest {}: waited {:.0} s in vain for `{commands}`: {}{}",
                    self.number,
                    limit.as_secs_f64(),
                    answer.stdout,
                    answer.stderr
                );
            }
        }
    }

    /// Connects to the guest's second and third serial port, `/dev/vport*p2` and `/dev/vport*p3` in the guest. Who reads
    /// such a port there before the connection has come about, or after its end, finds the end of the file.
    ///
    /// # Errors
    /// Fails when QEMU does not answer.
    pub fn pipes(&self) -> Result<[UnixStream; 2]> {
        let [two, three] = &self.pipes;
        let connect = |path: &PathBuf| {
            UnixStream::connect(path).with_context(|| format!("connecting to {}", path.display()))
        };
        Ok([connect(two)?, connect(three)?])
    }

    /// Writes a file into the guest.
    ///
    /// # Errors
    /// Fails when the guest cannot write it.
    pub fn write(&mut self, path: &str, text: &str) -> Result<()> {
        let text = base64(text.as_bytes());
        self.sh(&format!(
            "mkdir -p $(dirname {path}) && echo {text} | base64 -d >{path}"
        ))
        .map(drop)
    }

    fn answer(&mut self, number: u64, limit: Duration) -> Result<Answer> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => bail!("no answer within {:.0} s", limit.as_secs_f64()),
                Err(RecvTimeoutError::Disconnected) => bail!("the guest has ended"),
            };
            // A late answer to a command that was given up has another number.
            if let Some(answer) = read(number, &line)? {
                return Ok(answer);
            }
        }
    }

    /// What the kernel said last on its console.
    fn last_words(&self) -> String {
        let text = std::fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

fn console(number: u8) -> String {
    format!("console-{number}")
}

fn pipe(name: &str, number: u8) -> String {
    format!("port-{name}-{number}")
}

fn arguments(number: u8, places: &Places<'_>) -> Vec<String> {
    let Places {
        accelerator,
        kernel,
        image,
        dir,
        ..
    } = places;
    let text = format!(
        "qemu-system-x86_64 -M pc -accel {name} -cpu {processor} -smp 1 -m {MEMORY_MIB} -nodefaults \
         -display none -no-reboot -serial file:{dir}/{console} -append console=ttyS0\u{a0}panic=-1\u{a0}quiet\u{a0}{TIMER}\u{a0}{ROOT} \
         -device virtio-rng-pci -device virtio-serial-pci -chardev stdio,id=commands,signal=off \
         -device virtserialport,chardev=commands \
         -netdev dgram,id=wire,local.type=unix,local.path={dir}/{local},remote.type=unix,remote.path={dir}/{remote} \
         -device virtio-net-pci,netdev=wire,mac=02:00:00:00:77:{number:02x} \
         -netdev user,id=store,ipv6=off -device virtio-net-pci,netdev=store,mac=02:00:00:00:78:{number:02x}",
        name = accelerator.name(),
        processor = accelerator.processor(),
        console = console(number),
        local = guest_socket(number),
        remote = hub_socket(number),
    );
    let mut words: Vec<_> = text
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(|word| word.replace('\u{a0}', " "))
        .collect();
    for name in PIPES {
        let socket = format!(
            "socket,id={name},path={dir}/{},server=on,wait=off",
            pipe(name, number)
        );
        words.extend(["-chardev".to_owned(), socket]);
        words.extend(["-device".to_owned(), format!("virtserialport,chardev={name}")]);
    }
    words.extend(["-kernel".to_owned(), kernel.to_string_lossy().into_owned()]);
    words.extend(["-initrd".to_owned(), image.to_string_lossy().into_owned()]);
    words
}

/// Hands on the lines that a guest answers with, until it ends.
fn forward(answers: ChildStdout, lines: &Sender<String>) {
    for line in BufReader::new(answers).lines() {
        let Ok(line) = line else { return };
        if lines.send(line).is_err() {
            return;
        }
    }
}

/// Reads the answer to a command; `None` for the answer to another.
fn read(number: u64, line: &str) -> Result<Option<Answer>> {
    let mut words = line.split_whitespace();
    if words.next().and_then(|word| word.parse().ok()) != Some(number) {
        return Ok(None);
    }
    let status = words.next().context("an answer without a status")?;
    let mut text = |mark: char| {
        let word = words.next().and_then(|word| word.strip_prefix(mark));
        let bytes = base64_bytes(word.context("an answer that is cut off")?)?;
        anyhow::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Some(Answer {
        status: status.parse().context("reading an exit status")?,
        stdout: text('o')?,
        stderr: text('e')?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_its_number() {
        let answer = read(7, "7 1 oZm9v eYmFy").unwrap().unwrap();
        assert_eq!((answer.status, answer.stdout.as_str()), (1, "foo"));
        assert_eq!(answer.stderr, "bar");
        assert_eq!(read(8, "7 1 oZm9v eYmFy").unwrap(), None);
        assert_eq!(read(8, "").unwrap(), None);
        assert!(read(7, "7 1 oZm9v").is_err());
    }
}
