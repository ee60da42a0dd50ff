//! Addresses, routes, rules and neighbours, against the kernel and `ip`.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::{MAC_A, MAC_B, TestNs, wire};
use lightship_netio::{
    Family, Neighbour, PROTOCOL, Route, RouteKind, Rule, Scope, TABLE_LOCAL, TABLE_MAIN,
};
use serde_json::Value;

const VIPS: [&str; 2] = ["192.0.2.200", "2001:db8:2::200"];
const NODES: [&str; 2] = ["192.0.2.12", "2001:db8:2::12"];
const GATEWAYS: [&str; 2] = ["192.0.2.1", "2001:db8:2::1"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn minus(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

/// The routes of `ip route show ARGS` that have our protocol.
fn ours(ns: &TestNs, family: Family, args: &str) -> Vec<Value> {
    ns.ip_json(&format!(
        "{} route show {args} proto {PROTOCOL}",
        minus(family)
    ))
}

#[tokio::test]
async fn every_kind_of_route_is_added_read_and_deleted() {
    let (ns, _lan) = wire().await;
    let rtnl = ns.rtnl();
    let dev = ns.index("eth0").await;
    for i in 0..2 {
        let (vip, node, gateway) = (ip(VIPS[i]), ip(NODES[i]), ip(GATEWAYS[i]));
        let family = Family::of(vip);
        let cases = [
            (Route::local(vip), "table local", "local", Some("lo")),
            (
                Route::on_link(node, dev),
                "table main",
                "unicast",
                Some("eth0"),
            ),
            (
                Route::default_via(gateway, dev),
                "table main default",
                "unicast",
                Some("eth0"),
            ),
            (
                Route::blackhole_default(family, 7760),
                "table 7760",
                "blackhole",
                None,
            ),
            (Route::blackhole(vip, 7761), "table 7761", "blackhole", None),
            (
                Route::default_via(gateway, dev).in_table(7762),
                "table 7762",
                "unicast",
                Some("eth0"),
            ),
        ];
        for (route, args, kind, via) in cases {
            assert!(rtnl.add_route(&route).await.unwrap(), "{route}");
            // Idempotent, and so is replacing it by itself.
            assert!(!rtnl.add_route(&route).await.unwrap(), "{route}");
            rtnl.replace_route(&route).await.unwrap();

            let seen = ours(&ns, family, args);
            assert_eq!(seen.len(), 1, "{route}: {seen:?}");
            let seen = &seen[0];
            assert_eq!(seen["type"], kind, "{route}: {seen}");
            if let Some(via) = via {
                assert_eq!(seen["dev"], via, "{route}: {seen}");
            }
            let dst = if route.prefix == 0 {
                "default".to_owned()
            } else {
                route.dst.to_string()
            };
            assert_eq!(seen["dst"], dst, "{route}: {seen}");
            if let Some(gateway) = route.gateway {
                assert_eq!(seen["gateway"], gateway.to_string(), "{route}: {seen}");
                assert!(
                    seen["flags"].to_string().contains("onlink"),
                    "{route}: {seen}"
                );
            }

            // What comes back equals what was asked for.
            let read = rtnl.list_routes(route.table, family).await.unwrap();
            assert!(read.contains(&route), "{route:?}\nnot in {read:#?}");

            assert!(rtnl.delete_route(&route).await.unwrap(), "{route}");
            assert!(!rtnl.delete_route(&route).await.unwrap(), "{route}");
            assert_eq!(ours(&ns, family, args).len(), 0, "{route}");
        }
    }
}

#[tokio::test]
async fn a_local_route_makes_the_host_accept_the_vip_and_say_nothing() {
    let (ns, lan) = wire().await;
    let rtnl = ns.rtnl();
    for vip in VIPS {
        assert!(rtnl.add_route(&Route::local(ip(vip))).await.unwrap());
        let got = ns.ip_one(&format!("route get {vip}"));
        assert_eq!(got["type"], "local", "{got}");
        assert_eq!(got["dev"], "lo", "{got}");
    }
    assert!(!ns.ip("addr show").contains("192.0.2.200"));
    assert!(!ns.ip("addr show").contains("2001:db8:2::200"));
    drop(lan);
}

#[tokio::test]
async fn wanted_and_present_routes_compare_as_sets() {
    let ns = TestNs::new("diff");
    ns.ip("link set lo up");
    let rtnl = ns.rtnl();
    for family in [Family::V4, Family::V6] {
        let vip = |n: u16| -> IpAddr {
            match family {
                Family::V4 => ip(&format!("192.0.2.{n}")),
                Family::V6 => ip(&format!("2001:db8:2::{n:x}")),
            }
        };
        for n in 200..230 {
            rtnl.add_route(&Route::local(vip(n))).await.unwrap();
        }
        let wanted: BTreeSet<Route> = (210..240).map(|n| Route::local(vip(n))).collect();
        let present: BTreeSet<Route> = rtnl
            .list_routes(TABLE_LOCAL, family)
            .await
            .unwrap()
            .into_iter()
            .filter(|r| r.protocol == PROTOCOL)
            .collect();
        assert_eq!(present.len(), 30);
        assert_eq!(wanted.difference(&present).count(), 10);
        for gone in present.difference(&wanted) {
            assert!(rtnl.delete_route(gone).await.unwrap());
        }
        for new in wanted.difference(&present) {
            assert!(rtnl.add_route(new).await.unwrap());
        }
        let seen = ours(&ns, family, "table local");
        assert_eq!(seen.len(), 30);
        assert!(seen.iter().any(|r| r["dst"] == vip(239).to_string()));
        assert!(!seen.iter().any(|r| r["dst"] == vip(209).to_string()));
    }
}

#[tokio::test]
async fn two_thousand_vips() {
    let ns = TestNs::new("scale");
    ns.ip("link set lo up");
    let rtnl = ns.rtnl();
    let vips: Vec<Route> = (0..1000_u32)
        .flat_map(|n| {
            let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(198, 51, 0, 0).to_bits() + n);
            let v6 = Ipv6Addr::from_bits(
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0).to_bits() + u128::from(n),
            );
            [Route::local(v4.into()), Route::local(v6.into())]
        })
        .collect();
    let start = std::time::Instant::now();
    for vip in &vips {
        assert!(rtnl.add_route(vip).await.unwrap());
    }
    println!("2000 added: {:?}", start.elapsed());
    let start = std::time::Instant::now();
    for family in [Family::V4, Family::V6] {
        let read = rtnl.list_routes(TABLE_LOCAL, family).await.unwrap();
        let wanted = vips.iter().filter(|v| v.family() == family);
        let read: BTreeSet<_> = read.into_iter().collect();
        assert_eq!(wanted.filter(|v| read.contains(v)).count(), 1000);
    }
    println!("2000 read: {:?}", start.elapsed());
    assert_eq!(ours(&ns, Family::V4, "table local").len(), 1000);
    assert_eq!(ours(&ns, Family::V6, "table local").len(), 1000);
}

