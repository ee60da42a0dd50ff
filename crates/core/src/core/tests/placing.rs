//! Where VIPs are allowed, wanted and avoided, and what is said when nobody can have one.

use super::*;

/// Gives all nodes another world.
fn tell(lan: &mut Lan, change: impl Fn(&mut World)) {
    let mut next = (*lan.cores.values().next().unwrap().world).clone();
    change(&mut next);
    let next = Arc::new(next);
    for core in lan.cores.values_mut() {
        core.on_world(next.clone(), lan.now);
    }
}

fn node(world: &mut World, n: u8) -> &mut Node {
    world.nodes.get_mut(&name(n)).unwrap()
}

#[test]
fn a_vip_that_nobody_may_own_is_reported_by_one_speaker_with_the_reasons() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    lan.cores.remove(&1);
    lan.run(1_000 * MS);
    tell(&mut lan, |world| {
        node(world, 2).excluded = true;
        node(world, 3).network_unavailable = true;
    });
    lan.run(900 * MS);
    assert!(lan.reports.values().all(|r| r.unowned.is_empty()));
    lan.run(300 * MS);
    assert_eq!(lan.owners(), BTreeMap::new());
    let report = &lan.reports[&2].unowned[&vip(1)];
    for part in [
        "neither speaker nor kernel answers (node1)",
        "exclude-from-external-load-balancers on the node (node2)",
        "NetworkUnavailable on the node (node3)",
    ] {
        assert!(report.message.contains(part), "{}", report.message);
    }
    assert!(lan.reports[&3].unowned.is_empty(), "one reports");
    tell(&mut lan, |world| node(world, 3).network_unavailable = false);
    lan.run(300 * MS);
    assert_eq!(lan.owner(vip(1)), 3);
    assert!(lan.reports[&2].unowned.is_empty());
}

#[test]
fn a_dead_node_is_counted_among_the_backends() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let dead = lan.owner(vip(1));
    lan.cores.remove(&dead);
    lan.run(1_000 * MS);
    let backends = &lan.reports[&lan.owner(vip(1))].vips[&vip(1)].backends;
    assert_eq!(backends.len(), 3);
    assert_eq!(backends[&name(dead)], 0);
}

#[test]
fn a_move_is_done_once_and_a_pin_holds() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let first = lan.owner(vip(1));
    let second = first % 3 + 1;
    let third = second % 3 + 1;
    let ask = |world: &mut World, pin: Option<u8>, target: Option<u8>| {
        let asked = world.vips.get_mut(&vip(1)).unwrap();
        (asked.pin_to, asked.move_to) = (pin.map(name), target.map(name));
    };
    tell(&mut lan, |world| ask(world, None, Some(second)));
    lan.run(300 * MS);
    assert_eq!(lan.owner(vip(1)), second);
    let report = &lan.reports[&second].vips[&vip(1)];
    assert_eq!(report.moved_to, Some(name(second)));
    assert_eq!(report.moved.as_ref().unwrap().reason, "Requested");
    // It has been done and is written in the status, so the annotation that is still there
    // pulls nothing back.
    tell(&mut lan, |world| {
        world.vips.get_mut(&vip(1)).unwrap().moved_to = Some(name(second));
    });
    lan.cores.get_mut(&second).unwrap().leave(lan.now);
    lan.run(300 * MS);
    lan.cores.remove(&second);
    let other = lan.owner(vip(1));
    let back = core(
        second,
        lan.cores[&other].world.clone(),
        &Saved::default(),
        lan.now,
    );
    lan.cores.insert(second, back);
    lan.run(2_000 * MS);
    assert_eq!(lan.owner(vip(1)), other);
    // A pin pulls it back whenever its node can own it.
    let pinned = if other == first { third } else { first };
    tell(&mut lan, |world| ask(world, Some(pinned), None));
    lan.run(300 * MS);
    assert_eq!(lan.owner(vip(1)), pinned);
    let placement = lan.reports[&pinned].vips[&vip(1)].placement.clone();
    assert!(placement.unwrap().placed);
    let world = lan.cores[&pinned].world.clone();
    lan.cores.remove(&pinned);
    lan.run(1_000 * MS);
    assert_ne!(lan.owner(vip(1)), pinned);
    lan.cores
        .insert(pinned, core(pinned, world, &Saved::default(), lan.now));
    lan.run(1_000 * MS);
    assert_eq!(lan.owner(vip(1)), pinned);
}

