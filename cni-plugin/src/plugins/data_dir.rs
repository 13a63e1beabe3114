//! The key `dataDir`, by which a configuration says where a plugin keeps its state.

use std::path::{Path, PathBuf};

use cni_types::{Code, DecodeError, Object};

use crate::error::{CniError, Failure};

/// Why there is no directory for the state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("{0}")]
    Decode(DecodeError),
    #[error("dataDir {0:?} must be an absolute path without '..'")]
    Path(String),
}

impl CniError for DataDirError {
    fn code(&self) -> Code {
        match self {
            Self::Decode(_) => Code::DECODING,
            Self::Path(_) => Code::BAD_CONFIG,
        }
    }
}

/// The directory that an object names, or the default. It depends on nothing else that an ADD could refuse, so that a
/// DEL finds the state of what is not valid any more.
pub(crate) fn data_dir(object: &Object, default: &str) -> Result<PathBuf, DataDirError> {
    let given = object.string("dataDir").map_err(DataDirError::Decode)?;
    let text = given.filter(|text| !text.is_empty()).unwrap_or(default);
    let is_plain = text.starts_with('/') && !text.contains('\0') && text.split('/').all(|part| part != "..");
    if is_plain {
        Ok(PathBuf::from(text))
    } else {
        Err(DataDirError::Path(text.to_owned()))
    }
}

/// Why no state can be kept.
#[derive(Debug, thiserror::Error)]
#[error("no pod can start: the state of a pod cannot be kept")]
struct NoRoom(#[source] statefile::Error);

impl CniError for NoRoom {
    fn code(&self) -> Code {
        Code::NOT_AVAILABLE
    }
}

/// Fails, as STATUS does, if a directory of state cannot take new files.
pub(crate) fn require_room(dir: &Path) -> Result<(), Failure> {
    Ok(statefile::require_room(dir).map_err(NoRoom)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_absolute_path_is_taken_and_the_default_where_there_is_none() {
        for (text, wanted) in [
            (r#"{"dataDir":"/a/b..c"}"#, "/a/b..c"),
            (r#"{"dataDir":""}"#, "/default"),
            (r#"{"dataDir":null}"#, "/default"),
            ("{}", "/default"),
        ] {
            let dir = data_dir(&object(text), "/default").unwrap();
            assert_eq!(dir, PathBuf::from(wanted), "{text}");
        }
    }

    #[test]
    fn a_path_that_depends_on_where_the_plugin_is_started_or_climbs_is_refused() {
        for (text, code) in [
            (r#"{"dataDir":"../x"}"#, 7),
            (r#"{"dataDir":"x"}"#, 7),
            (r#"{"dataDir":"/a/../b"}"#, 7),
            ("{\"dataDir\":\"/a\\u0000b\"}", 7),
            (r#"{"dataDir":5}"#, 6),
        ] {
            let refused = data_dir(&object(text), "/default").unwrap_err();
            assert_eq!(refused.code().0, code, "{text}");
        }
    }
}
