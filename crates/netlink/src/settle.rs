use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use net_types::IfName;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressFlags;
use netstate::{ErrorClass, KernelError};

use crate::RealKernel;
use crate::attr::only;
use crate::errno::busy;
use crate::observe::index_of;
use crate::{decode, encode};

/// First and longest pause between two looks at addresses; without the detection of duplicates they are ready almost at
/// once, with it after a second or two.
const PAUSE_MIN: Duration = Duration::from_micros(200);
const PAUSE_MAX: Duration = Duration::from_millis(50);

impl RealKernel {
    /// Waits until these IPv6 addresses of a link can be used: the kernel answers for them, and the detection of
    /// duplicates (RFC 4862 §5.4), if it is made, has found them to be nobody else's. An address that the link does not
    /// have is not waited for.
    ///
    /// # Errors
    /// The link is absent; an address is another station's, class [`ErrorClass::Exists`]; or the detection has not
    /// ended within the time.
    pub fn wait_settled(
        &mut self,
        link: &IfName,
        ips: &[IpAddr],
        timeout: Duration,
    ) -> Result<(), KernelError> {
        if ips.is_empty() {
            return Ok(());
        }
        let index = index_of(&mut self.socket, link)?;
        let deadline = Instant::now() + timeout;
        let mut pause = PAUSE_MIN;
        loop {
            let mut tentative = None;
            let addrs = self.socket.dump(&encode::all_addrs(Some(index)), |message| {
                decode::addr(&only!(message, RouteNetlinkMessage::NewAddress)?)
            })?;
            let meant = addrs
                .into_iter()
                .filter(|(at, addr, ..)| *at == index && ips.contains(&addr.ip()));
            for (_, addr, _, flags) in meant {
                if flags.contains(AddressFlags::Dadfailed) {
                    return Err(duplicate(link, addr.ip()));
                }
                if flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic) {
                    tentative = Some(addr.ip());
                }
            }
            let Some(ip) = tentative else {
                return Ok(());
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (name, ms) = (link.as_str(), timeout.as_millis());
                return Err(busy(format!(
                    "whether address {ip} of link {name:?} is another station's is not known after {ms} ms"
                )));
            }
            sleep(pause.min(left));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

fn duplicate(link: &IfName, ip: IpAddr) -> KernelError {
    KernelError {
        class: ErrorClass::Exists,
        message: format!(
            "address {ip} of link {:?} is in use by another station (duplicate address detection failed)",
            link.as_str()
        ),
    }
}
