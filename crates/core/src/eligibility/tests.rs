use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::*;
use crate::further::Further;
use crate::world::{Announcement, Service, ServiceRef};

fn name(n: u8) -> NodeName {
    format!("node{n}").into()
}

fn address() -> IpAddr {
    [192, 0, 2, 200].into()
}

/// Three nodes and one Service of pool `lan`.
fn world() -> World {
    let mut world = World::default();
    for n in 1..=3u8 {
        let node = Node {
            v4: Some([192, 0, 2, 10 + n].into()),
            labels: [("rack".into(), format!("r{n}"))].into(),
            ..Node::default()
        };
        world.nodes.insert(name(n), node);
    }
    let web = ServiceRef::new("shop", "web");
    world.services.insert(web.clone(), Service::default());
    let vip = Vip {
        pool: "lan".into(),
        services: vec![web],
        ..Vip::default()
    };
    world.vips.insert(address(), vip);
    world
}

fn health(interface: &str, direct_routing: bool) -> NodeHealth {
    NodeHealth {
        alive: true,
        direct_routing,
        interface: interface.into(),
        networks: [].into(),
        further: [].into(),
        retired: false,
        idle: false,
        director: direct_routing,
        proven: false,
    }
}

struct Given {
    world: World,
    health: BTreeMap<NodeName, NodeHealth>,
    policy: Policy,
    address: IpAddr,
    local_nodes: Option<BTreeSet<NodeName>>,
}

impl Given {
    fn new() -> Self {
        Given {
            world: world(),
            health: (1..=3).map(|n| (name(n), health("eth0", true))).collect(),
            policy: Policy::default(),
            address: address(),
            local_nodes: None,
        }
    }

    fn node(&mut self, n: u8) -> &mut Node {
        self.world.nodes.get_mut(&name(n)).unwrap()
    }

    fn announce(&mut self, announcement: Announcement) {
        let key = format!("a{}", self.world.announcements.len());
        self.world.announcements.insert(key, announcement);
    }

    fn judge(&self) -> Eligibility {
        judge(&Case {
            world: &self.world,
            health: &self.health,
            policy: self.policy,
            address: self.address,
            vip: &self.world.vips[&address()],
            local_nodes: self.local_nodes.as_ref(),
        })
    }

    fn seats(&self) -> Vec<String> {
        self.judge().seats.keys().map(ToString::to_string).collect()
    }

    fn bar(&self, n: u8) -> Option<Bar> {
        self.judge().barred.get(&name(n)).copied()
    }
}

fn rack(value: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some([("rack".to_owned(), value.to_owned())].into()),
        ..LabelSelector::default()
    }
}

#[test]
fn without_any_announcement_every_node_may() {
    assert_eq!(Given::new().seats(), ["node1", "node2", "node3"]);
}

#[test]
fn facts_of_the_node_object_bar_it_and_are_named() {
    let mut given = Given::new();
    given.node(1).excluded = true;
    given.node(2).network_unavailable = true;
    given.node(3).v4 = None;
    assert_eq!(given.seats(), [""; 0]);
    assert_eq!(given.bar(1), Some(Bar::Excluded));
    assert_eq!(given.bar(2), Some(Bar::NetworkUnavailable));
    assert_eq!(given.bar(3), Some(Bar::NoAddress));
    given.address = "2001:db8:2::200".parse().unwrap();
    given.node(3).v6 = Some("2001:db8:2::13".parse().unwrap());
    assert_eq!(given.seats(), ["node3"]);
}

#[test]
fn announcements_choose_nodes_add_up_and_must_cover_the_vip() {
    let mut given = Given::new();
    let lan = || BTreeSet::from(["lan".to_owned()]);
    given.announce(Announcement {
        pools: lan(),
        nodes: vec![rack("r2")],
        ..Announcement::default()
    });
    assert_eq!(given.seats(), ["node2"]);
    assert_eq!(given.bar(1), Some(Bar::NotSelected));
    given.announce(Announcement {
        nodes: vec![rack("r3")],
        preferred: vec![(30, rack("r3")), (5, rack("r3"))],
        ..Announcement::default()
    });
    assert_eq!(given.seats(), ["node2", "node3"]);
    let seats = given.judge().seats;
    assert_eq!(seats[&name(2)].preference, 0);
    assert_eq!(seats[&name(3)].preference, 35);
    given.world.announcements.clear();
    given.announce(Announcement {
        pools: ["other".to_owned()].into(),
        ..Announcement::default()
    });
    assert_eq!(given.seats(), [""; 0]);
    assert_eq!(given.bar(1), Some(Bar::NotCovered));
}

