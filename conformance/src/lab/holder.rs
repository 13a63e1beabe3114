use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};

use super::binaries::Binaries;
use super::mounts;
use super::namespaces::{Namespaces, command, on_own_thread};

/// The first process of the lab's process namespace. It reads its standard input, a pipe that only we hold open: at the
/// end of file, whatever ended us, it exits, and the kernel ends every other process of the lab with it. The line
/// `keep` lets it go on without us; then it holds nothing of ours open either.
const SCRIPT: &str = r#"mount -t proc proc /proc && echo ready && read -r word && [ "$word" = keep ] &&
    exec sleep infinity </dev/null >/dev/null 2>&1"#;

/// How long the end of the lab's processes is awaited when the lab is dropped.
const END_LIMIT: Duration = Duration::from_secs(3);

/// The process whose life is the lab's life, and the namespaces that it owns.
#[derive(Debug)]
pub(super) struct Holder {
    child: Child,
    pipe: Option<ChildStdin>,
    namespaces: Namespaces,
}

impl Holder {
    /// Makes the lab's own network, mount and process namespaces and starts their first process.
    ///
    /// # Errors
    /// Fails when the kernel refuses a namespace or a mount, or a program cannot be copied into the lab.
    pub(super) fn start(binaries: &Binaries) -> Result<Self> {
        let programs = read_programs(binaries)?;
        let child = on_own_thread(move || {
            let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
            unshare(flags).context("making the lab's namespaces")?;
            mounts::prepare_lab(&programs)?;
            let mut holder = command(&["sh", "-c", SCRIPT])?;
            holder
                .arg0("flannel-lab")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit());
            holder.spawn().context("starting the lab's first process")
        })?;
        Self::ready(child)
    }

    fn ready(mut child: Child) -> Result<Self> {
        let pipe = child.stdin.take();
        let mut line = String::new();
        let stdout = child
            .stdout
            .take()
            .context("the lab's first process has no output")?;
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("waiting for the lab's first process")?;
        if line.trim() != "ready" {
            bail!(
                "the lab's first process ended at once: {}",
                child.wait().context("reaping it")?
            );
        }
        let namespaces = Namespaces::of_process(child.id())?;
        Ok(Self {
            child,
            pipe,
            namespaces,
        })
    }

    /// The holder's process id, as the host sees it.
    #[must_use]
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The lab's namespaces: the underlay is in their network namespace.
    #[must_use]
    pub(super) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Lets the lab live on after this process ends.
    ///
    /// # Errors
    /// Fails when the holder is gone.
    pub(super) fn keep(&mut self) -> Result<()> {
        let mut pipe = self.pipe.take().context("the lab is kept already")?;
        pipe.write_all(b"keep\n").context("telling the lab to stay")
    }

    /// Ends every process of the lab and waits for the end, unless it was told to stay; `children` are those that this
    /// process has to reap first.
    pub(super) fn end(&mut self, children: &mut [Child]) {
        if self.pipe.take().is_none() {
            return;
        }
        let start = Instant::now();
        let mut left = children.iter_mut().chain([&mut self.child]).collect::<Vec<_>>();
        while !left.is_empty() && start.elapsed() < END_LIMIT {
            left.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A program to be copied into the lab: its name and its bytes.
pub(super) type Program = (String, Vec<u8>);

fn read_programs(binaries: &Binaries) -> Result<Vec<Program>> {
    let read = |path: std::path::PathBuf| {
        let name = path
            .file_name()
            .context("a program without a name")?
            .to_string_lossy()
            .into_owned();
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok((name, bytes))
    };
    binaries.present()?.into_iter().map(read).collect()
}
