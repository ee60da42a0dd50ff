//! Random histories with restarts and crashes in them, against what must hold once quiet.

use std::collections::BTreeSet;
use std::time::Duration;

use lightship_ipam::{Backends, Family, OnShrink, Order, Policy, Port, Protocol, Sharing};
use proptest::prelude::*;

use super::invariants::check;
use super::lag::Lag;
use super::*;
use crate::model::NamedPool;

/// What a Service asks for.
#[derive(Clone, Debug)]
struct Ask {
    address: Option<u8>,
    pool: Option<u8>,
    /// Key and selector by which it shares; none is `externalTrafficPolicy: Cluster`.
    key: Option<(u8, Option<u8>)>,
    port: u16,
    families: Vec<Family>,
    policy: Policy,
    /// Whether it has the label that restricted pools want.
    gold: bool,
}

/// What a pool is like.
#[derive(Clone, Debug)]
struct Like {
    first: u8,
    size: u8,
    six: bool,
    /// A range that cannot be read.
    misspelt: bool,
    back: bool,
    open: bool,
    hashed: bool,
    delay: bool,
    restricted: bool,
    manual: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8, Ask),
    Unclear(u8),
    /// A Service that claims addresses.
    Claim(u8, Vec<u8>),
    Delete(u8),
    NotOurs(u8),
    Pool(u8, Like),
    NoPool(u8),
    /// Nodes with these addresses.
    Nodes(Vec<u8>),
    Restart,
    /// A restart after a crash that lost these writes: the status of a Service, a VirtualIP.
    Crash(u8, u8),
}

fn ask() -> impl Strategy<Value = Ask> {
    let key = prop::option::weighted(0.5, (0u8..2, prop::option::weighted(0.3, 0u8..3)));
    let families = prop_oneof![
        4 => Just((vec![Family::V4], Policy::Single)),
        1 => Just((vec![Family::V6], Policy::Single)),
        1 => Just((vec![Family::V6, Family::V4], Policy::PreferDual)),
        1 => Just((vec![Family::V4, Family::V6], Policy::PreferDual)),
        1 => Just((vec![Family::V4, Family::V6], Policy::RequireDual)),
    ];
    let address = prop::option::weighted(0.3, 0u8..24);
    let pool = prop::option::weighted(0.3, 0u8..3);
    (address, pool, key, 1u16..4, families, any::<bool>()).prop_map(
        |(address, pool, key, port, (families, policy), gold)| Ask {
            address,
            pool,
            key,
            port,
            families,
            policy,
            gold,
        },
    )
}

fn like() -> impl Strategy<Value = Like> {
    let seldom = || prop::bool::weighted(0.2);
    (
        (0u8..16, 0u8..8, any::<bool>(), seldom()),
        (
            any::<bool>(),
            any::<bool>(),
            seldom(),
            seldom(),
            seldom(),
            seldom(),
        ),
    )
        .prop_map(
            |((first, size, six, misspelt), (back, open, hashed, delay, restricted, manual))| {
                Like {
                    first,
                    size,
                    six,
                    misspelt,
                    back,
                    open,
                    hashed,
                    delay,
                    restricted,
                    manual,
                }
            },
        )
}

fn op() -> impl Strategy<Value = Op> {
    let claims = prop::collection::vec(0u8..24, 0..3);
    prop_oneof![
        8 => (0u8..8, ask()).prop_map(|(s, ask)| Op::Put(s, ask)),
        1 => (0u8..8).prop_map(Op::Unclear),
        2 => (0u8..8, claims).prop_map(|(s, a)| Op::Claim(s, a)),
        2 => (0u8..8).prop_map(Op::Delete),
        1 => (0u8..8).prop_map(Op::NotOurs),
        3 => (0u8..3, like()).prop_map(|(p, like)| Op::Pool(p, like)),
        1 => (0u8..3).prop_map(Op::NoPool),
        1 => prop::collection::vec(0u8..24, 0..3).prop_map(Op::Nodes),
        1 => Just(Op::Restart),
        1 => (0u8..8, 0u8..8).prop_map(|(s, v)| Op::Crash(s, v)),
    ]
}

