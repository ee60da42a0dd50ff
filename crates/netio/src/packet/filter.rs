//! The kernel filters: by protocol, and by the addresses that ARP and NDP are about.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::bpf::{ACCEPT, AND, DROP, JEQ, LD_B, LD_H, LD_W, MAX, Op, TAX, XOR_X, jump, op, skip};
use super::search::Ranges;

#[cfg(test)]
mod tests;

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
    /// UDP datagrams to this port whose payload begins with this octet; not in fragments, without
    /// IPv4 options and without extension headers.
    Udp {
        /// The destination port.
        port: u16,
        /// The first octet of the payload.
        first: u8,
    },
}

/// The addresses that ARP and neighbour messages have to be about, so that a
/// [`super::PacketSocket`] receives them. On a busy LAN nearly all are about others'.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// Wanted are ARP requests and neighbour solicitations for these.
    pub asked: BTreeSet<IpAddr>,
    /// Wanted is all that comes in the name of these: ARP with one of them as the sender,
    /// solicitations from and advertisements of them.
    pub claimed: BTreeSet<IpAddr>,
}

/// Pseudo-address of whether the frame has a VLAN tag.
const VLAN_TAGGED: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG_PRESENT) as u32;
/// Pseudo-address of the tag. In kernels from 5.0 to 6.1 one that was taken off on the way to the VLAN's own interface still
/// stands here (include/linux/if_vlan.h, `__vlan_hwaccel_clear_tag`).
const VLAN_TAG: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG) as u32;
/// The VLAN number within the tag; number 0 only carries a priority.
const VLAN_ID: u32 = 0x0fff;

const ETHERTYPE: u32 = 12;
// RFC 826, for IPv4 over Ethernet.
const ARP_OPERATION: u32 = 14 + 6;
const ARP_SENDER: u32 = 14 + 14;
const ARP_TARGET: u32 = 14 + 24;
const IPV6_NEXT_HEADER: u32 = 14 + 6;
const IPV6_SOURCE: u32 = 14 + 8;
const ICMPV6_TYPE: u32 = 14 + 40;
/// The target address of either message (RFC 4861 sections 4.3 and 4.4).
const NDP_TARGET: u32 = 14 + 40 + 8;

const IPV4_VERSION: u32 = 14;
const IPV4_FRAGMENT: u32 = 14 + 6;
const IPV4_PROTOCOL: u32 = 14 + 9;
/// Octets before the UDP header.
const BEFORE_UDP: [u32; 2] = [14 + 20, 14 + 40];

const IPV4: u32 = libc::ETH_P_IP as u32;
const ARP: u32 = libc::ETH_P_ARP as u32;
const IPV6: u32 = libc::ETH_P_IPV6 as u32;
const ARP_REQUEST: u32 = 1;
const ICMPV6: u32 = 58;
const UDP: u32 = 17;
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;

/// What of an address is compared. Without the highest bit, because the kernel spends a second
/// instruction on each constant that has it (net/core/filter.c, bpf_convert_filter).
const KEY: u32 = 0x7fff_ffff;

impl Filter {
    /// The program. A load past the end of the frame drops the frame.
    pub(super) fn program(self) -> Vec<Op> {
        let mut program = untagged();
        program.push(op(LD_H, ETHERTYPE));
        match self {
            Filter::Arp => program.extend([jump(JEQ, ARP, 0, 1), ACCEPT, DROP]),
            Filter::ArpAndNdp => program.extend([
                jump(JEQ, ARP, 6, 0),
                jump(JEQ, IPV6, 0, 6),
                op(LD_B, IPV6_NEXT_HEADER),
                jump(JEQ, ICMPV6, 0, 4),
                op(LD_B, ICMPV6_TYPE),
                jump(JEQ, SOLICITATION, 1, 0),
                jump(JEQ, ADVERTISEMENT, 0, 1),
                ACCEPT,
                DROP,
            ]),
            Filter::Udp { port, first } => {
                let [v4, v6] = BEFORE_UDP.map(|at| {
                    [
                        is(LD_H, at + 2, port.into()),
                        is(LD_B, at + 8, first.into()),
                    ]
                    .concat()
                });
                let mut ipv4 = is(LD_B, IPV4_VERSION, 0x45);
                ipv4.extend(is(LD_B, IPV4_PROTOCOL, UDP));
                // Neither more fragments nor an offset.
                ipv4.extend([op(LD_H, IPV4_FRAGMENT), op(AND, 0x3fff)]);
                ipv4.extend([jump(JEQ, 0, 1, 0), DROP]);
                ipv4.extend(v4);
                ipv4.push(ACCEPT);
                program.extend([jump(JEQ, IPV4, 1, 0), skip(ipv4.len())]);
                program.extend(ipv4);
                program.extend([jump(JEQ, IPV6, 1, 0), DROP]);
                program.extend(is(LD_B, IPV6_NEXT_HEADER, UDP));
                program.extend(v6);
                program.push(ACCEPT);
            }
        }
        program
    }
}