#[test]
fn interfaces_bar_nodes_whose_uplink_is_another_one() {
    let mut given = Given::new();
    given.health.insert(name(2), health("bond0.12", true));
    // Not heard yet, or of a release that does not tell.
    given.health.remove(&name(3));
    given.announce(Announcement {
        interfaces: vec!["bond*".into(), "wan0".into()],
        ..Announcement::default()
    });
    assert_eq!(given.seats(), ["node2", "node3"]);
    assert_eq!(given.bar(1), Some(Bar::Interface));
    given.announce(Announcement {
        interfaces: vec!["eth?".into()],
        nodes: vec![rack("r1")],
        ..Announcement::default()
    });
    assert_eq!(given.seats(), ["node1", "node2", "node3"]);
}

#[test]
fn a_forwarding_mode_keeps_nodes_out_that_cannot_do_it() {
    let mut given = Given::new();
    given.health.insert(name(2), health("eth0", false));
    given.announce(Announcement {
        direct_only: true,
        ..Announcement::default()
    });
    assert_eq!(given.seats(), ["node1", "node3"]);
    assert_eq!(given.bar(2), Some(Bar::NoDirector));
}

#[test]
fn without_a_director_policy_local_needs_an_endpoint() {
    let mut given = Given::new();
    given.local_nodes = Some([name(3)].into());
    assert_eq!(given.seats().len(), 3, "a director needs none");
    given.health.insert(name(2), health("eth0", false));
    given.health.insert(name(3), health("eth0", false));
    assert_eq!(given.seats(), ["node1", "node3"]);
    assert_eq!(given.bar(2), Some(Bar::NoEndpoint));
}

#[test]
fn drained_and_shut_down_nodes_are_avoided_and_cordoned_ones_as_the_flag_says() {
    let mut given = Given::new();
    given.node(1).drained = true;
    given.node(2).out_of_service = true;
    given.node(3).cordoned = true;
    let avoided = |given: &Given| -> Vec<Option<Avoid>> {
        given
            .judge()
            .seats
            .values()
            .map(|seat| seat.avoid)
            .collect()
    };
    let (drained, out) = (Some(Avoid::Drained), Some(Avoid::OutOfService));
    assert_eq!(avoided(&given), [drained, out, None]);
    given.policy.cordon_moves = true;
    assert_eq!(avoided(&given), [drained, out, Some(Avoid::Cordoned)]);
}

#[test]
fn a_port_that_drops_replies_is_avoided_only_while_another_one_is_known_to_be_better() {
    let mut given = Given::new();
    let avoided = |given: &Given| -> Vec<Option<Avoid>> {
        let seats = given.judge().seats;
        seats.values().map(|seat| seat.avoid).collect()
    };
    let mute = given.health.get_mut(&name(1)).unwrap();
    (mute.direct_routing, mute.idle) = (false, true);
    assert_eq!(
        avoided(&given),
        [None, None, None],
        "nothing is known of the others"
    );
    given.health.get_mut(&name(2)).unwrap().proven = true;
    assert_eq!(avoided(&given), [Some(Avoid::Muted), None, None]);
    for worse in [
        |health: &mut NodeHealth| health.alive = false,
        |health: &mut NodeHealth| health.idle = true,
    ] {
        let was = given.health[&name(2)].clone();
        worse(given.health.get_mut(&name(2)).unwrap());
        assert_eq!(avoided(&given), [None, None, None]);
        given.health.insert(name(2), was);
    }
    given.node(2).drained = true;
    assert_eq!(avoided(&given), [None, Some(Avoid::Drained), None]);
}

