//! What a node tells people of what it meets.

use std::collections::BTreeSet;
use std::net::IpAddr;

use net_types::{IfName, MacAddr};
use netstate::{ErrorClass, KernelError, ObjectKey};
use tracing::{debug, error, info, warn};

use crate::lease_view::SnapshotOutcome;
use crate::reconciler::Report;

/// Of more reports at once than this, only the number is logged.
const MAX_REPORTS: usize = 10;

/// What it means that the kernel does not reach the next hop of a route.
pub(super) const OFF_LINK: &str = "the peer's address is not on the link that the nodes share, or this node has no \
     address there: plain routes need all nodes on one link, else use the backend vxlan";

/// Whether the kernel refused a route because its next hop is not on the link: it has another number for it in IPv6.
pub(super) fn is_off_link(refusal: &KernelError) -> bool {
    const EHOSTUNREACH: i32 = 113;
    matches!(
        refusal.class,
        ErrorClass::Unreachable | ErrorClass::Other(EHOSTUNREACH)
    )
}

/// Logs what the reconciler has to report; `off_link` tells what it means that a next hop is not on the link, where that
/// is not mended by itself.
pub(super) fn log_reports(reports: Vec<Report>, off_link: Option<&str>) {
    let untold = reports.len().saturating_sub(MAX_REPORTS);
    for report in reports.into_iter().take(MAX_REPORTS) {
        log_report(report, off_link);
    }
    if untold > 0 {
        info!(untold, "more objects failed or recovered");
    }
}

fn log_report(report: Report, off_link: Option<&str>) {
    match report {
        Report::Failed(object, failure) => match failure.refusal {
            Some(err) if err.class == ErrorClass::Exists && matches!(object, ObjectKey::Route(_)) => {
                warn!(%object, "a route that is not flannel's is in the way: remove it to reach this peer");
            }
            Some(err) => {
                match off_link.filter(|_| is_off_link(&err) && matches!(object, ObjectKey::Route(_))) {
                    Some(meaning) => warn!(%object, %err, "{meaning}"),
                    None => warn!(%object, %err, "the kernel refused a change, will try again"),
                }
            }
            None => debug!(%object, "a change had no effect, will try again"),
        },
        Report::Recovered(object) => debug!(%object, "as desired again"),
        Report::Unobservable(err) => warn!(%err, "cannot observe the kernel, will try again"),
    }
}

/// Logs that the stored lease announces another MAC address than the device here has.
pub(super) fn compare_macs(device: &IfName, present: Option<MacAddr>, stored: Option<MacAddr>) {
    if let (Some(present), Some(stored)) = (present, stored)
        && present != stored
    {
        warn!(
            %device,
            vtep_mac = %present,
            announced = %stored,
            "the lease of this public IP announced another VTEP MAC: if another host runs with it, both share one lease; \
             give each an address of its own with --iface or --public-ip"
        );
    }
}

/// Logs which addresses this host has lost, and which are back.
pub(super) fn compare_addrs(before: &BTreeSet<IpAddr>, lost: &BTreeSet<IpAddr>) {
    for address in lost.difference(before) {
        error!(
            %address,
            "this host has lost the address that other nodes reach it by: give it back, or another one to the interface \
             that the flags choose, which is then followed"
        );
    }
    for address in before.difference(lost) {
        info!(%address, "the address that other nodes reach this host by is back");
    }
}

/// Logs what a snapshot led to.
pub(super) fn log_outcome(outcome: SnapshotOutcome) {
    match outcome {
        SnapshotOutcome::Synced | SnapshotOutcome::OwnLeaseGone => {}
        SnapshotOutcome::MassLoss { lost, known } => {
            error!(
                lost,
                known, "most leases vanished at once; their peers stay for the grace time"
            );
        }
    }
}
