use lightship_frames::Mac;
use lightship_netio::Scope;

use super::*;

fn address(index: u32, addr: &str, prefix: u8) -> Address {
    Address {
        index,
        addr: addr.parse().unwrap(),
        prefix,
        scope: Scope::Global,
        tentative: false,
    }
}

fn route(ifindex: u32, gateway: Option<&str>) -> DefaultRoute {
    DefaultRoute {
        ifindex,
        gateway: gateway.map(|ip| ip.parse().unwrap()),
        metric: 0,
    }
}

#[test]
fn the_greater_of_both_values_is_the_reverse_path_filter() {
    let strict = |all, own| strict_rp_filter(Some(all), Some(own));
    assert!(strict("0", "1") && strict("1", "0") && strict("1", "1"));
    assert!(!strict("2", "1") && !strict("1", "2") && !strict("0", "0"));
    assert!(!strict_rp_filter(None, None));
}

#[test]
fn only_what_concerns_the_uplink_counts_and_in_a_fixed_order() {
    let link = Link {
        index: 2,
        name: "eth0".into(),
        mac: Some(Mac([2, 0, 0, 0, 0, 0x11])),
        mtu: 1500,
        up: true,
        lower_up: true,
        kind: None,
        master: None,
        link: None,
        link_netns_id: None,
    };
    let addresses = [
        address(2, "2001:db8:2::11", 64),
        address(2, "fe80::11", 64),
        address(2, "192.0.2.111", 32),
        address(2, "192.0.2.11", 24),
        address(3, "198.51.100.1", 24),
    ];
    let routes = [
        route(2, Some("fe80::1")),
        route(2, Some("192.0.2.1")),
        // The same router with another metric, a link without a router, another interface.
        route(2, Some("192.0.2.1")),
        route(2, None),
        route(3, Some("198.51.100.254")),
    ];
    let reading = compose(&link, &addresses, &routes);
    assert!(reading.carrier);
    assert_eq!(reading.uplink.mac, "02:00:00:00:00:11");
    assert_eq!(
        reading.uplink.addresses,
        ["192.0.2.11/24", "192.0.2.111/32", "2001:db8:2::11/64"]
    );
    assert_eq!(reading.uplink.gateways, ["192.0.2.1", "fe80::1"]);
}

#[test]
fn the_greater_arp_ignore_counts() {
    for (all, own, strict) in [
        (Some("0"), Some("0"), false),
        (Some("1"), Some("0"), true),
        (Some("0"), Some("2"), true),
        (None, None, false),
    ] {
        assert_eq!(strict_arp(all, own), strict, "{all:?} {own:?}");
    }
}
