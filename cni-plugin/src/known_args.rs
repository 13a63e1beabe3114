/// The keys of `CNI_ARGS` that a chain of our plugins knows: those of the reference's plugins and those that
/// Kubernetes' runtimes send. One list for all, so that what one plugin of a chain understands is no error in another.
pub(crate) const KNOWN_ARGS: &[&str] = &[
    "IP",
    "GATEWAY",
    "MAC",
    "K8S_POD_NAME",
    "K8S_POD_NAMESPACE",
    "K8S_POD_UID",
    "K8S_POD_INFRA_CONTAINER_ID",
];
