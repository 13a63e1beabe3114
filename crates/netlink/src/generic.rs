//! Generic netlink: families of messages that the kernel gives numbers to as they are loaded.

use netstate::{ErrorClass, KernelError};

use crate::errno::other;
use crate::frame::Frame;
use crate::raw::{Protocol, RawSocket, Requests};
use crate::tlv::{self, Attributes};

/// The family that knows the others, its question, and the attributes of question and answer (linux
/// `include/uapi/linux/genetlink.h`, `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID` and
/// `CTRL_ATTR_FAMILY_NAME`).
const CONTROL: u16 = 0x10;
const CONTROL_VERSION: u8 = 1;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// Length of the fixed part of a message (`struct genlmsghdr`).
const HEADER_LEN: usize = 4;

/// A socket for one family in one namespace.
pub(crate) struct Family {
    raw: RawSocket,
    id: u16,
    version: u8,
}

impl Family {
    /// Opens a socket in the calling thread's namespace and asks for the family's number, which loads its module where
    /// the kernel can; `None` when it has no such family.
    pub(crate) fn open(name: &str, version: u8) -> Result<Option<Self>, KernelError> {
        let mut raw = RawSocket::open(Protocol::Generic)?;
        let mut question = Attributes::after(&header(GET_FAMILY, CONTROL_VERSION));
        question.put_text(FAMILY_NAME, name);
        let mut requests = Requests::default();
        requests.push(CONTROL, 0, &finish(question)?);
        let answer = raw.ask(&mut requests, |frame| {
            family_id(body(&frame)).ok_or_else(|| other("the kernel named a family without its number"))
        })?;
        match answer.into_iter().next() {
            Some(Ok(id)) => Ok(Some(Self { raw, id, version })),
            Some(Err(e)) if e.class == ErrorClass::NotFound => Ok(None),
            Some(Err(e)) => Err(e),
            None => Err(other("the kernel gave no answer")),
        }
    }

    /// Begins the attributes of a message.
    pub(crate) fn message(&self, command: u8) -> Attributes {
        Attributes::after(&header(command, self.version))
    }

    /// Lists objects, keeping what `select` makes of each.
    pub(crate) fn dump<T>(
        &mut self,
        message: Attributes,
        mut select: impl FnMut(&[u8]) -> Result<T, KernelError>,
    ) -> Result<Vec<T>, KernelError> {
        let payload = finish(message)?;
        self.raw
            .dump(self.id, &payload, |frame| select(body(&frame)).map(Some))
    }

    /// Makes one change.
    pub(crate) fn change(&mut self, message: Attributes) -> Result<(), KernelError> {
        let mut requests = Requests::default();
        requests.push(self.id, 0, &finish(message)?);
        self.raw.change(&mut requests).into_iter().collect()
    }
}

const fn header(command: u8, version: u8) -> [u8; HEADER_LEN] {
    [command, version, 0, 0]
}

fn finish(message: Attributes) -> Result<Vec<u8>, KernelError> {
    message.finish().map_err(|e| other(e.to_string()))
}

/// What follows the fixed part of a message.
fn body<'a>(frame: &Frame<'a>) -> &'a [u8] {
    frame.payload.get(HEADER_LEN..).unwrap_or(&[])
}

fn family_id(bytes: &[u8]) -> Option<u16> {
    let id = tlv::attribute(bytes, FAMILY_ID)?;
    Some(u16::from_ne_bytes(id.try_into().ok()?))
}
