//! Sysctls and multicast membership, against the kernel and its tools.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv6Addr;
use std::time::Duration;

use common::{TestNs, run, soon, wire};
use lightship_netio::sysctl::{self, Ensured};
use lightship_netio::{MulticastGroups, run_in};

#[test]
fn sysctls_of_the_namespace_and_only_there() {
    let (ns, other) = (TestNs::new("sys"), TestNs::new("other"));
    let name = "net.ipv4.conf.all.arp_ignore";
    let show = |ns: &TestNs| {
        run("ip", &format!("netns exec {} sysctl -n {name}", ns.name))
            .trim()
            .to_owned()
    };
    let before = show(&other);
    run_in(&ns.ns, || {
        let value = if before == "8" { "1" } else { "8" };
        assert_eq!(sysctl::ensure(name, value).unwrap(), Ensured::Changed);
        assert_eq!(sysctl::ensure(name, value).unwrap(), Ensured::Same);
        assert_eq!(sysctl::read(name).unwrap().as_deref(), Some(value));
        assert_eq!(show(&ns), value);
    })
    .unwrap();
    assert_eq!(show(&other), before);
}

#[test]
fn sysctls_of_an_interface_with_a_dot_in_its_name() {
    let ns = TestNs::new("dot");
    ns.ip("link add eth0.100 type veth peer name peer");
    run_in(&ns.ns, || {
        for name in [
            "net/ipv4/conf/eth0.100/rp_filter",
            "net.ipv4.conf.eth0/100.rp_filter",
        ] {
            assert_eq!(sysctl::ensure(name, "1").unwrap(), Ensured::Changed);
            assert_eq!(sysctl::ensure(name, "2").unwrap(), Ensured::Changed);
            assert_eq!(sysctl::ensure(name, "2").unwrap(), Ensured::Same);
            let path = "/proc/sys/net/ipv4/conf/eth0.100/rp_filter";
            assert_eq!(fs::read_to_string(path).unwrap(), "2\n");
            fs::write(path, "0").unwrap();
        }
        let missing = "net/ipv4/conf/eth0.101/rp_filter";
        assert_eq!(sysctl::ensure(missing, "0").unwrap(), Ensured::Missing);
        assert_eq!(sysctl::read(missing).unwrap(), None);
    })
    .unwrap();
}

#[test]
fn sysctls_of_several_numbers_and_bad_values() {
    let ns = TestNs::new("multi");
    run_in(&ns.ns, || {
        let name = "net.ipv4.ip_local_port_range";
        assert_eq!(
            sysctl::ensure(name, "20000 30000").unwrap(),
            Ensured::Changed
        );
        // The kernel prints a tab.
        assert_eq!(sysctl::ensure(name, "20000 30000").unwrap(), Ensured::Same);
        let e = sysctl::ensure("net.ipv4.ip_forward", "maybe").unwrap_err();
        assert_eq!(
            e.to_string(),
            "set sysctl net.ipv4.ip_forward to maybe: Invalid argument (os error 22)"
        );
    })
    .unwrap();
}

/// The groups that `ip maddr` lists for eth0.
fn groups(ns: &TestNs) -> BTreeSet<Ipv6Addr> {
    ns.ip("-6 maddr show dev eth0")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("inet6 "))
        .filter_map(|rest| rest.split(' ').next()?.parse().ok())
        .collect()
}

fn group(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff77, n)
}

#[tokio::test]
async fn groups_are_joined_and_left() {
    let (ns, _lan) = wire().await;
    let dev = ns.index("eth0").await;
    let mut held = MulticastGroups::open_in(&ns.ns).unwrap();
    assert!(held.join(dev, group(1)).unwrap());
    assert!(!held.join(dev, group(1)).unwrap());
    assert!(groups(&ns).contains(&group(1)));
    assert!(held.leave(dev, group(1)).unwrap());
    assert!(!held.leave(dev, group(1)).unwrap());
    assert!(!groups(&ns).contains(&group(1)));

    let wanted = |range: std::ops::Range<u16>| range.map(|n| (dev, group(n))).collect();
    held.set(&wanted(0..10)).unwrap();
    held.set(&wanted(5..15)).unwrap();
    let seen: Vec<_> = groups(&ns)
        .into_iter()
        .filter(|g| g.segments()[6] == 0xff77)
        .collect();
    assert_eq!(seen, (5..15).map(group).collect::<Vec<_>>());

    let e = held.join(dev, "2001:db8::1".parse().unwrap()).unwrap_err();
    assert!(e.to_string().starts_with("join group 2001:db8::1"), "{e}");
    assert!(held.join(4711, group(1)).unwrap_err().is_not_found());

    drop(held);
    // The kernel leaves the groups of a closed socket, and tells of it, in its own time.
    soon("the groups to be left", async {
        while groups(&ns).iter().any(|g| g.segments()[6] == 0xff77) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn more_groups_than_one_socket_may_have() {
    let (ns, _lan) = wire().await;
    let dev = ns.index("eth0").await;
    let mut held = MulticastGroups::open_in(&ns.ns).unwrap();
    // net.core.optmem_max, 128 KiB here and 20 KiB on older kernels, is full far below this.
    const MANY: u16 = 6000;
    for n in 0..MANY {
        held.join(dev, group(n)).unwrap();
    }
    let joined = |ns| {
        groups(ns)
            .iter()
            .filter(|g| g.segments()[6] == 0xff77)
            .count()
    };
    assert_eq!(joined(&ns), usize::from(MANY));
    // Room that was given back is used again.
    held.set(&(0..MANY / 2).map(|n| (dev, group(n))).collect())
        .unwrap();
    assert_eq!(joined(&ns), usize::from(MANY / 2));
    held.set(&(0..MANY).map(|n| (dev, group(n))).collect())
        .unwrap();
    assert_eq!(joined(&ns), usize::from(MANY));
}

#[tokio::test]
async fn an_interface_that_goes_takes_its_groups_along() {
    let (ns, _lan) = wire().await;
    let dev = ns.index("eth0").await;
    let mut held = MulticastGroups::open_in(&ns.ns).unwrap();
    held.join(dev, group(1)).unwrap();
    ns.ip("link del eth0");
    held.set(&BTreeSet::new()).unwrap();
    assert_eq!(held.joined().count(), 0);
}
