use cni_types::{NetConf, Target};
use netlink::tc::{Entry, Root, TcLink, TokenBucket, TrafficControl};

use super::add::look;
use super::conf::{Conf, Limit};
use super::device::Device;
use super::error::BandwidthError;
use super::host_end::host_end;
use crate::error::Failure;
use crate::plugins::prev_result;
use crate::sandbox::Sandbox;

/// Fails if a limit is not in force as the ADD, ours or the reference's, made it.
pub(crate) fn check(conf: &NetConf, target: &Target, sandbox: &Sandbox) -> Result<(), Failure> {
    let own = Conf::parse(conf)?;
    let result = prev_result::required(conf)?;
    if own.is_unlimited() {
        return Ok(());
    }
    let mut host = TrafficControl::open().map_err(BandwidthError::Open)?;
    let link = host_end(&mut host, sandbox, &target.ifname, &result)?;
    let control = look(&mut host, &link)?;
    if let Some(ingress) = &own.ingress {
        check_bucket(&link, &control.root, ingress)?;
    }
    if let Some(egress) = &own.egress {
        let found = Device::of(&conf.name, target).find(&mut host)?;
        let is_target = |device: &&TcLink| leads_to(&control.entry, device);
        let Some(device) = found.iter().find(is_target) else {
            return Err(different(
                &link,
                "no redirection of what enters",
                "one to the device that limits it",
            )
            .into());
        };
        if !device.up {
            return Err(different(device, "state down", "up").into());
        }
        let root = look(&mut host, device)?.root;
        check_bucket(device, &root, egress)?;
    }
    Ok(())
}

fn leads_to(entry: &Entry, device: &TcLink) -> bool {
    match entry {
        Entry::Redirected(targets) => targets.first() == Some(&Some(device.index)),
        Entry::Plain | Entry::Other(_) => false,
    }
}

fn check_bucket(link: &TcLink, root: &Root, limit: &Limit) -> Result<(), BandwidthError> {
    match root {
        Root::Bucket(found) if limit.is_made_by(found) => Ok(()),
        Root::Bucket(found) => Err(different(link, &words(found), &words(&limit.bucket()))),
        Root::Default => Err(different(link, "no token bucket", &words(&limit.bucket()))),
        Root::Other(kind) => {
            let found = format!("a queue of kind {kind:?}");
            Err(different(link, &found, &words(&limit.bucket())))
        }
    }
}

fn words(bucket: &TokenBucket) -> String {
    let TokenBucket {
        rate_bytes_per_sec,
        burst_ticks,
        limit_bytes,
    } = bucket;
    format!(
        "a token bucket of {rate_bytes_per_sec} bytes a second, burst {burst_ticks} ticks, limit {limit_bytes} bytes"
    )
}

fn different(link: &TcLink, what: &str, expected: &str) -> BandwidthError {
    BandwidthError::Different {
        link: link.name.to_string(),
        what: what.to_owned(),
        expected: expected.to_owned(),
    }
}
