//! The plugin `bandwidth`: limits how fast a container receives and sends.
//!
//! It follows the plugin that made the pair of interfaces. What the container receives leaves the host's end of the
//! pair through a token bucket. What the container sends enters the host's end; all of it is redirected to a device of
//! the container's own (an intermediate functional block), which it leaves through a bucket. Device names and values
//! are the reference's, so that each removes, and checks, what the other made.
//!
//! Whose a device is says the alias on it: DEL finds it by its name, GC by the network in the alias. A device without
//! alias is the reference's, and goes by DEL only.

mod add;
mod check;
mod conf;
mod device;
mod error;
mod host_end;
mod plan;

use cni_types::{NetConf, Target};
use netlink::tc::{TcLink, TcOp, TrafficControl};
use netstate::ErrorClass;

pub(crate) use add::add;
pub(crate) use check::check;

use conf::Conf;
use device::Device;
use error::BandwidthError;

use crate::context::Attachments;
use crate::error::{Failure, Failures};

/// Removes the container's device. The buckets and filters on the pair of interfaces go with the pair.
pub(crate) fn del(conf: &NetConf, target: &Target) -> Result<(), Failure> {
    let device = Device::of(&conf.name, target);
    let mut host = TrafficControl::open().map_err(BandwidthError::Open)?;
    for link in device.find(&mut host)? {
        remove(&mut host, &link)?;
    }
    Ok(())
}

/// Fails when an ADD could not be served.
pub(crate) fn status(conf: &NetConf) -> Result<(), Failure> {
    Conf::parse(conf)?;
    Ok(())
}

/// Removes the devices of this network's attachments that are not valid. Goes on over failures.
pub(crate) fn gc(conf: &NetConf, valid: &Attachments) -> Result<(), Failure> {
    let mut host = TrafficControl::open().map_err(BandwidthError::Open)?;
    let keep: Vec<_> = valid
        .0
        .iter()
        .map(|target| device::note(&conf.name, target))
        .collect();
    let of_network = device::notes_of(&conf.name);
    let mut failures = Failures::default();
    for link in host.ifbs().map_err(BandwidthError::List)? {
        let note = link.alias.as_deref().unwrap_or_default();
        if note.starts_with(&of_network) && !keep.iter().any(|kept| kept == note) {
            failures.note(remove(&mut host, &link));
        }
    }
    failures.into_result()
}

/// Removes a device; one that is gone is fine.
fn remove(host: &mut TrafficControl, link: &TcLink) -> Result<(), BandwidthError> {
    match host.apply(&[TcOp::DelLink(link.index)]).pop() {
        Some(Err(source)) if source.class != ErrorClass::NoDevice => Err(BandwidthError::Change {
            what: "remove",
            link: link.name.to_string(),
            source,
        }),
        Some(Ok(()) | Err(_)) | None => Ok(()),
    }
}
