//! Runs the real binary system call by system call, and lets something go wrong at one of them (ptrace(2)).

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::common::{BINARY, Call};

/// What goes wrong at a system call; they are counted from 1, from when the configuration is handed over.
#[derive(Clone, Copy)]
pub(crate) enum Fault<'a> {
    /// The process is killed instead.
    Kill(usize),
    /// The call answers this. It isn't made, but for close(2), which gives the descriptor back even when it fails: else a
    /// pipe to a program that ran would never end.
    Fail(usize, Errno),
    /// Something else happens before the call is made.
    Meanwhile(usize, &'a dyn Fn()),
}

impl Fault<'_> {
    const fn step(&self) -> usize {
        let (Self::Kill(step) | Self::Fail(step, _) | Self::Meanwhile(step, _)) = self;
        *step
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Whether there were enough system calls for the fault.
    pub(crate) met: bool,
    /// The exit status; `None` for a process that a signal ended.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
}

/// Runs a call with a fault.
#[expect(clippy::zombie_processes, reason = "the loop over its stops waits for it")]
pub(crate) fn run(call: &Call, fault: Fault<'_>) -> Ran {
    let mut child = start(call);
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    wait_for_configuration(pid);
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).unwrap();
    ptrace::interrupt(pid).unwrap();
    assert!(matches!(next(), WaitStatus::PtraceEvent(stopped, ..) if stopped == pid));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(call.conf.to_string().as_bytes()).unwrap();
    drop(stdin);
    let mut steps = Steps {
        pid,
        fault,
        count: 0,
        failing: None,
    };
    go_on(pid, None);
    let code = loop {
        if let Some(code) = steps.step(next()) {
            break code;
        }
    };
    let mut stdout = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut stdout).unwrap();
    Ran {
        met: steps.count >= fault.step(),
        code,
        stdout,
    }
}

fn start(call: &Call) -> Child {
    // The name by which it is called says which plugin it is.
    let mut command = Command::new(BINARY);
    std::os::unix::process::CommandExt::arg0(&mut command, &call.program);
    command.env_clear().envs(&call.vars);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Waits until a process reads its standard input: what it does before is the system's, not the plugin's.
fn wait_for_configuration(pid: Pid) {
    for _ in 0..20_000 {
        let at = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap();
        // Number and first argument.
        if at.split(' ').nth(1) == Some("0x0") {
            return;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    panic!("the plugin does not ask for its configuration");
}

struct Steps<'a> {
    pid: Pid,
    fault: Fault<'a>,
    count: usize,
    /// The thread whose system call is being skipped.
    failing: Option<(Pid, Errno)>,
}

impl Steps<'_> {
    /// Goes on from a stop; the exit status when there is nothing left.
    fn step(&mut self, status: WaitStatus) -> Option<Option<i32>> {
        match status {
            WaitStatus::Exited(pid, code) if pid == self.pid => return Some(Some(code)),
            WaitStatus::Signaled(pid, ..) if pid == self.pid => return Some(None),
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {}
            WaitStatus::PtraceSyscall(thread) => self.syscall(thread),
            WaitStatus::PtraceEvent(thread, ..) => go_on(thread, None),
            WaitStatus::Stopped(thread, signal) => go_on(thread, Some(signal)),
            other @ (WaitStatus::Continued(_) | WaitStatus::StillAlive) => panic!("unexpected {other:?}"),
        }
        None
    }

    fn syscall(&mut self, thread: Pid) {
        // The thread may have been killed with its process.
        let Ok(info) = ptrace::syscall_info(thread) else {
            return;
        };
        match info.op {
            nix::libc::PTRACE_SYSCALL_INFO_ENTRY => {
                self.count += 1;
                if self.count == self.fault.step() && self.meet(thread) {
                    return;
                }
            }
            _ => {
                if let Some((_, errno)) = self.failing.take_if(|(failing, _)| *failing == thread) {
                    registers::answer(thread, errno);
                }
            }
        }
        go_on(thread, None);
    }
}

impl Steps<'_> {
    /// Lets the fault happen; tells whether that was the process's end.
    fn meet(&mut self, thread: Pid) -> bool {
        match self.fault {
            Fault::Kill(_) => kill(self.pid, Signal::SIGKILL).unwrap(),
            Fault::Fail(_, errno) if registers::skip(thread) => self.failing = Some((thread, errno)),
            Fault::Fail(..) => {}
            Fault::Meanwhile(_, happens) => happens(),
        }
        matches!(self.fault, Fault::Kill(_))
    }
}

/// Waits for this thread's own children and tracees only: other tests have theirs.
fn next() -> WaitStatus {
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Err(Errno::EINTR) => {}
            status => return status.unwrap(),
        }
    }
}

fn go_on(thread: Pid, signal: Option<Signal>) {
    match ptrace::syscall(thread, signal) {
        // Killed meanwhile.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(e) => panic!("{thread} cannot go on: {e}"),
    }
}

/// System calls are skipped by the number -1, and answered by what stands in a register.
#[cfg(target_arch = "x86_64")]
mod registers {
    use nix::errno::Errno;
    use nix::libc::{SYS_brk, SYS_close, SYS_exit, SYS_exit_group, SYS_mmap, SYS_munmap, SYS_rt_sigreturn};
    use nix::sys::ptrace;
    use nix::unistd::Pid;

    /// Turns a call into none, unless it is close(2); `false` for those that no program can do without: memory and the
    /// end.
    pub(super) fn skip(thread: Pid) -> bool {
        let Ok(mut registers) = ptrace::getregs(thread) else {
            return false;
        };
        let vital = [
            SYS_brk,
            SYS_mmap,
            SYS_munmap,
            SYS_exit,
            SYS_exit_group,
            SYS_rt_sigreturn,
        ];
        if vital
            .iter()
            .any(|number| u64::try_from(*number) == Ok(registers.orig_rax))
        {
            return false;
        }
        if u64::try_from(SYS_close) != Ok(registers.orig_rax) {
            registers.orig_rax = u64::MAX;
            ptrace::setregs(thread, registers).unwrap();
        }
        true
    }

    pub(super) fn answer(thread: Pid, errno: Errno) {
        let mut registers = ptrace::getregs(thread).unwrap();
        registers.rax = u64::from_ne_bytes((-i64::from(errno as i32)).to_ne_bytes());
        ptrace::setregs(thread, registers).unwrap();
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod registers {
    use nix::errno::Errno;
    use nix::unistd::Pid;

    pub(super) fn skip(_: Pid) -> bool {
        unimplemented!("system calls are skipped on x86-64 only")
    }

    pub(super) fn answer(_: Pid, _: Errno) {
        unimplemented!("system calls are skipped on x86-64 only")
    }
}
