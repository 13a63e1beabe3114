use std::path::PathBuf;

use etcd::{Credentials, Endpoint, Options, TlsFiles};
use lease_store::KubeOptions;

use super::kube;
use super::settings::{Setting, Settings};
use super::{ConfigError, Environment};

/// Where etcd is looked for if not told otherwise (flannel `main.go`).
pub(super) const DEFAULT_ETCD_ENDPOINTS: &str = "http://127.0.0.1:4001,http://127.0.0.1:2379";
/// Below which key configuration and leases are in etcd if not told otherwise (flannel `main.go`).
pub(super) const DEFAULT_ETCD_PREFIX: &str = "/coreos.com/network";

/// Every flag that has a meaning for etcd only.
pub(super) const ETCD_FLAGS: [&str; 7] = [
    "etcd-endpoints",
    "etcd-prefix",
    "etcd-keyfile",
    "etcd-certfile",
    "etcd-cafile",
    "etcd-username",
    "etcd-password",
];
/// What the user may think is encrypted and is not.
const TLS_WITHOUT_EFFECT: &str = "the files for TLS with etcd have no effect and nothing is encrypted: every endpoint \
                                  begins with http://";

/// Where the leases are kept.
#[derive(Debug, Clone)]
pub enum StoreChoice {
    /// In a directory.
    Directory(PathBuf),
    /// In an etcd cluster.
    Etcd(Box<EtcdChoice>),
    /// On the Node objects of a Kubernetes cluster.
    Kube(Box<KubeOptions>),
}

/// How to reach the leases in an etcd cluster.
#[derive(Debug, Clone)]
pub struct EtcdChoice {
    /// The cluster.
    pub options: Options,
    /// The key below which configuration and leases are.
    pub prefix: String,
}

impl StoreChoice {
    /// What the user should know of the choice, for the log.
    pub(super) fn notice(&self) -> Option<&'static str> {
        let Self::Etcd(choice) = self else {
            return None;
        };
        let options = &choice.options;
        let is_plain = !options.endpoints.iter().any(Endpoint::is_tls);
        (is_plain && options.tls != TlsFiles::default()).then_some(TLS_WITHOUT_EFFECT)
    }
}

/// The directory if one is given; Kubernetes if that is asked for; else etcd, as upstream has it.
pub(super) fn store_choice(settings: &Settings, env: Environment<'_>) -> Result<StoreChoice, ConfigError> {
    let is_kube = kube::is_asked_for(settings)?;
    if let Some(dir) = settings.path("lease-dir")? {
        let other = ETCD_FLAGS.iter().find_map(|name| settings.one(name));
        let other = settings.one("kube-subnet-mgr").filter(|_| is_kube).or(other);
        return match other {
            Some(setting) => Err(ConfigError::TwoStores {
                option: setting.origin.to_string(),
            }),
            None => Ok(StoreChoice::Directory(dir)),
        };
    }
    if is_kube {
        return kube::options(settings, env).map(|options| StoreChoice::Kube(Box::new(options)));
    }
    let tls = tls_files(settings)?;
    let prefix = settings.one("etcd-prefix").map(Setting::text).transpose()?;
    Ok(StoreChoice::Etcd(Box::new(EtcdChoice {
        options: Options {
            endpoints: endpoints(settings, &tls)?,
            credentials: credentials(settings)?,
            tls,
        },
        prefix: prefix.unwrap_or(DEFAULT_ETCD_PREFIX).to_owned(),
    })))
}

fn endpoints(settings: &Settings, tls: &TlsFiles) -> Result<Vec<Endpoint>, ConfigError> {
    let Some(setting) = settings.one("etcd-endpoints") else {
        return Ok(parse_endpoints(DEFAULT_ETCD_ENDPOINTS, tls).unwrap_or_default());
    };
    let expected = "http://HOST:PORT or https://HOST:PORT, several with commas between";
    setting.parsed(expected, |text| parse_endpoints(text, tls))
}

/// An address without a scheme is encrypted if there are files for it, as upstream's client has it.
fn parse_endpoints(text: &str, tls: &TlsFiles) -> Option<Vec<Endpoint>> {
    let scheme = if *tls == TlsFiles::default() {
        "http"
    } else {
        "https"
    };
    let endpoint = |text: &str| match text.trim() {
        text if text.contains("://") => text.parse().ok(),
        text => format!("{scheme}://{text}").parse().ok(),
    };
    text.split(',').map(endpoint).collect()
}

fn tls_files(settings: &Settings) -> Result<TlsFiles, ConfigError> {
    let path = |name| settings.one(name).map(Setting::as_path);
    let client = match (path("etcd-certfile"), path("etcd-keyfile")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => return Err(incomplete("etcd-certfile", "etcd-keyfile")),
        (None, Some(_)) => return Err(incomplete("etcd-keyfile", "etcd-certfile")),
    };
    let ca = path("etcd-cafile");
    Ok(TlsFiles { ca, client })
}

fn credentials(settings: &Settings) -> Result<Option<Credentials>, ConfigError> {
    match (settings.one("etcd-username"), settings.one("etcd-password")) {
        (Some(user), Some(password)) => Ok(Some(Credentials {
            user: user.text()?.to_owned(),
            password: password.secret()?.to_owned(),
        })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(incomplete("etcd-username", "etcd-password")),
        (None, Some(_)) => Err(incomplete("etcd-password", "etcd-username")),
    }
}

const fn incomplete(given: &'static str, missing: &'static str) -> ConfigError {
    ConfigError::Incomplete { given, missing }
}
