//! The network configuration list that makes a container runtime use the network: written when pods can start, so that a
//! runtime never holds a node for ready that is not.
//!
//! It stays when the daemon ends, because pods are added while the daemon is replaced; who wants it removed with the
//! daemon says so with a flag, and `flanneld cleanup` removes it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use statefile::Durability;
use tracing::info;

/// The name of the file (flannel `kube-flannel.yml`).
pub const FILE_NAME: &str = "10-flannel.conflist";
/// Everyone may read it, as upstream's.
const FILE_MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o755;

/// What the command line says about the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniConfChoice {
    /// The file that it is a copy of.
    pub source: PathBuf,
    /// The runtime's directory.
    pub dir: PathBuf,
    /// The signal that removes it when it ends the daemon.
    pub remove_on: Option<EndSignal>,
}

/// A signal that ends the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndSignal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// Why there is no list to write.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CniConfError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] statefile::Error),
    /// It is not there.
    #[error("there is no file {0}: leave --cni-conf-src out, or give it a network configuration list")]
    Missing(PathBuf),
    /// It is no list.
    #[error("{path} is no network configuration list: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
}

/// A list, and where it goes.
#[derive(Debug, Clone)]
pub struct CniConf {
    text: String,
    path: PathBuf,
    remove_on: Option<EndSignal>,
}

impl CniConf {
    /// Reads the list that is to be written later.
    ///
    /// # Errors
    /// It is missing, cannot be read, or no runtime would take it.
    pub fn read(choice: &CniConfChoice) -> Result<Self, CniConfError> {
        let text = statefile::read_text(&choice.source)?;
        let text = text.ok_or_else(|| CniConfError::Missing(choice.source.clone()))?;
        check(&text).map_err(|reason| CniConfError::Invalid {
            path: choice.source.clone(),
            reason,
        })?;
        Ok(Self {
            text,
            path: choice.dir.join(FILE_NAME),
            remove_on: choice.remove_on,
        })
    }

    /// Writes the list, atomically; one that is there as it should be is left alone, so that no runtime reads it anew.
    ///
    /// # Errors
    /// Directory or file cannot be written; a file that was there is unchanged.
    pub fn write(&self) -> Result<(), statefile::Error> {
        if statefile::read_text(&self.path).is_ok_and(|found| found.as_ref() == Some(&self.text)) {
            return Ok(());
        }
        if let Some(dir) = self.path.parent() {
            statefile::ensure_dir(dir, DIR_MODE)?;
        }
        statefile::replace(&self.path, self.text.as_bytes(), FILE_MODE, Durability::PowerCut)?;
        info!(path = %self.path.display(), "wrote the runtime's network configuration");
        Ok(())
    }

    /// Removes the list if this is the signal to do so.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn end(&self, signal: EndSignal) -> Result<(), statefile::Error> {
        if self.remove_on == Some(signal) && statefile::remove(&self.path, Durability::PowerCut)? {
            info!(path = %self.path.display(), "removed the runtime's network configuration");
        }
        Ok(())
    }
}

/// Whether a file is a list that runs flannel's plugin.
pub(crate) fn runs_flannel(path: &Path) -> std::io::Result<bool> {
    let text = statefile::read_text(path).map_err(std::io::Error::other)?;
    let text = text.ok_or(std::io::ErrorKind::NotFound)?;
    Ok(plugins(&text).is_ok_and(|types| types.iter().any(|kind| kind == "flannel")))
}

/// What every runtime asks of a list (CNI SPEC 1.1.0 §Configuration format).
fn check(text: &str) -> Result<(), String> {
    plugins(text).map(drop)
}

fn plugins(text: &str) -> Result<Vec<String>, String> {
    let list: Value = serde_json::from_str(text).map_err(|err| err.to_string())?;
    if list.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err("it has no name".to_owned());
    }
    let plugins = list.get("plugins").and_then(Value::as_array);
    let plugins = plugins.filter(|plugins| !plugins.is_empty());
    let plugins = plugins.ok_or("it has no plugins")?;
    let kind = |plugin: &Value| plugin.get("type").and_then(Value::as_str).map(str::to_owned);
    let types: Option<_> = plugins.iter().map(kind).collect();
    types.ok_or_else(|| "a plugin of it has no type".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const LIST: &str = r#"{"name":"cbr0","cniVersion":"1.0.0","plugins":[{"type":"flannel"}]}"#;

    fn choice(dir: &Path, remove_on: Option<EndSignal>) -> CniConfChoice {
        CniConfChoice {
            source: dir.join("source"),
            dir: dir.join("cni/net.d"),
            remove_on,
        }
    }

    #[test]
    fn a_list_is_written_once_and_put_back_when_it_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("source"), LIST).unwrap();
        let conf = CniConf::read(&choice(dir.path(), None)).unwrap();
        let path = dir.path().join("cni/net.d/10-flannel.conflist");
        conf.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), LIST);
        let number = fs::metadata(&path).unwrap().ino();
        conf.write().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), number, "nothing to write");
        fs::write(&path, "{}").unwrap();
        conf.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), LIST);
        assert!(runs_flannel(&path).unwrap());
    }

    #[test]
    fn only_the_chosen_signal_removes_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("source"), LIST).unwrap();
        let path = dir.path().join("cni/net.d/10-flannel.conflist");
        for (remove_on, signal, stays) in [
            (None, EndSignal::Terminate, true),
            (None, EndSignal::Interrupt, true),
            (Some(EndSignal::Terminate), EndSignal::Interrupt, true),
            (Some(EndSignal::Terminate), EndSignal::Terminate, false),
            (Some(EndSignal::Interrupt), EndSignal::Interrupt, false),
        ] {
            let conf = CniConf::read(&choice(dir.path(), remove_on)).unwrap();
            conf.write().unwrap();
            conf.end(signal).unwrap();
            assert_eq!(path.exists(), stays, "{remove_on:?} {signal:?}");
        }
    }

    #[test]
    fn what_no_runtime_would_take_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let choice = choice(dir.path(), None);
        assert!(matches!(CniConf::read(&choice), Err(CniConfError::Missing(_))));
        for (text, named) in [
            ("", "EOF"),
            ("[]", "no name"),
            (r#"{"name":"","plugins":[{"type":"x"}]}"#, "no name"),
            (r#"{"name":"x"}"#, "no plugins"),
            (r#"{"name":"x","plugins":[]}"#, "no plugins"),
            (r#"{"name":"x","plugins":[{"type":"x"},{}]}"#, "no type"),
        ] {
            fs::write(&choice.source, text).unwrap();
            let said = CniConf::read(&choice).unwrap_err().to_string();
            assert!(said.contains(named), "{text}: {said}");
        }
        assert!(!dir.path().join("cni").exists());
    }
}
