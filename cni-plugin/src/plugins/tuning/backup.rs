use cni_types::{Code, NetworkName};
use net_types::MacAddr;
use netlink::{LinkSetting, LinkSettings};
use serde::{Deserialize, Serialize};

use crate::error::CniError;
use crate::plugins::attachment_file::Content;

/// What an interface was set to before, so far as it was changed, in the reference's form.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Backup {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<MacAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promisc: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allmulti: Option<bool>,
    #[serde(default, rename = "txQLen", skip_serializing_if = "Option::is_none")]
    tx_queue_len: Option<u32>,
    /// Whose attachment it is; the reference has no such member and passes over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<String>,
}

/// A file with what must be put back cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("what tuning must put back")]
pub(crate) struct BackupError(#[source] pub(super) statefile::Error);

impl CniError for BackupError {
    fn code(&self) -> Code {
        Code::IO
    }
}

impl Content for Backup {
    fn network(&self) -> Option<&str> {
        self.network.as_deref()
    }
}

impl Backup {
    /// What `wanted` is going to change.
    pub(crate) fn of(before: &LinkSettings, wanted: &[LinkSetting], network: &NetworkName) -> Self {
        let mut backup = Self {
            network: Some(network.as_str().to_owned()),
            ..Self::default()
        };
        for setting in wanted {
            match setting {
                LinkSetting::Mac(_) => backup.mac = before.mac,
                LinkSetting::MtuBytes(_) => backup.mtu = Some(before.mtu_bytes),
                LinkSetting::Promiscuous(_) => backup.promisc = Some(before.promiscuous),
                LinkSetting::AllMulticast(_) => backup.allmulti = Some(before.all_multicast),
                LinkSetting::TxQueueLen(_) => backup.tx_queue_len = Some(before.tx_queue_len),
            }
        }
        backup
    }

    /// The hardware address from before, if it was changed.
    pub(crate) const fn mac(&self) -> Option<MacAddr> {
        self.mac
    }

    /// What puts it back, in the reference's order; nothing that is so already, because setting an equal hardware
    /// address would flush the neighbours.
    pub(crate) fn settings(&self, now: &LinkSettings) -> Vec<LinkSetting> {
        let all = [
            self.mtu.map(LinkSetting::MtuBytes),
            self.mac.map(LinkSetting::Mac),
            self.promisc.map(LinkSetting::Promiscuous),
            self.allmulti.map(LinkSetting::AllMulticast),
            self.tx_queue_len.map(LinkSetting::TxQueueLen),
        ];
        all.into_iter()
            .flatten()
            .filter(|setting| !now.has(*setting))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::attachment_file::text;

    fn network(name: &str) -> NetworkName {
        NetworkName::new(name).unwrap()
    }

    const BEFORE: LinkSettings = LinkSettings {
        mac: Some(MacAddr::new([0x4a, 0x3f, 0x0c, 0x39, 0x58, 0x49])),
        mtu_bytes: 1500,
        promiscuous: false,
        all_multicast: false,
        tx_queue_len: 1000,
    };

    #[test]
    fn the_file_is_the_references_with_one_member_more() {
        let wanted = [
            LinkSetting::Mac(MacAddr::new([2; 6])),
            LinkSetting::Promiscuous(true),
            LinkSetting::MtuBytes(1400),
            LinkSetting::AllMulticast(false),
        ];
        let backup = Backup::of(&BEFORE, &wanted, &network("cbr0"));
        let recorded = "{\n \"mac\": \"4a:3f:0c:39:58:49\",\n \"promisc\": false,\n \"mtu\": 1500,\n \"allmulti\": false\n}";
        let ours = String::from_utf8(text(&backup)).unwrap();
        assert_eq!(ours.replace(",\n \"network\": \"cbr0\"", ""), recorded);
        let read: Backup = serde_json::from_str(recorded).unwrap();
        assert_eq!(
            read,
            Backup {
                network: None,
                ..backup
            }
        );
    }

    #[test]
    fn only_what_was_changed_and_still_differs_is_put_back() {
        let wanted = [LinkSetting::MtuBytes(1400), LinkSetting::TxQueueLen(5)];
        let backup = Backup::of(&BEFORE, &wanted, &network("a"));
        let now = LinkSettings {
            mtu_bytes: 1400,
            promiscuous: true,
            ..BEFORE
        };
        assert_eq!(backup.settings(&now), [LinkSetting::MtuBytes(1500)]);
    }
}
