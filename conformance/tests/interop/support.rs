//! Programs that are made for a test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a shell script that can be run.
pub(crate) fn write_script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
