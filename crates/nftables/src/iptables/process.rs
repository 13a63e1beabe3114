use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::IptablesError;

/// Pause between two looks at a process that has closed its output and not ended.
const END_PAUSE: Duration = Duration::from_millis(1);

/// Runs a program to its end, but not longer than the limit, with a text on its standard input; returns its output.
///
/// # Errors
/// It could not be started, did not end in time and was killed, or failed; the error has its words.
pub fn run(
    program: &Path,
    arguments: &[&str],
    input: &str,
    limit: Duration,
) -> Result<String, IptablesError> {
    let failed = |source: io::Error| IptablesError::Run {
        program: program.to_owned(),
        source,
    };
    let deadline = Instant::now() + limit;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let outcome = converse(&mut child, input, deadline);
    if !matches!(outcome, Ok(Some(_))) {
        // It may have ended by itself meanwhile; either way it is waited for, so that nothing of it is left.
        let _ended = child.kill();
        let _status = child.wait();
    }
    let Some((status, output, words)) = outcome.map_err(failed)? else {
        return Err(IptablesError::TimedOut {
            program: program.to_owned(),
            limit,
        });
    };
    if !status.success() {
        return Err(IptablesError::Failed {
            program: program.to_owned(),
            status,
            words: one_line(&words),
        });
    }
    Ok(output)
}

/// Feeds a process and gathers what it writes until it ends; `None` at the deadline.
fn converse(
    child: &mut Child,
    input: &str,
    deadline: Instant,
) -> io::Result<Option<(ExitStatus, String, String)>> {
    // Each stream has a thread: a process that writes before it has read everything would wait for ever otherwise.
    // None outlives the process, whose end closes the streams.
    let (stdin, input) = (child.stdin.take(), input.to_owned());
    let fed = on_thread(move || match stdin {
        Some(mut stdin) => match stdin.write_all(input.as_bytes()) {
            // It tells on standard error why it doesn't read on.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        },
        None => Ok(()),
    })?;
    let stdout = child.stdout.take();
    let output = on_thread(move || gathered(stdout))?;
    let stderr = child.stderr.take();
    let words = on_thread(move || gathered(stderr))?;
    let (Some(output), Some(words), Some(())) = (
        awaited(&output, deadline)?,
        awaited(&words, deadline)?,
        awaited(&fed, deadline)?,
    ) else {
        return Ok(None);
    };
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some((status, output, words)));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(END_PAUSE);
    }
}

/// Does work on a thread of its own, which hands over the result.
fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<Receiver<io::Result<T>>> {
    let (sender, receiver) = channel();
    thread::Builder::new()
        .name("iptables".to_owned())
        .spawn(move || {
            // Nobody waits any more after the deadline.
            let _sent = sender.send(work());
        })?;
    Ok(receiver)
}

fn gathered(stream: Option<impl Read>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The result of a thread; `None` at the deadline.
fn awaited<T>(receiver: &Receiver<io::Result<T>>, deadline: Instant) -> io::Result<Option<T>> {
    match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(result) => result.map(Some),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("a thread ended early")),
    }
}

/// A program's words on one line; iptables adds hints to its help, which are left out.
fn one_line(words: &str) -> String {
    let told = words
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Try `"));
    told.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn output_comes_back_and_large_input_is_taken() {
        let input = "line\n".repeat(200_000);
        assert_eq!(run(Path::new("/bin/cat"), &[], &input, LIMIT).unwrap(), input);
    }

    #[test]
    fn a_failure_has_the_programs_words_on_one_line() {
        let script = "echo one >&2; echo 'Try `this` for help' >&2; echo two >&2; exit 3";
        let failed = run(Path::new("/bin/sh"), &["-c", script], "", LIMIT).unwrap_err();
        assert_eq!(failed.to_string(), "/bin/sh failed with exit status: 3: one two");
    }

    #[test]
    fn a_process_that_does_not_end_is_ended() {
        let start = Instant::now();
        let limit = Duration::from_millis(100);
        for script in ["exec sleep 600", "exec >&- 2>&- <&-; exec sleep 600"] {
            let late = run(Path::new("/bin/sh"), &["-c", script], "x", limit).unwrap_err();
            assert!(matches!(late, IptablesError::TimedOut { .. }), "{late:?}");
        }
        assert!(start.elapsed() < LIMIT);
    }

    #[test]
    fn a_process_that_reads_nothing_fails_by_its_own_words() {
        let input = "x".repeat(1 << 20);
        let failed = run(
            Path::new("/bin/sh"),
            &["-c", "echo no >&2; exit 1"],
            &input,
            LIMIT,
        )
        .unwrap_err();
        assert_eq!(failed.to_string(), "/bin/sh failed with exit status: 1: no");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let absent = run(Path::new("/nowhere/iptables"), &[], "", LIMIT).unwrap_err();
        assert_eq!(absent.to_string(), "cannot run /nowhere/iptables");
    }
}
