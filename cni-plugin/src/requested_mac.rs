use cni_types::{ArgsError, CniArgs, Code, DecodeError, NetConf};
use net_types::{MacAddr, MacAddrError};

use crate::error::CniError;
use crate::known_args::KNOWN_ARGS;

/// A hardware address was asked for that no interface can have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestedMacError {
    #[error("{0}")]
    Decode(DecodeError),
    #[error("{0}")]
    Args(ArgsError),
    #[error("requested mac: {0}")]
    Form(MacAddrError),
    #[error("requested mac {0} is not the address of one station")]
    NotUnicast(MacAddr),
}

impl CniError for RequestedMacError {
    fn code(&self) -> Code {
        match self {
            Self::Decode(_) => Code::DECODING,
            Self::Args(_) => Code::BAD_ENVIRONMENT,
            Self::Form(_) | Self::NotUnicast(_) => Code::BAD_CONFIG,
        }
    }
}

/// The hardware address asked for by the nearest of these ways: `runtimeConfig.mac`, `args.cni.mac`, `MAC` of
/// `CNI_ARGS`, and at last `mac` of the configuration itself for a plugin that has this key.
pub(crate) fn requested_mac(
    conf: &NetConf,
    args: &str,
    own: Option<&str>,
) -> Result<Option<MacAddr>, RequestedMacError> {
    let args = CniArgs::parse(args, KNOWN_ARGS).map_err(RequestedMacError::Args)?;
    let runtime = conf.runtime_config().map_err(RequestedMacError::Decode)?;
    let args_cni = conf.args_cni().map_err(RequestedMacError::Decode)?;
    let texts = [
        runtime.string("mac").map_err(RequestedMacError::Decode)?,
        args_cni.string("mac").map_err(RequestedMacError::Decode)?,
        args.get("MAC"),
        own,
    ];
    let Some(text) = texts.into_iter().flatten().find(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let mac: MacAddr = text.parse().map_err(RequestedMacError::Form)?;
    if mac.is_unicast() {
        Ok(Some(mac))
    } else {
        Err(RequestedMacError::NotUnicast(mac))
    }
}
