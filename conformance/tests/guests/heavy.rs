//! What needs a kernel that this machine may not have. All cases share two guests, which boot once.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use conformance::guest::{Guest, GuestLab};
use conformance::lab::Binaries;

mod bridge_vlan;
mod kernel;
mod rules;
mod vxlan;
mod wireguard;
mod wireguard_backend;

/// The guests, for one case at a time. Everything of them ends with this process, because the lab does.
fn guests() -> MutexGuard<'static, GuestLab> {
    // A boot that failed is not tried again by every case.
    static GUESTS: OnceLock<Result<Mutex<GuestLab>, String>> = OnceLock::new();
    let guests = GUESTS.get_or_init(|| {
        let lab =
            Binaries::find().and_then(|binaries| GuestLab::start(2, &binaries, &wireguard::test_programs()));
        let lab = lab.map_err(|error| format!("{error:#}"))?;
        println!("two guests ran commands after {:.1} s", lab.took().as_secs_f64());
        Ok(Mutex::new(lab))
    });
    let guests = guests.as_ref().unwrap_or_else(|error| panic!("{error}"));
    guests.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends what a case started on a guest, whatever state it is in: daemon, pods, devices, files, rules.
fn clean(guest: &mut Guest) {
    guest
        .sh("kill -9 $(cat /run/flanneld.pid 2>/dev/null) 2>/dev/null
            for pod in $(ls /run/netns); do ip netns del $pod; done
            for link in flannel.1 flannel-v6.1 flannel-wg flannel-wg-v6 cni0 cni5; do ip link del $link 2>/dev/null; done
            nft flush ruleset
            rm -rf /run/flannel /var/lib/cni /run/flanneld.*
            true")
        .unwrap();
}

/// Writes a network configuration for a case, whose leases are its own.
fn configure(lab: &GuestLab, case: &str, net_conf: &str) -> String {
    lab.lab()
        .put_in_etcd(&format!("{case}/config"), net_conf, None)
        .unwrap();
    format!("--etcd-prefix=/coreos.com/network/{case}")
}
