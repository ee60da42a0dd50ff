//! The diff against the kernel model, over random tables.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::kernel::Kernel;
use super::*;
use crate::model::{Forward, Protocol, Scheduler, ServiceFlags};

const NODES: u8 = 7;

fn any_key() -> impl Strategy<Value = ServiceKey> {
    select(vec![
        ServiceKey::new([192, 0, 2, 200].into(), Protocol::Tcp, 80),
        ServiceKey::new([192, 0, 2, 200].into(), Protocol::Udp, 80),
        ServiceKey::new("2001:db8:2::200".parse().unwrap(), Protocol::Tcp, 80),
        ServiceKey::FwMark {
            family: crate::model::Family::V4,
            mark: 7,
        },
    ])
}

fn any_destinations() -> impl Strategy<Value = Vec<Destination>> {
    let nodes: Vec<u8> = (1..=NODES).collect();
    subsequence(nodes, 0..=usize::from(NODES))
        .prop_shuffle()
        .prop_flat_map(|nodes| {
            let count = nodes.len();
            (
                Just(nodes),
                prop::collection::vec((0_u32..3, prop::bool::weighted(0.9)), count),
            )
        })
        .prop_map(|(nodes, settings)| {
            nodes
                .into_iter()
                .zip(settings)
                .map(|(node, (weight, direct))| Destination {
                    forward: if direct {
                        Forward::DirectRouting
                    } else {
                        Forward::Masquerade
                    },
                    ..Destination::direct(IpAddr::from([192, 0, 2, node]), 80, weight)
                })
                .collect()
        })
}

fn any_spec() -> impl Strategy<Value = ServiceSpec> {
    (
        any_key(),
        select(vec![Scheduler::MH, Scheduler::RR]),
        select(vec![
            ServiceFlags::NONE,
            ServiceFlags::MH_PORT,
            ServiceFlags::PERSISTENT,
        ]),
        any_destinations(),
    )
        .prop_map(|(key, scheduler, flags, destinations)| ServiceSpec {
            key,
            scheduler,
            flags,
            destinations,
        })
}

fn any_table() -> impl Strategy<Value = Vec<ServiceSpec>> {
    prop::collection::vec(any_spec(), 0..4)
}

/// What the kernel should hold for a desired table, written down directly.
fn assert_holds(kernel: &Kernel, desired: &[ServiceSpec]) {
    let desired = canonical(desired);
    assert!(kernel.services.keys().eq(desired.keys()));
    for (key, wanted) in &desired {
        let table = &kernel.services[key];
        assert_eq!(table.service, wanted.service);
        let held: Vec<Destination> = table
            .list
            .iter()
            .rev()
            .map(|entry| entry.destination)
            .collect();
        assert_eq!(held, wanted.destinations);
        for entry in &table.list {
            assert_ne!(entry.last_weight, 0, "{} has no slots", entry.destination);
        }
    }
}

proptest! {
    #[test]
    fn from_any_table_to_any_other(before in any_table(), after in any_table()) {
        let mut kernel = Kernel::default();
        kernel.apply_all(&plan(&before, &kernel.dump()));
        assert_holds(&kernel, &before);
        kernel.apply_all(&plan(&after, &kernel.dump()));
        assert_holds(&kernel, &after);
        prop_assert_eq!(plan(&after, &kernel.dump()), vec![]);
        prop_assert_eq!(kernel.dump(), outcome(&after));
    }

    /// Which history led to a table does not matter: with live weights of 1,
    /// list order and last weights, hence the mh table, come out alike.
    #[test]
    fn history_leaves_no_trace(
        histories in prop::collection::vec(prop::collection::vec(any_table(), 0..4), 2),
        last in any_table(),
    ) {
        let flatten = |mut table: Vec<ServiceSpec>| {
            for destination in table.iter_mut().flat_map(|spec| &mut spec.destinations) {
                destination.weight = destination.weight.min(1);
            }
            table
        };
        let last = flatten(last);
        let mut ends = histories.into_iter().map(|history| {
            let mut kernel = Kernel::default();
            for table in history.into_iter().map(flatten).chain([last.clone()]) {
                kernel.apply_all(&plan(&table, &kernel.dump()));
            }
            kernel
        });
        let first = ends.next().unwrap();
        for other in ends {
            prop_assert_eq!(&other.services, &first.services);
        }
    }

    /// Services that are right already are not touched at all.
    #[test]
    fn unchanged_services_get_no_op(before in any_table(), after in any_table(), pick: Index) {
        prop_assume!(!before.is_empty());
        let mut after = after;
        let unchanged = before[pick.index(before.len())].clone();
        after.insert(0, unchanged.clone());
        let mut kernel = Kernel::default();
        // First in both, so that no duplicate shadows it.
        let mut before = before;
        before.insert(0, unchanged.clone());
        kernel.apply_all(&plan(&before, &[]));
        for op in plan(&after, &kernel.dump()) {
            prop_assert_ne!(op.service(), unchanged.key);
        }
    }

    /// The number of additions is the least that any sequence of deletions and
    /// head insertions needs, found by trying all sets of survivors.
    #[test]
    fn additions_are_minimal(before in any_destinations(), after in any_destinations()) {
        let service = |destinations: &[Destination]| ServiceSpec {
            key: ServiceKey::new([192, 0, 2, 200].into(), Protocol::Tcp, 80),
            scheduler: Scheduler::MH,
            flags: ServiceFlags::NONE,
            destinations: destinations.to_vec(),
        };
        let mut kernel = Kernel::default();
        kernel.apply_all(&plan(&[service(&before)], &[]));
        let ops = plan(&[service(&after)], &kernel.dump());
        let added = ops.iter().filter(|op| matches!(op, Op::NewDest(..))).count();

        let best = (0_u32..1 << before.len())
            .filter_map(|survivors| {
                let kept: Vec<SocketAddr> = before
                    .iter()
                    .enumerate()
                    .filter(|(place, _)| survivors & (1 << place) != 0)
                    .map(|(_, destination)| destination.key())
                    .collect();
                let leads = kept.len() <= after.len()
                    && kept.iter().zip(&after).all(|(kept, wanted)| *kept == wanted.key());
                leads.then(|| after.len() - kept.len())
            })
            .min();
        prop_assert_eq!(Some(added), best);
    }

    /// A service that has a destination before and after has one all the way.
    #[test]
    fn never_empty_on_the_way(before in any_destinations(), after in any_destinations()) {
        prop_assume!(!before.is_empty() && !after.is_empty());
        let service = |destinations: &[Destination]| ServiceSpec {
            key: ServiceKey::new([192, 0, 2, 200].into(), Protocol::Tcp, 80),
            scheduler: Scheduler::MH,
            flags: ServiceFlags::NONE,
            destinations: destinations.to_vec(),
        };
        let mut kernel = Kernel::default();
        kernel.apply_all(&plan(&[service(&before)], &[]));
        for op in plan(&[service(&after)], &kernel.dump()) {
            kernel.apply_all(std::slice::from_ref(&op));
            prop_assert!(kernel.services.values().all(|table| !table.list.is_empty()));
        }
    }
}