/// Drops the frame unless what is loaded from `offset` is `value`.
fn is(load: u16, offset: u32, value: u32) -> Vec<Op> {
    vec![op(load, offset), jump(JEQ, value, 1, 0), DROP]
}

impl Watched {
    /// The program that lets through what is about these addresses, and little else. It may
    /// err on that side only: where it takes more than `limit` ranges to name the addresses of one
    /// kind and family, near ones share one, and IPv6 addresses are told apart by a sum over all
    /// their bits. The limit falls until the program is one that the kernel takes.
    pub(super) fn program(&self, limit: usize) -> Vec<Op> {
        let v4 = [&self.asked, &self.claimed].map(v4_keys);
        let v6 = [&self.asked, &self.claimed].map(v6_keys);
        let longest = v4.iter().chain(&v6).map(Ranges::len).max().unwrap_or(0);
        let mut limit = limit.min(longest);
        loop {
            let [asked, claimed] = v4.each_ref().map(|r| r.at_most(limit).search());
            let arp = arp(&asked, &claimed);
            let [asked, claimed] = v6.each_ref().map(|r| r.at_most(limit).search());
            let mut program = untagged();
            program.extend([
                op(LD_H, ETHERTYPE),
                jump(JEQ, IPV6, 0, 1),
                skip(arp.len() + 2),
                jump(JEQ, ARP, 1, 0),
                DROP,
            ]);
            program.extend(arp);
            program.extend(ndp(&asked, &claimed));
            if program.len() <= MAX {
                return program;
            }
            limit = limit * 3 / 4;
        }
    }
}

/// Drops frames of a VLAN.
fn untagged() -> Vec<Op> {
    vec![
        op(LD_W, VLAN_TAGGED),
        jump(JEQ, 0, 4, 0),
        op(LD_W, VLAN_TAG),
        op(AND, VLAN_ID),
        jump(JEQ, 0, 1, 0),
        DROP,
    ]
}

/// Requests for those that are asked for, and all in the name of those that are claimed.
fn arp(asked: &[Op], claimed: &[Op]) -> Vec<Op> {
    let load = |offset| [op(LD_W, offset), op(AND, KEY)];
    let mut ops = vec![
        op(LD_H, ARP_OPERATION),
        jump(JEQ, ARP_REQUEST, 1, 0),
        skip(2 + asked.len()),
    ];
    ops.extend(load(ARP_TARGET));
    ops.extend(asked);
    ops.extend(load(ARP_SENDER));
    ops.extend(claimed);
    ops.push(DROP);
    ops
}

/// Solicitations for those that are asked for or from those that are claimed, and
/// advertisements of the latter.
fn ndp(asked: &[Op], claimed: &[Op]) -> Vec<Op> {
    let [target, source] = [NDP_TARGET, IPV6_SOURCE].map(load_v6);
    let mut ops = vec![
        op(LD_B, IPV6_NEXT_HEADER),
        jump(JEQ, ICMPV6, 1, 0),
        DROP,
        op(LD_B, ICMPV6_TYPE),
        jump(JEQ, SOLICITATION, 3, 0),
        jump(JEQ, ADVERTISEMENT, 1, 0),
        DROP,
        skip(target.len() + asked.len() + source.len() + 1),
    ];
    ops.extend(&target);
    ops.extend(asked);
    ops.extend(source);
    ops.push(skip(target.len()));
    ops.extend(target);
    ops.extend(claimed);
    ops.push(DROP);
    ops
}

fn v4_keys(addresses: &BTreeSet<IpAddr>) -> Ranges {
    Ranges::new(addresses.iter().filter_map(|address| match address {
        IpAddr::V4(v4) => Some(v4.to_bits() & KEY),
        IpAddr::V6(_) => None,
    }))
}

fn v6_keys(addresses: &BTreeSet<IpAddr>) -> Ranges {
    Ranges::new(addresses.iter().filter_map(|address| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => {
            let words = (0..4).map(|word| (v6.to_bits() >> (32 * word)) as u32);
            Some(words.fold(0, |sum, word| sum ^ word) & KEY)
        }
    }))
}

/// Loads what [`v6_keys`] makes of the address at `offset`.
fn load_v6(offset: u32) -> Vec<Op> {
    let mut ops = vec![op(LD_W, offset)];
    for word in 1..4 {
        ops.extend([op(TAX, 0), op(LD_W, offset + 4 * word), op(XOR_X, 0)]);
    }
    ops.push(op(AND, KEY));
    ops
}
