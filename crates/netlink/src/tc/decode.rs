use net_types::{IfIndex, IfName, MacAddr};
use netlink_packet_core::{Nla, NlasIterator};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::tc::{
    TcActionAttribute, TcActionMirrorOption, TcActionOption, TcAttribute, TcFilterU32, TcFilterU32Option,
    TcHandle, TcMessage, TcMirrorActionType, TcOption,
};

use super::encode::{TBF, TCA_TBF_PARMS, TCA_TBF_RATE64};
use super::{Entry, Root, TcLink, TcLinkKind, TokenBucket};
use crate::attr::{find, only};

/// Where `struct tc_tbf_qopt` has the rate, the limit and the buffer, in bytes.
const RATE_AT: usize = 8;
const LIMIT_AT: usize = 24;
const BUFFER_AT: usize = 28;

/// What a message about a filter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Filter {
    /// Of the table that filters are in.
    Table,
    /// It redirects everything to a link, or to one that is gone.
    Redirect(Option<IfIndex>),
    /// It does something else; its kind.
    Other(String),
}

/// Reads a link; `None` when its name or number is not valid.
pub(super) fn link(message: &LinkMessage) -> Option<TcLink> {
    let attributes = &message.attributes;
    let infos: &[LinkInfo] = find!(attributes, LinkAttribute::LinkInfo).map_or(&[], Vec::as_slice);
    let mac = |bytes: &[u8]| Some(MacAddr::new(<[u8; 6]>::try_from(bytes).ok()?));
    let peer = || find!(attributes, LinkAttribute::Link).and_then(|index| IfIndex::new(*index));
    Some(TcLink {
        index: IfIndex::new(message.header.index)?,
        name: IfName::new(find!(attributes, LinkAttribute::IfName)?).ok()?,
        kind: match find!(infos, LinkInfo::Kind) {
            Some(kind) if *kind == InfoKind::Ifb => TcLinkKind::Ifb,
            Some(kind) if *kind == InfoKind::Veth => TcLinkKind::Veth(peer()),
            Some(_) | None => TcLinkKind::Other,
        },
        mac: find!(attributes, LinkAttribute::Address).and_then(|bytes| mac(bytes)),
        mtu_bytes: find!(attributes, LinkAttribute::Mtu).copied()?,
        queue_len: find!(attributes, LinkAttribute::TxQueueLen).copied().unwrap_or(0),
        alias: find!(attributes, LinkAttribute::IfAlias).cloned(),
        up: message.header.flags.contains(LinkFlags::Up),
    })
}

/// Whether a message is about a link.
pub(super) fn is_of(message: &TcMessage, link: IfIndex) -> bool {
    u32::try_from(message.header.index) == Ok(link.get())
}

/// The kind of a queueing discipline or filter.
pub(super) fn kind(message: &TcMessage) -> &str {
    find!(message.attributes, TcAttribute::Kind).map_or("", String::as_str)
}

/// Reads a root queueing discipline. What the kernel set itself has no handle.
pub(super) fn root(message: &TcMessage) -> Root {
    let kind = kind(message);
    if message.header.handle == TcHandle::UNSPEC {
        return Root::Default;
    }
    let bucket = if kind == TBF { bucket(message) } else { None };
    bucket.map_or_else(|| Root::Other(kind.to_owned()), Root::Bucket)
}

fn bucket(message: &TcMessage) -> Option<TokenBucket> {
    let parameters = option(message, TCA_TBF_PARMS)?;
    let long_rate = option(message, TCA_TBF_RATE64)
        .and_then(|bytes| bytes.first_chunk::<8>().map(|chunk| u64::from_ne_bytes(*chunk)));
    let rate = u64::from(number_at(&parameters, RATE_AT)?);
    Some(TokenBucket {
        rate_bytes_per_sec: long_rate.unwrap_or(rate),
        burst_ticks: number_at(&parameters, BUFFER_AT)?,
        limit_bytes: number_at(&parameters, LIMIT_AT)?,
    })
}

/// An attribute among the options, which the message library leaves as one piece for this kind.
fn option(message: &TcMessage, wanted: u16) -> Option<Vec<u8>> {
    let options = find!(message.attributes, TcAttribute::Options)?;
    let whole = find!(options, TcOption::Other)?;
    let mut bytes = vec![0; whole.value_len()];
    whole.emit_value(&mut bytes);
    let mut all = NlasIterator::new(bytes.as_slice()).flatten();
    let found = all.find(|attribute| attribute.kind() == wanted)?;
    Some(found.value().to_vec())
}

fn number_at(bytes: &[u8], position: usize) -> Option<u32> {
    let rest = bytes.get(position..)?;
    rest.first_chunk::<4>().map(|chunk| u32::from_ne_bytes(*chunk))
}

/// Reads a message about a filter.
pub(super) fn filter(message: &TcMessage) -> Filter {
    let kind = kind(message);
    let options = find!(message.attributes, TcAttribute::Options).map_or(&[][..], Vec::as_slice);
    let u32_options = options.iter().filter_map(|option| only!(option, TcOption::U32));
    let u32_options: Vec<_> = u32_options.collect();
    if kind == TcFilterU32::KIND {
        let selects = u32_options
            .iter()
            .any(|option| matches!(option, TcFilterU32Option::Selector(_)));
        if !selects {
            return Filter::Table;
        }
        if let Some(target) = redirect_target(&u32_options) {
            return Filter::Redirect(target);
        }
    }
    Filter::Other(kind.to_owned())
}

/// Where a filter sends everything; `None` if it doesn't.
fn redirect_target(options: &[&TcFilterU32Option]) -> Option<Option<IfIndex>> {
    let selector = find!(options, TcFilterU32Option::Selector)?;
    if selector.keys.iter().any(|key| key.mask != 0) {
        return None;
    }
    let action = find!(options, TcFilterU32Option::Action)?.first()?;
    let parameters = find!(action.attributes, TcActionAttribute::Options)?;
    let mirror = find!(parameters, TcActionOption::Mirror)?;
    let TcActionMirrorOption::Parms(mirror) = mirror else {
        return None;
    };
    (mirror.eaction == TcMirrorActionType::EgressRedir).then(|| IfIndex::new(mirror.ifindex))
}

/// What the filters of an ingress discipline amount to.
pub(super) fn entry(filters: Vec<Filter>) -> Entry {
    let mut targets = Vec::new();
    for filter in filters {
        match filter {
            Filter::Table => {}
            Filter::Redirect(target) => targets.push(target),
            Filter::Other(kind) => return Entry::Other(kind),
        }
    }
    Entry::Redirected(targets)
}
