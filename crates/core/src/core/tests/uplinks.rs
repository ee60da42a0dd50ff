//! VIPs on further uplinks.

use super::*;
use crate::further::Further;

/// On the LAN of the further uplinks.
fn second() -> IpAddr {
    "198.51.100.200".parse().unwrap()
}

fn second_v6() -> IpAddr {
    "2001:db8:20::200".parse().unwrap()
}

fn eth1() -> Via {
    Via::Further("eth1".into())
}

fn mac(n: u8) -> Mac {
    Mac([2, 1, 0, 0, 0, n])
}

fn director_mac(n: u8) -> Mac {
    Mac([2, 1, 0xd, 0, 0, n])
}

/// `eth1` of a node.
fn own(n: u8) -> Arc<[Own]> {
    let networks = ["198.51.100.0/24", "2001:db8:20::/64"].map(|n| n.parse().unwrap());
    let told = Further {
        interface: "eth1".into(),
        mac: mac(n).0,
        director_mac: director_mac(n).0,
        networks: networks.into(),
    };
    Arc::new([Own { index: 7, told }])
}

fn two_lans() -> Arc<World> {
    let mut world = World::clone(&world(1));
    let web = world.vips[&vip(1)].clone();
    for n in 1..=3 {
        let v6 = format!("2001:db8:2::1{n}").parse().unwrap();
        world.nodes.get_mut(&name(n)).unwrap().v6 = Some(v6);
    }
    world.vips.insert(second(), web.clone());
    world.vips.insert(second_v6(), web);
    Arc::new(world)
}

/// Those nodes have `eth1`.
fn lan_with(on_both: &[u8], direct_routing: bool) -> Lan {
    let mut lan = Lan::default();
    for n in 1..=3 {
        let mut core = core(n, two_lans(), &Saved::default(), Duration::ZERO);
        core.setup.direct_routing = direct_routing;
        core.on_networks(Arc::from(["192.0.2.0/24".parse().unwrap()]), Duration::ZERO);
        if on_both.contains(&n) {
            core.on_further(own(n), Duration::ZERO);
        }
        lan.cores.insert(n, core);
    }
    lan.run(1_000 * MS);
    lan
}

/// Who announced a VIP since a time, where, and with which MAC.
fn said(lan: &Lan, vip: IpAddr, since: Duration) -> BTreeSet<(u8, Via, Mac)> {
    let main = lan.frames.iter().map(|(n, at, f)| (n, at, Via::Main, f));
    let further = lan
        .elsewhere
        .iter()
        .map(|(n, at, via, f)| (n, at, via.clone(), f));
    let all = main.chain(further).filter(|(_, at, ..)| **at >= since);
    all.filter_map(|(n, _, via, frame)| match neighbours::read(frame) {
        Ok(neighbours::Heard::Claim { address, mac }) if address == vip => Some((*n, via, mac)),
        _ => None,
    })
    .collect()
}

#[test]
fn a_vip_is_announced_on_the_uplink_where_it_is_on_link_by_the_director_there() {
    let lan = lan_with(&[1, 2, 3], true);
    for vip in [second(), second_v6()] {
        let owner = lan.owner(vip);
        let expected = (owner, eth1(), director_mac(owner));
        assert_eq!(said(&lan, vip, Duration::ZERO), [expected].into());
        let report = &lan.reports[&owner].vips[&vip];
        let further = ("eth1".into(), director_mac(owner));
        assert_eq!((&report.further, report.off_link), (&Some(further), None));
    }
    let owner = lan.owner(vip(1));
    let expected = (owner, Via::Main, director(owner));
    assert_eq!(said(&lan, vip(1), Duration::ZERO), [expected].into());
    // The conflict probes went out there too, in the uplink's own name.
    let owner = lan.owner(second());
    let probes = lan.elsewhere.iter().filter(|(n, _, via, frame)| {
        let probe = neighbours::question(("0.0.0.0".parse().unwrap(), mac(owner)), second());
        *n == owner && *via == eth1() && Some(frame) == probe.as_ref()
    });
    assert_eq!(probes.count(), 2);
    // Every node is ready to take over, and all are real servers.
    for n in 1..=3 {
        assert_eq!(lan.weights(n), [1, 1, 1]);
        let uplinks = &lan.directors[&n].uplinks;
        assert_eq!(*uplinks, [("eth1".into(), (7, director_mac(n)))].into());
        assert_eq!(*lan.used[&n], *own(n));
        let IpAddr::V6(v6) = second_v6() else {
            unreachable!()
        };
        assert_eq!(lan.groups[&n], [(eth1(), v6)].into());
    }
    assert_eq!(lan.reports[&1].directors_agreeing, 3, "one table");
}

