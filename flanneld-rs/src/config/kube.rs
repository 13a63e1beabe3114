use lease_store::{ApiSource, KubeOptions, NodeIdentity};

use super::settings::{Setting, Settings};
use super::{ConfigError, Environment};

/// What the names of annotations begin with if not told otherwise (flannel `main.go`).
const DEFAULT_PREFIX: &str = "flannel.alpha.coreos.com";
/// Where the network configuration is if not told otherwise (flannel `main.go`).
pub(super) const DEFAULT_NET_CONFIG: &str = "/etc/kube-flannel/net-conf.json";
/// Where the last known state is kept if not told otherwise; not below `/run`, which a reboot empties.
pub(crate) const DEFAULT_CACHE: &str = "/var/lib/flannel/kube-cache.json";
/// Every flag that has a meaning on Kubernetes only, but the one that asks for it.
const KUBE_FLAGS: [&str; 7] = [
    "kube-api-url",
    "kubeconfig-file",
    "kube-annotation-prefix",
    "net-config-path",
    "set-node-network-unavailable",
    "kube-cache-file",
    "network-policy-engine",
];

const NO_KUBE: &str = "the flags for Kubernetes have no effect without --kube-subnet-mgr";
const NO_ETCD: &str = "the flags for etcd have no effect with --kube-subnet-mgr";
const NO_POLICY: &str = "NETWORK POLICIES ARE NOT ENFORCED: flannel does not do it, and no --network-policy-engine is \
                         named; every pod reaches every other one, whatever NetworkPolicy objects say. Install an \
                         engine such as kube-router or kube-network-policies, and name it with that flag";

/// Whether the leases are on Node objects.
pub(super) fn is_asked_for(settings: &Settings) -> Result<bool, ConfigError> {
    settings
        .one("kube-subnet-mgr")
        .map_or(Ok(false), Setting::boolean)
}

/// What the user should know of the flags for Kubernetes.
pub(super) fn notices(settings: &Settings) -> Result<Vec<&'static str>, ConfigError> {
    if is_asked_for(settings)? {
        let has_etcd = super::store::ETCD_FLAGS
            .iter()
            .any(|name| settings.one(name).is_some());
        let has_engine = settings.one("network-policy-engine").is_some();
        let told = [(has_etcd, NO_ETCD), (!has_engine, NO_POLICY)];
        return Ok(told
            .into_iter()
            .filter(|(told, _)| *told)
            .map(|(_, text)| text)
            .collect());
    }
    // A value of the wrong form is wrong without effect, too.
    sets_condition(settings)?;
    let has_kube = KUBE_FLAGS.iter().any(|name| settings.one(name).is_some());
    Ok(has_kube.then_some(NO_KUBE).into_iter().collect())
}

/// How to keep the leases on Node objects.
pub(super) fn options(settings: &Settings, env: Environment<'_>) -> Result<KubeOptions, ConfigError> {
    check_queue_depth(env)?;
    let text = |name: &str| settings.one(name).map(Setting::text).transpose();
    let prefix = match settings.one("kube-annotation-prefix") {
        Some(setting) => setting
            .text()?
            .parse()
            .map_err(|err| setting.invalid(&format!("{err}")))?,
        None => DEFAULT_PREFIX
            .parse()
            .map_err(|err| ConfigError::usage(format!("{err}")))?,
    };
    let path = |name: &str, default: &str| Ok(settings.path(name)?.unwrap_or_else(|| default.into()));
    Ok(KubeOptions {
        node: identity(env)?,
        api: ApiSource {
            url: text("kube-api-url")?.map(str::to_owned),
            kubeconfig: settings.one("kubeconfig-file").map(Setting::as_path),
        },
        prefix,
        net_config: path("net-config-path", DEFAULT_NET_CONFIG)?,
        cache: Some(path("kube-cache-file", DEFAULT_CACHE)?),
        sets_condition: sets_condition(settings)?,
    })
}

fn sets_condition(settings: &Settings) -> Result<bool, ConfigError> {
    let switch = settings.one("set-node-network-unavailable");
    switch.map_or(Ok(true), Setting::boolean)
}

/// The Node's name, or the pod on it (flannel `pkg/subnet/kube/kube.go`, `NewSubnetManager`).
fn identity(env: Environment<'_>) -> Result<NodeIdentity, ConfigError> {
    let text = |name: &str| -> Result<Option<String>, ConfigError> {
        let value = env(name).filter(|value| !value.is_empty());
        let not_utf8 = |_| ConfigError::usage(format!("{name} is not UTF-8"));
        value
            .map(|value| value.into_string().map_err(not_utf8))
            .transpose()
    };
    if let Some(name) = text("NODE_NAME")? {
        return Ok(NodeIdentity::Named(name));
    }
    match (text("POD_NAMESPACE")?, text("POD_NAME")?) {
        (Some(namespace), Some(name)) => Ok(NodeIdentity::OfPod { namespace, name }),
        (None, _) | (_, None) => Err(ConfigError::NoIdentity),
    }
}

/// There is no queue here whose depth could matter; a value of the wrong form is as fatal as upstream has it.
fn check_queue_depth(env: Environment<'_>) -> Result<(), ConfigError> {
    let name = "EVENT_QUEUE_DEPTH";
    let Some(value) = env(name).filter(|value| !value.is_empty()) else {
        return Ok(());
    };
    let depth = value.to_str().and_then(|text| text.parse::<i64>().ok());
    let text = value.to_string_lossy();
    depth.map(drop).ok_or_else(|| {
        ConfigError::usage(format!(
            "invalid value {text:?} for {name}: a whole number is expected"
        ))
    })
}
