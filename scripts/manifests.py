"""What the manifests below deploy/ must be, beyond valid. Run by scripts/manifests with the directory of its tools."""

import json
import pathlib
import subprocess
import sys

import yaml

TOOLS = pathlib.Path(sys.argv[1])
CHART = "deploy/helm/flannel"
CONFLIST = json.loads(pathlib.Path("deploy/cni/10-flannel.conflist").read_text())
OUT = TOOLS.parent / "rendered"
# Values that upstream's chart takes and their effect on the network configuration.
VALUES = {
    "default": ([], {"Network": "10.244.0.0/16", "EnableNFTables": True, "Backend": {"Type": "vxlan"}}),
    "vxlan": (
        ["flannel.vni=7", "flannel.mtu=1400", "flannel.directRouting=true", "flannel.backendPort=4789", "flannel.GBP=true"],
        {
            "Network": "10.244.0.0/16",
            "EnableNFTables": True,
            "Backend": {"Type": "vxlan", "VNI": 7, "MTU": 1400, "DirectRouting": True, "Port": 4789, "GBP": True},
        },
    ),
    "dual-stack": (
        ["podCidrv6=fd00:10:244::/56", "flannel.enableNFTables=false", "flannel.healthz.port=0"],
        {
            "Network": "10.244.0.0/16",
            "IPv6Network": "fd00:10:244::/56",
            "EnableIPv6": True,
            "EnableNFTables": False,
            "Backend": {"Type": "vxlan"},
        },
    ),
    "wireguard-v6": (
        ["podCidr=", "podCidrv6=fd00:10:244::/56", "flannel.backend=wireguard", "flannel.tunnelMode=auto",
         "flannel.keepaliveInterval=25", "flannel.skipCNIConfigInstallation=true"],
        {
            "EnableIPv4": False,
            "IPv6Network": "fd00:10:244::/56",
            "EnableIPv6": True,
            "EnableNFTables": True,
            "Backend": {"Type": "wireguard", "Mode": "auto", "PersistentKeepaliveInterval": 25},
        },
    ),
    # As in a values file of upstream's, where numbers are other ones than --set's and tunnelMode has quotes of its own.
    "upstreams-file": (
        {
            "global": {"imagePullSecrets": [{"name": "s"}]},
            "podCidr": "10.1.0.0/16",
            "podCidrv6": "fd00:1::/56",
            "flannel": {
                "image": {"repository": "r/flannel", "tag": "v1"},
                "flannel_cni": {"image": {"repository": "r/plugin", "tag": "v2"}},
                "cniBinDir": "/usr/libexec/cni",
                "cniConfDir": "/etc/cni/net.d",
                "enableNFTables": False,
                "args": ["--ip-masq", "--kube-subnet-mgr"],
                "backend": "wireguard",
                "backendPort": 51900,
                "backendPortv6": 51901,
                "mtu": 1380,
                "psk": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I=",
                "tunnelMode": '"separate"',
                "keepaliveInterval": 25,
                "resources": {"requests": {"cpu": "50m"}},
                "tolerations": [{"operator": "Exists"}],
                "nodeSelector": {"kubernetes.io/os": "linux"},
            },
            "netpol": {"enabled": False},
        },
        {
            "Network": "10.1.0.0/16",
            "IPv6Network": "fd00:1::/56",
            "EnableIPv6": True,
            "EnableNFTables": False,
            "Backend": {
                "Type": "wireguard",
                "ListenPort": 51900,
                "ListenPortV6": 51901,
                "MTU": 1380,
                "PSK": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I=",
                "Mode": "separate",
                "PersistentKeepaliveInterval": 25,
            },
        },
    ),
    "upstreams-images": (
        ["flannel.image.repository=r/flannel", "flannel.image.tag=v1", "flannel.flannel_cni.image.repository=r/plugin",
         "flannel.flannel_cni.image.tag=v2", "global.imagePullSecrets[0].name=s"],
        {"Network": "10.244.0.0/16", "EnableNFTables": True, "Backend": {"Type": "vxlan"}},
    ),
}


