use super::*;
use crate::further::Further;
use crate::world::{Announcement, Node, Slice, Vip};

fn name(n: u8) -> NodeName {
    format!("node{n}").into()
}

fn names(list: &[u8]) -> BTreeSet<NodeName> {
    list.iter().map(|n| name(*n)).collect()
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn vip() -> IpAddr {
    ip(200)
}

fn vip6() -> IpAddr {
    "2001:db8:2::200".parse().unwrap()
}

fn healthy() -> NodeHealth {
    NodeHealth {
        alive: true,
        direct_routing: true,
        interface: "eth0".into(),
        networks: [].into(),
        further: [].into(),
        retired: false,
        idle: false,
        director: true,
        proven: false,
    }
}

fn compute(world: &World, health: &BTreeMap<NodeName, NodeHealth>) -> Intent {
    let mut intent = Intent::default();
    let world = Arc::new(world.clone());
    Memo::default().update(&mut intent, &world, health.clone(), Policy::default());
    intent
}

fn web() -> ServiceRef {
    ServiceRef::new("shop", "web")
}

fn tcp(number: u16) -> Port {
    Port {
        protocol: Protocol::Tcp,
        number,
    }
}

/// Three dual-stack nodes and one Service on one VIP of each family.
fn fixture(local: bool) -> (World, BTreeMap<NodeName, NodeHealth>) {
    let mut world = World::default();
    for n in 1..=3u8 {
        let node = Node {
            v4: Some([192, 0, 2, 10 + n].into()),
            v6: Some(format!("2001:db8:2::1{n}").parse().unwrap()),
            labels: BTreeMap::from([("rack".into(), format!("r{n}"))]),
            ..Node::default()
        };
        world.nodes.insert(name(n), node);
    }
    let ports = BTreeSet::from([
        tcp(80),
        Port {
            protocol: Protocol::Udp,
            number: 53,
        },
    ]);
    world.services.insert(
        web(),
        Service {
            ports,
            local,
            ..Service::default()
        },
    );
    for address in [vip(), vip6()] {
        let entry = Vip {
            pool: "lan".into(),
            services: vec![web()],
            ..Vip::default()
        };
        world.vips.insert(address, entry);
    }
    if !local {
        for (slice, ipv6) in [("web-4", false), ("web-6", true)] {
            endpoints(&mut world, slice, ipv6, &[1], &[]);
        }
    }
    (world, (1..=3).map(|n| (name(n), healthy())).collect())
}

fn endpoints(world: &mut World, slice: &str, ipv6: bool, ready: &[u8], draining: &[u8]) {
    let slice_value = Slice {
        ipv6,
        ready: names(ready),
        draining: names(draining),
        ..Slice::default()
    };
    world
        .slices
        .or_default(web())
        .insert(slice.into(), slice_value);
}

fn candidates(intent: &Intent) -> BTreeSet<NodeName> {
    intent.vips[&vip()]
        .eligibility
        .seats
        .keys()
        .cloned()
        .collect()
}

fn weights(intent: &Intent, vip: IpAddr) -> BTreeMap<IpAddr, u32> {
    let weights = &intent.virtuals[&PortKey { vip, port: tcp(80) }].weights;
    BTreeMap::clone(weights)
}

#[test]
fn cluster_policy_uses_every_live_node_in_both_families() {
    let (world, mut health) = fixture(false);
    let intent = compute(&world, &health);
    assert_eq!(
        weights(&intent, vip()),
        [(ip(11), 1), (ip(12), 1), (ip(13), 1)].into()
    );
    assert_eq!(weights(&intent, vip6()).len(), 3);
    assert!(weights(&intent, vip6()).keys().all(IpAddr::is_ipv6));
    assert_eq!(candidates(&intent), names(&[1, 2, 3]));

    health.get_mut(&name(2)).unwrap().alive = false;
    let intent = compute(&world, &health);
    assert_eq!(weights(&intent, vip()), [(ip(11), 1), (ip(13), 1)].into());
    let backends = &intent.vips[&vip()].backends;
    assert_eq!(
        **backends,
        [(name(1), 1), (name(2), 0), (name(3), 1)].into()
    );
}

#[test]
fn without_any_endpoint_there_is_no_real_server() {
    let (mut world, health) = fixture(false);
    endpoints(&mut world, "web-4", false, &[], &[]);
    let intent = compute(&world, &health);
    assert_eq!(weights(&intent, vip()), [].into());
    assert_eq!(
        weights(&intent, vip6()).len(),
        3,
        "the other family has one"
    );
    let slices = world.slices.get_mut(&web()).unwrap();
    slices.get_mut("web-4").unwrap().elsewhere = true;
    assert_eq!(weights(&compute(&world, &health), vip()).len(), 3);
}

#[test]
fn without_any_endpoint_nodes_that_drop_may_be_asked_for() {
    for local in [false, true] {
        let (mut world, mut health) = fixture(local);
        endpoints(&mut world, "web-4", false, &[], &[]);
        health.get_mut(&name(3)).unwrap().retired = true;
        assert!(world.refuses(vip(), &world.vips[&vip()]));
        let policy = Announcement {
            drop_without_endpoints: true,
            ..Announcement::default()
        };
        world.announcements.insert("one".into(), policy);
        let intent = compute(&world, &health);
        assert_eq!(
            weights(&intent, vip()),
            [(ip(11), 1), (ip(12), 1), (ip(13), 0)].into()
        );
        assert!(
            intent.vips[&vip()].backends.is_empty(),
            "they serve nobody, and people are told so"
        );
        assert!(!world.refuses(vip(), &world.vips[&vip()]));
    }
}

#[test]
fn any_node_may_own_an_address_to_refuse() {
    let (mut world, mut health) = fixture(true);
    for health in health.values_mut() {
        health.direct_routing = false;
    }
    endpoints(&mut world, "web-4", false, &[], &[]);
    assert_eq!(candidates(&compute(&world, &health)), names(&[1, 2, 3]));
    let policy = Announcement {
        drop_without_endpoints: true,
        ..Announcement::default()
    };
    world.announcements.insert("one".into(), policy);
    assert_eq!(candidates(&compute(&world, &health)), names(&[]));
}

/// A rolling update that renames a container's port makes slices of which each serves one of the two.
#[test]
fn a_slice_counts_for_the_ports_that_it_has() {
    for local in [false, true] {
        let (mut world, health) = fixture(local);
        let udp = Port {
            protocol: Protocol::Udp,
            number: 53,
        };
        let service = world.services.get_mut(&web()).unwrap();
        service.port_names = [(tcp(80), "http".into()), (udp, "dns".into())].into();
        endpoints(&mut world, "web-4", false, &[1], &[]);
        endpoints(&mut world, "web-5", false, &[2], &[]);
        let ports = |world: &mut World, slice: &str, ports: &[(Protocol, &str)]| {
            let slices = world.slices.get_mut(&web()).unwrap();
            let ports = ports.iter().map(|(p, name)| (*p, (*name).to_owned()));
            slices.get_mut(slice).unwrap().ports = Some(ports.collect());
        };
        let nodes = |world: &World, port: Port| {
            let intent = compute(world, &health);
            let key = PortKey { vip: vip(), port };
            let nodes: Vec<IpAddr> = intent.virtuals[&key].weights.keys().copied().collect();
            nodes
        };
        ports(
            &mut world,
            "web-4",
            &[(Protocol::Tcp, "http"), (Protocol::Udp, "dns")],
        );
        // The same name of another protocol is another port.
        ports(
            &mut world,
            "web-5",
            &[(Protocol::Tcp, "http"), (Protocol::Tcp, "dns")],
        );
        let all = vec![ip(11), ip(12), ip(13)];
        let (of_tcp, of_udp) = if local {
            (vec![ip(11), ip(12)], vec![ip(11)])
        } else {
            (all.clone(), all.clone())
        };
        assert_eq!(
            (nodes(&world, tcp(80)), nodes(&world, udp)),
            (of_tcp, of_udp)
        );
        ports(&mut world, "web-4", &[(Protocol::Tcp, "http")]);
        assert_eq!(nodes(&world, udp), [] as [IpAddr; 0]);
        assert!(
            !world.refuses(vip(), &world.vips[&vip()]),
            "one port is served"
        );
        ports(&mut world, "web-4", &[]);
        ports(&mut world, "web-5", &[(Protocol::Tcp, "")]);
        assert_eq!(nodes(&world, tcp(80)), [] as [IpAddr; 0]);
        assert!(world.refuses(vip(), &world.vips[&vip()]));
    }
}

#[test]
fn a_node_never_heard_is_no_real_server_but_may_become_owner() {
    let (world, mut health) = fixture(false);
    health.remove(&name(3));
    let intent = compute(&world, &health);
    assert_eq!(weights(&intent, vip()), [(ip(11), 1), (ip(12), 1)].into());
    assert!(candidates(&intent).contains(&name(3)));
    assert_eq!(intent.vips[&vip()].backends.len(), 2, "and is not missed");
}

#[test]
fn local_policy_uses_nodes_with_ready_endpoints_of_the_vips_family() {
    let (mut world, health) = fixture(true);
    endpoints(&mut world, "web-4", false, &[1, 3], &[2]);
    endpoints(&mut world, "web-6", true, &[2], &[]);
    let intent = compute(&world, &health);
    assert_eq!(
        weights(&intent, vip()),
        [(ip(11), 1), (ip(12), 0), (ip(13), 1)].into()
    );
    assert_eq!(weights(&intent, vip6()).len(), 1);
    assert_eq!(
        candidates(&intent),
        names(&[1, 2, 3]),
        "a director needs no endpoint"
    );
}

#[test]
fn terminating_endpoints_serve_when_nothing_else_does() {
    let (mut world, health) = fixture(true);
    endpoints(&mut world, "web-4", false, &[], &[1, 2]);
    assert_eq!(
        weights(&compute(&world, &health), vip()),
        [(ip(11), 1), (ip(12), 1)].into()
    );
}

#[test]
fn slices_of_one_service_add_up() {
    let (mut world, health) = fixture(true);
    endpoints(&mut world, "web-a", false, &[1], &[3]);
    endpoints(&mut world, "web-b", false, &[3], &[]);
    assert_eq!(
        weights(&compute(&world, &health), vip()),
        [(ip(11), 1), (ip(13), 1)].into()
    );
}

#[test]
fn without_a_director_local_needs_an_own_endpoint_to_own() {
    let (mut world, mut health) = fixture(true);
    endpoints(&mut world, "web-4", false, &[1, 3], &[]);
    for health in health.values_mut() {
        health.direct_routing = false;
    }
    assert_eq!(candidates(&compute(&world, &health)), names(&[1, 3]));
}

#[test]
fn announce_only_vips_get_no_director() {
    let (mut world, health) = fixture(false);
    let policy = Announcement {
        announce_only: true,
        ..Announcement::default()
    };
    world.announcements.insert("one".into(), policy);
    let intent = compute(&world, &health);
    assert!(intent.virtuals.is_empty());
    assert_eq!(intent.vips[&vip()].backends.len(), 3);
}

#[test]
fn affinity_and_udp_choose_the_scheduling() {
    let (mut world, health) = fixture(false);
    world.services.get_mut(&web()).unwrap().client_ip_affinity = true;
    let intent = compute(&world, &health);
    let of = |port| intent.virtuals[&PortKey { vip: vip(), port }].scheduling;
    assert_eq!(
        of(tcp(80)),
        Scheduling {
            hash_client_port: false,
            one_packet: false
        }
    );
    let udp = Port {
        protocol: Protocol::Udp,
        number: 53,
    };
    assert_eq!(
        of(udp),
        Scheduling {
            hash_client_port: false,
            one_packet: true
        }
    );
}

fn on(health: &mut BTreeMap<NodeName, NodeHealth>, n: u8, network: &str) {
    health.get_mut(&name(n)).unwrap().networks = [network.parse().unwrap()].into();
}

#[test]
fn a_node_on_another_lan_is_no_real_server_while_one_has_the_vip_on_its_own() {
    let (world, mut health) = fixture(false);
    on(&mut health, 1, "192.0.2.0/24");
    on(&mut health, 2, "203.0.113.0/24");
    // The third did not say: it is given the benefit of the doubt.
    let intent = compute(&world, &health);
    assert_eq!(weights(&intent, vip()), [(ip(11), 1), (ip(13), 1)].into());
    assert!(!intent.vips[&vip()].backends.contains_key(&name(2)));
    assert!(intent.vips[&vip()].stranded.is_empty());
    assert_eq!(
        weights(&intent, vip6()).len(),
        3,
        "nobody has that one on-link, so a router leads it here"
    );
    // The only one on that LAN dies: what a router may still lead to the others is worth more.
    health.get_mut(&name(1)).unwrap().alive = false;
    let intent = compute(&world, &health);
    assert_eq!(weights(&intent, vip()), [(ip(12), 1), (ip(13), 1)].into());
}

#[test]
fn real_servers_of_a_vip_on_a_further_uplink_share_the_directors_main_lan() {
    let (world, mut health) = fixture(false);
    let vlan = Further {
        interface: "eth1".into(),
        networks: ["192.0.2.0/24".parse().unwrap()].into(),
        ..Further::default()
    };
    on(&mut health, 1, "198.51.100.0/24");
    on(&mut health, 2, "198.51.100.0/24");
    on(&mut health, 3, "203.0.113.0/24");
    assert_eq!(weights(&compute(&world, &health), vip()).len(), 3);
    health.get_mut(&name(1)).unwrap().further = [vlan].into();
    // The second is not on the VIP's LAN, and is where the first sends to; the third is not.
    let intent = compute(&world, &health);
    assert_eq!(weights(&intent, vip()), [(ip(11), 1), (ip(12), 1)].into());
    on(&mut health, 3, "198.51.100.0/25");
    assert_eq!(weights(&compute(&world, &health), vip()).len(), 3);
    // As long as one has it on its main uplink, those that have it there are the real servers.
    on(&mut health, 3, "192.0.2.0/24");
    let intent = compute(&world, &health);
    assert_eq!(weights(&intent, vip()), [(ip(13), 1)].into());
}

#[test]
fn local_endpoints_on_another_lan_only_are_told() {
    let (mut world, mut health) = fixture(true);
    on(&mut health, 1, "192.0.2.0/24");
    on(&mut health, 2, "203.0.113.0/24");
    on(&mut health, 3, "203.0.113.0/24");
    endpoints(&mut world, "web-4", false, &[2], &[3]);
    let intent = compute(&world, &health);
    assert!(weights(&intent, vip()).is_empty());
    let told = BTreeMap::from([(web(), names(&[2, 3]))]);
    assert_eq!(intent.vips[&vip()].stranded, told);
    endpoints(&mut world, "web-4", false, &[1, 2], &[]);
    let intent = compute(&world, &health);
    assert_eq!(weights(&intent, vip()), [(ip(11), 1)].into());
    assert!(intent.vips[&vip()].stranded.is_empty());
    // A node's own kube-proxy routes to Pods: without directors there is nothing to tell.
    endpoints(&mut world, "web-4", false, &[2], &[]);
    let announce = Announcement {
        announce_only: true,
        ..Announcement::default()
    };
    world.announcements.insert("one".into(), announce);
    let intent = compute(&world, &health);
    assert!(intent.vips[&vip()].stranded.is_empty());
    assert_eq!(*intent.vips[&vip()].backends, [(name(2), 1)].into());
}

#[test]
fn a_retired_node_serves_only_while_no_other_does() {
    for local in [false, true] {
        let (mut world, mut health) = fixture(local);
        endpoints(&mut world, "web-4", false, &[1, 2], &[3]);
        health.get_mut(&name(1)).unwrap().retired = true;
        let third = u32::from(!local);
        assert_eq!(
            weights(&compute(&world, &health), vip()),
            [(ip(11), 0), (ip(12), 1), (ip(13), third)].into()
        );
        health.get_mut(&name(2)).unwrap().alive = false;
        // Under Local a ready endpoint on such a node is better than one that terminates.
        let first = u32::from(local);
        assert_eq!(
            weights(&compute(&world, &health), vip()),
            [(ip(11), first), (ip(13), third)].into()
        );
        health.get_mut(&name(3)).unwrap().alive = false;
        assert_eq!(
            weights(&compute(&world, &health), vip()),
            [(ip(11), 1)].into()
        );
    }
}

#[test]
fn a_node_whose_kube_proxy_has_no_rules_yet_serves_last() {
    let (mut world, mut health) = fixture(true);
    endpoints(&mut world, "web-4", false, &[1, 2], &[3]);
    health.get_mut(&name(1)).unwrap().idle = true;
    health.get_mut(&name(2)).unwrap().alive = false;
    // What it gets is lost: even an endpoint that terminates is better.
    let intent = compute(&world, &health);
    assert_eq!(weights(&intent, vip()), [(ip(11), 0), (ip(13), 1)].into());
    health.get_mut(&name(3)).unwrap().alive = false;
    let intent = compute(&world, &health);
    assert_eq!(weights(&intent, vip()), [(ip(11), 1)].into());
}

#[test]
fn a_drained_node_without_a_director_still_owns_what_only_it_can_serve() {
    let (mut world, mut health) = fixture(true);
    endpoints(&mut world, "web-4", false, &[1, 3], &[]);
    world.nodes.get_mut(&name(1)).unwrap().drained = true;
    health.get_mut(&name(1)).unwrap().retired = true;
    for health in health.values_mut() {
        health.direct_routing = false;
    }
    let intent = compute(&world, &health);
    assert_eq!(candidates(&intent), names(&[1, 3]));
    assert!(
        intent.vips[&vip()].eligibility.seats[&name(1)]
            .avoid
            .is_some()
    );
}
