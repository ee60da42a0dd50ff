//! Named network namespaces, against the kernel and `ip netns`.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::net::UdpSocket;

use common::{TestNs, require_root, run, unused_name};
use lightship_netio::{NETNS_DIR, Netns, Rtnl, run_in, spawn_thread_in};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

#[test]
fn made_and_deleted_as_ip_netns_does() {
    let ns = TestNs::new("made");
    assert!(run("ip", "netns list").contains(&ns.name));
    assert_eq!(ns.ip_one("link show")["ifname"], "lo");
    assert!(Netns::exists(&ns.name));

    // Making it again gives the same one.
    let again = Netns::create(&ns.name).unwrap();
    assert!(again.is_same(&ns.ns));
    assert!(!again.is_same(&Netns::current().unwrap()));

    assert!(Netns::delete(&ns.name).unwrap());
    assert!(!run("ip", "netns list").contains(&ns.name));
    assert!(!Netns::exists(&ns.name));
    assert!(!Netns::delete(&ns.name).unwrap());
    assert!(Netns::open(&ns.name).unwrap_err().is_not_found());
}

#[test]
fn many_may_make_the_same_one_at_once() {
    let ns = TestNs::new("race");
    assert!(Netns::delete(&ns.name).unwrap());
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Netns::create(&ns.name).unwrap()))
            .collect();
        let made: Vec<_> = makers.into_iter().map(|m| m.join().unwrap()).collect();
        assert!(made.iter().all(|m| m.is_same(&made[0])));
    });
    // One mount only: deleting once is enough.
    assert!(Netns::delete(&ns.name).unwrap());
    assert!(!Netns::exists(&ns.name));
}

#[test]
fn a_name_that_is_gone_or_another_ones_is_given_back() {
    let ns = TestNs::new("restore");
    assert!(!Netns::restore(&ns.name, &ns.ns).unwrap());
    run("ip", &format!("netns delete {}", ns.name));
    assert!(Netns::restore(&ns.name, &ns.ns).unwrap());
    assert!(Netns::open(&ns.name).unwrap().is_same(&ns.ns));
    run("ip", &format!("netns delete {}", ns.name));
    run("ip", &format!("netns add {}", ns.name));
    assert!(!Netns::open(&ns.name).unwrap().is_same(&ns.ns));
    assert!(Netns::restore(&ns.name, &ns.ns).unwrap());
    assert!(Netns::open(&ns.name).unwrap().is_same(&ns.ns));
    // One mount only.
    assert!(Netns::delete(&ns.name).unwrap());
    assert!(!Netns::exists(&ns.name));
}

#[test]
fn one_made_by_ip_netns_is_opened_and_deleted() {
    let name = unused_name("theirs");
    run("ip", &format!("netns add {name}"));
    assert!(Netns::exists(&name));
    let made = Netns::create(&name).unwrap();
    assert!(made.is_same(&Netns::open(&name).unwrap()));
    assert!(Netns::delete(&name).unwrap());
    assert!(!run("ip", "netns list").contains(&name));
}

#[test]
fn a_left_over_file_is_no_namespace_and_in_nobodys_way() {
    let ns = TestNs::new("stale");
    assert!(Netns::delete(&ns.name).unwrap());
    fs::write(format!("{NETNS_DIR}/{}", ns.name), "").unwrap();
    assert!(!Netns::exists(&ns.name));
    let made = Netns::create(&ns.name).unwrap();
    assert!(!made.is_same(&Netns::current().unwrap()));
    assert!(Netns::delete(&ns.name).unwrap());

    fs::write(format!("{NETNS_DIR}/{}", ns.name), "").unwrap();
    assert!(Netns::delete(&ns.name).unwrap());
    assert!(!fs::exists(format!("{NETNS_DIR}/{}", ns.name)).unwrap());
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for bad in ["", ".", "..", "a/b", "../x", "x\0y"] {
        assert!(Netns::create(bad).is_err(), "{bad:?}");
        assert!(Netns::open(bad).is_err(), "{bad:?}");
        assert!(Netns::delete(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_directory_is_made_and_shared_where_there_is_none() {
    require_root();
    // On a thread with a mount namespace of its own, in which /run is empty, as on
    // a host where nobody ever ran `ip netns`. It goes with the thread.
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        mount(
            Some("tmpfs"),
            "/run",
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        assert!(!fs::exists(NETNS_DIR).unwrap());

        let made = Netns::create("first").unwrap();
        assert!(!made.is_same(&Netns::current().unwrap()));
        Netns::create("second").unwrap();

        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let on = |path: &str| {
            mounts
                .lines()
                // The host's own one lies hidden below, and is private here.
                .filter(|l| l.split(' ').nth(4) == Some(path) && l.contains(" shared:"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        // Shared, and one mount of it only, however often it was asked for.
        assert_eq!(on(NETNS_DIR).len(), 1, "{mounts}");
        assert_eq!(on(&format!("{NETNS_DIR}/first")).len(), 1);
        assert_eq!(on(&format!("{NETNS_DIR}/second")).len(), 1);
        assert!(Netns::delete("first").unwrap());
        assert!(Netns::delete("second").unwrap());
    })
    .join()
    .unwrap();
}

#[test]
fn run_in_leaves_the_caller_where_it_was() {
    let ns = TestNs::new("run");
    let before = Netns::current().unwrap();
    let inside = run_in(&ns.ns, || Netns::current().unwrap()).unwrap();
    assert!(inside.is_same(&ns.ns));
    assert!(Netns::current().unwrap().is_same(&before));
}

#[test]
fn a_socket_stays_where_it_was_opened() {
    let (ns, other) = (TestNs::new("socket"), TestNs::new("other"));
    for ns in [&ns, &other] {
        ns.ip("link set lo up");
    }
    ns.ip("addr add 192.0.2.1/32 dev lo");
    // Only the one namespace has such an address to bind to.
    let elsewhere = run_in(&other.ns, || UdpSocket::bind("192.0.2.1:0")).unwrap();
    assert!(elsewhere.is_err());
    let socket = run_in(&ns.ns, || UdpSocket::bind("192.0.2.1:0"))
        .unwrap()
        .unwrap();
    let to = socket.local_addr().unwrap();
    socket.send_to(b"x", to).unwrap();
    assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn a_panic_passes_through_run_in() {
    let ns = TestNs::new("panic");
    let caught = std::panic::catch_unwind(|| run_in(&ns.ns, || panic!("on purpose")));
    let payload = caught.unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
}

#[test]
fn a_thread_lives_in_its_namespace() {
    let ns = TestNs::new("thread");
    ns.ip("link add dummy7 type veth peer name dummy8");
    let thread = spawn_thread_in(&ns.ns, "ls-test", || async {
        // Not Send, and held across an await.
        let names = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let rtnl = Rtnl::open().unwrap();
        for link in rtnl.links().await.unwrap() {
            names.borrow_mut().push(link.name);
        }
        // Tasks are there too.
        let inside = tokio::spawn(async { Netns::current().unwrap() })
            .await
            .unwrap();
        let thread = std::thread::current().name().unwrap().to_owned();
        (names.take(), inside, thread)
    })
    .unwrap();
    let (mut names, inside, name) = thread.join().unwrap();
    names.sort();
    assert_eq!(names, ["dummy7", "dummy8", "lo"]);
    assert!(inside.is_same(&ns.ns));
    assert_eq!(name, "ls-test");
}

#[test]
fn a_namespace_outlives_its_name_while_a_handle_is_open() {
    let ns = TestNs::new("held");
    assert!(Netns::delete(&ns.name).unwrap());
    run_in(&ns.ns, || ()).unwrap();
}
