//! Classic BPF (Documentation/networking/filter.rst), as much of it as the filters need.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K,
    BPF_LD, BPF_MISC, BPF_RET, BPF_TAX, BPF_W, BPF_X, BPF_XOR,
};
use socket2::SockFilter;

/// The longest program that the kernel takes (`BPF_MAXINSNS`, include/uapi/linux/bpf_common.h).
pub(super) const MAX: usize = 4096;

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) code: u16,
    /// Instructions to skip if the condition holds.
    pub(super) jt: u8,
    /// The same if it does not.
    pub(super) jf: u8,
    pub(super) k: u32,
}

// Instruction classes, sizes and modes (include/uapi/linux/bpf_common.h).
pub(super) const LD_W: u16 = (BPF_LD | BPF_W | BPF_ABS) as u16;
pub(super) const LD_H: u16 = (BPF_LD | BPF_H | BPF_ABS) as u16;
pub(super) const LD_B: u16 = (BPF_LD | BPF_B | BPF_ABS) as u16;
pub(super) const AND: u16 = (BPF_ALU | BPF_AND | BPF_K) as u16;
pub(super) const XOR_X: u16 = (BPF_ALU | BPF_XOR | BPF_X) as u16;
pub(super) const TAX: u16 = (BPF_MISC | BPF_TAX) as u16;
pub(super) const JA: u16 = (BPF_JMP | BPF_JA) as u16;
pub(super) const JEQ: u16 = (BPF_JMP | BPF_JEQ | BPF_K) as u16;
pub(super) const JGE: u16 = (BPF_JMP | BPF_JGE | BPF_K) as u16;
pub(super) const JGT: u16 = (BPF_JMP | BPF_JGT | BPF_K) as u16;
pub(super) const RET: u16 = (BPF_RET | BPF_K) as u16;

/// Drops the frame.
pub(super) const DROP: Op = op(RET, 0);
/// Lets the whole frame through.
pub(super) const ACCEPT: Op = op(RET, 0xffff);

/// An instruction without a condition.
pub(super) const fn op(code: u16, k: u32) -> Op {
    jump(code, k, 0, 0)
}

/// A conditional jump.
pub(super) const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Op {
    Op { code, jt, jf, k }
}

/// A jump over `count` instructions, however many.
pub(super) fn skip(count: usize) -> Op {
    // No program is longer than MAX, so this loses nothing.
    op(JA, u32::try_from(count).unwrap_or(u32::MAX))
}

impl From<Op> for SockFilter {
    fn from(op: Op) -> SockFilter {
        SockFilter::new(op.code, op.jt, op.jf, op.k)
    }
}
