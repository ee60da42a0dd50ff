//! Nested counters: `*_ATTR_STATS` (32-bit, bytes 64-bit) and `*_ATTR_STATS64`.

use netlink_packet_core::{DecodeError, DefaultNla, Nla, NlaBuffer, Parseable};

use super::attr::put;
use super::constants::{STATS_ATTR_CONNS, STATS_ATTR_OUTBPS};
use crate::model::Stats;

/// A counter as wide as the sender made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Legacy width.
    U32(u32),
    /// Legacy byte counters and everything in stats64.
    U64(u64),
}

impl Counter {
    /// The value.
    #[must_use]
    pub const fn get(self) -> u64 {
        match self {
            Self::U32(value) => value as u64,
            Self::U64(value) => value,
        }
    }
}

/// One attribute inside nested stats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatsAttr {
    /// A counter by its kind, `IPVS_STATS_ATTR_CONNS` (1) to `_OUTBPS` (10).
    Counter(u16, Counter),
    /// Anything else, padding included.
    Other(DefaultNla),
}

impl Nla for StatsAttr {
    fn value_len(&self) -> usize {
        match self {
            Self::Counter(_, Counter::U32(_)) => 4,
            Self::Counter(_, Counter::U64(_)) => 8,
            Self::Other(nla) => nla.value_len(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Counter(kind, _) => *kind,
            Self::Other(nla) => nla.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Counter(_, Counter::U32(value)) => put(buffer, &value.to_ne_bytes()),
            Self::Counter(_, Counter::U64(value)) => put(buffer, &value.to_ne_bytes()),
            Self::Other(nla) => nla.emit_value(buffer),
        }
    }
}

impl<'a> Parseable<NlaBuffer<&'a [u8]>> for StatsAttr {
    fn parse(nla: &NlaBuffer<&'a [u8]>) -> Result<Self, DecodeError> {
        let kind = nla.kind();
        let value = nla.value();
        if (STATS_ATTR_CONNS..=STATS_ATTR_OUTBPS).contains(&kind) {
            if let Ok(bytes) = <[u8; 8]>::try_from(value) {
                return Ok(Self::Counter(kind, Counter::U64(u64::from_ne_bytes(bytes))));
            }
            if let Ok(bytes) = <[u8; 4]>::try_from(value) {
                return Ok(Self::Counter(kind, Counter::U32(u32::from_ne_bytes(bytes))));
            }
        }
        Ok(Self::Other(DefaultNla::parse(nla)?))
    }
}

/// The counters as a value; what the sender left out is 0.
pub(super) fn to_model(attrs: &[StatsAttr]) -> Stats {
    let mut values = [0; 10];
    for attr in attrs {
        if let StatsAttr::Counter(kind, counter) = attr
            && let Some(slot) = values.get_mut(usize::from(kind - STATS_ATTR_CONNS))
        {
            *slot = counter.get();
        }
    }
    let [
        connections,
        in_packets,
        out_packets,
        in_bytes,
        out_bytes,
        connection_rate,
        in_packet_rate,
        out_packet_rate,
        in_byte_rate,
        out_byte_rate,
    ] = values;
    Stats {
        connections,
        in_packets,
        out_packets,
        in_bytes,
        out_bytes,
        connection_rate,
        in_packet_rate,
        out_packet_rate,
        in_byte_rate,
        out_byte_rate,
    }
}
