use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

/// The search path of every program that the lab starts; the caller's own environment is not passed on.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A set of kernel namespaces that a thread can enter: a network namespace, and optionally mounts and processes.
#[derive(Debug)]
pub struct Namespaces {
    net: OwnedFd,
    mnt: Option<OwnedFd>,
    pid: Option<OwnedFd>,
}

impl Namespaces {
    /// Opens the network, mount and process namespaces of a running process.
    ///
    /// # Errors
    /// Fails when the process is gone or its namespaces may not be opened.
    pub fn of_process(pid: u32) -> Result<Self> {
        let open = |kind: &str| {
            let path = format!("/proc/{pid}/ns/{kind}");
            File::open(&path)
                .map(OwnedFd::from)
                .with_context(|| format!("opening {path}"))
        };
        Ok(Self {
            net: open("net")?,
            mnt: Some(open("mnt")?),
            pid: Some(open("pid")?),
        })
    }

    /// Opens one network namespace by the path of its file.
    ///
    /// # Errors
    /// Fails when the path cannot be opened.
    pub fn of_netns_file(path: &Path) -> Result<Self> {
        let net =
            File::open(path).with_context(|| format!("opening the network namespace {}", path.display()))?;
        Ok(Self {
            net: net.into(),
            mnt: None,
            pid: None,
        })
    }

    /// The network namespace alone: a thread in it keeps the caller's files and processes.
    ///
    /// # Errors
    /// Fails when the process has no file descriptor left.
    pub fn net_only(&self) -> Result<Self> {
        let net = self
            .net
            .try_clone()
            .context("duplicating a namespace descriptor")?;
        Ok(Self {
            net,
            mnt: None,
            pid: None,
        })
    }

    /// Moves the calling thread into these namespaces, for good: the thread should end soon after.
    ///
    /// # Errors
    /// Fails without the right to enter (`CAP_SYS_ADMIN`).
    pub fn enter(&self) -> Result<()> {
        setns(&self.net, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
        if let Some(pid) = &self.pid {
            setns(pid, CloneFlags::CLONE_NEWPID).context("entering a process namespace")?;
        }
        if let Some(mnt) = &self.mnt {
            // A thread that shares its root and working directory with others may not change mount namespaces.
            unshare(CloneFlags::CLONE_FS).context("unsharing the working directory")?;
            setns(mnt, CloneFlags::CLONE_NEWNS).context("entering a mount namespace")?;
        }
        Ok(())
    }

    /// Runs a function on a thread of its own inside these namespaces.
    ///
    /// # Errors
    /// Fails when the namespaces cannot be entered, or with the function's own error.
    pub fn run<T: Send>(&self, function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_own_thread(|| {
            self.enter()?;
            function()
        })
    }

    /// Runs a program to its end inside these namespaces and collects what it prints.
    ///
    /// # Errors
    /// Fails when the program cannot be started; a non-zero exit is no error here.
    pub fn output(&self, argv: &[&str]) -> Result<Output> {
        self.run(|| {
            command(argv)?
                .stdin(Stdio::null())
                .output()
                .with_context(|| starting(argv))
        })
    }

    /// Starts a prepared command inside these namespaces.
    ///
    /// # Errors
    /// Fails when the program cannot be started.
    pub fn spawn(&self, mut command: Command) -> Result<Child> {
        self.run(|| {
            let child = command.spawn();
            child.with_context(|| format!("starting {}", command.get_program().to_string_lossy()))
        })
    }
}

/// Runs a function on a fresh thread and waits for it, so that the caller's namespaces stay as they are.
///
/// # Errors
/// Fails when no thread can be made, when the function panics, or with the function's own error.
pub(crate) fn on_own_thread<T: Send>(function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .spawn_scoped(scope, function)
            .context("starting a thread")?;
        thread.join().map_err(|_| anyhow!("a lab thread panicked"))?
    })
}

/// A command with the lab's own clean environment; in a process group of its own, so that Ctrl-C reaches only us.
///
/// # Errors
/// Fails for an empty argument list.
pub(crate) fn command<S: AsRef<str>>(argv: &[S]) -> Result<Command> {
    use std::os::unix::process::CommandExt;
    let (program, arguments) = argv.split_first().context("an empty command")?;
    let mut command = Command::new(program.as_ref());
    command.args(arguments.iter().map(AsRef::as_ref));
    command
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C")
        .current_dir("/")
        .process_group(0);
    Ok(command)
}

fn starting(argv: &[&str]) -> String {
    format!("starting `{}`", argv.join(" "))
}
