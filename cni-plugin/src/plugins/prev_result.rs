//! The result of the plugin before in the chain, for plugins that need one.

use cni_types::{AddResult, Code, NetConf, ResultError};

use crate::error::CniError;

/// There is no result to work on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrevResultError {
    #[error("required prevResult missing; place this plugin after one that makes an interface")]
    Missing,
    #[error("prevResult cannot be used: {0}")]
    Unusable(ResultError),
}

impl CniError for PrevResultError {
    fn code(&self) -> Code {
        match self {
            Self::Missing => Code::BAD_CONFIG,
            Self::Unusable(_) => Code::DECODING,
        }
    }
}

/// Reads the result, which ADD and CHECK need.
pub(crate) fn required(conf: &NetConf) -> Result<AddResult, PrevResultError> {
    let given = conf.prev_result().ok_or(PrevResultError::Missing)?;
    AddResult::parse(given).map_err(PrevResultError::Unusable)
}
