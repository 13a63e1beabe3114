use netlink_packet_core::NlasIterator;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netstate::nft::{Family, TableKey};

use crate::frame::split;
use crate::listener::{Groups, Heard, Listener, MonitorError};
use crate::pending::{Lossy, Pending};

/// The multicast group of nf_tables (linux `include/uapi/linux/netfilter/nfnetlink.h`, `NFNLGRP_NFTABLES`).
const GROUPS: Groups = Groups {
    protocol: NETLINK_NETFILTER,
    groups: &[7],
};

/// The number of nf_tables among netfilter's parts (`NFNL_SUBSYS_NFTABLES`), the upper byte of its messages' types.
const SUBSYSTEM: u16 = 10;

/// The message that tells the number of a new generation of rules (`NFT_MSG_NEWGEN`); it names no table.
const NEW_GENERATION: u16 = 15;

/// Length of the fixed part of a message (linux `struct nfgenmsg`), which begins with the family.
const HEADER_LEN: usize = 4;

/// The attribute that names the table, in messages about every kind of object (`NFTA_TABLE_NAME`, `NFTA_RULE_TABLE`
/// and so on).
const TABLE: u16 = 1;

/// Where packet filter rules changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RulesNotice {
    /// Notices were lost, or the connection was: any table may have changed.
    Lost,
    /// Something in a table was added, altered or removed, or the table itself.
    NftChanged(TableKey),
}

/// A connection that hears of changes to the rules of nf_tables, one's own included, in the network namespace of the
/// thread that opens it. Rules that iptables keeps in nf_tables are heard of too; legacy iptables tells nobody.
pub struct RulesMonitor {
    listener: Listener,
    pending: Pending<RulesNotice>,
}

impl RulesMonitor {
    /// Opens the connection; from then on no change goes unnoticed. It belongs to the tokio runtime that it is opened
    /// in, which must have I/O and time enabled.
    ///
    /// # Errors
    /// There is no socket to be had, or it cannot join the kernel's group: the kernel has no netfilter, or the right
    /// `CAP_NET_ADMIN` is missing.
    pub fn open() -> Result<Self, MonitorError> {
        Ok(Self {
            listener: Listener::open(GROUPS)?,
            pending: Pending::default(),
        })
    }

    /// Waits for the next notice. It may be dropped at any time without losing one.
    ///
    /// A connection that breaks is opened again, with growing pauses, and then reported as [`RulesNotice::Lost`].
    pub async fn next(&mut self) -> RulesNotice {
        loop {
            if let Some(notice) = self.pending.take() {
                return notice;
            }
            let Self { listener, pending } = self;
            let heard = listener.listen(|datagram| notices(datagram, |notice| pending.add(notice)));
            if heard.await == Heard::NotEverything {
                self.pending.lose();
            }
        }
    }

    /// Takes a notice that is there already, without waiting.
    pub fn try_next(&mut self) -> Option<RulesNotice> {
        self.pending.take()
    }
}

impl Lossy for RulesNotice {
    const LOST: Self = Self::Lost;
}

/// Reads the notices of a datagram and hands them on, also those before a malformed message.
fn notices(datagram: &[u8], mut each: impl FnMut(RulesNotice)) -> Heard {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Some((frame, next)) = split(rest) else {
            return Heard::NotEverything;
        };
        rest = next;
        if frame.kind >> 8 != SUBSYSTEM || frame.kind & 0xff == NEW_GENERATION {
            continue;
        }
        let Some((family, name)) = table(frame.payload) else {
            return Heard::NotEverything;
        };
        // Tables of other families (arp, netdev) are never ours.
        if let Some(family) = Family::from_number(family) {
            each(RulesNotice::NftChanged(TableKey { family, name }));
        }
    }
    Heard::Everything
}

fn table(payload: &[u8]) -> Option<(u8, String)> {
    let family = *payload.first()?;
    let attributes = NlasIterator::new(payload.get(HEADER_LEN..)?);
    let name = attributes.flatten().find(|attribute| attribute.kind() == TABLE)?;
    let name = String::from_utf8_lossy(name.value());
    Some((family, name.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(16 + payload.len()).unwrap();
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// `struct nfgenmsg` and the name of a table.
    fn about(family: u8) -> Vec<u8> {
        vec![family, 0, 0, 0, 6, 0, 1, 0, b't', 0, 0, 0]
    }

    fn read(datagram: &[u8]) -> (Heard, Vec<RulesNotice>) {
        let mut found = Vec::new();
        let heard = notices(datagram, |notice| found.push(notice));
        (heard, found)
    }

    #[test]
    fn a_message_about_any_object_names_its_table() {
        let changed = |family| {
            let name = "t".to_owned();
            RulesNotice::NftChanged(TableKey { family, name })
        };
        for (number, family) in [
            (1, Family::Inet),
            (2, Family::Ip),
            (7, Family::Bridge),
            (10, Family::Ip6),
        ] {
            let datagram = [message(0x0a06, &about(number)), message(0x0a0f, &[0; 12])].concat();
            assert_eq!(read(&datagram), (Heard::Everything, vec![changed(family)]));
        }
        // Tables of `arp`, and other parts of netfilter.
        let others = [message(0x0a06, &about(3)), message(0x0106, &about(2))].concat();
        assert_eq!(read(&others), (Heard::Everything, Vec::new()));
    }

    #[test]
    fn a_message_that_names_no_table_is_a_loss() {
        assert_eq!(read(&message(0x0a06, &[2, 0, 0, 0])).0, Heard::NotEverything);
        assert_eq!(read(&message(0x0a06, &[])).0, Heard::NotEverything);
        assert_eq!(read(&[1, 2, 3]).0, Heard::NotEverything);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(payload in vec(any::<u8>(), 0..64), kind in 0x0a00_u16..0x0a20) {
            let (_, found) = read(&message(kind, &payload));
            prop_assert!(found.len() <= 1);
        }
    }
}
