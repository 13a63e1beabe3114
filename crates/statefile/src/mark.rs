use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, setxattr};

/// Longest mark that is read, in bytes.
const MARK_MAX_BYTES: usize = 256;

/// Marks a file or directory with a text that its contents don't show, an extended attribute `user.NAME`; `false` where
/// the file system has none, or it cannot be written. A mark goes with the file: a new one of the same name has none.
#[must_use]
pub fn mark(path: &Path, name: &str, text: &str) -> bool {
    setxattr(path, attribute(name), text.as_bytes(), XattrFlags::empty()).is_ok()
}

/// The mark of a file or directory; `None` if it has none, or none that can be read.
#[must_use]
pub fn mark_of(path: &Path, name: &str) -> Option<String> {
    let mut bytes = vec![0; MARK_MAX_BYTES];
    let length = getxattr(path, attribute(name), &mut bytes[..]).ok()?;
    bytes.truncate(length);
    String::from_utf8(bytes).ok()
}

/// Unprivileged users and all kinds of file systems have only names that begin so (xattr(7)).
fn attribute(name: &str) -> String {
    format!("user.{name}")
}
