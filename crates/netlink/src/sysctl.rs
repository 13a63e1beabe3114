use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use netstate::{KernelError, SysctlKey};

use crate::errno::failed_call;

/// Reads a kernel parameter of the calling thread's namespace, without its line end; `None` when there is none.
pub(crate) fn read(key: &SysctlKey) -> Result<Option<String>, KernelError> {
    match fs::read_to_string(path(key)) {
        Ok(text) => Ok(Some(text.trim_end_matches('\n').to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed_call(&format!("read {}", path(key).display()), &e)),
    }
}

/// Writes a kernel parameter of the calling thread's namespace; never creates a file.
pub(crate) fn write(key: &SysctlKey, value: &str) -> Result<(), KernelError> {
    let path = path(key);
    OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|e| failed_call(&format!("write {value:?} to {}", path.display()), &e))
}

fn path(key: &SysctlKey) -> PathBuf {
    Path::new("/proc/sys").join(key.as_str())
}
