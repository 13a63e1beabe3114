//! Guests in a lab.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::accelerator::Accelerator;
use super::image::Image;
use super::kernel::KernelPackage;
use super::machine::{Guest, Places};
use super::wire::Wire;
use crate::lab::{Binaries, GATEWAY, Lab, LabConfig, Store};

/// What every guest has of the host's programs.
const HOST_PROGRAMS: &[&str] = &[
    "bridge",
    "dash",
    "ip",
    "nft",
    "tc",
    "xtables-legacy-multi",
    "xtables-nft-multi",
];

/// The names of iptables, as links to the program that is all of them (Debian's `update-alternatives`).
const IPTABLES: &[&str] = &[
    "iptables",
    "iptables-restore",
    "iptables-save",
    "ip6tables",
    "ip6tables-restore",
    "ip6tables-save",
];

/// Where the lab keeps what belongs to guests, as seen from inside.
const DIR: &str = "/run/lab/guests";

/// Guests on one Ethernet, with an etcd server that all of them reach.
#[derive(Debug)]
pub struct GuestLab {
    // Fields are dropped in this order: the guests end before what they talk to.
    guests: Vec<Guest>,
    wire: Wire,
    lab: Lab,
    accelerator: Accelerator,
    took: Duration,
}

impl GuestLab {
    /// Boots guests, numbered from 1, and waits until each runs commands. Guest N has the addresses `192.168.88.N/24`
    /// and `fd00:88::N/64` on its link `eth0`, the programs under test and `others` in `/opt/cni/bin`, and reaches etcd by `eth1`.
    ///
    /// # Errors
    /// Fails without root, QEMU, etcd or the kernel's package; nothing is left behind then.
    pub fn start(guests: u8, binaries: &Binaries, others: &[PathBuf]) -> Result<Self> {
        let kernel = KernelPackage::get()?;
        let accelerator = Accelerator::choose(&kernel.image())?;
        let start = Instant::now();
        let lab = Lab::on(
            Store::Etcd,
            &LabConfig {
                nodes: 1,
                binaries: binaries.clone(),
            },
        )?;
        let dir = lab.shared_file("guests");
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let programs = [binaries.present()?, others.to_vec()].concat();
        write_image(&kernel, &programs, &dir.join("image"))?;
        let wire = Wire::new(&dir, guests)?;
        let mut this = Self {
            guests: Vec::new(),
            wire,
            lab,
            accelerator,
            took: Duration::ZERO,
        };
        let places = Places {
            accelerator,
            kernel: &kernel.image(),
            image: &Path::new(DIR).join("image"),
            dir: DIR,
            dir_outside: &dir,
        };
        for number in 1..=guests {
            let guest = Guest::boot(this.lab.namespaces(), number, &places)?;
            this.guests.push(guest);
        }
        for guest in &mut this.guests {
            guest.ready()?;
            guest.sh(&network(guest.number()))?;
        }
        this.took = start.elapsed();
        Ok(this)
    }

    /// How long it took until all guests ran commands.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Whether the guests are slow, because a program and not the processor runs their instructions.
    #[must_use]
    pub fn is_emulated(&self) -> bool {
        self.accelerator == Accelerator::Tcg
    }

    /// The guest with a number, from 1.
    ///
    /// # Errors
    /// Fails when the lab has no such guest.
    pub fn guest(&mut self, number: u8) -> Result<&mut Guest> {
        let index = usize::from(number).checked_sub(1);
        index
            .and_then(|index| self.guests.get_mut(index))
            .with_context(|| format!("the lab has no guest {number}"))
    }

    /// The Ethernet between the guests.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The lab that the guests are in, with its etcd server.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }
}

/// The commands that set up a guest's network. QEMU's user network forwards to the lab, and nowhere else: a guest has no
/// default route.
fn network(number: u8) -> String {
    format!(
        "set -e
         ip link set lo up
         ip link set eth0 up
         ip addr add 192.168.88.{number}/24 dev eth0
         ip addr add fd00:88::{number}/64 dev eth0 nodad
         ip link set eth1 up
         ip addr add 10.0.2.15/24 dev eth1
         ip route add {GATEWAY}/32 via 10.0.2.2
         echo guest{number} >/proc/sys/kernel/hostname"
    )
}

fn write_image(kernel: &KernelPackage, programs: &[PathBuf], path: &Path) -> Result<()> {
    let mut image = Image::new(kernel)?;
    for name in HOST_PROGRAMS {
        image.host_program(name)?;
    }
    for name in IPTABLES {
        image.link(&format!("usr/sbin/{name}"), "xtables-nft-multi")?;
        let legacy = name.replacen("tables", "tables-legacy", 1);
        image.link(&format!("usr/sbin/{legacy}"), "xtables-legacy-multi")?;
        let nft = name.replacen("tables", "tables-nft", 1);
        image.link(&format!("usr/sbin/{nft}"), "xtables-nft-multi")?;
    }
    let extensions = Path::new("/usr/lib/x86_64-linux-gnu/xtables");
    image.tree(extensions, "usr/lib/x86_64-linux-gnu/xtables")?;
    for program in programs {
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        image.program(program, &format!("opt/cni/bin/{name}"))?;
    }
    image.write(path)
}
