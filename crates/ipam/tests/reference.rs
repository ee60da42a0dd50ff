//! The allocator against a second one that is as plain as can be: it knows neither indexes nor
//! intervals, tries every address one after the other, and must give everybody the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lightship_ipam::{
    Allocator, Backends, Family, OnShrink, Order, Policy, PoolSpec, Port, Protocol, Request,
    ServiceId, Sharing,
};
use proptest::prelude::*;

/// A pool: which addresses it has, lowest first.
#[derive(Clone, Debug)]
struct Plain {
    spec: PoolSpec,
    addresses: Vec<IpAddr>,
}

#[derive(Clone, Debug, Default)]
struct Reference {
    pools: Vec<Plain>,
    held: BTreeMap<ServiceId, (Vec<IpAddr>, Sharing)>,
    /// When each rest ends.
    rests: BTreeMap<IpAddr, Duration>,
}

impl Reference {
    fn may_share(&self, who: &ServiceId, mine: &Sharing, address: IpAddr, across: bool) -> bool {
        let others = self.held.iter().filter(|(id, _)| *id != who);
        let mut others = others.filter(|(_, (held, _))| held.contains(&address));
        others.all(|(id, (_, theirs))| {
            let near = id.namespace == who.namespace;
            mine.key.is_some()
                && mine.key == theirs.key
                && mine.backends == theirs.backends
                && mine.ports.is_disjoint(&theirs.ports)
                && (near || (across && mine.backends == Backends::Cluster))
                && mine.backends != Backends::Local("".into())
        })
    }

    #[expect(clippy::unwrap_used, reason = "nobody has an address of no pool")]
    fn pool_of(&self, address: IpAddr) -> &Plain {
        let mut pools = self.pools.iter();
        pools.find(|p| p.addresses.contains(&address)).unwrap()
    }

    fn is_free(&self, address: IpAddr) -> bool {
        !self.held.values().any(|(held, _)| held.contains(&address))
    }

    /// The lowest that does not rest or that it may share; if `any`, else the one that has
    /// rested longest.
    fn pick(
        &self,
        pool: &Plain,
        family: Family,
        who: &ServiceId,
        request: &Request,
        any: bool,
    ) -> Option<IpAddr> {
        let across = pool.spec.sharing_across_namespaces;
        let good = |address: &IpAddr| match self.is_free(*address) {
            true => !self.rests.contains_key(address),
            false => self.may_share(who, &request.sharing, *address, across),
        };
        let family = |address: &&IpAddr| Family::of(**address) == family;
        let mut all = pool.addresses.iter().filter(family);
        if let Some(address) = all.find(|address| good(address)) {
            return Some(*address);
        }
        let all = pool.addresses.iter().filter(family);
        let resting = all.filter(|address| any && self.is_free(**address));
        resting
            .min_by_key(|address| (self.rests[*address], **address))
            .copied()
    }

    /// One of each family from the first pool that has all.
    fn first(
        &self,
        families: &[Family],
        who: &ServiceId,
        request: &Request,
    ) -> Option<Vec<IpAddr>> {
        let mut pools: Vec<&Plain> = self.pools.iter().collect();
        pools.retain(|pool| match &request.pool {
            Some(name) => pool.spec.name == *name,
            None => pool.spec.auto_assign,
        });
        pools.retain(|pool| !request.closed.contains_key(&pool.spec.name));
        pools.sort_by_key(|pool| match pool.spec.pinned {
            Some(0) => (0, u32::MAX, pool.spec.name.clone()),
            Some(priority) => (0, priority, pool.spec.name.clone()),
            None => (1, 0, pool.spec.name.clone()),
        });
        [false, true].iter().find_map(|any| {
            pools.iter().find_map(|pool| {
                let each = families.iter();
                each.map(|family| self.pick(pool, *family, who, request, *any))
                    .collect()
            })
        })
    }

