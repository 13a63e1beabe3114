//! The CNI plugin binary: collects the call, runs it, prints the answer.

use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write, stderr, stdin, stdout};
use std::path::Path;
use std::process::ExitCode;

use cni_plugin::{Command, Edges, Input, Output, command, restore_ports, run, take_back};

/// This program's file, whatever became of its name (proc(5)).
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Keeps what it once got from the kernel: a call is over before it could be needed elsewhere.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    // What is not UTF-8 would become another text.
    let text = |os: OsString| os.into_string().ok();
    let args: Vec<_> = std::env::args_os()
        .map(|arg| text(arg).unwrap_or_default())
        .collect();
    let program = match command(&args) {
        Command::Plugin(program) => program,
        Command::Text(output) => return tell(&output),
        Command::Install(install) => return tell(&install.run(Path::new(OWN_PROGRAM))),
        Command::RestorePorts(dir) => return tell(&restore_ports(dir.as_deref())),
    };
    let mut input = Input {
        program,
        ..Input::default()
    };
    for (name, value) in std::env::vars_os() {
        match (text(name), text(value)) {
            (Some(name), Some(value)) => drop(input.vars.insert(name, value)),
            (Some(name), None) => drop(input.not_text.insert(name)),
            (None, _) => {}
        }
    }
    let mut kept = Kept {
        reader: stdin().lock(),
        text: Vec::new(),
    };
    let output = run(&input, &mut edges(&mut kept));
    if print(&output).is_err() {
        // A runtime that closed the pipe learns of nothing that was made.
        take_back(&input, &output, &mut edges(&mut kept.text.as_slice()));
        return ExitCode::FAILURE;
    }
    ExitCode::from(output.code)
}

/// Prints what a person asked for.
fn tell(output: &Output) -> ExitCode {
    match print(output) {
        Ok(()) => ExitCode::from(output.code),
        Err(_) => ExitCode::FAILURE,
    }
}

fn print(output: &Output) -> io::Result<()> {
    stdout().write_all(output.stdout.as_bytes())?;
    stdout().flush()?;
    // Nobody is told when nobody reads what is only for people.
    let _unread = stderr().write_all(output.stderr.as_bytes());
    Ok(())
}

fn edges(stdin: &mut dyn Read) -> Edges<'_> {
    // The standard library keys its hasher with the system's randomness.
    Edges {
        stdin,
        random: RandomState::new().hash_one(0_u8),
    }
}

/// A reader that keeps what it has read.
struct Kept<R> {
    reader: R,
    text: Vec<u8>,
}

impl<R: Read> Read for Kept<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.text.extend(buffer.iter().take(count));
        Ok(count)
    }
}
