//! The monitor, while `ip` changes things.

#![allow(clippy::unwrap_used)]

mod common;

use common::{TestNs, soon, wire};
use lightship_netio::{Family, Monitor, Notice};

async fn until(monitor: &mut Monitor, what: &str, wanted: impl Fn(&Notice) -> bool) {
    soon(what, async {
        while !wanted(&monitor.next().await.unwrap()) {}
    })
    .await;
}

#[tokio::test]
async fn every_kind_of_change_is_noticed() {
    let (ns, lan) = wire().await;
    let dev = ns.index("eth0").await;
    let mut monitor = Monitor::open_in(&ns.ns).unwrap();

    // Carrier goes because the far end does.
    lan.ip("link set eth0 down");
    until(&mut monitor, "carrier loss", |n| {
        *n == Notice::Link {
            index: dev,
            gone: false,
        }
    })
    .await;
    let link = ns.rtnl().link(dev).await.unwrap().unwrap();
    assert!(link.up && !link.has_carrier());
    lan.ip("link set eth0 up");
    until(&mut monitor, "carrier", |n| {
        *n == Notice::Link {
            index: dev,
            gone: false,
        }
    })
    .await;

    for (addr, family) in [
        ("192.0.2.11/24", Family::V4),
        ("2001:db8:2::11/64", Family::V6),
    ] {
        ns.ip(&format!("addr add {addr} dev eth0"));
        until(&mut monitor, "address", |n| {
            *n == Notice::Address {
                index: dev,
                gone: false,
            }
        })
        .await;
        until(&mut monitor, "route", |n| *n == Notice::Route { family }).await;
        ns.ip(&format!("addr del {addr} dev eth0"));
        until(&mut monitor, "no address", |n| {
            *n == Notice::Address {
                index: dev,
                gone: true,
            }
        })
        .await;
    }
    ns.ip("rule add iif eth0 lookup 7760 pref 500");
    until(&mut monitor, "rule", |n| {
        *n == Notice::Rule { family: Family::V4 }
    })
    .await;
    ns.ip("-6 rule add iif eth0 lookup 7760 pref 500");
    until(&mut monitor, "rule", |n| {
        *n == Notice::Rule { family: Family::V6 }
    })
    .await;
    ns.ip("link del eth0");
    until(&mut monitor, "deletion", |n| {
        *n == Notice::Link {
            index: dev,
            gone: true,
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_of_other_namespaces() {
    let (ns, other) = (TestNs::new("mine"), TestNs::new("other"));
    let mut monitor = Monitor::open_in(&ns.ns).unwrap();
    other.ip("link set lo up");
    ns.ip("link set lo up");
    // The first notice is of our own lo, and there is only one lo up.
    assert_eq!(
        soon("a notice", monitor.next()).await.unwrap(),
        Notice::Link {
            index: 1,
            gone: false
        }
    );
}

#[tokio::test]
async fn a_flood_that_does_not_fit_is_reported() {
    let ns = TestNs::new("flood");
    ns.ip("link set lo up");
    let mut monitor = Monitor::open_in(&ns.ns).unwrap();
    let rtnl = ns.rtnl();
    // Nobody reads meanwhile.
    for n in 0..20_000_u32 {
        let ip = std::net::Ipv4Addr::from_bits(0xc633_6400 | (n & 0xff));
        let route = lightship_netio::Route::local(ip.into());
        if n & 0x100 == 0 {
            rtnl.add_route(&route).await.unwrap();
        } else {
            rtnl.delete_route(&route).await.unwrap();
        }
    }
    until(&mut monitor, "the loss", |n| *n == Notice::Lost).await;
    // It goes on afterwards.
    ns.ip("link add left type veth peer name right");
    let left = ns.index("left").await;
    until(
        &mut monitor,
        "the new link",
        |n| matches!(n, Notice::Link { index, .. } if *index == left),
    )
    .await;
}
