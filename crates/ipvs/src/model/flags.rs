//! The flag word of a service (`IP_VS_SVC_F_*` of `linux/ip_vs.h`).

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A service's flags, as an operator sets them. The kernel's own state bit
/// (`HASHED`) is not among them: see [`ServiceFlags::from_kernel`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceFlags(u32);

impl ServiceFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Connections of one client stick to one destination (templates).
    pub const PERSISTENT: Self = Self(0x01);
    /// Schedule every packet by itself; UDP only (`ipvsadm --ops`).
    pub const ONEPACKET: Self = Self(0x04);
    /// First flag of the scheduler.
    pub const SCHED1: Self = Self(0x08);
    /// Second flag of the scheduler.
    pub const SCHED2: Self = Self(0x10);
    /// Third flag of the scheduler.
    pub const SCHED3: Self = Self(0x20);
    /// `mh`: a slot whose destination has weight 0 falls back to another one
    /// (`-b mh-fallback`); without it, its clients are refused.
    pub const MH_FALLBACK: Self = Self::SCHED1;
    /// `mh`: the client's port is part of the hash key (`-b mh-port`).
    pub const MH_PORT: Self = Self::SCHED2;

    /// `IP_VS_SVC_F_HASHED`: the kernel's mark that the service is in its
    /// hash table. Always set in dumps, always set again by an edit.
    const HASHED: u32 = 0x02;

    /// Flags from the kernel's word, without its own state bit.
    #[must_use]
    pub const fn from_kernel(word: u32) -> Self {
        Self(word & !Self::HASHED)
    }

    /// The word to send to the kernel.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for ServiceFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for ServiceFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for ServiceFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceFlags({:#04x})", self.0)
    }
}