def run(*command, fails=False):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if (done.returncode != 0) != fails:
        sys.exit(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr if fails else done.stdout


def check(condition, what):
    if not condition:
        sys.exit(f"manifests: {what}")


def validated(name, text):
    """The objects of a rendered manifest, once the schemas of the newest Kubernetes accept them, strictly."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.yml"
    path.write_text(text)
    run(TOOLS / "kubernetes-validate", "--strict", "--quiet", path)
    objects = {(found["kind"], found["metadata"]["name"]): found for found in yaml.safe_load_all(text) if found}
    check(objects, f"{name} is empty")
    print(f"{name}: {len(objects)} objects are valid")
    return objects


def containers(objects):
    for (kind, _), found in objects.items():
        if kind == "DaemonSet":
            pod = found["spec"]["template"]["spec"]
            yield from pod.get("initContainers", []) + pod["containers"]


def check_privileges(name, objects, may_have_iptables=False):
    for container in containers(objects):
        where, context = f"{name}, container {container['name']}", container["securityContext"]
        check(not context.get("privileged"), f"{where} is privileged")
        check(context["allowPrivilegeEscalation"] is False, f"{where} may gain privileges")
        check(context["readOnlyRootFilesystem"] is True, f"{where} can write its image")
        check(context["capabilities"]["drop"] == ["ALL"], f"{where} keeps capabilities")
        more = set(context["capabilities"].get("add", []))
        check(more <= {"NET_ADMIN", *(["NET_RAW"] if may_have_iptables else [])}, f"{where} has {more}")
    for (kind, role), found in objects.items():
        if kind == "ClusterRole":
            rules = {(res, verb) for rule in found["rules"] for res in rule["resources"] for verb in rule["verbs"]}
            least = {("nodes", "get"), ("nodes", "list"), ("nodes", "watch"), ("nodes/status", "patch")}
            check(rules == least, f"{name}: {role} allows {rules}")


def check_daemon(name, objects, net_conf, writes_conflist=True, has_health=True):
    config = objects["ConfigMap", "kube-flannel-cfg"]["data"]
    found = json.loads(config["net-conf.json"])
    check(found == net_conf, f"{name}: net-conf.json is {found}")
    check(json.loads(config["cni-conf.json"]) == CONFLIST, f"{name}: cni-conf.json is not deploy/cni/10-flannel.conflist")
    daemon = next(container for container in containers(objects) if container["name"] == "kube-flannel")
    flags = daemon["command"][1:] + daemon["args"]
    check("--kube-subnet-mgr" in flags and "--ip-masq" in flags, f"{name}: flags are {flags}")
    check(any(flag.startswith("--cni-conf-src=") for flag in flags) == writes_conflist, f"{name}: flags are {flags}")
    check(("readinessProbe" in daemon and "livenessProbe" in daemon) == has_health, f"{name}: probes")
    if has_health:
        port = daemon["ports"][0]["containerPort"]
        check(f"--healthz-port={port}" in flags, f"{name}: the probes ask port {port}")
        paths = [daemon[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")]
        check(paths == ["/healthz", "/readyz"], f"{name}: the probes ask for {paths}")
    mounts = {mount["name"] for container in containers(objects) for mount in container["volumeMounts"]}
    pod = objects["DaemonSet", "kube-flannel-ds"]["spec"]["template"]["spec"]
    check(mounts == {volume["name"] for volume in pod["volumes"]}, f"{name}: mounts are {mounts}")
    # Where the daemon writes, on a root that is read-only, and what it reads of the host's.
    paths = {mount["mountPath"] for mount in daemon["volumeMounts"]}
    check({"/run/flannel", "/var/lib/flannel", "/run/cni", "/opt/cni/bin"} <= paths, f"{name}: paths are {paths}")
    # A selector cannot be changed: with another one than upstream's, nobody could come from there.
    selector = objects["DaemonSet", "kube-flannel-ds"]["spec"]["selector"]["matchLabels"]
    check(selector == {"app": "flannel", "k8s-app": "flannel"}, f"{name}: the selector is {selector}")


def directories(objects):
    pod = objects["DaemonSet", "kube-flannel-ds"]["spec"]["template"]["spec"]
    return [volume["hostPath"]["path"] for volume in pod["volumes"] if volume["name"] in ("cni-plugin", "cni")]


def overlay(name):
    return validated(name, run(TOOLS / "kubectl", "kustomize", f"deploy/kustomize/{name}"))


def given(name, values):
    """The arguments of helm that give it these values: one by one, or as a file."""
    if isinstance(values, list):
        return [part for value in values for part in ("--set", value)]
    path = OUT / f"{name}.values.yaml"
    path.write_text(yaml.safe_dump(values))
    return ["--values", path]


def vxlan(network="10.244.0.0/16", nftables=True):
    return {"Network": network, "EnableNFTables": nftables, "Backend": {"Type": "vxlan"}}


def main():
    plain = validated("kube-flannel", pathlib.Path("deploy/kube-flannel.yml").read_text())
    check_privileges("kube-flannel", plain)
    check_daemon("kube-flannel", plain, vxlan())
    uninstall = validated("uninstall", pathlib.Path("deploy/kube-flannel-uninstall.yml").read_text())
    check_privileges("uninstall", uninstall, may_have_iptables=True)

    usual = ["/opt/cni/bin", "/etc/cni/net.d"]
    k3s = ["/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/agent/etc/cni/net.d"]
    for name, net_conf, dirs in (
        ("base", vxlan(), usual),
        ("k3s", vxlan("10.42.0.0/16"), usual),
        ("k3s-own-directories", vxlan("10.42.0.0/16"), k3s),
        ("iptables", vxlan(nftables=False), usual),
    ):
        objects = overlay(name)
        check_privileges(name, objects, may_have_iptables=not net_conf["EnableNFTables"])
        check_daemon(name, objects, net_conf)
        check(directories(objects) == dirs, f"{name}: directories are {directories(objects)}")

    run(TOOLS / "helm", "lint", "--strict", CHART)
    for name, (values, net_conf) in VALUES.items():
        text = run(TOOLS / "helm", "template", "flannel", CHART, "--namespace", "kube-flannel", *given(name, values))
        objects = validated(f"chart-{name}", text)
        check_privileges(f"chart-{name}", objects, may_have_iptables=not net_conf["EnableNFTables"])
        check_daemon(f"chart-{name}", objects, net_conf, name != "wireguard-v6", name != "dual-stack")
    said = run(TOOLS / "helm", "template", CHART, "--set", "netpol.enabled=true", fails=True)
    check("netpol" in said, f"a policy engine that is not there is refused by: {said}")


main()
