//! The Ethernet header, shared by both protocols.

use pnet::packet::ethernet::{EtherType, EtherTypes, EthernetPacket, MutableEthernetPacket};

use crate::mac::{from_pnet, to_pnet};
use crate::{FrameError, Mac};

/// Octets of an untagged Ethernet header.
pub(crate) const HEADER: usize = 14;

/// A received frame, split.
pub(crate) struct Frame<'a> {
    pub(crate) src: Mac,
    pub(crate) dst: Mac,
    pub(crate) payload: &'a [u8],
}

/// Starts a frame with room for `payload` octets of payload, all zero.
pub(crate) fn frame(src: Mac, dst: Mac, ethertype: EtherType, payload: usize) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + payload];
    if let Some(mut eth) = MutableEthernetPacket::new(&mut bytes) {
        eth.set_source(to_pnet(src));
        eth.set_destination(to_pnet(dst));
        eth.set_ethertype(ethertype);
    }
    bytes
}

/// Splits a frame of the wanted type; the payload may end in padding.
pub(crate) fn split(bytes: &[u8], wanted: EtherType) -> Result<Frame<'_>, FrameError> {
    let eth = EthernetPacket::new(bytes).ok_or(FrameError::Truncated)?;
    let ethertype = eth.get_ethertype();
    if matches!(
        ethertype,
        EtherTypes::Vlan | EtherTypes::PBridge | EtherTypes::QinQ
    ) {
        return Err(FrameError::VlanTagged);
    }
    if ethertype != wanted {
        return Err(FrameError::OtherProtocol);
    }
    Ok(Frame {
        src: from_pnet(eth.get_source()),
        dst: from_pnet(eth.get_destination()),
        payload: &bytes[HEADER..],
    })
}
