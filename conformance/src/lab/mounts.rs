use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use super::holder::Program;

/// The directory that all nodes of a lab share: programs, logs, leases.
pub(super) const SHARED_DIR: &str = "/run/lab";
/// The lease directory, the same path on every node.
pub const LEASE_DIR: &str = "/run/lab/leases";
/// Where the programs under test are, on every node.
pub const BIN_DIR: &str = "/run/lab/bin";
/// Where the daemons' logs go.
pub const LOG_DIR: &str = "/run/lab/log";
/// Where the runtime looks for plugins (`CNI_PATH`).
pub const CNI_BIN_DIR: &str = "/opt/cni/bin";
/// Where the runtime reads its network configuration.
pub const CNI_CONF_DIR: &str = "/etc/cni/net.d";

/// Where the programs are that are judged one call at a time.
pub(crate) const STAGE_PLUGINS: &str = "/run/stage/plugins";
/// What is written below `/var/lib` of a stage.
pub(crate) const STAGE_VAR_LIB: &str = "/run/layer/var/lib/upper";

/// A node's `/run` while it is put together, in the lab's mount namespace.
const NEXT_RUN: &str = "/run/next";

/// Gives the calling thread's fresh mount namespace the lab's own `/run`, with the programs in it.
///
/// # Errors
/// Fails when the kernel refuses a mount or memory runs out.
pub(super) fn prepare_lab(programs: &[Program]) -> Result<()> {
    make_private()?;
    tmpfs("/run")?;
    for dir in [LEASE_DIR, BIN_DIR, LOG_DIR, NEXT_RUN] {
        make_dir(dir)?;
    }
    for (name, bytes) in programs {
        let path = Path::new(BIN_DIR).join(name);
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .context("making a program executable")?;
    }
    Ok(())
}

/// Gives the calling thread's fresh mount namespace a node's own files: an empty `/run`, `/tmp`, `/var/lib/cni` and
/// `/etc/cni/net.d`, the plugins in `/opt/cni/bin`, and a `/sys` that shows the node's links.
///
/// # Errors
/// Fails when the kernel refuses a mount, for example an overlay.
pub(super) fn prepare_node() -> Result<()> {
    make_private()?;
    tmpfs(NEXT_RUN)?;
    make_dir("/run/next/lab")?;
    bind(SHARED_DIR, "/run/next/lab")?;
    mount(
        Some(NEXT_RUN),
        "/run",
        None::<&str>,
        MsFlags::MS_MOVE,
        None::<&str>,
    )
    .context("moving the node's /run")?;
    for (host_dir, own_dir) in [
        ("/etc", "/etc/cni"),
        ("/var/lib", "/var/lib/cni"),
        ("/opt", "/opt/cni"),
    ] {
        overlay(host_dir)?;
        make_dir(own_dir)?;
        tmpfs(own_dir)?;
    }
    make_dir(CNI_CONF_DIR)?;
    make_dir(CNI_BIN_DIR)?;
    bind(BIN_DIR, CNI_BIN_DIR)?;
    tmpfs("/tmp")?;
    fresh_sysfs()
}

/// Gives the calling thread's fresh mount namespace its own files wherever plugins write by default (`/run`, `/tmp`,
/// `/var/lib`), a directory of programs at [`STAGE_PLUGINS`], and a `/sys` that shows the thread's links.
///
/// # Errors
/// Fails when the directory is not there, or when the kernel refuses a mount.
pub(crate) fn prepare_stage(programs: &Path) -> Result<()> {
    make_private()?;
    // Opened first, because it may be in a directory that memory covers.
    let dir = File::open(programs).with_context(|| format!("opening {}", programs.display()))?;
    tmpfs("/run")?;
    make_dir(STAGE_PLUGINS)?;
    bind(&format!("/proc/self/fd/{}", dir.as_raw_fd()), STAGE_PLUGINS)?;
    overlay("/var/lib")?;
    // What the host's own containers have there is nobody's business here.
    make_dir("/var/lib/cni")?;
    tmpfs("/var/lib/cni")?;
    tmpfs("/tmp")?;
    fresh_sysfs()
}

/// Cuts the tie to the host: no mount made here is seen there.
fn make_private() -> Result<()> {
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("making the mounts private")
}

/// Lays a writable memory layer over a directory of the host, so that mount points can be made in it.
fn overlay(dir: &str) -> Result<()> {
    let layer = format!("/run/layer{dir}");
    let (upper, work) = (format!("{layer}/upper"), format!("{layer}/work"));
    make_dir(&upper)?;
    make_dir(&work)?;
    let options = format!("lowerdir={dir},upperdir={upper},workdir={work}");
    mount(
        Some("overlay"),
        dir,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .with_context(|| format!("laying a memory layer over {dir}"))
}

/// A `/sys` that shows the links of the calling thread's network namespace.
fn fresh_sysfs() -> Result<()> {
    mount(
        Some("sysfs"),
        "/sys",
        Some("sysfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("mounting /sys")
}

fn tmpfs(dir: &str) -> Result<()> {
    mount(
        Some("tmpfs"),
        dir,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=0755"),
    )
    .with_context(|| format!("mounting memory on {dir}"))
}

fn bind(source: &str, target: &str) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("binding {source} to {target}"))
}

fn make_dir(dir: &str) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making the directory {dir}"))
}
