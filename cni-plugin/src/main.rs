//! The CNI plugin binary: collects the call, runs it, prints the answer.

use std::hash::{BuildHasher, RandomState};
use std::io::{Write, stderr, stdin, stdout};
use std::process::ExitCode;

use cni_plugin::{Edges, Input, run};

fn main() -> ExitCode {
    let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
    let input = Input {
        program: std::env::args_os().next().map(text).unwrap_or_default(),
        vars: std::env::vars_os().map(|(k, v)| (text(k), text(v))).collect(),
    };
    let mut edges = Edges {
        stdin: &mut stdin().lock(),
        // The standard library keys its hasher with the system's randomness.
        random: RandomState::new().hash_one(0_u8),
    };
    let output = run(&input, &mut edges);
    let printed = stdout().write_all(output.stdout.as_bytes());
    let logged = stderr().write_all(output.stderr.as_bytes());
    match (printed, logged) {
        (Ok(()), _) => ExitCode::from(output.code),
        // A runtime that closed the pipe gets no answer; it must not take the call for a success.
        (Err(_), _) => ExitCode::FAILURE,
    }
}