    fn exact(&self, who: &ServiceId, request: &Request) -> Option<Vec<IpAddr>> {
        let address = request.addresses[0];
        let pool = self
            .pools
            .iter()
            .find(|pool| pool.addresses.contains(&address))?;
        let named = request
            .pool
            .as_ref()
            .is_none_or(|name| pool.spec.name == *name);
        let own = self
            .held
            .get(who)
            .is_some_and(|(held, _)| held.contains(&address));
        let open = !request.closed.contains_key(&pool.spec.name);
        let across = pool.spec.sharing_across_namespaces;
        let fits = self.may_share(who, &request.sharing, address, across);
        (named && (own || (open && fits))).then(|| vec![address])
    }

    /// What a Service holds once it is served; nothing changes if it cannot be.
    fn plan(&self, who: &ServiceId, request: &Request) -> Option<Vec<IpAddr>> {
        let wanted = match request.policy {
            Policy::Single => &request.families[..1],
            _ => &request.families[..],
        };
        if request.policy == Policy::RequireDual
            && (wanted.len() < 2 || request.addresses.len() == 1)
        {
            return None;
        }
        if let Some(asked) = request.addresses.first() {
            return wanted
                .contains(&Family::of(*asked))
                .then(|| self.exact(who, request))?;
        }
        let before = self.held.get(who).map_or(&[][..], |(held, _)| held);
        let fits = |address: &&IpAddr| {
            let named = request.pool.as_ref();
            named.is_none_or(|name| self.pool_of(**address).spec.name == *name)
        };
        let of = |family: &Family| {
            let mut fitting = before.iter().filter(fits);
            fitting
                .find(|address| Family::of(**address) == *family)
                .copied()
        };
        let kept: Vec<IpAddr> = wanted.iter().filter_map(of).collect();
        if kept.len() == wanted.len() {
            return Some(kept);
        }
        if let Some(first) = kept.first() {
            let pool = self.pool_of(*first);
            let missing = wanted.iter().find(|family| of(family).is_none())?;
            let open = !request.closed.contains_key(&pool.spec.name);
            let second = self
                .pick(pool, *missing, who, request, true)
                .filter(|_| open);
            if let Some(second) = second {
                let both = wanted.iter().map(|family| of(family).unwrap_or(second));
                return Some(both.collect());
            }
            return match request.policy {
                Policy::RequireDual => self.first(wanted, who, request),
                _ => Some(kept),
            };
        }
        self.first(wanted, who, request).or_else(|| {
            let mut each = wanted
                .iter()
                .filter(|_| request.policy == Policy::PreferDual);
            each.find_map(|family| self.first(&[*family], who, request))
        })
    }

    fn rest(&mut self, address: IpAddr, now: Duration) {
        let delay = self.pool_of(address).spec.reuse_delay;
        if self.is_free(address) && !delay.is_zero() {
            self.rests.insert(address, now + delay);
        }
    }

    fn assign(&mut self, who: &ServiceId, request: &Request, now: Duration) {
        self.rests.retain(|_, until| *until > now);
        // Whoever changes into a clash goes.
        let (held, _) = self.held.remove(who).unwrap_or_default();
        let sharing = &request.sharing;
        let (stays, goes): (Vec<_>, Vec<_>) = held
            .into_iter()
            .partition(|address| self.may_share(who, sharing, *address, true));
        self.held
            .insert(who.clone(), (stays.clone(), sharing.clone()));
        for address in goes {
            self.rest(address, now);
        }
        if let Some(plan) = self.plan(who, request) {
            self.held
                .insert(who.clone(), (plan.clone(), sharing.clone()));
            for address in plan {
                self.rests.remove(&address);
            }
            for address in stays {
                self.rest(address, now);
            }
        }
    }

    fn release(&mut self, who: &ServiceId, now: Duration) {
        self.rests.retain(|_, until| *until > now);
        let (held, _) = self.held.remove(who).unwrap_or_default();
        for address in held {
            self.rest(address, now);
        }
    }
}

