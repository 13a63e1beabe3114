#!/usr/bin/env bash
# Makes a machine of the Vagrantfile a node: NUMBER ADDRESS ADDRESS-OF-NODE-1. Run as root; it can be repeated.
set -euo pipefail

number=${1:?} address=${2:?} first=${3:?}
# The last one that takes the containerd of Debian 12, which is 1.6.
version=v1.35
token=flannl.0123456789abcdef
image=/project/target/flannel-image.tar
[ -f "$image" ] || { echo "there is no $image: run scripts/image before vagrant up" >&2 && exit 1; }

install_packages() {
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends containerd curl gpg ca-certificates nftables iptables
    if [ ! -f /etc/apt/keyrings/kubernetes.gpg ]; then
        mkdir -p /etc/apt/keyrings
        curl -fsSL "https://pkgs.k8s.io/core:/stable:/$version/deb/Release.key" \
            | gpg --dearmor -o /etc/apt/keyrings/kubernetes.gpg
    fi
    echo "deb [signed-by=/etc/apt/keyrings/kubernetes.gpg] https://pkgs.k8s.io/core:/stable:/$version/deb/ /" \
        >/etc/apt/sources.list.d/kubernetes.list
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends kubelet kubeadm kubectl cri-tools
}

prepare_host() {
    swapoff -a
    sed -i '/\sswap\s/d' /etc/fstab
    # Services' rules of kube-proxy see bridged packets only with this module.
    echo br_netfilter >/etc/modules-load.d/kubernetes.conf
    modprobe br_netfilter
    echo net.ipv4.ip_forward=1 >/etc/sysctl.d/90-kubernetes.conf
    sysctl -q --system
    containerd config default | sed 's/SystemdCgroup = false/SystemdCgroup = true/; s#bin_dir = .*#bin_dir = "/opt/cni/bin"#' \
        >/etc/containerd/config.toml
    systemctl restart containerd
    # Vagrant's first interface leads to no other machine, and has the same address on each.
    echo "KUBELET_EXTRA_ARGS=--node-ip=$address" >/etc/default/kubelet
    ctr -n k8s.io image import "$image"
}

first_node() {
    [ -f /etc/kubernetes/admin.conf ] || kubeadm init --apiserver-advertise-address="$address" \
        --pod-network-cidr=10.244.0.0/16 --token="$token" --token-ttl=0
    export KUBECONFIG=/etc/kubernetes/admin.conf
    # The interface between the machines, not the one of the default route.
    sed "s/- --kube-subnet-mgr/&\n            - --iface-can-reach=192.168.56.1/" /project/deploy/kube-flannel.yml \
        | kubectl apply -f -
}

further_node() {
    [ -f /etc/kubernetes/kubelet.conf ] || kubeadm join "$first:6443" --token="$token" \
        --discovery-token-unsafe-skip-ca-verification
}

install_packages
prepare_host
if [ "$number" = 1 ]; then first_node; else further_node; fi
