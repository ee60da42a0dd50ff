use super::*;
use crate::world::{Node, Port, Protocol, Service, Slice};

const NONE: [u8; 0] = [];

fn node(n: u8) -> NodeName {
    format!("node{n}").into()
}

fn at(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn service(n: u8) -> ServiceRef {
    ServiceRef::new("shop", format!("web{n}"))
}

/// Four nodes, and VIPs 201 to 208 with a Service each, of which the odd ones are `Local`.
fn world() -> World {
    let mut world = World::default();
    for n in 1..=4 {
        let v4 = Some([192, 0, 2, n].into());
        let found = Node {
            v4,
            ..Node::default()
        };
        world.nodes.insert(node(n), found);
    }
    for n in 1..=8 {
        let port = Port {
            protocol: Protocol::Tcp,
            number: 80,
        };
        let of = Service {
            ports: [port].into(),
            local: n % 2 == 1,
            ..Service::default()
        };
        world.services.insert(service(n), of);
        ready(&mut world, n, &[1, 2]);
        let vip = Vip {
            services: vec![service(n)],
            ..Vip::default()
        };
        world.vips.insert(at(200 + n), vip);
    }
    world
}

fn ready(world: &mut World, n: u8, nodes: &[u8]) {
    let slice = Slice {
        ready: nodes.iter().map(|n| node(*n)).collect(),
        ..Slice::default()
    };
    world
        .slices
        .insert(service(n), [("one".into(), slice)].into());
}

fn health() -> BTreeMap<NodeName, NodeHealth> {
    let healthy = NodeHealth {
        alive: true,
        direct_routing: true,
        ..NodeHealth::default()
    };
    (1..=4).map(|n| (node(n), healthy.clone())).collect()
}

/// Computes with the memo, and checks that it is what one without a memory says.
fn compute(
    (memo, intent): &mut (Memo, Intent),
    world: &World,
    health: &BTreeMap<NodeName, NodeHealth>,
) -> Intent {
    let world = Arc::new(world.clone());
    let before = intent.clone();
    let told = memo.update(intent, &world, health.clone(), Policy::default());
    if let Some(told) = told {
        let of = |intent: &Intent, vip: &IpAddr| {
            let virtuals = intent.virtuals.iter().filter(|(key, _)| key.vip == *vip);
            let virtuals: Vec<_> = virtuals.map(|(key, v)| (*key, v.clone())).collect();
            (intent.vips.get(vip).cloned(), virtuals)
        };
        let vips = before.vips.keys().chain(intent.vips.keys());
        for vip in vips.filter(|vip| !told.contains(vip)) {
            assert_eq!(of(&before, vip), of(intent, vip), "{vip} is not told of");
        }
    }
    let mut fresh = Intent::default();
    Memo::default().update(&mut fresh, &world, health.clone(), Policy::default());
    assert_eq!(*intent, fresh);
    intent.clone()
}

/// The VIPs of which the intent is not the allocation that it was.
fn touched(before: &Intent, after: &Intent) -> Vec<u8> {
    let same = |vip: &IpAddr| {
        let weights = |intent: &Intent| {
            let mut of_vip = intent.virtuals.iter().filter(|(key, _)| key.vip == *vip);
            of_vip.next().map(|(_, v)| v.weights.clone())
        };
        let (was, is) = (weights(before), weights(after));
        Arc::ptr_eq(&before.vips[vip], &after.vips[vip])
            && was.zip(is).is_some_and(|(was, is)| Arc::ptr_eq(&was, &is))
    };
    (1..=8).filter(|n| !same(&at(200 + n))).collect()
}

#[test]
fn vips_of_one_class_share_what_they_have() {
    let intent = compute(&mut Default::default(), &world(), &health());
    let vip = |n: u8| &intent.vips[&at(200 + n)];
    assert!(Arc::ptr_eq(vip(2), vip(4)));
    assert!(!Arc::ptr_eq(vip(1), vip(3)));
    // All may answer for all: that does not depend on endpoints where there are directors.
    assert!(Arc::ptr_eq(&vip(1).eligibility, &vip(2).eligibility));
}

#[test]
fn a_change_touches_only_what_it_is_about() {
    let (mut memo, mut world, mut health) = (Default::default(), world(), health());
    let first = compute(&mut memo, &world, &health);
    assert_eq!(touched(&first, &compute(&mut memo, &world, &health)), NONE);

    // An endpoint under policy Local.
    ready(&mut world, 3, &[1, 2, 3]);
    let second = compute(&mut memo, &world, &health);
    assert_eq!(touched(&first, &second), [3]);
    // One under policy Cluster changes nothing, and the last one does.
    ready(&mut world, 4, &[1]);
    let third = compute(&mut memo, &world, &health);
    assert_eq!(touched(&second, &third), NONE);
    ready(&mut world, 4, &[]);
    let fourth = compute(&mut memo, &world, &health);
    assert_eq!(touched(&third, &fourth), [4]);

    // A node that serves some of the VIPs under Local only, and all others.
    health.get_mut(&node(3)).unwrap().alive = false;
    let fifth = compute(&mut memo, &world, &health);
    assert_eq!(touched(&fourth, &fifth), [2, 3, 6, 8]);
    // What changes back is at least equal.
    health.get_mut(&node(3)).unwrap().alive = true;
    assert_eq!(compute(&mut memo, &world, &health), fourth);
}

#[test]
fn where_a_node_has_no_director_endpoints_decide_on_who_may_answer() {
    let (mut memo, world, mut health) = (Default::default(), world(), health());
    compute(&mut memo, &world, &health);
    health.get_mut(&node(4)).unwrap().direct_routing = false;
    let intent = compute(&mut memo, &world, &health);
    let barred = |n: u8| intent.vips[&at(200 + n)].eligibility.barred.len();
    assert_eq!((barred(1), barred(2)), (1, 0));
}

#[test]
fn a_vip_on_a_lan_of_its_own_is_judged_by_itself() {
    let (mut memo, mut world, mut health) = (Default::default(), world(), health());
    let other: IpAddr = [198, 51, 100, 1].into();
    let vip = world.vips[&at(202)].clone();
    world.vips.insert(other, vip);
    let net = |text: &str| -> IpNet { text.parse().unwrap() };
    for (n, network) in [(1, "192.0.2.0/24"), (2, "198.51.100.0/24")] {
        health.get_mut(&node(n)).unwrap().networks = [net(network)].into();
    }
    let intent = compute(&mut memo, &world, &health);
    let on_link = |vip: IpAddr, n| intent.vips[&vip].eligibility.seats[&node(n)].on_link;
    assert_eq!(
        (on_link(other, 1), on_link(other, 2)),
        (Some(false), Some(true))
    );
    assert_eq!(
        (on_link(at(202), 1), on_link(at(202), 2)),
        (Some(true), Some(false))
    );
}

/// One change of many kinds, as a number says.
fn disturb(world: &mut World, health: &mut BTreeMap<NodeName, NodeHealth>, number: u32) {
    let n = (number / 16 % 8 + 1) as u8;
    let of_node = node((number / 128 % 4 + 1) as u8);
    match number % 16 {
        0 => drop(world.vips.remove(&at(200 + n))),
        1..4 => {
            let services = [service(n), service(n % 8 + 1)];
            let vip = Vip {
                services: services[..(number / 512 % 3) as usize].to_vec(),
                ..Vip::default()
            };
            world.vips.insert(at(200 + n), vip);
        }
        4 => drop(world.services.remove(&service(n))),
        5..8 => {
            let ports = (0..number / 512 % 3).map(|port| Port {
                protocol: Protocol::Tcp,
                number: 80 + port as u16,
            });
            let of = Service {
                ports: ports.collect(),
                local: number & 0x1000 != 0,
                ..Service::default()
            };
            world.services.insert(service(n), of);
        }
        8 => drop(world.slices.remove(&service(n))),
        9..12 => {
            let nodes: Vec<u8> = (1..=4).filter(|n| number >> (12 + n) & 1 == 1).collect();
            ready(world, n, &nodes);
        }
        12 => health.get_mut(&of_node).unwrap().alive ^= true,
        13 => health.get_mut(&of_node).unwrap().direct_routing ^= true,
        14 => world.nodes.get_mut(&of_node).unwrap().excluded ^= true,
        _ => {
            let health = health.get_mut(&of_node).unwrap();
            match number / 512 % 4 {
                0 => health.idle ^= true,
                1 => health.director ^= true,
                2 => health.proven ^= true,
                _ => health.retired ^= true,
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn after_any_changes_it_is_what_one_without_a_memory_says(
        changes in proptest::collection::vec(proptest::prelude::any::<u32>(), 1..40)
    ) {
        let (mut memo, mut world, mut health) = (Default::default(), world(), health());
        compute(&mut memo, &world, &health);
        for change in changes {
            disturb(&mut world, &mut health, change);
            compute(&mut memo, &world, &health);
        }
    }
}
