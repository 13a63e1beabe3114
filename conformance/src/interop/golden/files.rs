//! The plugins' files, as lines that name them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Where plugins keep their state; what is in `results` is the runner's.
const STATE: &str = "/var/lib/cni";

/// Whether modes of files and folders are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Modes {
    Shown,
    Left,
}

/// The plugins' files as lines that name them.
///
/// # Errors
/// Fails when one cannot be read.
pub(super) fn state(modes: Modes) -> Result<Vec<String>> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    walk(Path::new(STATE), modes, &mut files, &mut folders)?;
    files.sort();
    folders.sort();
    if modes == Modes::Shown {
        files.extend(folders);
    }
    Ok(files)
}

fn walk(dir: &Path, modes: Modes, files: &mut Vec<String>, folders: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry.with_context(|| format!("reading {}", dir.display()))?;
        let path = entry.path();
        let metadata = entry
            .metadata()
            .with_context(|| format!("reading {}", path.display()))?;
        let mode = match modes {
            Modes::Shown => format!(" mode {:o}", metadata.permissions().mode() & 0o7777),
            Modes::Left => String::new(),
        };
        let name = path.strip_prefix(STATE).unwrap_or(&path).display().to_string();
        if metadata.is_dir() {
            folders.push(format!("{name}/{mode}"));
            walk(&path, modes, files, folders)?;
        } else {
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let content = String::from_utf8_lossy(&bytes)
                .replace('\r', "\\r")
                .replace('\n', "\\n");
            files.push(format!("{name}{mode}: {content}"));
        }
    }
    Ok(())
}

/// The files of a capture in the same form, without the runner's own.
pub(super) fn captured_files(text: &str) -> Vec<String> {
    let (mut files, mut folders) = (Vec::<(String, Vec<&str>)>::new(), Vec::new());
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("== ") {
            let name = head.trim_start_matches(STATE).trim_start_matches(['/', '.']);
            files.push((name.to_owned(), Vec::new()));
        } else if let Some((name, mode)) = line.strip_prefix("./").and_then(|line| line.split_once(' ')) {
            folders.push(format!("{name}/ mode {mode}"));
        } else if let Some((_, lines)) = files.last_mut().filter(|_| !line.starts_with(". ")) {
            lines.push(line);
        }
    }
    let content = |lines: &[&str]| lines.join("\\n").replace("^M$", "\\r");
    let mut found: Vec<_> = files
        .iter()
        .map(|(name, lines)| format!("{name}: {}", content(lines)))
        .collect();
    found.sort();
    folders.sort();
    found.extend(folders);
    found.retain(|line| !line.starts_with("results"));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captures::Captures;

    #[test]
    fn files_of_a_capture_are_named_lines() {
        let captures = Captures::built_in();
        let lines = captured_files(captures.text("cni-v4", "state-after-add.txt").unwrap());
        let expected = [
            "networks/cbr0/10.244.7.2 mode 600: cnitool-0cea03627191eaa6cdf9\\r\\neth0",
            "networks/cbr0/last_reserved_ip.0 mode 600: 10.244.7.2",
            "networks/cbr0/lock mode 750: ",
            "flannel/ mode 700",
            "networks/ mode 755",
            "networks/cbr0/ mode 755",
        ];
        assert!(
            lines[0].starts_with("flannel/cnitool-0cea03627191eaa6cdf9 mode 600: {"),
            "{lines:?}"
        );
        assert_eq!(lines[1..], expected);
    }
}