fn address(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn name(n: u8) -> String {
    format!("s{n}")
}

fn asking(n: u8, ask: &Ask) -> ServiceView {
    let wish = Wish {
        families: ask.families.clone(),
        policy: ask.policy,
        addresses: ask.address.map(address).into_iter().collect(),
        pool: ask.pool.map(|n| NamedPool {
            name: format!("p{n}").into(),
            by: "lightship.dev/pool",
        }),
    };
    let number = ask.port;
    let sharing = ask.key.map(|(key, selector)| Sharing {
        key: Some(format!("k{key}").into()),
        backends: match selector {
            None => Backends::Cluster,
            Some(0) => Backends::Local("".into()),
            Some(n) => Backends::Local(format!("app={n}").into()),
        },
        ports: [Port {
            protocol: Protocol::Tcp,
            number,
        }]
        .into(),
    });
    let gold = ask.gold.then(|| ("tier".to_owned(), "gold".to_owned()));
    ServiceView {
        labels: gold.into_iter().collect(),
        sharing: sharing.unwrap_or_default(),
        ..service(&name(n), i64::from(n), Demand::Addresses(wish))
    }
}

fn pool_like(n: u8, like: &Like) -> PoolView {
    let (first, last) = (like.first, like.first + like.size);
    let mut blocks = vec![format!("192.0.2.{first}-192.0.2.{last}")];
    if like.six {
        blocks.push(format!("2001:db8::{first:x}-2001:db8::{last:x}"));
    }
    if like.misspelt {
        blocks[0] = format!("192.0.2.{}-192.0.2.{first}", last + 1);
    }
    let blocks: Vec<_> = blocks.iter().map(String::as_str).collect();
    let mut view = pool(&format!("p{n}"), i64::from(n), &blocks);
    if like.back {
        view.spec.on_shrink = OnShrink::Reallocate;
    }
    view.spec.external_ips = like.open;
    view.spec.auto_assign = !like.manual;
    if like.hashed {
        view.spec.order = Order::Hashed;
    }
    if like.delay {
        // Longer than any history, so that it does not matter how long one takes.
        view.spec.reuse_delay = Duration::from_secs(80_000);
    }
    if like.restricted {
        let rules =
            serde_json::json!({ "serviceSelectors": [{ "matchLabels": { "tier": "gold" } }] });
        view.allocation = Some(serde_json::from_value(rules).unwrap());
        view.spec.pinned = Some(0);
    }
    view
}

fn run(w: &mut World, op: &Op) {
    match op {
        Op::Put(n, ask) => w.put(asking(*n, ask)),
        Op::Unclear(n) => {
            let demand = Demand::Unclear("no address".into());
            w.put(service(&name(*n), i64::from(*n), demand));
        }
        Op::Claim(n, addresses) => {
            let mut claims: Vec<_> = addresses.iter().map(|n| address(*n)).collect();
            claims.dedup();
            w.put(ServiceView {
                claims,
                ..service(&name(*n), i64::from(*n), Demand::Nothing)
            });
        }
        Op::Nodes(numbers) => {
            let nodes = numbers.iter().map(|n| NodeView {
                name: format!("n{n}"),
                addresses: vec![address(*n)],
            });
            w.nodes = nodes.collect();
            w.feed(Input::Nodes(Change::Listed(w.nodes.clone())));
        }
        Op::Delete(n) => w.delete(&name(*n)),
        Op::NotOurs(n) => w.put(service(&name(*n), i64::from(*n), Demand::Nothing)),
        Op::Pool(n, like) => w.put_pool(pool_like(*n, like)),
        Op::NoPool(n) => w.delete_pool(&format!("p{n}")),
        Op::Restart => w.restart(),
        Op::Crash(s, v) => {
            // One of the two records of an address is lost, never both; and that is when it
            // has just come from a pool.
            let covered = |name: &str| {
                let address = name.parse().ok();
                let allocator = w.core.allocator();
                address.is_some_and(|address| {
                    let covering = allocator.pools().covering(address);
                    let holding = allocator.holding(address);
                    covering.map(|pool| &pool.spec.name) == holding.map(|holding| &holding.pool)
                })
            };
            let lost: Vec<_> = w
                .vips
                .keys()
                .filter(|name| covered(name) && name.ends_with(&v.to_string()))
                .cloned()
                .collect();
            let mut spared = Vec::new();
            if let Some(view) = w.services.get_mut(&id(&name(*s))) {
                let shown = view.ingress.iter().filter_map(|entry| entry.ip);
                spared = shown.map(virtual_ip_name).collect();
                view.ingress.clear();
            }
            w.vips
                .retain(|name, _| spared.contains(name) || !lost.contains(name));
            w.restart();
        }
    }
}

/// The Service that an op is about.
fn touched(op: &Op) -> Option<u8> {
    match op {
        Op::Put(n, _)
        | Op::Unclear(n)
        | Op::Claim(n, _)
        | Op::Delete(n)
        | Op::NotOurs(n)
        | Op::Crash(n, _) => Some(*n),
        _ => None,
    }
}

/// It takes an address of each family or none.
fn wants_both(view: &ServiceView) -> bool {
    matches!(&view.demand, Demand::Addresses(wish) if wish.policy == Policy::RequireDual)
}

/// What users see of a quiet state.
fn seen(w: &World) -> Vec<String> {
    let services = w.services.values().map(|view| {
        let told = view.told.as_ref().map(|told| &told.verdict);
        // Of two families that a Service lacks, the one that was taken later is not told at once.
        let told = match told {
            Some(told) if !told.met && wants_both(view) => format!("{}, of a family", told.reason),
            told => format!("{told:?}"),
        };
        format!("{}: {:?} {told}", view.id, w.shows(&view.id.name))
    });
    let vips = w.vips.values().map(|spec| format!("{spec:?}"));
    services.chain(vips).collect()
}

/// Where a pool wants addresses back, whoever has one moves, and where to depends on what else has been
/// seen by then: such a change comes alone.
fn apart(batch: Vec<Op>) -> Vec<Vec<Op>> {
    let back = |op: &Op| matches!(op, Op::Pool(_, like) if like.back);
    if batch.iter().any(back) {
        batch.into_iter().map(|op| vec![op]).collect()
    } else {
        vec![batch]
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_must_hold_after_every_step(ops in prop::collection::vec(op(), 1..40)) {
        let mut w = World::started(vec![pool("p0", 0, &["192.0.2.0-192.0.2.5"])]);
        for op in &ops {
            let before: BTreeMap<_, _> = w.services.iter().map(|(id, s)| (id.clone(), s.clone())).collect();
            let touched = touched(op).map(|n| id(&name(n)));
            // Where a pool wants addresses back, that is a cause.
            let back = w.core.allocator().holdings().any(|(_, holding)| holding.on_shrink == OnShrink::Reallocate);
            let back = back || w.pools.values().any(|pool| pool.spec.on_shrink == OnShrink::Reallocate);
            let wanted_back = back || matches!(op, Op::Pool(_, like) if like.back);
            let causes = wanted_back && matches!(op, Op::Pool(..) | Op::NoPool(_) | Op::Nodes(_));
            run(&mut w, op);
            check(&w).map_err(|error| TestCaseError::fail(format!("after {op:?}: {error}")))?;
            for (other, before) in before.iter().filter(|(other, _)| !causes && Some(*other) != touched.as_ref()) {
                // Who has not got what it asks for may get it.
                let content = before.told.as_ref().is_some_and(|told| told.verdict.met);
                let now = &w.services[other].ingress;
                let kept = before.ingress.iter().all(|entry| now.contains(entry));
                prop_assert!(!content || kept, "{op:?} moved {other}: {:?} to {now:?}", before.ingress);
            }
        }
        w.restart();
        check(&w)?;
        // See `seen`.
        let told_more = |told: &Option<crate::model::Told>| told.as_ref().is_some_and(|told| !told.verdict.met);
        let harmless = |write: &Write| match write {
            Write::PoolStatus { .. } => true,
            Write::ServiceStatus { addresses: None, told, service, .. } => {
                // An address that is shared counts for another pool when a sharer that named a pool leaves,
                // which those that stay are told at the next look at them.
                let shares = w.services[service].sharing.key.is_some();
                shares || wants_both(&w.services[service]) && told_more(told)
            }
            _ => false,
        };
        prop_assert!(w.writes.iter().all(harmless), "a restart wrote {:?}", w.writes);
    }

    /// However long writes and watchers take, and in whatever order a start lists things.
    #[test]
    fn the_order_of_events_does_not_matter_once_quiet(
        batches in prop::collection::vec(prop::collection::vec(op(), 1..6), 1..10),
        choices in prop::collection::vec(0usize..1000, 1..60),
    ) {
        let mut prompt = World::started(vec![pool("p0", 0, &["192.0.2.0-192.0.2.5"])]);
        let mut slow = prompt.clone();
        slow.shuffle = choices[0];
        let mut choices = choices.into_iter().cycle();
        for mut batch in batches.into_iter().flat_map(apart) {
            let mut once = BTreeSet::new();
            batch.retain(|op| touched(op).is_none_or(|n| once.insert(n)));
            // Of two addresses that rest, the one that has rested longer goes first where nothing else is
            // free; and when an address came free follows from how long the writes took.
            for op in &mut batch {
                if let Op::Pool(_, like) = op {
                    like.delay = false;
                }
            }
            let (restarts, deeds): (Vec<_>, Vec<_>) =
                batch.into_iter().partition(|op| matches!(op, Op::Restart | Op::Crash(..)));
            slow.lag = Some(Lag::default());
            for op in &deeds {
                run(&mut prompt, op);
                run(&mut slow, op);
                for _ in 0..choices.next().unwrap_or_default() % 8 {
                    slow.step(choices.next().unwrap_or_default());
                }
            }
            slow.settle(&mut choices);
            slow.lag = None;
            prop_assert_eq!(seen(&prompt), seen(&slow), "after {:?}", deeds);
            for op in &restarts {
                run(&mut prompt, op);
                run(&mut slow, op);
                prop_assert_eq!(seen(&prompt), seen(&slow), "after {:?}", op);
            }
            check(&slow)?;
        }
    }
}
