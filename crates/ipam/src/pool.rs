//! Pools: what the user wrote, what of it is usable, and what is wrong with the rest.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::family::{Family, is_buggy, number};
use crate::range::{AddrRange, RangeError};

/// A pool as the user describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Its name.
    pub name: Arc<str>,
    /// When it was created, in seconds since any origin: of two pools that overlap the older
    /// one is right.
    pub created: i64,
    /// CIDRs and ranges.
    pub blocks: Vec<String>,
    /// Whether Services that name no pool may use it.
    pub auto_assign: bool,
    /// Whether IPv4 addresses ending in .0 or .255 stay unused.
    pub avoid_buggy: bool,
    /// Set for a pool restricted to some Services: its priority, 1 first, 0 last.
    pub pinned: Option<u32>,
    /// How long a released address rests.
    pub reuse_delay: Duration,
    /// In which order its addresses are given out.
    pub order: Order,
    /// What becomes of holders of addresses that the pool does not offer them any more.
    pub on_shrink: OnShrink,
    /// Whether Services of different namespaces may share an address of it.
    pub sharing_across_namespaces: bool,
    /// Whether `spec.externalIPs` of Services may claim addresses of it.
    pub external_ips: bool,
}

/// Which free address of a pool comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The lowest.
    #[default]
    Lowest,
    /// The first from a place that the Service's name decides, so that a Service which is
    /// created again mostly gets the same address again.
    Hashed,
}

/// What becomes of an address in use that its pool does not offer any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnShrink {
    /// The Service keeps it, and that is said.
    #[default]
    Keep,
    /// The Service gets another one, or none.
    Reallocate,
}

/// Why a block of a pool is not in use. The pool's other blocks are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolProblem {
    /// The text is no range.
    Invalid(RangeError),
    /// The range has addresses in common with one that was there first.
    Overlap {
        /// The range out of use.
        range: AddrRange,
        /// The range it clashes with.
        other: AddrRange,
        /// The pool that has the other range; possibly the same pool.
        pool: Arc<str>,
        /// Whether both are of one pool.
        own: bool,
    },
}

impl fmt::Display for PoolProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PoolProblem::Invalid(error) => error.fmt(f),
            PoolProblem::Overlap {
                range,
                other,
                own: true,
                ..
            } => write!(
                f,
                "{range} is out of use: it overlaps {other} of this same pool; remove one of them"
            ),
            PoolProblem::Overlap {
                range, other, pool, ..
            } => write!(
                f,
                "{range} is out of use: it overlaps {other} of the older pool \"{pool}\"; change one of them"
            ),
        }
    }
}

/// A pool with its usable ranges.
#[derive(Clone, Debug)]
pub struct Pool {
    /// What the user wrote.
    pub spec: PoolSpec,
    /// What of it is not in use.
    pub problems: Vec<PoolProblem>,
    ranges: [Vec<AddrRange>; 2],
}

impl Pool {
    /// The usable ranges of a family, lowest first.
    pub fn ranges(&self, family: Family) -> &[AddrRange] {
        &self.ranges[family.index()]
    }

    /// How many addresses of a family the ranges have, without those that `avoid_buggy` excludes.
    pub(crate) fn size(&self, family: Family) -> u128 {
        self.ranges(family)
            .iter()
            .map(|range| {
                let buggy = if self.spec.avoid_buggy {
                    range.buggy()
                } else {
                    0
                };
                range.size() - buggy
            })
            .fold(0, u128::saturating_add)
    }

    /// Whether a usable range contains the address.
    pub fn covers(&self, address: IpAddr) -> bool {
        self.ranges(Family::of(address))
            .iter()
            .any(|range| range.contains(address))
    }

    /// Whether the address lies in a range that is out of use because of an overlap.
    pub(crate) fn disputes(&self, address: IpAddr) -> bool {
        let mut problems = self.problems.iter();
        problems.any(|problem| {
            matches!(problem, PoolProblem::Overlap { range, .. } if range.contains(address))
        })
    }

    /// Whether the address is kept out of use by `avoid_buggy`.
    pub(crate) fn is_buggy(&self, address: IpAddr) -> bool {
        self.spec.avoid_buggy && is_buggy(address)
    }
}

/// All pools, with no address in two of them.
#[derive(Clone, Debug, Default)]
pub struct Pools {
    by_name: BTreeMap<Arc<str>, Pool>,
    /// Per family: first number of each usable range, with the range and its pool.
    index: [BTreeMap<u128, (AddrRange, Arc<str>)>; 2],
    /// Ranges out of use because of an overlap.
    disputed: Vec<AddrRange>,
}

impl Pools {
    /// Sorts out which ranges are usable: pools by creation and name, ranges as listed, and
    /// of two that overlap the later one is refused as a whole.
    pub fn new(mut specs: Vec<PoolSpec>) -> Self {
        specs.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        let mut pools = Self::default();
        for spec in specs {
            pools.add(spec);
        }
        pools
    }

    fn add(&mut self, spec: PoolSpec) {
        let mut problems = Vec::new();
        let mut ranges = [Vec::new(), Vec::new()];
        for block in &spec.blocks {
            let range: AddrRange = match block.parse() {
                Ok(range) => range,
                Err(error) => {
                    problems.push(PoolProblem::Invalid(error));
                    continue;
                }
            };
            if let Some((other, pool)) = self.clash(&range) {
                let own = pool == spec.name;
                self.disputed.push(range);
                problems.push(PoolProblem::Overlap {
                    range,
                    other,
                    pool,
                    own,
                });
                continue;
            }
            let family = range.family().index();
            self.index[family].insert(range.bounds().0, (range, spec.name.clone()));
            ranges[family].push(range);
        }
        for list in &mut ranges {
            list.sort_by_key(AddrRange::bounds);
        }
        let pool = Pool {
            problems,
            ranges,
            spec,
        };
        self.by_name.insert(pool.spec.name.clone(), pool);
    }

    /// The usable ranges are disjoint, so the last one that starts before our end tells.
    fn clash(&self, range: &AddrRange) -> Option<(AddrRange, Arc<str>)> {
        let (_, last) = range.bounds();
        let (_, (other, pool)) = self.index[range.family().index()]
            .range(..=last)
            .next_back()?;
        other.overlaps(range).then(|| (*other, pool.clone()))
    }

    /// The pool whose usable range contains the address.
    pub fn covering(&self, address: IpAddr) -> Option<&Pool> {
        let index = &self.index[Family::of(address).index()];
        let (_, (range, pool)) = index.range(..=number(address)).next_back()?;
        range.contains(address).then(|| self.by_name.get(pool))?
    }

    /// Whether the address lies in a range that is out of use because it overlaps another.
    pub fn is_disputed(&self, address: IpAddr) -> bool {
        self.disputed.iter().any(|range| range.contains(address))
    }

    /// Whether some range of the pool cannot be read, so that what it is without it tells little.
    pub(crate) fn is_misspelt(&self, name: &str) -> bool {
        let problems = self.get(name).map(|pool| &pool.problems);
        let mut problems = problems.into_iter().flatten();
        problems.any(|problem| matches!(problem, PoolProblem::Invalid(_)))
    }

    /// A pool by name.
    pub fn get(&self, name: &str) -> Option<&Pool> {
        self.by_name.get(name)
    }

    /// All pools by name.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.by_name.values()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}
