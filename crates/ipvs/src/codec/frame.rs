//! Netlink framing: headers out, a buffer of replies in, acknowledgements with
//! their extended-ack text.

use netlink_packet_core::{
    DecodeError, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NlasIterator, ParseableParametrized, parse_i32,
};
use netlink_packet_generic::{GenlHeader, GenlMessage};

use super::IpvsMessage;
use super::attr::parse_name;

/// Length of `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// Length of `struct genlmsghdr`.
const GENL_HEADER_LEN: usize = 4;
/// Alignment of messages in a buffer.
const ALIGN: usize = 4;
/// `NLMSGERR_ATTR_MSG`: the extended-ack text.
const ERR_ATTR_MSG: u16 = 1;

/// A request's bytes. `flags` are `NLM_F_*`.
#[must_use]
pub fn encode(message: IpvsMessage, family_id: u16, flags: u16, sequence: u32) -> Vec<u8> {
    let mut genl = GenlMessage::from_payload(message);
    genl.set_resolved_family_id(family_id);
    serialize(NetlinkPayload::from(genl), flags, sequence)
}

pub(super) fn serialize<T>(payload: NetlinkPayload<T>, flags: u16, sequence: u32) -> Vec<u8>
where
    T: netlink_packet_core::NetlinkSerializable,
{
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut packet = NetlinkMessage::new(header, payload);
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    bytes
}

/// One netlink message of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Sequence number of the request it answers.
    pub sequence: u32,
    /// The dump it belongs to was interrupted by a change
    /// (`NLM_F_DUMP_INTR`).
    pub interrupted: bool,
    /// What it carries.
    pub payload: Payload<'a>,
}

/// What a netlink message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Acknowledgement or refusal (`NLMSG_ERROR`).
    Ack {
        /// 0, or the positive errno of a refusal.
        errno: i32,
        /// Extended-ack text.
        message: Option<String>,
    },
    /// End of a dump (`NLMSG_DONE`).
    Done {
        /// 0, or the positive errno with which the dump ended.
        errno: i32,
        /// Extended-ack text.
        message: Option<String>,
    },
    /// Data was lost (`NLMSG_OVERRUN`).
    Overrun,
    /// Nothing (`NLMSG_NOOP`).
    Noop,
    /// A message of some family: the bytes after the netlink header.
    Data(&'a [u8]),
}

impl Payload<'_> {
    /// The IPVS message in [`Payload::Data`].
    ///
    /// # Errors
    /// When the payload is something else or malformed.
    pub fn ipvs(&self) -> Result<IpvsMessage, DecodeError> {
        let (header, attrs) = self.split()?;
        IpvsMessage::parse_with_param(attrs, header)
    }

    /// The same without the counters of its service or destination: for who reads a large table often.
    ///
    /// # Errors
    /// As [`Payload::ipvs`].
    pub fn ipvs_settings(&self) -> Result<IpvsMessage, DecodeError> {
        let (header, attrs) = self.split()?;
        IpvsMessage::parse_settings(attrs, header)
    }

    fn split(&self) -> Result<(GenlHeader, &[u8]), DecodeError> {
        let Self::Data(bytes) = self else {
            return Err("not a data message".into());
        };
        Ok((GenlHeader::parse(bytes)?, &bytes[GENL_HEADER_LEN..]))
    }
}

/// The messages in a received buffer. Ends after the first malformed one,
/// which is an error.
pub fn frames(buffer: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, DecodeError>> {
    let mut rest = buffer;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match split_frame(rest) {
            Ok((frame, after)) => {
                rest = after;
                Some(Ok(frame))
            }
            Err(error) => {
                rest = &[];
                Some(Err(error))
            }
        }
    })
}

fn split_frame(buffer: &[u8]) -> Result<(Frame<'_>, &[u8]), DecodeError> {
    let packet = NetlinkBuffer::new_checked(buffer)?;
    let length = usize::try_from(packet.length()).map_err(|_| "netlink message too long")?;
    let flags = packet.flags();
    let body = &buffer[HEADER_LEN..length];
    let payload = match packet.message_type() {
        NLMSG_ERROR => {
            let (errno, message) = parse_ack(flags, body)?;
            Payload::Ack { errno, message }
        }
        NLMSG_DONE => {
            let (errno, message) = parse_done(flags, body)?;
            Payload::Done { errno, message }
        }
        NLMSG_OVERRUN => Payload::Overrun,
        NLMSG_NOOP => Payload::Noop,
        _ => Payload::Data(body),
    };
    let frame = Frame {
        sequence: packet.sequence_number(),
        interrupted: flags & NLM_F_DUMP_INTR != 0,
        payload,
    };
    let after = buffer.get(length.next_multiple_of(ALIGN)..);
    Ok((frame, after.unwrap_or_default()))
}

/// `struct nlmsgerr`: errno, the request (its header alone where capped), then
/// attributes.
fn parse_ack(flags: u16, body: &[u8]) -> Result<(i32, Option<String>), DecodeError> {
    let (code, request) = split_code(body)?;
    let request_len = if flags & NLM_F_CAPPED != 0 {
        HEADER_LEN
    } else {
        match request.first_chunk::<4>() {
            Some(length) => u32::from_ne_bytes(*length) as usize,
            None => request.len(),
        }
    };
    let attrs = request
        .get(request_len.next_multiple_of(ALIGN)..)
        .unwrap_or_default();
    Ok((code, extended_text(flags, attrs)))
}

/// The end of a dump: errno (which may be missing), then attributes.
fn parse_done(flags: u16, body: &[u8]) -> Result<(i32, Option<String>), DecodeError> {
    if body.is_empty() {
        return Ok((0, None));
    }
    let (code, attrs) = split_code(body)?;
    Ok((code, extended_text(flags, attrs)))
}

fn split_code(body: &[u8]) -> Result<(i32, &[u8]), DecodeError> {
    let Some((code, rest)) = body.split_at_checked(4) else {
        return Err(DecodeError::invalid_number(4, body.len()));
    };
    Ok((parse_i32(code)?.saturating_abs(), rest))
}

/// The text among the attributes. It is a courtesy, so what is malformed is
/// just not there.
fn extended_text(flags: u16, attrs: &[u8]) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    NlasIterator::new(attrs)
        .map_while(Result::ok)
        .find(|nla| nla.kind() == ERR_ATTR_MSG)
        .map(|nla| parse_name(nla.value()))
        .filter(|text| !text.is_empty())
}
