use super::kernel::Kernel;
use super::*;
use crate::model::{Protocol, Scheduler, ServiceFlags};

const MH: ServiceFlags = ServiceFlags::MH_FALLBACK;

fn key(port: u16) -> ServiceKey {
    ServiceKey::new([192, 0, 2, 200].into(), Protocol::Tcp, port)
}

fn dest(node: u8, weight: u32) -> Destination {
    Destination::direct([192, 0, 2, node].into(), 443, weight)
}

fn addr(node: u8) -> SocketAddr {
    dest(node, 1).key()
}

fn spec(port: u16, destinations: &[Destination]) -> ServiceSpec {
    ServiceSpec {
        key: key(port),
        scheduler: Scheduler::MH,
        flags: MH,
        destinations: destinations.to_vec(),
    }
}

fn kernel(specs: &[ServiceSpec]) -> Kernel {
    let mut kernel = Kernel::default();
    kernel.apply_all(&plan(specs, &[]));
    kernel
}

fn plan_between(before: &[Destination], after: &[Destination]) -> Vec<Op> {
    plan(&[spec(443, after)], &kernel(&[spec(443, before)]).dump())
}

#[test]
fn a_new_service_gets_its_destinations_in_order_and_its_scheduler_last() {
    assert_eq!(
        plan(&[spec(443, &[dest(11, 1), dest(12, 1)])], &[]),
        [
            Op::NewService(Service::new(key(443), Scheduler::NONE, MH)),
            Op::NewDest(key(443), dest(11, 1)),
            Op::NewDest(key(443), dest(12, 1)),
            Op::SetService(Service::new(key(443), Scheduler::MH, MH)),
        ]
    );
    assert_eq!(
        plan(&[spec(443, &[dest(11, 1)])], &[]),
        [
            Op::NewService(Service::new(key(443), Scheduler::MH, MH)),
            Op::NewDest(key(443), dest(11, 1)),
        ]
    );
}

/// Whoever was ended half-way through it goes on where it stopped.
#[test]
fn an_interrupted_creation_is_finished_with_the_scheduler_last() {
    let wanted = [spec(443, &[dest(11, 1), dest(12, 1)])];
    let ops = plan(&wanted, &[]);
    let mut kernel = Kernel::default();
    kernel.apply_all(&ops[..2]);
    assert_eq!(plan(&wanted, &kernel.dump()), ops[2..]);
}

/// However many destinations a new service has, `mh` builds its table once.
#[test]
fn a_large_service_is_built_once() {
    let nodes: Vec<Destination> = (1..=100).map(|node| dest(node, 1)).collect();
    assert_eq!(kernel(&[spec(443, &nodes)]).built, 1);
}

#[test]
fn nothing_to_do_is_an_empty_plan() {
    let nodes = [dest(11, 1), dest(12, 0), dest(13, 1)];
    assert_eq!(plan_between(&nodes, &nodes), []);
}

#[test]
fn a_new_destination_of_weight_0_enters_alive() {
    assert_eq!(
        plan_between(&[dest(11, 1)], &[dest(11, 1), dest(12, 0)]),
        [
            Op::NewDest(key(443), dest(12, 1)),
            Op::SetDest(key(443), dest(12, 0)),
        ]
    );
}

#[test]
fn death_and_return_are_edits() {
    let alive = [dest(11, 1), dest(12, 1), dest(13, 1)];
    let dead = [dest(11, 1), dest(12, 0), dest(13, 1)];
    assert_eq!(
        plan_between(&alive, &dead),
        [Op::SetDest(key(443), dest(12, 0))]
    );
    assert_eq!(
        plan_between(&dead, &alive),
        [Op::SetDest(key(443), dest(12, 1))]
    );
}

#[test]
fn removal_from_the_middle_touches_no_other() {
    assert_eq!(
        plan_between(
            &[dest(11, 1), dest(12, 1), dest(13, 1)],
            &[dest(11, 1), dest(13, 1)]
        ),
        [Op::DelDest(key(443), addr(12))]
    );
}

#[test]
fn insertion_in_the_middle_re_adds_only_what_follows() {
    assert_eq!(
        plan_between(
            &[dest(11, 1), dest(13, 1)],
            &[dest(11, 1), dest(12, 1), dest(13, 1)]
        ),
        [
            Op::NewDest(key(443), dest(12, 1)),
            Op::DelDest(key(443), addr(13)),
            Op::NewDest(key(443), dest(13, 1)),
        ]
    );
}

#[test]
fn a_re_added_destination_of_weight_0_keeps_its_slots() {
    let mut kernel = kernel(&[spec(443, &[dest(11, 1), dest(13, 0)])]);
    kernel.apply_all(&plan(
        &[spec(443, &[dest(11, 1), dest(12, 1), dest(13, 0)])],
        &kernel.dump(),
    ));
    let newest = &kernel.services[&key(443)].list[0];
    assert_eq!(newest.destination, dest(13, 0));
    assert_eq!(newest.last_weight, 1);
}

#[test]
fn a_full_exchange_never_leaves_the_service_empty() {
    assert_eq!(
        plan_between(&[dest(11, 1)], &[dest(12, 1)]),
        [
            Op::NewDest(key(443), dest(12, 1)),
            Op::DelDest(key(443), addr(11)),
        ]
    );
}

#[test]
fn settings_of_a_service_change_in_place() {
    let kernel = kernel(&[spec(443, &[dest(11, 1)])]);
    let mut affine = spec(443, &[dest(11, 1)]);
    affine.flags |= ServiceFlags::MH_PORT;
    assert_eq!(
        plan(&[affine.clone()], &kernel.dump()),
        [Op::SetService(Service::from(&affine))]
    );
    let mut round_robin = spec(443, &[dest(11, 1)]);
    round_robin.scheduler = Scheduler::RR;
    assert_eq!(
        plan(&[round_robin.clone()], &kernel.dump()),
        [Op::SetService(Service::from(&round_robin))]
    );
}

#[test]
fn a_destinations_method_changes_in_place() {
    let mut masqueraded = dest(11, 1);
    masqueraded.forward = crate::model::Forward::Masquerade;
    assert_eq!(
        plan_between(&[masqueraded], &[dest(11, 1)]),
        [Op::SetDest(key(443), dest(11, 1))]
    );
}

#[test]
fn failover_comes_first_and_deletion_last() {
    let kernel = kernel(&[
        spec(1, &[dest(11, 1)]),
        spec(2, &[dest(11, 1), dest(12, 1)]),
    ]);
    let ops = plan(
        &[
            spec(0, &[dest(11, 1)]),
            spec(2, &[dest(11, 1), dest(12, 0), dest(13, 1)]),
        ],
        &kernel.dump(),
    );
    assert_eq!(ops.first(), Some(&Op::SetDest(key(2), dest(12, 0))));
    assert_eq!(ops.last(), Some(&Op::DelService(key(1))));
}

#[test]
fn of_duplicates_the_first_holds() {
    let twice = [
        spec(443, &[dest(11, 1), dest(11, 0)]),
        spec(443, &[dest(12, 1)]),
    ];
    let once = kernel(&[spec(443, &[dest(11, 1)])]);
    assert_eq!(kernel(&twice).services, once.services);
    assert_eq!(plan(&twice, &once.dump()), []);
}