#[test]
fn a_question_is_answered_only_where_the_vip_is_announced() {
    let mut lan = lan_with(&[1, 2, 3], true);
    let (now, owner) = (lan.now, lan.owner(second()));
    let core = lan.cores.get_mut(&owner).unwrap();
    let (client, from) = ("198.51.100.7".parse().unwrap(), Mac([2, 9, 0, 0, 0, 7]));
    let question = neighbours::question((client, from), second()).unwrap();
    core.on_frame(&Via::Main, &question, now);
    assert_eq!(core.outputs(), []);
    core.on_frame(&eth1(), &question, now);
    let answer = neighbours::answer(second(), director_mac(owner), client, from).unwrap();
    assert_eq!(core.outputs(), [Output::Frame(eth1(), answer)]);
    // A router that answers for it on the other LAN is no conflict; a machine on its own is.
    let claim = neighbours::announcement(second(), from).remove(0);
    core.on_frame(&Via::Main, &claim, now);
    assert_eq!(core.conflicts.foreign(second()), None);
    let ours = neighbours::announcement(second(), director_mac(1)).remove(0);
    core.on_frame(&eth1(), &ours, now);
    assert_eq!(core.conflicts.foreign(second()), None);
    core.on_frame(&eth1(), &claim, now);
    assert_eq!(core.conflicts.foreign(second()), Some(from));
}

#[test]
fn only_nodes_on_the_lan_own_its_vips_and_another_takes_over_when_the_carrier_goes() {
    let mut lan = lan_with(&[1, 2], true);
    let owner = lan.owner(second());
    assert!([1, 2].contains(&owner));
    // The third node is a real server all the same.
    for n in 1..=3 {
        assert_eq!(lan.weights(n), [1, 1, 1]);
    }
    let since = lan.now;
    let core = lan.cores.get_mut(&owner).unwrap();
    core.on_further([].into(), since);
    lan.run(1_000 * MS);
    let next = lan.owner(second());
    assert_eq!(BTreeSet::from([owner, next]), [1, 2].into());
    let expected = (next, eth1(), director_mac(next));
    assert_eq!(said(&lan, second(), since), [expected].into());
    assert!(lan.directors[&owner].uplinks.is_empty());
}

#[test]
fn without_a_director_the_uplinks_own_mac_is_announced() {
    let mut lan = lan_with(&[1, 2, 3], false);
    let owner = lan.owner(second());
    let expected = (owner, eth1(), mac(owner));
    assert_eq!(said(&lan, second(), Duration::ZERO), [expected].into());
    // Nor where the kernel refuses the director a link there.
    lan = lan_with(&[1, 2, 3], true);
    let (since, owner) = (lan.now, lan.owner(second()));
    let core = lan.cores.get_mut(&owner).unwrap();
    let refused = DirectorReport {
        uplinks: [("eth1".into(), Some("no".into()))].into(),
        ..core.director.clone()
    };
    core.on_director(refused);
    lan.run(500 * MS);
    let expected = (owner, eth1(), mac(owner));
    assert_eq!(said(&lan, second(), since), [expected].into());
    assert_eq!(
        lan.reports[&owner].vips[&second()].refused.as_deref(),
        Some("no")
    );
}

#[test]
fn a_vip_that_moves_to_another_uplink_is_announced_there() {
    let mut lan = lan_with(&[], true);
    let owner = lan.owner(second());
    let expected = (owner, Via::Main, director(owner));
    assert_eq!(said(&lan, second(), Duration::ZERO), [expected].into());
    assert_eq!(
        lan.reports[&owner].vips[&second()].off_link,
        Some(OffLink::Everywhere)
    );
    // The interface comes on all nodes.
    let since = lan.now;
    for n in 1..=3 {
        lan.cores.get_mut(&n).unwrap().on_further(own(n), since);
    }
    lan.run(1_000 * MS);
    let owner = lan.owner(second());
    assert!(said(&lan, second(), since).contains(&(owner, eth1(), director_mac(owner))));
    assert_eq!(lan.reports[&owner].vips[&second()].off_link, None);
    // It is another link of the same name: announced there at once.
    lan.run(8_000 * MS);
    let since = lan.now;
    let mut again = own(owner).to_vec();
    again[0].index = 9;
    let core = lan.cores.get_mut(&owner).unwrap();
    core.on_further(again.into(), since);
    lan.run(20 * MS);
    let expected = (owner, eth1(), director_mac(owner));
    assert_eq!(said(&lan, second(), since), [expected].into());
}
