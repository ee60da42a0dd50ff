//! The next address of a pool.

use std::net::IpAddr;

use super::Allocator;
use crate::family::Family;
use crate::intervals::Intervals;
use crate::pool::{Order, Pool};
use crate::request::{ServiceId, Why};
use crate::sharing::Sharing;

/// Which addresses come into question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    /// Those that do not rest.
    Rested,
    /// All of them.
    Any,
}

impl Allocator {
    /// The address a Service gets from a pool: the lowest that is free or that it may share, or
    /// in a hashed pool the first free one from its own place. Of those that rest, the one
    /// that has done so longest; in a hashed pool first of all one that the Service itself held.
    pub(super) fn free(
        &self,
        pool: &Pool,
        family: Family,
        service: &ServiceId,
        sharing: &Sharing,
        pick: Pick,
    ) -> Result<IpAddr, Why> {
        let ranges = pool.ranges(family);
        if ranges.is_empty() {
            return Err(Why::NoFamily(family));
        }
        let shared = self.lowest_shared(pool, family, service, sharing);
        let hashed = pool.spec.order == Order::Hashed;
        if hashed {
            let own = self.resting.of_service(service);
            let mut own = own.filter(|address| Family::of(*address) == family);
            if let Some(address) = shared.or_else(|| own.find(|a| self.offers(pool, *a))) {
                return Ok(address);
            }
        }
        let segments = match hashed {
            true => from_place_of(service, pool, family),
            false => ranges.iter().map(|range| range.bounds()).collect(),
        };
        let gap = |set: &Intervals| {
            let mut gaps = segments.iter();
            gaps.find_map(|bounds| self.gap(set, pool, family, *bounds))
                .map(|gap| family.address(gap))
        };
        // Where the order is by number, the lower of both.
        match (gap(&self.busy[family.index()]), shared) {
            (Some(free), Some(shared)) => return Ok(free.min(shared)),
            (Some(address), None) | (None, Some(address)) => return Ok(address),
            (None, None) => {}
        }
        if pick == Pick::Any {
            let mut resting = self
                .resting
                .of_pool(&pool.spec.name)
                .map(|(address, _)| address);
            let fits = |a: &IpAddr| Family::of(*a) == family && self.offers(pool, *a);
            // One that was released while another pool covered it is not in this pool's list.
            let longest = resting.rfind(fits);
            if let Some(address) = longest.or_else(|| gap(&self.taken[family.index()])) {
                return Ok(address);
            }
        }
        let total = self.total(pool, family);
        Err(Why::Exhausted { family, total })
    }

    /// The lowest number of a segment that is not in the set and not withheld.
    fn gap(
        &self,
        set: &Intervals,
        pool: &Pool,
        family: Family,
        (mut from, to): (u128, u128),
    ) -> Option<u128> {
        while let Some(gap) = set.first_gap(from, to) {
            if self.withheld(pool, family.address(gap)).is_none() {
                return Some(gap);
            }
            from = gap.checked_add(1)?;
        }
        None
    }
}

/// A pool's ranges from the place of a Service on, and round again to it.
fn from_place_of(service: &ServiceId, pool: &Pool, family: Family) -> Vec<(u128, u128)> {
    let ranges = pool.ranges(family);
    let bounds: Vec<_> = ranges.iter().map(|range| range.bounds()).collect();
    let size = ranges
        .iter()
        .fold(0u128, |sum, range| sum.saturating_add(range.size()));
    let mut place = u128::from(hash(service)) % size.max(1);
    let mut index = 0;
    for (position, range) in ranges.iter().enumerate() {
        index = position;
        if place < range.size() {
            break;
        }
        place -= range.size();
    }
    let (first, last) = bounds[index];
    let start = first + place;
    let mut segments = vec![(start, last)];
    segments.extend(&bounds[index + 1..]);
    segments.extend(&bounds[..index]);
    if first < start {
        segments.push((first, start - 1));
    }
    segments
}

/// FNV-1a, as it must stay the same in all versions and on all machines.
fn hash(service: &ServiceId) -> u64 {
    let text = service.namespace.bytes().chain([b'/']);
    text.chain(service.name.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}
