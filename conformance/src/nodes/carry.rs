//! How the program gets to where it runs as the agent: through its own standard input.

use std::fs;

use anyhow::{Context, Result};

/// The running program, which is what is carried.
///
/// # Errors
/// Fails when it cannot be read.
pub(super) fn program() -> Result<Vec<u8>> {
    let this = std::env::current_exe().context("finding the running program's own path")?;
    fs::read(&this).with_context(|| format!("reading {}", this.display()))
}

/// The script that takes a program of this size from its standard input into a directory of its own, runs it with the
/// rest of the input, as root, and removes the directory whatever becomes of it. The program is whole before the agent
/// greets, and only then is more sent, so that `head` cannot take what is the agent's. What plugins make on the host has the
/// usual mode, not the directory's.
pub(super) fn carry(size: usize, arguments: &[&str]) -> String {
    let arguments: Vec<_> = arguments.iter().map(|argument| quoted(argument)).collect();
    format!(
        "umask 077; dir=$(mktemp -d) || exit 1; head -c {size} >\"$dir/conformance\" && chmod 700 \"$dir/conformance\" || \
         {{ rm -rf \"$dir\"; exit 1; }}; umask 022; sudo=; [ \"$(id -u)\" = 0 ] || sudo=\"sudo -n\"; \
         $sudo \"$dir/conformance\" {}; status=$?; rm -rf \"$dir\"; exit $status",
        arguments.join(" ")
    )
}

/// A script as the one text that a user's own shell gets, which may be any: it only has to hand this on.
pub(super) fn as_one_word(script: &str) -> String {
    format!("sh -c {}", quoted(script))
}

/// A text as one word of a POSIX shell (XCU §2.2.2).
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_shell_reads_a_quoted_text_as_it_was_written() {
        for text in [
            "",
            "a b",
            "it's",
            "$(reboot) `x` \\ \" ; & | * ~ #",
            "'",
            "a\nb\tc",
            "größe",
        ] {
            let script = format!("printf %s {}", quoted(text));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }

    #[test]
    fn a_program_is_carried_run_with_its_arguments_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let program =
            b"#!/bin/sh\nprintf '%s\\n' \"$@\" \"$0\"; read -r rest; echo \"$rest\"; umask; exit 7\n";
        let script = as_one_word(&carry(program.len(), &["agent", "--conf", "it's a $HOME"]));
        // As sshd does: the user's shell gets one text.
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).env("TMPDIR", dir.path());
        let mut child = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, program).unwrap();
        std::io::Write::write_all(&mut stdin, b"the rest\n").unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(7));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("agent\n--conf\nit's a $HOME\n/"), "{text}");
        assert!(text.ends_with("the rest\n0022\n"), "{text}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
