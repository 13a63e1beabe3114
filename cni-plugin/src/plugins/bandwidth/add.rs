use cni_types::{AddResult, Interface, NetConf, Target};
use netlink::tc::{Control, TcLink, TcOp, TrafficControl};

use super::conf::{Conf, Limit};
use super::device::Device;
use super::error::BandwidthError;
use super::host_end::host_end;
use super::plan::{Desired, plan, undo};
use super::remove;
use crate::error::Failure;
use crate::plugins::prev_result;
use crate::sandbox::Sandbox;

/// Limits what is to be limited, and adds the device for what the container sends to the result. On failure the host
/// is as before.
pub(crate) fn add(conf: &NetConf, target: &Target, sandbox: &Sandbox) -> Result<AddResult, Failure> {
    let own = Conf::parse(conf)?;
    let mut result = prev_result::required(conf)?;
    if own.is_unlimited() {
        return Ok(result);
    }
    let mut host = TrafficControl::open().map_err(BandwidthError::Open)?;
    let link = host_end(&mut host, sandbox, &target.ifname, &result)?;
    let ingress = own.ingress.as_ref();
    match &own.egress {
        None => shape(&mut host, &link, ingress, None)?,
        Some(egress) => {
            let device = Device::of(&conf.name, target).make(&mut host, &link)?;
            let shaped = limit_device(&mut host, &device, egress)
                .and_then(|()| shape(&mut host, &link, ingress, Some(&device)));
            if let Err(error) = shaped {
                let mut failure = Failure::from(error);
                if let Err(e) = remove(&mut host, &device) {
                    failure.add_details(&e);
                }
                return Err(failure);
            }
            result.interfaces.push(Interface {
                name: device.name.to_string(),
                mac: device.mac.map(|mac| mac.to_string()),
                ..Interface::default()
            });
        }
    }
    Ok(result)
}

/// Gives the container's device its bucket, before anything is sent there.
fn limit_device(host: &mut TrafficControl, device: &TcLink, egress: &Limit) -> Result<(), BandwidthError> {
    let op = TcOp::SetBucket(device.index, egress.bucket());
    let results = host.apply(&[op]);
    results
        .into_iter()
        .collect::<Result<(), _>>()
        .map_err(|source| BandwidthError::Change {
            what: "limit the rate of",
            link: device.name.to_string(),
            source,
        })
}

/// Brings the host's end to what is desired, or leaves it as it was.
fn shape(
    host: &mut TrafficControl,
    link: &TcLink,
    ingress: Option<&Limit>,
    device: Option<&TcLink>,
) -> Result<(), BandwidthError> {
    let before = look(host, link)?;
    let desired = Desired {
        root: ingress.map(Limit::bucket),
        redirect: device.map(|device| device.index),
    };
    let ops = plan(link.index, &before, &desired).map_err(|what| BandwidthError::Taken {
        link: link.name.to_string(),
        what,
    })?;
    let results = host.apply(&ops);
    let made: Vec<_> = ops
        .iter()
        .zip(&results)
        .filter(|(_, result)| result.is_ok())
        .map(|(op, _)| op.clone())
        .collect();
    let Some(source) = results.into_iter().find_map(Result::err) else {
        return Ok(());
    };
    // What cannot be taken back goes with the pair; the first failure is the one to tell.
    drop(host.apply(&undo(link.index, &before, &made)));
    Err(BandwidthError::Change {
        what: "limit the rate of",
        link: link.name.to_string(),
        source,
    })
}

/// Reads the traffic control of a link of the host.
pub(super) fn look(host: &mut TrafficControl, link: &TcLink) -> Result<Control, BandwidthError> {
    host.control(link.index).map_err(|source| BandwidthError::Look {
        link: link.name.to_string(),
        place: "the host's network namespace".to_owned(),
        source,
    })
}
