use cni_types::{NetworkName, Target, hashed_name};
use net_types::IfName;
use netlink::tc::{NewIfb, TcLink, TcLinkKind, TrafficControl};

use super::error::BandwidthError;
use super::remove;

/// Prefix and length of the reference's device names (containernetworking/plugins `bandwidth/main.go`).
const PREFIX: &str = "bwp";
const NAME_BYTES: usize = 15;

/// What every note begins with. Its parts are separated by colons, which neither has.
const NOTE: &str = "cni:";

/// Longest part of a note, in bytes: three fit into the kernel's 255.
const PART_MAX_BYTES: usize = 100;

/// The container's device: how it is called, and what is noted on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// Possible names. The first is the reference's, which is the same for every interface of the container; a further
    /// interface takes the second.
    names: Vec<IfName>,
    note: String,
    /// How the note ends, in whatever network.
    ending: String,
}

/// Says whose a device is.
pub(crate) fn note(network: &NetworkName, target: &Target) -> String {
    format!("{}{}", notes_of(network), ending(target))
}

fn ending(target: &Target) -> String {
    let id = part(target.container_id.as_str());
    format!("{id}:{}", target.ifname)
}

/// How the notes of a network's devices begin.
pub(crate) fn notes_of(network: &NetworkName) -> String {
    format!("{NOTE}{}:", part(network.as_str()))
}

/// A name, or what stands for one that is too long. No name begins with the sign.
fn part(name: &str) -> String {
    if name.len() <= PART_MAX_BYTES {
        name.to_owned()
    } else {
        hashed_name("#", PART_MAX_BYTES, name)
    }
}

impl Device {
    pub(crate) fn of(network: &NetworkName, target: &Target) -> Self {
        let container = format!("{network}{}", target.container_id);
        let texts = [container.clone(), format!("{container}:{}", target.ifname)];
        let names = texts.map(|text| IfName::new(&hashed_name(PREFIX, NAME_BYTES, &text)).ok());
        Self {
            names: names.into_iter().flatten().collect(),
            note: note(network, target),
            ending: ending(target),
        }
    }

    /// The attachment's device, if there is one: with our note, or else the reference's, which has none. If it is noted
    /// under another network's name, the network was renamed: a container's interface is of one attachment.
    pub(crate) fn find(&self, host: &mut TrafficControl) -> Result<Vec<TcLink>, BandwidthError> {
        let links = self.look(host)?;
        let noted = links.iter().filter(|link| self.is_ours(link)).cloned();
        let noted: Vec<_> = noted.collect();
        if !noted.is_empty() {
            return Ok(noted);
        }
        let of_reference = |link: &TcLink| {
            let unnoted = link.alias.as_deref().unwrap_or_default().is_empty();
            link.kind == TcLinkKind::Ifb && unnoted && self.names.first() == Some(&link.name)
        };
        let unnoted: Vec<_> = links.into_iter().filter(of_reference).collect();
        if !unnoted.is_empty() {
            return Ok(unnoted);
        }
        let mut all = host.ifbs().map_err(BandwidthError::List)?;
        all.retain(|link| {
            link.alias
                .as_deref()
                .is_some_and(|note| self.is_of_interface(note))
        });
        Ok(all)
    }

    /// Whether a note is of this interface of the container, in whatever network.
    fn is_of_interface(&self, note: &str) -> bool {
        let parts = note.strip_prefix(NOTE).and_then(|parts| parts.split_once(':'));
        parts.is_some_and(|(_, ending)| ending == self.ending)
    }

    /// Makes the device, with the measures of the interface that it stands for. What a killed ADD of this attachment
    /// left is replaced.
    pub(crate) fn make(&self, host: &mut TrafficControl, like: &TcLink) -> Result<TcLink, BandwidthError> {
        let mut taken = Vec::new();
        for link in self.look(host)? {
            if self.is_ours(&link) {
                remove(host, &link)?;
            } else {
                taken.push(link.name);
            }
        }
        let Some(name) = self.names.iter().find(|name| !taken.contains(name)) else {
            let names: Vec<_> = taken.iter().map(ToString::to_string).collect();
            return Err(BandwidthError::NamesTaken(names.join(", ")));
        };
        let new = NewIfb {
            name: name.clone(),
            mtu_bytes: like.mtu_bytes,
            queue_len: like.queue_len,
            alias: self.note.clone(),
        };
        host.add_ifb(&new).map_err(|source| BandwidthError::Change {
            what: "make device",
            link: name.to_string(),
            source,
        })
    }

    fn look(&self, host: &mut TrafficControl) -> Result<Vec<TcLink>, BandwidthError> {
        host.links(&self.names).map_err(BandwidthError::List)
    }

    fn is_ours(&self, link: &TcLink) -> bool {
        link.kind == TcLinkKind::Ifb && link.alias.as_ref() == Some(&self.note)
    }
}

#[cfg(test)]
mod tests {
    use cni_types::ContainerId;

    use super::*;

    fn device(network: &str, id: &str, ifname: &str) -> Device {
        let target = Target {
            container_id: ContainerId::new(id).unwrap(),
            ifname: IfName::new(ifname).unwrap(),
        };
        Device::of(&NetworkName::new(network).unwrap(), &target)
    }

    #[test]
    fn names_are_the_references_and_the_further_ones_never_change() {
        let eth0 = device("cbr0", "a2", "eth0");
        let names: Vec<_> = eth0.names.iter().map(IfName::as_str).collect();
        assert_eq!(names, ["bwp1802f8610169", "bwp3768fb137601"]);
        assert_eq!(eth0.note, "cni:cbr0:a2:eth0");
        assert!(eth0.is_of_interface("cni:renamed:a2:eth0"));
        for other in [
            "cni:cbr0:a2:eth1",
            "cni:cbr0:a:eth0",
            "cbr0:a2:eth0",
            "cni:a2:eth0",
            "",
        ] {
            assert!(!eth0.is_of_interface(other), "{other}");
        }
        let eth1 = device("cbr0", "a2", "eth1");
        assert_eq!(eth1.names[0], eth0.names[0]);
        assert_ne!(eth1.names[1], eth0.names[1]);
    }

    #[test]
    fn notes_of_the_longest_names_fit_and_differ() {
        let (long, longer) = ("n".repeat(250), "n".repeat(251));
        let notes = [
            device(&long, &long, "abcdefghijklmno").note,
            device(&longer, &long, "abcdefghijklmno").note,
            device(&long, &longer, "abcdefghijklmno").note,
        ];
        assert!(notes.iter().all(|note| note.len() <= 255), "{notes:?}");
        assert!(notes[0] != notes[1] && notes[0] != notes[2]);
        let network = notes_of(&NetworkName::new(&long).unwrap());
        assert!(notes[0].starts_with(&network) && !notes[1].starts_with(&network));
    }
}
