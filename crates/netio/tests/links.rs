//! Links, against the kernel and `ip link`.

#![allow(clippy::unwrap_used)]

mod common;

use common::{MAC_A, MAC_B, MAC_DIRECTOR, TestNs, wire};
use lightship_netio::{LOOPBACK_INDEX, Macvlan, Route, Veth};

fn director(parent: u32) -> Macvlan {
    Macvlan {
        name: "ls-dir".to_owned(),
        mac: MAC_DIRECTOR,
        parent,
    }
}

#[tokio::test]
async fn a_macvlan_is_born_in_the_namespace_it_is_for() {
    let (host, _lan) = wire().await;
    let inner = TestNs::new("dir");
    host.ip("link set eth0 mtu 1400");
    let parent = host.index("eth0").await;
    let rtnl = host.rtnl();
    let spec = director(parent);
    assert!(rtnl.create_macvlan(&spec, Some(&inner.ns)).await.unwrap());

    let seen = inner.ip_one("link show ls-dir");
    assert_eq!(seen["address"], MAC_DIRECTOR.to_string());
    assert_eq!(seen["linkinfo"]["info_kind"], "macvlan");
    assert_eq!(seen["linkinfo"]["info_data"]["mode"], "bridge");
    assert_eq!(seen["mtu"], 1400);
    assert_eq!(seen["link_index"], parent);
    assert_eq!(host.ip_json("link show type macvlan").len(), 0);

    // Again is no error, and changes nothing.
    assert!(!rtnl.create_macvlan(&spec, Some(&inner.ns)).await.unwrap());

    let link = inner.rtnl().require_link("ls-dir").await.unwrap();
    assert_eq!(link.kind.as_deref(), Some("macvlan"));
    assert_eq!(link.mac, Some(MAC_DIRECTOR));
    assert_eq!(link.link, Some(parent));
    assert!(link.link_netns_id.is_some());
    assert!(!link.up);

    // Up it has carrier; without its parent's carrier it has none.
    inner.rtnl().set_up(link.index, true).await.unwrap();
    let link = inner.rtnl().link(link.index).await.unwrap().unwrap();
    assert!(link.up && link.has_carrier());
    rtnl.set_up(parent, false).await.unwrap();
    let link = inner.rtnl().link(link.index).await.unwrap().unwrap();
    assert!(!link.has_carrier());

    assert!(inner.rtnl().delete_link(link.index).await.unwrap());
    assert!(!inner.rtnl().delete_link(link.index).await.unwrap());
    assert_eq!(inner.ip_json("link show type macvlan").len(), 0);
}

#[tokio::test]
async fn a_parent_that_can_carry_no_macvlan_says_so() {
    let ns = TestNs::new("busy");
    ns.ip("link add br0 type bridge");
    ns.ip("link add port0 type veth peer name port1");
    ns.ip("link set port0 master br0");
    let rtnl = ns.rtnl();
    let port = rtnl.require_link("port0").await.unwrap();
    assert_eq!(port.master, Some(ns.index("br0").await));
    assert_eq!(port.kind.as_deref(), Some("veth"));

    let refused = rtnl
        .create_macvlan(&director(port.index), None)
        .await
        .unwrap_err();
    assert!(refused.is_busy(), "{refused}");
    let text = refused.to_string();
    assert!(
        text.starts_with("create macvlan ls-dir on port0: "),
        "{text}"
    );

    let missing = rtnl
        .create_macvlan(&director(4711), None)
        .await
        .unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    assert!(
        missing.to_string().contains("on interface 4711"),
        "{missing}"
    );

    let tunnel = rtnl
        .create_macvlan(&director(LOOPBACK_INDEX), None)
        .await
        .unwrap_err();
    assert!(tunnel.is_invalid(), "{tunnel}");

    // On the bridge itself it works.
    let bridge = ns.index("br0").await;
    assert!(rtnl.create_macvlan(&director(bridge), None).await.unwrap());
}

#[tokio::test]
async fn what_the_kernel_cannot_do_is_told_apart() {
    let ns = TestNs::new("unsup");
    // lo may not be deleted. A kernel without macvlan gives the same answer.
    let e = ns.rtnl().delete_link(LOOPBACK_INDEX).await.unwrap_err();
    assert!(e.is_not_supported(), "{e}");
    assert!(
        e.to_string()
            .starts_with("delete link 1: Operation not supported (os error 95)"),
        "{e}"
    );
}

