//! The kernel filters, in classic BPF (Documentation/networking/filter.rst).

use socket2::SockFilter;

/// Which frames a [`super::PacketSocket`] receives.
///
/// Frames of a VLAN are never among them: on a trunk port they pass the uplink
/// with the tag taken off, and would look like frames of the untagged segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    /// ARP.
    Arp,
    /// ARP, and neighbour solicitations and advertisements (ICMPv6 types 135
    /// and 136) without extension headers.
    ArpAndNdp,
}

// Instruction classes, sizes and modes (include/uapi/linux/bpf_common.h).
const LD_W: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const LD_H: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const LD_B: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JEQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RET: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Pseudo-address of the frame's VLAN tag, 0 if it has none.
const VLAN_TAG: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG) as u32;
/// The VLAN number within the tag; number 0 only carries a priority.
const VLAN_ID: u32 = 0x0fff;

const ETHERTYPE: u32 = 12;
const IPV6_NEXT_HEADER: u32 = 14 + 6;
const ICMPV6_TYPE: u32 = 14 + 40;

const ICMPV6: u32 = 58;
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;

const ALL: u32 = 0xffff;

impl Filter {
    /// The program. A load past the end of the frame drops the frame.
    pub(super) fn program(self) -> Vec<SockFilter> {
        let op = SockFilter::new;
        match self {
            Filter::Arp => vec![
                op(LD_W, 0, 0, VLAN_TAG),
                op(AND, 0, 0, VLAN_ID),
                op(JEQ, 0, 3, 0),
                op(LD_H, 0, 0, ETHERTYPE),
                op(JEQ, 0, 1, libc::ETH_P_ARP as u32),
                op(RET, 0, 0, ALL),
                op(RET, 0, 0, 0),
            ],
            Filter::ArpAndNdp => vec![
                op(LD_W, 0, 0, VLAN_TAG),
                op(AND, 0, 0, VLAN_ID),
                op(JEQ, 0, 9, 0),
                op(LD_H, 0, 0, ETHERTYPE),
                op(JEQ, 6, 0, libc::ETH_P_ARP as u32),
                op(JEQ, 0, 6, libc::ETH_P_IPV6 as u32),
                op(LD_B, 0, 0, IPV6_NEXT_HEADER),
                op(JEQ, 0, 4, ICMPV6),
                op(LD_B, 0, 0, ICMPV6_TYPE),
                op(JEQ, 1, 0, SOLICITATION),
                op(JEQ, 0, 1, ADVERTISEMENT),
                op(RET, 0, 0, ALL),
                op(RET, 0, 0, 0),
            ],
        }
    }
}
