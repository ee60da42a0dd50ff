//! Asking `nlctrl` for the family's number, which the kernel gives out at
//! module load.

use netlink_packet_core::{DecodeError, NLM_F_ACK, NLM_F_REQUEST, NetlinkPayload, NlasIterator};
use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};

/// `CTRL_ATTR_FAMILY_ID`.
const ATTR_FAMILY_ID: u16 = 1;
/// Length of `struct genlmsghdr`.
const GENL_HEADER_LEN: usize = 4;

/// `CTRL_CMD_GETFAMILY` by name.
pub(crate) fn encode_family_request(name: &str, sequence: u32) -> Vec<u8> {
    let message = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(name.to_owned())],
    });
    super::frame::serialize(
        NetlinkPayload::from(message),
        NLM_F_REQUEST | NLM_F_ACK,
        sequence,
    )
}

/// The family's number from the reply. Looks at that attribute alone: newer
/// kernels add others, which the general parser refuses.
pub(crate) fn parse_family_id(body: &[u8]) -> Result<u16, DecodeError> {
    let attrs = body
        .get(GENL_HEADER_LEN..)
        .ok_or("nlctrl reply without header")?;
    for nla in NlasIterator::new(attrs) {
        let nla = nla?;
        if nla.kind() == ATTR_FAMILY_ID {
            return netlink_packet_core::parse_u16(nla.value());
        }
    }
    Err("nlctrl reply without a family number".into())
}
