//! Debian's kernel, fetched as a package and unpacked; it is never installed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The package that depends on the newest kernel for virtual machines; it has all that a node needs, without the
/// drivers for hardware.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// What only a build directory of cargo's has.
const MARKS: &[&str] = &["CACHEDIR.TAG", ".rustc_info.json"];

/// What of the modules goes into a guest: below `kernel/` of the package's modules.
const MODULES: &[&str] = &[
    "arch",
    "crypto",
    "drivers/char",
    "drivers/net/dummy.ko",
    "drivers/net/ifb.ko",
    "drivers/net/macvlan.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/tun.ko",
    "drivers/net/veth.ko",
    "drivers/net/virtio_net.ko",
    "drivers/net/vxlan",
    "drivers/net/wireguard",
    "drivers/virtio",
    "fs/overlayfs",
    "lib",
    "net/802",
    "net/8021q",
    "net/bridge",
    "net/core",
    "net/ipv4",
    "net/ipv6",
    "net/llc",
    "net/netfilter",
    "net/sched",
];

/// An unpacked kernel: its image, and the modules that a guest may load.
#[derive(Debug, Clone)]
pub struct KernelPackage {
    dir: PathBuf,
}

impl KernelPackage {
    /// Finds the kernel in the build directory around the running program, and fetches it first if it is not there.
    ///
    /// # Errors
    /// Fails when this is no Debian, or its mirror is out of reach.
    pub fn get() -> Result<Self> {
        let this = std::env::current_exe().context("finding the running program's own path")?;
        let is_target = |dir: &&Path| MARKS.iter().any(|mark| dir.join(mark).is_file());
        let target = this.ancestors().filter(is_target).last();
        let target = target.context(
            "this program is in no build directory of cargo's, where the kernel is kept: run the one below `target`",
        )?;
        Self::in_cache(&target.join("guest-kernels"))
    }

    fn in_cache(cache: &Path) -> Result<Self> {
        fs::create_dir_all(cache).with_context(|| format!("making {}", cache.display()))?;
        let package = newest_package()?;
        // One that was unpacked with fewer kinds of modules has another name.
        let dir = cache.join(format!("{package}-{}", MODULES.len()));
        if !dir.is_dir() {
            let next = cache.join(format!("{package}.{}", std::process::id()));
            let made = unpack(&package, &next).and_then(|()| match fs::rename(&next, &dir) {
                // Somebody else was faster.
                Err(_) if dir.is_dir() => Ok(()),
                renamed => renamed.context("putting the kernel into its place"),
            });
            if next.exists() {
                fs::remove_dir_all(&next).with_context(|| format!("removing {}", next.display()))?;
            }
            made?;
        }
        Ok(Self { dir })
    }

    /// The kernel's image.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The directory that becomes `/lib/modules`.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.dir.join("lib/modules")
    }
}

/// The name of the kernel's package, such as `linux-image-6.1.0-56-cloud-amd64`.
fn newest_package() -> Result<String> {
    let printed = output("apt-cache", ["depends", META_PACKAGE], Path::new("/"))?;
    let mut packages = printed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "));
    let package = packages.find(|name| name.starts_with("linux-image-"));
    package
        .map(str::to_owned)
        .with_context(|| format!("{META_PACKAGE} depends on no kernel"))
}

fn unpack(package: &str, dir: &Path) -> Result<()> {
    let unpacked = dir.join("package");
    fs::create_dir_all(&unpacked).with_context(|| format!("making {}", unpacked.display()))?;
    output(
        "apt-get",
        ["-qq", "-o", "APT::Sandbox::User=root", "download", package],
        dir,
    )?;
    let archive = entries(dir)?
        .into_iter()
        .find(|path| path.extension() == Some(OsStr::new("deb")))
        .context("apt-get left no package")?;
    output(
        "dpkg-deb",
        [OsStr::new("-x"), archive.as_os_str(), unpacked.as_os_str()],
        dir,
    )?;
    let image = entries(&unpacked.join("boot"))?
        .into_iter()
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
        })
        .context("the package has no kernel")?;
    fs::rename(&image, dir.join("vmlinuz")).context("taking the kernel's image")?;
    let version = package.trim_start_matches("linux-image-");
    let from = unpacked.join("lib/modules").join(version);
    let to = dir.join("lib/modules").join(version);
    for name in MODULES.iter().map(|name| format!("kernel/{name}")) {
        take(&from.join(&name), &to.join(&name))?;
    }
    for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        take(&from.join(name), &to.join(name))?;
    }
    output(
        "busybox",
        [
            OsStr::new("depmod"),
            "-b".as_ref(),
            dir.as_os_str(),
            version.as_ref(),
        ],
        dir,
    )?;
    fs::remove_file(&archive).context("removing the package")?;
    fs::remove_dir_all(&unpacked).context("removing the rest of the package")
}

/// Moves a part of the package to its place.
fn take(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().context("a module without a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    fs::rename(from, to).with_context(|| format!("taking {}", from.display()))
}

/// What is in a directory, in order.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut paths = entries
        .map(|entry| {
            Ok(entry
                .with_context(|| format!("reading {}", dir.display()))?
                .path())
        })
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Runs a program of the host to its end, and returns what it prints.
pub(super) fn output<S: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
    dir: &Path,
) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .env("LANG", "C")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed: {}", words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
