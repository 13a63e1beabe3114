use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use netstate::{KernelError, SysctlKey};
use rustix::fs::{Mode, OFlags};

use crate::errno::failed_call;

/// Longest value that is read; the kernel writes a page at most (linux `proc_sysctl.c`).
const VALUE_MAX_BYTES: usize = 4096;

/// Reads a kernel parameter of the calling thread's namespace, without its line end; `None` when there is none.
///
/// # Errors
/// It is there and cannot be read.
pub fn read(key: &SysctlKey) -> Result<Option<String>, KernelError> {
    match read_at_once(&path(key)) {
        Ok(text) => Ok(Some(text.trim_end_matches('\n').to_owned())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed_call(&format!("read {}", path(key).display()), &e)),
    }
}

/// Writes a kernel parameter of the calling thread's namespace; never creates a file.
pub(crate) fn write(key: &SysctlKey, value: &str) -> Result<(), KernelError> {
    let path = path(key);
    open(&path, OFlags::WRONLY)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|e| failed_call(&format!("write {value:?} to {}", path.display()), &e))
}

/// The kernel gives a parameter whole with one read: another would only tell that it was all.
fn read_at_once(path: &Path) -> io::Result<String> {
    let mut file = open(path, OFlags::RDONLY)?;
    let mut text = vec![0; VALUE_MAX_BYTES];
    let count = loop {
        match file.read(&mut text) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            count => break count?,
        }
    };
    text.truncate(count);
    String::from_utf8(text).map_err(|_| ErrorKind::InvalidData.into())
}

/// One system call, where the C library musl makes two.
fn open(path: &Path, access: OFlags) -> io::Result<File> {
    let opened =
        rustix::io::retry_on_intr(|| rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty()));
    Ok(opened?.into())
}

fn path(key: &SysctlKey) -> PathBuf {
    Path::new("/proc/sys").join(key.as_str())
}
