use net_types::IfIndex;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType,
    TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType, TcOption,
    TcU32Key, TcU32Selector, TcU32SelectorFlags,
};

use super::{NewIfb, TcOp, TokenBucket};
use crate::encode::Request;

/// Names of queueing disciplines in the kernel.
pub(super) const TBF: &str = "tbf";
pub(super) const INGRESS: &str = "ingress";

/// Attributes of `tbf` (linux `include/uapi/linux/pkt_sched.h`).
pub(super) const TCA_TBF_PARMS: u16 = 1;
pub(super) const TCA_TBF_RATE64: u16 = 4;

/// The handle of our root discipline, `1:`, and of every ingress one, `ffff:`.
const ROOT_HANDLE: TcHandle = TcHandle { major: 1, minor: 0 };
const INGRESS_HANDLE: TcHandle = TcHandle {
    major: u16::MAX,
    minor: 0,
};

/// The class that the reference's filter names; nothing is classified by it.
const FILTER_CLASS: TcHandle = TcHandle { major: 1, minor: 1 };

/// Priority of the filter.
const FILTER_PRIORITY: u32 = 1;

/// Frames of every protocol (linux `if_ether.h`).
const ETH_P_ALL: u16 = 3;

/// `TC_LINKLAYER_ETHERNET`: frames count with their own length.
const LINKLAYER_ETHERNET: u8 = 1;

/// What [`TcOp`] is as a request.
pub(super) fn change(op: &TcOp) -> Request {
    match op {
        TcOp::SetBucket(link, bucket) => set_bucket(*link, bucket),
        TcOp::ClearRoot(link) => clear(*link, TcHandle::ROOT),
        TcOp::AddIngress(link) => {
            let mut message = about(*link, TcHandle::INGRESS);
            message.header.handle = INGRESS_HANDLE;
            message.attributes.push(TcAttribute::Kind(INGRESS.to_owned()));
            Request {
                message: RouteNetlinkMessage::NewQueueDiscipline(message),
                flags: NLM_F_CREATE | NLM_F_EXCL,
            }
        }
        TcOp::ClearIngress(link) => clear(*link, TcHandle::INGRESS),
        TcOp::Redirect { from, to } => redirect(*from, *to),
        TcOp::DelLink(link) => {
            let mut message = LinkMessage::default();
            message.header.index = link.get();
            Request {
                message: RouteNetlinkMessage::DelLink(message),
                flags: 0,
            }
        }
    }
}

/// Creates the device, then notes its alias, which the kernel does not take at creation.
pub(super) fn add_ifb(new: &NewIfb) -> [Request; 2] {
    let named = || {
        let mut message = LinkMessage::default();
        let name = LinkAttribute::IfName(new.name.to_string());
        message.attributes.push(name);
        message
    };
    let mut create = named();
    create.header.flags = LinkFlags::Up;
    create.header.change_mask = LinkFlags::Up;
    create.attributes.extend([
        LinkAttribute::Mtu(new.mtu_bytes),
        LinkAttribute::TxQueueLen(new.queue_len),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]),
    ]);
    let mut note = named();
    note.attributes.push(LinkAttribute::IfAlias(new.alias.clone()));
    [
        Request {
            message: RouteNetlinkMessage::NewLink(create),
            flags: NLM_F_CREATE | NLM_F_EXCL,
        },
        Request {
            message: RouteNetlinkMessage::SetLink(note),
            flags: 0,
        },
    ]
}

pub(super) fn links_of_kind(kind: InfoKind) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]);
    message.attributes.push(info);
    RouteNetlinkMessage::GetLink(message)
}

/// All queueing disciplines: the kernel lists them of every link.
pub(super) fn disciplines() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default())
}

pub(super) fn filters_of(link: IfIndex) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetTrafficFilter(about(link, INGRESS_HANDLE))
}

fn set_bucket(link: IfIndex, bucket: &TokenBucket) -> Request {
    let mut message = about(link, TcHandle::ROOT);
    message.header.handle = ROOT_HANDLE;
    let mut options = vec![DefaultNla::new(TCA_TBF_PARMS, parameters(bucket))];
    if u32::try_from(bucket.rate_bytes_per_sec).is_err() {
        let rate = bucket.rate_bytes_per_sec.to_ne_bytes();
        options.push(DefaultNla::new(TCA_TBF_RATE64, rate.to_vec()));
    }
    message.attributes.extend([
        TcAttribute::Kind(TBF.to_owned()),
        TcAttribute::Options(options.into_iter().map(TcOption::Other).collect()),
    ]);
    Request {
        message: RouteNetlinkMessage::NewQueueDiscipline(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}

/// `struct tc_tbf_qopt`: the rate's `tc_ratespec`, an empty one for the peak rate, then limit, buffer and MTU.
fn parameters(bucket: &TokenBucket) -> Vec<u8> {
    const RATESPEC_BYTES: usize = 12;
    let rate = u32::try_from(bucket.rate_bytes_per_sec).unwrap_or(u32::MAX);
    let mut bytes = vec![0, LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
    bytes.extend(rate.to_ne_bytes());
    bytes.extend([0; RATESPEC_BYTES]);
    for value in [bucket.limit_bytes, bucket.burst_ticks, 0] {
        bytes.extend(value.to_ne_bytes());
    }
    bytes
}

fn redirect(from: IfIndex, to: IfIndex) -> Request {
    let mut message = about(from, INGRESS_HANDLE);
    message.header.info = (FILTER_PRIORITY << 16) | u32::from(ETH_P_ALL.to_be());
    // One key that compares no bit matches everything.
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = 1;
    selector.keys = vec![TcU32Key::default()];
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = to.get();
    let mut action = TcAction::default();
    let parameters = TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror));
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![parameters]),
    ];
    let options = [
        TcFilterU32Option::ClassId(FILTER_CLASS),
        TcFilterU32Option::Selector(selector),
        TcFilterU32Option::Action(vec![action]),
    ];
    message.attributes.extend([
        TcAttribute::Kind(TcFilterU32::KIND.to_owned()),
        TcAttribute::Options(options.map(TcOption::U32).into()),
    ]);
    Request {
        message: RouteNetlinkMessage::NewTrafficFilter(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

fn clear(link: IfIndex, parent: TcHandle) -> Request {
    Request {
        message: RouteNetlinkMessage::DelQueueDiscipline(about(link, parent)),
        flags: 0,
    }
}

fn about(link: IfIndex, parent: TcHandle) -> TcMessage {
    // Numbers of links are positive in the kernel, too.
    let mut message = TcMessage::with_index(i32::try_from(link.get()).unwrap_or(i32::MAX));
    message.header.parent = parent;
    message
}
