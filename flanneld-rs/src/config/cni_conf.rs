use super::ConfigError;
use super::settings::Settings;
use crate::cni_conf::{CniConfChoice, EndSignal};

/// What the flags say about the runtime's network configuration.
pub(super) fn choice(settings: &Settings) -> Result<Option<CniConfChoice>, ConfigError> {
    let dir = settings.path("cni-conf-dir")?;
    let remove_on = settings.one("cni-conf-remove-on").map(|setting| {
        setting.parsed("none, SIGINT or SIGTERM", |text| match text {
            "none" => Some(None),
            "SIGINT" => Some(Some(EndSignal::Interrupt)),
            "SIGTERM" => Some(Some(EndSignal::Terminate)),
            _ => None,
        })
    });
    let remove_on = remove_on.transpose()?.flatten();
    let Some(source) = settings.one("cni-conf-src") else {
        return match (dir, remove_on) {
            (None, None) => Ok(None),
            (Some(_), _) => Err(needs_source("cni-conf-dir")),
            (None, Some(_)) => Err(needs_source("cni-conf-remove-on")),
        };
    };
    Ok(Some(CniConfChoice {
        source: source.as_path(),
        dir: dir.unwrap_or_else(|| super::DEFAULT_CNI_CONF_DIR.into()),
        remove_on,
    }))
}

fn needs_source(given: &'static str) -> ConfigError {
    ConfigError::Incomplete {
        given,
        missing: "cni-conf-src",
    }
}