#[tokio::test]
async fn replacing_leaves_one_route() {
    let (ns, _lan) = wire().await;
    ns.ip("link add eth1 type veth peer name eth2");
    ns.ip("link set eth1 up");
    let (eth0, eth1) = (ns.index("eth0").await, ns.index("eth1").await);
    let rtnl = ns.rtnl();
    for node in NODES {
        let family = Family::of(ip(node));
        let (old, new) = (
            Route::on_link(ip(node), eth0),
            Route::on_link(ip(node), eth1),
        );
        rtnl.replace_route(&old).await.unwrap();
        rtnl.replace_route(&new).await.unwrap();
        let seen = ours(&ns, family, &format!("{node} table main"));
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!(seen[0]["dev"], "eth1");
        // The old one is not there, and deleting it does not delete the new one.
        assert!(!rtnl.delete_route(&old).await.unwrap());
        assert_eq!(ours(&ns, family, &format!("{node} table main")).len(), 1);
    }
}

#[tokio::test]
async fn tables_that_do_not_exist_are_empty() {
    let ns = TestNs::new("none");
    for family in [Family::V4, Family::V6] {
        assert_eq!(ns.rtnl().list_routes(4242, family).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_refusal_names_the_route_and_gives_the_kernels_reason() {
    let (ns, _lan) = wire().await;
    ns.ip("link set eth0 down");
    let route = Route::on_link(ip(NODES[0]), ns.index("eth0").await);
    let e = ns.rtnl().add_route(&route).await.unwrap_err();
    assert!(e.is_retryable(), "{e}");
    let start = format!("add route {route}: Network is down (os error 100): ");
    assert!(e.to_string().starts_with(&start), "{e}");
    assert!(e.to_string().len() > start.len(), "{e}");
}

#[tokio::test]
async fn other_peoples_routes_are_read_as_they_are() {
    let (ns, _lan) = wire().await;
    ns.ip("addr add 192.0.2.11/24 dev eth0");
    ns.ip("addr add 2001:db8:2::11/64 dev eth0 nodad");
    ns.ip("route add default via 192.0.2.1 dev eth0 metric 100");
    ns.ip("route add default via 192.0.2.2 dev eth0 metric 50");
    ns.ip("-6 route add default via 2001:db8:2::1 dev eth0 metric 512");
    ns.ip(
        "route add 198.51.100.0/24 nexthop via 192.0.2.3 dev eth0 nexthop via 192.0.2.4 dev eth0",
    );
    ns.ip("route add unreachable 203.0.113.0/24");
    let rtnl = ns.rtnl();
    let dev = ns.index("eth0").await;

    let default = rtnl.default_route(Family::V4).await.unwrap().unwrap();
    assert_eq!(default.ifindex, dev);
    assert_eq!(default.gateway, Some(ip("192.0.2.2")));
    assert_eq!(default.metric, 50);
    let default = rtnl.default_route(Family::V6).await.unwrap().unwrap();
    assert_eq!(default.gateway, Some(ip("2001:db8:2::1")));
    assert_eq!(default.metric, 512);

    let routes = rtnl.list_routes(TABLE_MAIN, Family::V4).await.unwrap();
    let to = |dst: &str| *routes.iter().find(|r| r.dst == ip(dst)).unwrap();
    assert_eq!(to("198.51.100.0").gateway, Some(ip("192.0.2.3")));
    assert_eq!(to("198.51.100.0").prefix, 24);
    assert_eq!(to("203.0.113.0").kind, RouteKind::Other(7));
    assert_eq!(to("192.0.2.0").scope, Scope::Link);
    assert!(routes.iter().all(|r| r.protocol != PROTOCOL));
}

#[tokio::test]
async fn no_default_route() {
    let ns = TestNs::new("nodef");
    for family in [Family::V4, Family::V6] {
        assert_eq!(ns.rtnl().default_route(family).await.unwrap(), None);
    }
}

#[tokio::test]
async fn addresses_come_and_go() {
    let (ns, _lan) = wire().await;
    let rtnl = ns.rtnl();
    let dev = ns.index("eth0").await;
    let link_local = ip("169.254.255.1");
    assert!(
        rtnl.add_address(dev, link_local, 32, Scope::Link)
            .await
            .unwrap()
    );
    assert!(
        !rtnl
            .add_address(dev, link_local, 32, Scope::Link)
            .await
            .unwrap()
    );
    let v6 = ip("2001:db8:2::11");
    assert!(rtnl.add_address(dev, v6, 64, Scope::Global).await.unwrap());
    assert!(!rtnl.add_address(dev, v6, 64, Scope::Global).await.unwrap());

    let seen = ns.ip_one("addr show dev eth0");
    let of = |addr: &str| {
        seen["addr_info"]
            .as_array()
            .unwrap()
            .iter()
            .find(|a| a["local"] == addr)
            .unwrap_or_else(|| panic!("{addr} not in {seen}"))
            .clone()
    };
    assert_eq!(of("169.254.255.1")["scope"], "link");
    assert_eq!(of("169.254.255.1")["prefixlen"], 32);
    assert_eq!(of("2001:db8:2::11")["prefixlen"], 64);
    assert_eq!(of("2001:db8:2::11")["tentative"], Value::Null);

    let read = rtnl.addresses().await.unwrap();
    let mine = read.iter().find(|a| a.addr == v6).unwrap();
    assert_eq!(
        (mine.index, mine.prefix, mine.scope, mine.tentative),
        (dev, 64, Scope::Global, false)
    );
    let mine = read.iter().find(|a| a.addr == link_local).unwrap();
    assert_eq!(
        (mine.index, mine.prefix, mine.scope),
        (dev, 32, Scope::Link)
    );

    assert!(rtnl.delete_address(dev, link_local, 32).await.unwrap());
    assert!(!rtnl.delete_address(dev, link_local, 32).await.unwrap());
    assert!(rtnl.delete_address(dev, v6, 64).await.unwrap());
    assert!(!rtnl.delete_address(dev, v6, 64).await.unwrap());
    assert!(!ns.ip("addr show dev eth0").contains("169.254.255.1"));
    let e = rtnl
        .add_address(4711, v6, 64, Scope::Global)
        .await
        .unwrap_err();
    assert!(e.is_not_found(), "{e}");
}

#[tokio::test]
async fn the_interface_that_an_address_is_connected_by() {
    let (ns, _lan) = wire().await;
    ns.ip("link add eth1 type veth peer name eth2");
    ns.ip("addr add 192.0.2.11/24 dev eth0");
    ns.ip("addr add 192.0.2.193/27 dev eth1");
    ns.ip("addr add 198.51.100.7/32 dev lo");
    ns.ip("addr add 2001:db8:2::11/64 dev eth0 nodad");
    let rtnl = ns.rtnl();
    let (eth0, eth1) = (ns.index("eth0").await, ns.index("eth1").await);
    for (to, dev) in [
        ("192.0.2.100", Some(eth0)),
        ("192.0.2.200", Some(eth1)), // the narrower one
        ("2001:db8:2::200", Some(eth0)),
        ("198.51.100.7", None), // a host prefix connects to nobody
        ("203.0.113.1", None),
        ("2001:db8:3::1", None),
    ] {
        let found = rtnl.connected(ip(to)).await.unwrap();
        assert_eq!(found.map(|a| a.index), dev, "{to}");
    }
}

#[tokio::test]
async fn rules_by_interface() {
    let ns = TestNs::new("rules");
    let rtnl = ns.rtnl();
    for family in [Family::V4, Family::V6] {
        // An interface need not exist yet; its name may have a dot.
        let rule = Rule::for_iif(family, "eth0.100", 7760, 500);
        assert!(rtnl.add_rule(&rule).await.unwrap());
        assert!(!rtnl.add_rule(&rule).await.unwrap());
        let seen: Vec<Value> = ns
            .ip_json(&format!("{} rule show", minus(family)))
            .into_iter()
            .filter(|r| r["priority"] == 500)
            .collect();
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!(seen[0]["iif"], "eth0.100");
        assert_eq!(seen[0]["table"], "7760");
        assert_eq!(seen[0]["src"], "all");

        // Others' rules: the plain ones show, those with more to them do not.
        ns.ip(&format!(
            "{} rule add fwmark 1 lookup 7760 pref 501",
            minus(family)
        ));
        ns.ip(&format!(
            "{} rule add iif lo lookup 7761 pref 502",
            minus(family)
        ));
        let read = rtnl.rules(family).await.unwrap();
        assert!(read.contains(&rule), "{read:?}");
        let prefs: Vec<u32> = read.iter().map(|r| r.priority).collect();
        assert!(!prefs.contains(&501) && prefs.contains(&502), "{read:?}");
        assert!(prefs.contains(&32766), "{read:?}");
        assert_eq!(
            read.iter().filter(|r| r.protocol == PROTOCOL).count(),
            1,
            "{read:?}"
        );

        assert!(rtnl.delete_rule(&rule).await.unwrap());
        assert!(!rtnl.delete_rule(&rule).await.unwrap());
        assert!(
            !ns.ip(&format!("{} rule show", minus(family)))
                .contains("eth0.100")
        );
    }
}

#[tokio::test]
async fn neighbours_are_fixed_and_forgotten() {
    let (ns, _lan) = wire().await;
    let rtnl = ns.rtnl();
    let dev = ns.index("eth0").await;
    for node in NODES {
        rtnl.replace_neighbour(dev, ip(node), MAC_A).await.unwrap();
        rtnl.replace_neighbour(dev, ip(node), MAC_B).await.unwrap();
        rtnl.replace_neighbour(dev, ip(node), MAC_B).await.unwrap();
        let seen = ns.ip_one(&format!("neigh show {node} dev eth0"));
        assert_eq!(seen["lladdr"], MAC_B.to_string());
        assert_eq!(seen["state"][0], "PERMANENT");

        let read = rtnl.neighbours().await.unwrap();
        assert!(
            read.contains(&Neighbour {
                ifindex: dev,
                ip: ip(node),
                mac: Some(MAC_B),
                permanent: true
            }),
            "{read:?}"
        );
        assert!(rtnl.delete_neighbour(dev, ip(node)).await.unwrap());
        assert!(!rtnl.delete_neighbour(dev, ip(node)).await.unwrap());
        assert_eq!(
            ns.ip_json(&format!("neigh show {node} nud permanent"))
                .len(),
            0
        );
    }
    let e = rtnl
        .replace_neighbour(4711, ip(NODES[0]), MAC_A)
        .await
        .unwrap_err();
    assert!(
        e.to_string()
            .starts_with("set neighbour 192.0.2.12 to 02:00:00:00:00:0a on link 4711: "),
        "{e}"
    );
}