/// Pools that do not overlap: the n-th has addresses from 10 n on.
fn pools() -> impl Strategy<Value = Vec<Plain>> {
    let one = (
        (0u8..5, 0u8..5, any::<bool>()),
        (
            prop::bool::weighted(0.8),
            prop::option::weighted(0.4, 0u32..3),
        ),
        (prop_oneof![Just(0u64), Just(20), Just(60)], any::<bool>()),
    );
    prop::collection::vec(one, 1..4).prop_map(|pools| {
        let pools = pools.into_iter().zip(0u8..);
        let plain = pools.map(
            |(((four, six, gap), (auto_assign, pinned), (delay, across)), n)| {
                let base = 10 * n;
                let mut blocks = Vec::new();
                let mut addresses: Vec<IpAddr> = Vec::new();
                for at in 0..four {
                    // Two ranges, the higher one first.
                    let last = base + at + if gap { at } else { 0 };
                    blocks.insert(0, format!("192.0.2.{last}/32"));
                    addresses.push([192, 0, 2, last].into());
                }
                if six > 0 {
                    let (first, last) = (base, base + six - 1);
                    blocks.push(format!("2001:db8::{first:x}-2001:db8::{last:x}"));
                    addresses.extend(
                        (first..=last)
                            .map(|at| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(at)])),
                    );
                }
                let spec = PoolSpec {
                    name: format!("p{n}").into(),
                    created: 0,
                    blocks,
                    auto_assign,
                    avoid_buggy: false,
                    pinned,
                    reuse_delay: Duration::from_secs(delay),
                    order: Order::Lowest,
                    on_shrink: OnShrink::Keep,
                    sharing_across_namespaces: across,
                    external_ips: false,
                };
                Plain { spec, addresses }
            },
        );
        plain.collect()
    })
}

fn request() -> impl Strategy<Value = Request> {
    let families = prop_oneof![
        4 => Just((vec![Family::V4], Policy::Single)),
        1 => Just((vec![Family::V6], Policy::Single)),
        1 => Just((vec![Family::V6, Family::V4], Policy::PreferDual)),
        1 => Just((vec![Family::V4, Family::V6], Policy::PreferDual)),
        1 => Just((vec![Family::V4, Family::V6], Policy::RequireDual)),
    ];
    let name = || (0u8..3).prop_map(|n| Arc::<str>::from(format!("p{n}")));
    let backends = prop_oneof![
        4 => Just(Backends::Cluster),
        1 => Just(Backends::Local("app=a".into())),
        1 => Just(Backends::Local("".into())),
    ];
    let sharing = (prop::option::weighted(0.6, 0u8..2), backends, 1u16..4).prop_map(
        |(key, backends, number)| Sharing {
            key: key.map(|n| format!("k{n}").into()),
            backends,
            ports: BTreeSet::from([Port {
                protocol: Protocol::Tcp,
                number,
            }]),
        },
    );
    let address = (0u8..30).prop_map(|n| IpAddr::from([192, 0, 2, n]));
    (
        families,
        prop::option::weighted(0.2, address),
        prop::option::weighted(0.2, name()),
        prop::collection::btree_map(name(), Just("closed".to_owned()), 0..2),
        sharing,
    )
        .prop_map(
            |((families, policy), address, pool, closed, sharing)| Request {
                families,
                policy,
                addresses: address.into_iter().collect(),
                pool,
                closed,
                sharing,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everybody_gets_what_a_plain_allocator_gives(
        pools in pools(),
        steps in prop::collection::vec((0u8..8, prop::option::weighted(0.8, request()), 0u64..15), 1..60),
    ) {
        let mut real = Allocator::default();
        real.set_pools(pools.iter().map(|pool| pool.spec.clone()).collect());
        let mut plain = Reference { pools, ..Reference::default() };
        let mut now = Duration::ZERO;
        for (n, request, pause) in steps {
            now += Duration::from_secs(pause);
            let namespace = if n.is_multiple_of(3) { "far" } else { "near" };
            let who = ServiceId::new(namespace, format!("s{n}"));
            match &request {
                Some(request) => {
                    real.settle(&who, &request.sharing, &request.closed, now);
                    let _ = real.assign(&who, request, now);
                    plain.assign(&who, request, now);
                }
                None => {
                    real.wake(now);
                    real.release(&who, now);
                    plain.release(&who, now);
                }
            }
            let expected = plain.held.get(&who).map_or(&[][..], |(held, _)| held);
            prop_assert_eq!(real.held_by(&who), expected, "{} after {:?}", who, request);
            let resting: BTreeSet<_> = real.resting().map(|(address, _)| address).collect();
            prop_assert_eq!(resting, plain.rests.keys().copied().collect::<BTreeSet<_>>());
        }
    }
}