#[test]
fn a_wish_that_cannot_be_granted_is_told_with_the_reason() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let owner = lan.owner(vip(1));
    let other = owner % 3 + 1;
    for (target, reason) in [
        (NodeName::from("nowhere"), "NoSuchNode"),
        (name(other), "NodeNotEligible"),
    ] {
        tell(&mut lan, |world| {
            node(world, other).excluded = true;
            world.vips.get_mut(&vip(1)).unwrap().pin_to = Some(target.clone());
        });
        lan.run(300 * MS);
        assert_eq!(lan.owner(vip(1)), owner);
        let placement = lan.reports[&owner].vips[&vip(1)].placement.clone().unwrap();
        assert_eq!((placement.placed, placement.reason), (false, reason));
        assert!(placement.message.contains(&*target), "{placement:?}");
    }
}

#[test]
fn a_drained_node_hands_over_without_a_gap_and_the_last_one_keeps_what_it_has() {
    let mut lan = Lan::with(3);
    lan.run(1_000 * MS);
    let drain = |lan: &mut Lan, n: u8| tell(lan, |world| node(world, n).drained = true);
    drain(&mut lan, 1);
    lan.run(300 * MS);
    assert!(lan.owners().values().all(|owners| *owners != [1]));
    drain(&mut lan, 2);
    lan.run(300 * MS);
    assert!(lan.owners().values().all(|owners| *owners == [3]));
    drain(&mut lan, 3);
    lan.run(1_000 * MS);
    assert!(lan.owners().values().all(|owners| *owners == [3]));
}

#[test]
fn without_a_carrier_a_node_takes_nothing_and_yields_when_it_is_back() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let owner = lan.owner(vip(1));
    let down = UplinkState {
        carrier: false,
        ..UplinkState::FINE
    };
    // Another way to the peers is left, so they hear of it.
    let at = lan.now;
    lan.cores.get_mut(&owner).unwrap().on_uplink(down, at);
    lan.run(50 * MS);
    let next = lan.owner(vip(1));
    assert_ne!(next, owner);
    // No way is left: the node sits alone and takes nothing.
    let others: Vec<Core> = (1..=3)
        .filter(|n| *n != owner)
        .map(|n| lan.cores.remove(&n).unwrap())
        .collect();
    lan.run(5_000 * MS);
    assert_eq!(lan.owners(), BTreeMap::new());
    let at = lan.now;
    lan.cores
        .get_mut(&owner)
        .unwrap()
        .on_uplink(UplinkState::FINE, at);
    lan.run(300 * MS);
    assert_eq!(lan.owners(), BTreeMap::new(), "it listens first");
    drop(others);
    lan.run(500 * MS);
    assert_eq!(lan.owner(vip(1)), owner, "nobody else is there");
}

#[test]
fn a_node_that_was_cut_off_takes_nothing_from_the_others_when_it_is_back() {
    let mut lan = Lan::with(3);
    lan.run(1_000 * MS);
    let before = lan.owners();
    lan.cut = Some(1);
    lan.run(5_000 * MS);
    let owners = lan.owners();
    assert!(
        owners
            .values()
            .all(|owners| owners.len() == 2 && owners.contains(&1))
    );
    lan.cut = None;
    lan.run(250 * MS);
    for (vip, owners) in before {
        let now = lan.owner(vip);
        assert_ne!(now, 1, "the majority had it");
        assert!(owners == [1] || owners == [now], "{vip} moved");
    }
}

#[test]
fn a_vip_goes_to_a_node_that_has_it_on_link_and_is_announced_where_none_has() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    let networks = |lan: &mut Lan, n: u8, network: &str| {
        let networks = Arc::from([network.parse::<IpNet>().unwrap()]);
        let at = lan.now;
        lan.cores.get_mut(&n).unwrap().on_networks(networks, at);
    };
    let told = |lan: &Lan, n: u8| lan.reports[&n].vips[&vip(1)].off_link;
    let first = lan.owner(vip(1));
    let second = first % 3 + 1;
    assert_eq!(told(&lan, first), None);
    // A routed pool: it stays where it is, announced.
    for n in 1..=3 {
        networks(&mut lan, n, "198.51.100.0/24");
    }
    lan.run(1_000 * MS);
    assert_eq!(lan.owner(vip(1)), first);
    assert_eq!(told(&lan, first), Some(OffLink::Everywhere));
    // One node gets the network.
    networks(&mut lan, second, "192.0.2.0/24");
    lan.run(1_000 * MS);
    assert_eq!(lan.owner(vip(1)), second);
    assert_eq!(told(&lan, second), None);
    // It dies: an address that a router may still lead here is worth more than none.
    lan.cores.remove(&second);
    lan.run(1_000 * MS);
    let third = lan.owner(vip(1));
    assert_ne!(third, second);
    assert_eq!(told(&lan, third), Some(OffLink::Here));
}