#[tokio::test]
async fn a_veth_pair_with_its_ends_in_two_namespaces() {
    let (host, inner) = (TestNs::new("host"), TestNs::new("inner"));
    let spec = Veth {
        name: "ls-host".to_owned(),
        mac: MAC_A,
        peer_name: "ls-local".to_owned(),
        peer_mac: MAC_B,
        mtu: 1300,
    };
    let rtnl = host.rtnl();
    assert!(rtnl.create_veth(&spec, Some(&inner.ns)).await.unwrap());
    for (ns, name, mac) in [(&host, "ls-host", MAC_A), (&inner, "ls-local", MAC_B)] {
        let seen = ns.ip_one(&format!("link show {name}"));
        assert_eq!(seen["address"], mac.to_string());
        assert_eq!(seen["mtu"], 1300);
        assert_eq!(seen["linkinfo"]["info_kind"], "veth");
    }
    assert!(!rtnl.create_veth(&spec, Some(&inner.ns)).await.unwrap());

    // Carrier takes both ends.
    let here = rtnl.require_link("ls-host").await.unwrap();
    let there = inner.rtnl().require_link("ls-local").await.unwrap();
    rtnl.set_up(here.index, true).await.unwrap();
    rtnl.set_up(here.index, true).await.unwrap();
    let half = rtnl.link(here.index).await.unwrap().unwrap();
    assert!(half.up && !half.has_carrier());
    inner.rtnl().set_up(there.index, true).await.unwrap();
    let whole = rtnl.link(here.index).await.unwrap().unwrap();
    assert!(whole.up && whole.has_carrier());

    assert!(rtnl.delete_link(here.index).await.unwrap());
    assert_eq!(inner.ip_json("link show type veth").len(), 0);
}

#[tokio::test]
async fn a_link_is_found_changed_and_moved() {
    let (from, to) = (TestNs::new("from"), TestNs::new("to"));
    from.ip("link add left type veth peer name right");
    let rtnl = from.rtnl();
    let left = rtnl.require_link("left").await.unwrap();
    let right = rtnl.require_link("right").await.unwrap();
    assert_eq!(left.link, Some(right.index));
    assert_eq!(left.link_netns_id, None);

    rtnl.set_mtu(left.index, 1234).await.unwrap();
    rtnl.set_mac(left.index, MAC_A).await.unwrap();
    let seen = from.ip_one("link show left");
    assert_eq!(seen["mtu"], 1234);
    assert_eq!(seen["address"], MAC_A.to_string());

    rtnl.move_link(left.index, &to.ns).await.unwrap();
    assert_eq!(to.ip_one("link show left")["mtu"], 1234);
    assert_eq!(rtnl.link_by_name("left").await.unwrap(), None);
    assert_eq!(rtnl.link(4711).await.unwrap(), None);
    let e = rtnl.require_link("left").await.unwrap_err();
    assert!(e.is_not_found());
    assert_eq!(e.to_string(), "no such link left");

    let names: Vec<String> = rtnl
        .links()
        .await
        .unwrap()
        .into_iter()
        .map(|l| l.name)
        .collect();
    let mut seen: Vec<String> = from
        .ip_json("link show")
        .iter()
        .map(|l| l["ifname"].as_str().unwrap().to_owned())
        .collect();
    seen.sort();
    let mut names = names;
    names.sort();
    assert_eq!(names, seen);
    assert!(rtnl.set_up(4711, true).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn many_at_once_on_one_handle() {
    let ns = TestNs::new("many");
    let rtnl = ns.rtnl();
    // The kernel runs one dump per socket; the handle must queue the others.
    let dumps = (0..50).map(|_| {
        let rtnl = rtnl.clone();
        tokio::spawn(async move { rtnl.links().await.map(|l| l.len()) })
    });
    for dump in dumps.collect::<Vec<_>>() {
        assert_eq!(dump.await.unwrap().unwrap(), 1);
    }
    // A caller that gives up in the middle of a dump does not break the next.
    for _ in 0..50 {
        let cut = rtnl.neighbours();
        let _ = tokio::time::timeout(std::time::Duration::ZERO, cut).await;
        assert_eq!(rtnl.links().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn thousands_of_changes_in_flight_are_all_answered() {
    let ns = TestNs::new("flight");
    ns.ip("link set lo up");
    let rtnl = ns.rtnl();
    // More answers than the socket's receive buffer holds.
    let adds = (0..5000_u32).map(|n| {
        let vip = std::net::Ipv4Addr::from_bits(0xc633_0000 + n);
        let rtnl = rtnl.clone();
        async move { rtnl.add_route(&Route::local(vip.into())).await }
    });
    let done = common::soon("all answers", futures::future::join_all(adds)).await;
    assert_eq!(done.len(), 5000);
    assert!(done.into_iter().all(|added| added.unwrap()));
}

#[test]
fn a_handle_whose_runtime_ended_fails_instead_of_hanging() {
    let ns = TestNs::new("dead");
    let make = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = make();
    let rtnl = first.block_on(async { ns.rtnl() });
    drop(first);
    make().block_on(async {
        let e = common::soon("an answer", rtnl.set_up(LOOPBACK_INDEX, true))
            .await
            .unwrap_err();
        assert!(e.to_string().contains("connection closed"), "{e}");
        assert!(rtnl.links().await.is_err());
    });
}
