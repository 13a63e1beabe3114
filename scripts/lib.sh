# shellcheck shell=bash
# What the scripts of this folder share. It is sourced, not run.

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$project" || exit

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# What has to stand before a command that needs root: nothing, or sudo.
sudo=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "this needs root (network namespaces, packages), and there is no sudo: run it as root"
    sudo=(sudo)
fi

# Installs those of the given Debian packages that are missing.
need_packages() {
    local missing=() package
    command -v dpkg-query >/dev/null || fail "this is no Debian: install the equivalents of '$*' yourself"
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    echo "installing ${missing[*]}"
    # A machine with outdated lists still has most packages; only the installation decides.
    "${sudo[@]}" apt-get update -qq || echo "the package lists could not be renewed; going on with the old ones" >&2
    install_quietly "${missing[@]}" || fail "could not install ${missing[*]}: install them yourself and run this again"
}

# Installs packages without starting the services that come with them, such as sshd or etcd, now or at the next boot:
# tests start what they need in namespaces of their own. Runs in a subshell for its trap.
install_quietly() (
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap '"${sudo[@]}" rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null || exit
        "${sudo[@]}" chmod 0755 "$policy" || exit
    fi
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" || exit
    command -v systemctl >/dev/null || exit 0
    mapfile -t units < <(dpkg-query -L "$@" | sed -nE 's|^(/usr)?/lib/systemd/system/([^/@]+\.(service\|socket))$|\2|p')
    [ ${#units[@]} -eq 0 ] || "${sudo[@]}" systemctl --quiet disable "${units[@]}" \
        || echo "note: some of ${units[*]} may start with this machine" >&2
)

need_rust() {
    command -v cargo >/dev/null || fail "cargo is missing: install Rust with rustup and run this again (under sudo? run it without: it calls sudo itself)"
}

# Installs a cargo command where it is missing.
need_cargo_command() {
    command -v "$1" >/dev/null || { echo "installing $1, which takes minutes" && cargo install --locked "$1"; }
}

rust_host() {
    rustc -vV | sed -n 's/^host: //p'
}

# Where build_static leaves the programs.
static_dir() {
    printf '%s/%s/release\n' "${CARGO_TARGET_DIR:-$project/target}" "$(rust_host)"
}

# Ends unless a directory has both programs, static: one that needs an interpreter needs libraries, which are not there
# where it is going.
need_static_programs() {
    local program headers
    for program in flanneld flannel; do
        if [ ! -f "$1/$program" ] || [ ! -x "$1/$program" ]; then
            fail "there is no program $1/$program"
        fi
        headers=$(readelf --program-headers --wide "$1/$program" 2>/dev/null) || headers=
        [ -n "$headers" ] || fail "$1/$program is no program of this project's"
        [[ $headers != *INTERP* ]] || fail "$1/$program is not static: leave --bin-dir out, so that it is built"
    done
}

# Builds packages as static release programs, one after the other: built together, the daemon would get what only the others
# ask of the libraries that both use.
build_static() {
    local package number=0
    for package in "$@"; do
        number=$((number + 1))
        # Each build ends as if all were done.
        echo "building $package$([ $# -eq 1 ] || echo " ($number of $#)")"
        case "$package" in
            cni-plugin) build_plugin || return ;;
            # It starts as fast as the plugin can.
            conformance-floor) build_musl conformance-floor conformance-floor || return ;;
            *) build_for "$(rust_host)" "" --release -p "$package" || return ;;
        esac
    done
}

# Builds every program that a script here runs, so that scripts/test notices when one can no longer be built.
build_all_static() {
    build_static flanneld-rs cni-plugin fake-apiserver conformance conformance-floor
}

# Builds the plugin with musl where rustup has it: glibc asks the processor at each start what it can do, and in a
# virtual machine each such question is the hypervisor's to answer (measured: 0.5 ms of an ADD's 2 ms).
build_plugin() {
    build_musl cni-plugin flannel
}

# Builds one program of a package with musl, or with glibc where that must do. Addresses are fixed, which saves each
# start from working them out; a daemon, which starts once and listens, has random ones.
build_musl() {
    local package=$1 program=$2 target
    target=$(rust_host)
    if rustup target add "${target/%-gnu/-musl}" >/dev/null 2>&1; then
        target=${target/%-gnu/-musl}
    else
        echo "no Rust for ${target/%-gnu/-musl}: $program stays with glibc, and starts slower" >&2
    fi
    build_for "$target" "-C relocation-model=static" --release -p "$package" --bin "$program" || return
    # Not over a program that may be running.
    mkdir -p "$(static_dir)"
    cp "${CARGO_TARGET_DIR:-$project/target}/$target/release/$program" "$(static_dir)/$program.new"
    mv "$(static_dir)/$program.new" "$(static_dir)/$program"
}

# With an explicit target the flags are kept from build scripts and procedural macros, which cannot be static.
build_for() {
    local target=$1 flags=$2
    shift 2
    RUSTFLAGS="-C target-feature=+crt-static $flags" cargo build --target "$target" "$@"
}