#[test]
fn nodes_on_another_lan_are_avoided_unless_none_is_on_the_vips_own() {
    let mut given = Given::new();
    let lan = |given: &mut Given, n: u8, networks: &[&str]| {
        let networks = networks.iter().map(|network| network.parse().unwrap());
        given.health.get_mut(&name(n)).unwrap().networks = networks.collect();
    };
    let avoided = |given: &Given| -> Vec<Option<Avoid>> {
        given
            .judge()
            .seats
            .values()
            .map(|seat| seat.avoid)
            .collect()
    };
    let off = Some(Avoid::OffLink);
    // Nobody says anything: all are alike.
    assert_eq!(avoided(&given), [None, None, None]);
    assert!(!given.judge().somewhere_on_link());
    // A routed pool: the same.
    for n in 1..=2 {
        lan(&mut given, n, &["198.51.100.0/24", "2001:db8:9::/64"]);
    }
    assert_eq!(avoided(&given), [None, None, None]);
    let seats = given.judge().seats;
    assert_eq!(
        (seats[&name(1)].on_link, seats[&name(3)].on_link),
        (Some(false), None)
    );
    // One has it; another, of a release that does not tell, may.
    lan(&mut given, 2, &["198.51.100.0/24", "192.0.2.0/24"]);
    assert_eq!(avoided(&given), [off, None, None]);
    lan(&mut given, 3, &["198.51.100.0/24"]);
    assert_eq!(avoided(&given), [off, None, off]);
    // What somebody asked for is the reason that is shown.
    given.node(3).drained = true;
    assert_eq!(avoided(&given), [off, None, Some(Avoid::Drained)]);
    // A node that may not own it at all does not count.
    given.node(2).excluded = true;
    assert_eq!(avoided(&given), [None, Some(Avoid::Drained)]);
}

#[test]
fn a_vip_on_a_further_uplink_is_for_nodes_there_and_for_those_that_are_allowed_to() {
    let mut given = Given::new();
    for n in 1..=3 {
        let health = given.health.get_mut(&name(n)).unwrap();
        health.networks = ["198.51.100.0/24".parse().unwrap()].into();
    }
    let further = |given: &mut Given, n: u8, interface: &str| {
        let further = Further {
            interface: interface.into(),
            networks: ["192.0.2.0/24".parse().unwrap()].into(),
            ..Further::default()
        };
        given.health.get_mut(&name(n)).unwrap().further = [further].into();
    };
    further(&mut given, 1, "eth1");
    further(&mut given, 2, "vlan20");
    let seats = |given: &Given| -> BTreeMap<NodeName, (Via, Option<Avoid>)> {
        let seats = given.judge().seats.into_iter();
        seats.map(|(name, s)| (name, (s.via, s.avoid))).collect()
    };
    let on = |interface: &str| Via::Further(interface.into());
    let off = Some(Avoid::OffLink);
    let expected = [
        (name(1), (on("eth1"), None)),
        (name(2), (on("vlan20"), None)),
        (name(3), (Via::Main, off)),
    ];
    assert_eq!(seats(&given), expected.into());

    let only = Announcement {
        interfaces: vec!["eth*".into()],
        ..Announcement::default()
    };
    let main = given.health[&name(1)].interface.clone();
    given.world.announcements.insert("one".into(), only);
    let seat = seats(&given)[&name(1)].clone();
    assert_eq!(seat, (on("eth1"), None));
    // Neither uplink of the second is allowed any more, if its main one has another name too.
    given.health.get_mut(&name(2)).unwrap().interface = "lan0".into();
    assert_eq!(given.judge().barred[&name(2)], Bar::Interface);
    given.health.get_mut(&name(2)).unwrap().interface = main;
    given.world.announcements.clear();

    // The third gets it on its main uplink: its director sends to another LAN than the others'.
    let third = given.health.get_mut(&name(3)).unwrap();
    third.networks = ["192.0.2.0/24".parse().unwrap()].into();
    let avoided = |given: &Given| -> Vec<Option<Avoid>> {
        given.judge().seats.values().map(|s| s.avoid).collect()
    };
    assert_eq!(avoided(&given), [off, off, None]);
    // Without a director a node's own kube-proxy takes all.
    given.health.get_mut(&name(1)).unwrap().direct_routing = false;
    assert_eq!(avoided(&given), [None, off, None]);
}
